"""People with trials, connectomes and BOLD as one cohort; the others as a list of reasons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ..cohort import Cohort
from ..connectome import Connectomes
from ..errors import DTwinInputError
from ..tasks import TASKS
from .runs import Run

SECOND_RUNS = "_run-"


@dataclass
class Notes:
    """What is found out about people while they are read.

    Attributes:
        flags: subject -> flags.
        rejected: subject -> the error for which this person is left out, the first one found.
    """

    flags: dict[str, list[str]] = field(default_factory=dict)
    rejected: dict[str, DTwinInputError] = field(default_factory=dict)

    def flag(self, subject: str, *flags: str) -> None:
        """Add flags."""
        self.flags.setdefault(subject, []).extend(flags)

    def reject(self, subject: str, error: DTwinInputError) -> None:
        """Leave somebody out."""
        error.subject = subject
        self.rejected.setdefault(subject, error)


def people_with_trials(subjects_of_runs: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """The cohort rule of Takahashi et al. 2026: whoever did one of the tasks, in name order.

    A second run of a task makes nobody a member, unless no first run is asked for.

    Args:
        subjects_of_runs: run (``faces``, ``stroop``, ``stroop_run-2``) -> who did it.
    """
    first = [people for name, people in subjects_of_runs.items() if SECOND_RUNS not in name]
    return tuple(sorted({s for people in first or subjects_of_runs.values() for s in people}))


def assemble(
    subjects: Sequence[str],
    runs: Mapping[str, Run],
    *,
    connectomes: Connectomes | None,
    notes: Notes,
    tr_s: float,
    participants: Mapping[str, npt.NDArray[Any]],
    bold: Mapping[str, npt.NDArray[np.float32]] = MappingProxyType({}),
    bold_regions: tuple[str, ...] = (),
) -> Cohort:
    """The cohort of the people who have a measured trial and, if anybody has, a connectome.

    What is wrong with the others is in ``connectomes.rejected`` of the result, what should be
    known of its people in ``connectomes.flags``.

    Args:
        subjects: S names.
        runs: of the S people.
        connectomes: of some of them; None when nobody has one.
        participants: columns (S,).
        bold: run -> (S,V,regions) float32; a run of which nobody has BOLD has none.

    Raises:
        DTwinInputError: nobody is left: the first person's error.
    """
    has_trial = np.any([run.data.measured.any(axis=1) for run in runs.values()], axis=0)
    has_connectome = set(subjects if connectomes is None else connectomes.subjects)
    for index, subject in enumerate(subjects):
        if not has_trial[index]:
            notes.reject(subject, _reason("no_trials", "no trial of this person can be used"))
        elif subject not in has_connectome:
            notes.reject(subject, _reason("no_connectome", "this person has no connectome"))
    kept = [i for i, subject in enumerate(subjects) if subject not in notes.rejected]
    if not kept:
        raise next(iter(notes.rejected.values()))
    names = [subjects[i] for i in kept]
    if connectomes is None:
        own = Connectomes.none(names)
    else:
        place = {name: i for i, name in enumerate(connectomes.subjects)}
        own = connectomes.select([place[name] for name in names])
    flags = tuple(
        (
            *of_connectome,
            *notes.flags.get(subjects[i], ()),
            *(flag for run in runs.values() for flag in run.flags[i]),
        )
        for i, of_connectome in zip(kept, own.flags, strict=True)
    )
    rejected = tuple(notes.rejected[name] for name in sorted(notes.rejected))
    return Cohort(
        replace(own, flags=flags, rejected=rejected),
        {
            name: replace(run.data, bold=_measured(bold.get(name))).select(kept)
            for name, run in runs.items()
        },
        bold_regions,
        tr_s,
        {name: column[kept] for name, column in participants.items()},
    )


def check_runs(names: Sequence[str], known: Sequence[str]) -> None:
    """Refuse names of runs that are not known, or none (code ``task``)."""
    if not names or [name for name in names if name not in known]:
        raise DTwinInputError(
            "task",
            "there are no such runs",
            field="tasks",
            wanted=f"some of {', '.join(known)}",
            got=", ".join(names) or "none",
            fix=f"Name runs of {', '.join(TASKS)}",
        )


def _measured(bold: npt.NDArray[np.float32] | None) -> npt.NDArray[np.float32] | None:
    return None if bold is None or np.isnan(bold).all() else bold


def _reason(code: str, what: str) -> DTwinInputError:
    return DTwinInputError(
        code, what, field="cohort", fix="Nothing needs doing; see the flags for what is missing"
    )
