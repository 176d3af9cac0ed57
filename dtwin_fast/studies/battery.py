"""Static batteries: from features of a person to M conditions x O outputs, fold by fold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class BatteryPredictor(Protocol):
    """A fitted model."""

    def predict(self, x: Array, /) -> Array:
        """(S,F) features of new people -> (S,M,O)."""
        ...


class FitBattery(Protocol):
    """A model or a floor; everything it learns, scalers too, it learns here."""

    def __call__(self, x: Array, codes: Array, targets: Array, /, *, seed: int) -> BatteryPredictor:
        """Fit (S,F) float32 features to (S,M,O) targets, NaN where missing.

        ``codes`` (M,C) float32 has one row per condition.
        """
        ...


Models = Mapping[str, FitBattery]


def shuffled_folds(
    n_subjects: int, n_folds: int, n_shuffles: int, seed: int, groups: Array | None = None
) -> Array:
    """(n_shuffles,S) int fold of each person; folds have equal sizes, up to one.

    ``groups`` (S,) spreads each group evenly over the folds.
    """
    rng = np.random.default_rng([seed, 0xF01D])
    groups = np.zeros(n_subjects, int) if groups is None else groups
    folds = np.empty((n_shuffles, n_subjects), int)
    for row in folds:
        # Sorted by group, random within it: dealing in turn gives every fold its share.
        order = np.lexsort((rng.random(n_subjects), groups))
        row[order] = rng.permutation(n_folds)[np.arange(n_subjects) % n_folds]
    return folds


def splits(folds: Array) -> Iterator[tuple[Array, Array]]:
    """Train and test indices of each fold of (S,) fold numbers."""
    for fold in np.unique(folds):
        yield np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)


def out_of_fold(
    fit: FitBattery, x: Array, codes: Array, targets: Array, folds: Array, *, seed: int
) -> Array:
    """(S,M,O) prediction of each person by the model fitted without that person's fold."""
    predicted = np.empty(targets.shape)
    for k, (train, test) in enumerate(splits(folds)):
        predicted[test] = fit(x[train], codes, targets[train], seed=seed + k).predict(x[test])
    return predicted


def training_means(targets: Array, folds: Array) -> Array:
    """(S,M,O) mean over the training people of each person's fold."""
    means = np.empty(targets.shape)
    for train, test in splits(folds):
        means[test] = np.nanmean(targets[train], axis=0)
    return means
