"""What all pages of a report are made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .intervention import Intervention
from .people import Person
from .scores import Scores

INDEX = "index.html"


@dataclass(frozen=True, eq=False)
class Material:
    """Results, and whom pages are of.

    Attributes:
        intervention, scores: what was read; one of them at least.
        people: everybody.
        pages: those who get a page.
    """

    intervention: Intervention | None
    scores: Scores | None
    people: Sequence[Person]
    pages: Sequence[Person]

    @property
    def title(self) -> str:
        """What the report is of."""
        if self.intervention is None:
            return "Predictions against data"
        target = self.intervention.about.fields("target")
        if self.intervention.is_edit:
            return f"What would an edit do to {target.text('name')}?"
        return f"What would move {target.text('name')} {target.text('goal')}?"


def page_name(person: Person) -> str:
    """The file of a person's page."""
    return f"{person.label}.html"
