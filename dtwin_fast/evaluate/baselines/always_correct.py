"""The floor of every choice score: the correct button, always."""

from __future__ import annotations

import numpy as np

from ...cohort import Cohort
from ...spec import N_ACTIONS
from ..predicted import Predicted


class AlwaysCorrect:
    """Presses the correct button with probability 1 and says nothing of times and BOLD."""

    name = "always correct"

    def fit(self, train: Cohort, seed: int) -> None:
        """There is nothing to learn."""

    def predict(self, people: Cohort) -> dict[str, Predicted]:
        """The same for everyone."""
        predictions = {}
        for name, data in people.tasks.items():
            one_hot = np.eye(N_ACTIONS, dtype=np.float32)[data.schedule.correct]
            choice_prob = np.broadcast_to(one_hot, (len(people), *one_hot.shape))
            predictions[name] = Predicted(choice_prob=choice_prob)
        return predictions
