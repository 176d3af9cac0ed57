"""Scores of a battery, one number per person, and how well predictions tell people apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .linear import unit_rows

Array = npt.NDArray[Any]


def row_r(predicted: Array, observed: Array) -> Array:
    """(S,) correlation of matching rows of (S,...); 0 where a row is constant."""
    r: Array = np.einsum("sx,sx->s", _rows(predicted), _rows(observed))
    return r


def condition_r(predicted: Array, observed: Array) -> Array:
    """(S,) mean over M conditions of the correlation over O outputs, (S,M,O) each."""
    n_subjects, n_conditions, _ = observed.shape
    flat = (n_subjects * n_conditions, -1)
    r = row_r(predicted.reshape(flat), observed.reshape(flat))
    mean: Array = r.reshape(n_subjects, n_conditions).mean(axis=1)
    return mean


def similarity(observed: Array, predicted: Array) -> Array:
    """(S,S) correlation of person i's observation with the prediction of person j."""
    r: Array = _rows(observed) @ _rows(predicted).T
    return r


def top_1(r: Array) -> Array:
    """(S,) whether the own prediction is the closest of (S,S); n equals count 1/n each."""
    own = np.diag(r)[:, None]
    is_best: Array = ~(r > own).any(axis=1) / (r == own).sum(axis=1)
    return is_best


def rank(r: Array) -> Array:
    """(S,) share of the other people's predictions that are farther than the own; .5 is chance."""
    own = np.diag(r)[:, None]
    below = (r < own).sum(axis=1) + 0.5 * ((r == own).sum(axis=1) - 1)
    share: Array = below / (len(r) - 1)
    return share


def own_minus_others(observed: Array, predicted: Array, folds: Array) -> Array:
    """(S,) correlation with the own prediction minus the mean one with the others' of the fold.

    Everybody in a fold is predicted by one model, which knows none of them: what remains is the
    person's own input. NaN for people alone in their fold.
    """
    r = similarity(observed, predicted)
    same = folds[:, None] == folds
    np.fill_diagonal(same, False)
    n_others = same.sum(axis=1)
    with np.errstate(invalid="ignore"):
        others = np.where(same, r, 0).sum(axis=1) / n_others
    difference: Array = np.diag(r) - others
    return difference


def _rows(values: Array) -> Array:
    rows = values.reshape(len(values), -1)
    # What rounding leaves of a constant row is no pattern.
    spread = np.abs(rows - rows.mean(axis=1, keepdims=True)).max(axis=1, keepdims=True)
    size = np.abs(rows).max(axis=1, keepdims=True)
    return np.where(spread > 1e-12 * size, unit_rows(rows), 0.0)
