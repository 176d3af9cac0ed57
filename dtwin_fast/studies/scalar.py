"""One number a person: a battery of one condition and one output, its scores and its null."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..evaluate.reaction_time import explained_share
from ..evaluate.statistics import correlation, correlation_over_people, permutation_p
from .battery import FitBattery, splits
from .result import Measure

Array = npt.NDArray[Any]

MEAN = "training mean"
CODES = np.zeros((1, 1), np.float32)
"""There is one condition, so its code says nothing."""


def fit_predict(fit: FitBattery, x: Array, x_new: Array, y: Array, *, seed: int) -> Array:
    """(S',P): the model fitted on each of the P columns of (S,P) ``y``."""
    codes = np.broadcast_to(CODES, (y.shape[1], 1))
    return fit(x, codes, y[:, :, None], seed=seed).predict(x_new)[:, :, 0]


def cross_validated(
    fit: FitBattery, x: Array, y: Array, *, groups: Array, folds: Array, seed: int
) -> tuple[Array, Array]:
    """(S,P) predicted and observed deviations of P columns of (S,P) ``y``; means over shuffles.

    Deviations are from the mean of the training people of the person's group (S,), e.g. site.
    ``folds`` is (shuffles,S).
    """
    predicted, observed = np.zeros(y.shape), np.zeros(y.shape)
    for fold in folds:
        for train, test in splits(fold):
            group_mean = np.empty(y.shape)
            for name in np.unique(groups):
                group_mean[groups == name] = y[train[groups[train] == name]].mean(axis=0)
            deviation = y - group_mean
            predicted[test] += fit_predict(fit, x[train], x[test], deviation[train], seed=seed)
            observed[test] += deviation[test]
            seed += 1
    # The mean of deviations is zero but for rounding, which would correlate with something.
    return np.round(predicted / len(folds), 9), observed / len(folds)


def measures(
    split: str,
    predicted: Mapping[str, Array],
    observed: Array,
    means: Array,
    *,
    p: Mapping[str, float],
    note: str = "",
    unit: str = "",
) -> list[Measure]:
    """r, R2 and absolute error of entries (S,) against (S,) observed and training means."""
    pairs = {name: np.stack([v, observed], axis=1) for name, v in predicted.items()}
    errors = {
        name: np.stack([observed - v, observed - means], axis=1) for name, v in predicted.items()
    }
    distance = {name: np.abs(observed - v) for name, v in predicted.items()}
    constant = {MEAN: "a constant has no correlation: counted as 0"}
    return [
        Measure(
            split, "r over people", pairs, correlation_over_people, p=p, notes=constant, note=note
        ),
        Measure(split, "R2", errors, explained_share, note=note),
        Measure(split, f"mean absolute error{unit}", distance, higher_is_better=False, note=note),
    ]


def p_value(predicted: Array, observed: Array, null: Array, null_observed: Array) -> float:
    """One-sided p of the correlation over people, with (S,P) of P permutations."""
    null_r = np.array([correlation(*pair) for pair in zip(null.T, null_observed.T, strict=True)])
    return permutation_p(correlation(predicted, observed), null_r)


def permuted(y: Array, groups: Array, n: int, seed: int) -> Array:
    """(S,n) columns: ``y`` (S,) permuted within groups (S,)."""
    rng = np.random.default_rng([seed, 0x9E])
    columns = np.empty((len(y), n))
    for column in columns.T:
        for group in np.unique(groups):
            column[groups == group] = rng.permutation(y[groups == group])
    return columns
