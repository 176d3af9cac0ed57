"""What can be evaluated: anything that is fitted on a cohort and then predicts people."""

from __future__ import annotations

from typing import Protocol

from ..cohort import Cohort
from .predicted import Predicted


class Predictor(Protocol):
    """A model or a baseline; everything it learns, scalers too, it learns in ``fit``."""

    @property
    def name(self) -> str:
        """What tables call it."""
        ...

    def fit(self, train: Cohort, seed: int) -> None:
        """Learn from people whose data are measured; what is NOT_MEASURED or NaN is unknown."""
        ...

    def predict(self, people: Cohort) -> dict[str, Predicted]:
        """Predict people whose choices, reaction times and BOLD are blank.

        Connectomes, participants and schedules may be used, and what was learnt of a person
        in ``fit`` under the same subject name. Keys are those of ``people.tasks``.
        """
        ...
