"""Regressions that look at no connectome: the group's mean and the person's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...cohort import Cohort
from .targets import mean_over_people

Array = npt.NDArray[Any]


class GroupMean:
    """Everyone is the training people's mean."""

    is_own = False

    def fit(self, train: Cohort, rows: Array, weights: Array) -> None:
        """Learn the mean of each target."""
        self._mean = mean_over_people(rows)

    def predict(self, people: Cohort) -> Array:
        """(S,P) the same row for everyone."""
        return np.broadcast_to(self._mean, (len(people), len(self._mean)))


class OwnMean:
    """Everyone is as they were in training; who was not there is unknown.

    Shares are smoothed by one trial with the group's share, so that none is 0: n trials with
    share s become (n s + group) / (n + 1). A target that a person lacks is the group's.
    """

    is_own = True

    def fit(self, train: Cohort, rows: Array, weights: Array) -> None:
        """Learn everyone's targets."""
        group = mean_over_people(rows)
        trust = 1 - 1 / (weights + 1)
        own = np.where(np.isfinite(rows), trust * rows + (1 - trust) * group, group)
        own[~np.isfinite(rows).any(axis=1)] = np.nan
        self._own = dict(zip(train.connectomes.subjects, own, strict=True))
        self._unknown = np.full(rows.shape[1], np.nan)

    def predict(self, people: Cohort) -> Array:
        """(S,P) by subject name, NaN for people who were not trained on."""
        return np.stack([self._own.get(s, self._unknown) for s in people.connectomes.subjects])
