"""Connectome-based predictive modelling (Shen et al. 2017)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...cohort import Cohort
from ...errors import MissingExtraError
from .features import complete_edges
from .ridge import known_together
from .targets import mean_over_people

Array = npt.NDArray[Any]

P_THRESHOLD = 0.01
_FEWEST_PEOPLE = 5
_TARGETS_AT_ONCE = 32


class ConnectomeModel:
    """Least squares on two sums of a person's edges.

    They are those that correlate with the target at p < ``P_THRESHOLD`` (two-sided) over the
    training people, positively and negatively. Without any the prediction is the mean.

    Raises:
        MissingExtraError: scipy is not installed.
    """

    is_own = False

    def fit(self, train: Cohort, rows: Array, weights: Array) -> None:
        """Choose edges and fit, target by target."""
        self._read = complete_edges(train)
        edges = self._read(train)
        self._mean = mean_over_people(rows)
        self._slope = np.zeros((edges.shape[1], rows.shape[1]), np.float32)
        for people, targets in known_together(rows):
            if people.sum() < _FEWEST_PEOPLE:
                continue
            own = edges[people]
            for start in range(0, len(targets), _TARGETS_AT_ONCE):
                some = targets[start : start + _TARGETS_AT_ONCE]
                self._mean[some], self._slope[:, some] = _fit(own, rows[np.ix_(people, some)])

    def predict(self, people: Cohort) -> Array:
        """(S,P); NaN without connectomes."""
        edges = self._read(people)
        if edges.shape[1] == 0:
            return np.full((len(people), len(self._mean)), np.nan)
        return np.asarray(self._mean + edges @ self._slope)


def _fit(edges: Array, y: Array) -> tuple[Array, Array]:
    """(P,) intercepts and (E,P) slopes: a target's two, on the edges that it chose."""
    positive, negative = chosen_edges(edges, y)
    slopes = np.zeros(positive.shape, np.float32)
    intercepts = y.mean(axis=0)
    for p in range(y.shape[1]):
        networks = np.stack([positive[:, p], negative[:, p]]).astype(np.float32)
        sums = (edges @ networks.T).astype(np.float64)
        centred = sums - sums.mean(axis=0)
        slope, *_ = np.linalg.lstsq(centred, y[:, p] - intercepts[p], rcond=None)
        intercepts[p] -= sums.mean(axis=0) @ slope
        slopes[:, p] = slope @ networks
    return intercepts, slopes


def chosen_edges(edges: Array, y: Array) -> tuple[Array, Array]:
    """(E,P) bool edges that correlate with each target positively, and negatively."""
    r = _unit(edges).T @ _unit(y).astype(np.float32)
    threshold = _critical_r(len(y))
    return r > threshold, r < -threshold


def _critical_r(n_people: int) -> float:
    """|r| above which p < ``P_THRESHOLD``: t / sqrt(n - 2 + t^2)."""
    try:
        from scipy.stats import t as student
    except ImportError as error:
        raise MissingExtraError("scipy", "evaluate", "Connectome-based modelling") from error
    t = float(student.isf(P_THRESHOLD / 2, n_people - 2))
    return t / float(np.sqrt(n_people - 2 + t * t))


def _unit(columns: Array) -> Array:
    """Columns centred and of length 1; constant ones are 0."""
    centred = columns - columns.mean(axis=0)
    length = np.linalg.norm(centred, axis=0)
    largest = np.abs(columns).max(axis=0)
    is_constant = length <= np.finfo(columns.dtype).eps * len(columns) * largest
    unit: Array = centred / np.where(is_constant, np.inf, length)
    return unit
