"""Whom a report is of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import DTwinInputError
from ..prediction_files import bids_labels
from .intervention import Intervention
from .scores import Scores

SHOWN_IN_ERRORS = 5


@dataclass(frozen=True)
class Person:
    """A person of the report.

    Attributes:
        label: BIDS label, which names the page.
        source: id in the input.
        row: among the people of the intervention; None where they were not in it.
    """

    label: str
    source: str
    row: int | None


def everybody(intervention: Intervention | None, scores: Scores | None) -> list[Person]:
    """The people of the intervention, then others who were scored.

    Raises:
        DTwinInputError: ids that give no file names of their own (code ``subject_label``).
    """
    people = []
    if intervention is not None:
        both = zip(intervention.labels, intervention.sources, strict=True)
        # A label names a file: what is in the folder must be what BIDS makes of it.
        checked = bids_labels(intervention.labels)
        people = [
            Person(label, source, row)
            for row, (label, (_, source)) in enumerate(zip(checked, both, strict=True))
        ]
    if scores is not None:
        known = {person.source for person in people} | {person.label for person in people}
        others = [s for s in scores.people if s not in known]
        labels = bids_labels((*(p.label for p in people), *others))[len(people) :]
        people += [Person(*names, None) for names in zip(labels, others, strict=True)]
    return people


def choose(people: Sequence[Person], wanted: Sequence[str] | int | None) -> list[Person]:
    """Those to make pages of: everybody, the first n, or by label.

    Raises:
        DTwinInputError: nobody has such a label (code ``argument``).
    """
    if wanted is None:
        return list(people)
    if isinstance(wanted, int):
        return list(people[:wanted])
    by_label = {person.label: person for person in people}
    labels = [label if label.startswith("sub-") else f"sub-{label}" for label in wanted]
    if unknown := [label for label in labels if label not in by_label]:
        more = ", ..." if len(people) > SHOWN_IN_ERRORS else ""
        raise DTwinInputError(
            "argument",
            "there are no such people",
            field="--people",
            wanted=", ".join(list(by_label)[:SHOWN_IN_ERRORS]) + more,
            got=", ".join(unknown[:SHOWN_IN_ERRORS]),
            fix="Name some of these, with commas between them, or how many",
        )
    return [by_label[label] for label in dict.fromkeys(labels)]
