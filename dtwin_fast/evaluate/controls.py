"""Predictors made of others, to tell what these make of a connectome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..cohort import Cohort
from .predicted import Predicted
from .predictor import Predictor


class PermutedConnectomes:
    """A predictor trained with connectomes dealt out anew among the training people.

    People who were trained on keep the connectome they were dealt, so within persons it is as
    good a name as their own; people who were not have their own. Where nobody has one, their
    participants' columns are dealt.

    Args:
        make: makes the predictor.
    """

    def __init__(self, make: Callable[[], Predictor]) -> None:
        self._predictor = make()
        self._dealt: dict[str, int] = {}

    @property
    def name(self) -> str:
        """As tables call it."""
        return f"{self._predictor.name}, permuted"

    def fit(self, train: Cohort, seed: int) -> None:
        """Deal with the seed, and train with it."""
        self._train = train
        order = np.random.default_rng(seed).permutation(len(train))
        self._dealt = dict(zip(train.connectomes.subjects, order.tolist(), strict=True))
        self._predictor.fit(self._as_dealt(train), seed)

    def predict(self, people: Cohort) -> dict[str, Predicted]:
        """Predictions from the connectomes as dealt."""
        return self._predictor.predict(self._as_dealt(people))

    def _as_dealt(self, people: Cohort) -> Cohort:
        fc, dealt = people.connectomes, self._train.connectomes
        known = [i for i, subject in enumerate(fc.subjects) if subject in self._dealt]
        source = [self._dealt[fc.subjects[i]] for i in known]
        if fc.n_edges == 0:
            columns = {name: column.copy() for name, column in people.participants.items()}
            for name, column in columns.items():
                column[known] = self._train.participants[name][source]
            return replace(people, participants=columns)
        edges, missing = fc.edges.copy(), fc.missing.copy()
        edges[known], missing[known] = dealt.edges[source], dealt.missing[source]
        return replace(people, connectomes=replace(fc, edges=edges, missing=missing))
