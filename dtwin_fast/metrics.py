"""Scores of predicted behaviour and BOLD. Each takes arrays and returns one number."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def pearson(x: Array, y: Array) -> float:
    """Pearson correlation of two vectors over the places where both are finite.

    NaN with fewer than three such places or where one of the vectors is constant.
    """
    x, y = np.ravel(x).astype(np.float64), np.ravel(y).astype(np.float64)
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    if len(x) < 3:
        return float("nan")
    return float(_unit(x) @ _unit(y))


def concordance(predicted: Array, observed: Array) -> float:
    """Mean over people of the share of trials whose choice is predicted, (S,N) integers.

    A trial without a response (-1) counts as wrong for every predicted choice, as in the
    paper's measure, and so does an unknown wrong button (-3). Trials that were not measured (-2)
    do not count, nor do people without any other.
    """
    measured = observed != -2
    hits = ((predicted == observed) & measured).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return float(np.nanmean(hits / measured.sum(axis=1)))


def _unit(x: Array) -> Array:
    """The vector centred and of length one; NaN where it is constant."""
    scaled = x / (np.abs(x).max() or 1.0)  # the squares of very small numbers would be zero
    scaled = scaled - scaled.mean()
    norm = np.linalg.norm(scaled)
    # Rounding leaves a residue of order eps where every number is the same.
    is_constant = norm <= np.finfo(np.float64).eps * len(x)
    unit: Array = np.full_like(scaled, np.nan) if is_constant else scaled / norm
    return unit
