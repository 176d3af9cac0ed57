"""Kernel ridge regression whose penalty is found inside the training people."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...cohort import Cohort
from .features import Features
from .targets import mean_over_people

Array = npt.NDArray[Any]

PENALTIES = np.logspace(-4, 4, 17)
"""Penalties to choose from, times the mean of the kernel's diagonal."""

_FEWEST_PEOPLE = 3


class KernelRidge:
    """alpha = (K + lambda I)^-1 (y - ybar), K = F F' with features F.

    Each target has the lambda of the smallest leave-one-out error of the training people, in
    closed form: e_i = alpha_i / [(K + lambda I)^-1]_ii. Where none has a smaller error than the
    mean, which is that of an infinite lambda, the mean is predicted. A target that some people
    lack is learnt from the others.
    """

    is_own = False

    def __init__(self, features: Features) -> None:
        self._features = features

    def fit(self, train: Cohort, rows: Array, weights: Array) -> None:
        """Learn every target; targets that the same people lack are solved together."""
        self._read = self._features(train)
        self._trained = self._read(train)
        self._mean = mean_over_people(rows)
        self._alpha = np.zeros(rows.shape)
        kernel = (self._trained @ self._trained.T).astype(np.float64)
        for people, targets in known_together(rows):
            if people.sum() >= _FEWEST_PEOPLE:
                cells = np.ix_(people, targets)
                self._alpha[cells] = solve(kernel[np.ix_(people, people)], rows[cells])

    def predict(self, people: Cohort) -> Array:
        """(S,P); NaN where there is nothing to predict from."""
        features = self._read(people)
        if features.shape[1] == 0:
            return np.full((len(people), len(self._mean)), np.nan)
        return np.asarray(self._mean + (features @ self._trained.T) @ self._alpha)


def solve(kernel: Array, y: Array) -> Array:
    """(S,P) alpha of (S,P) targets without NaN, each with its best of ``PENALTIES`` or 0."""
    values, vectors = np.linalg.eigh(kernel)
    values = np.maximum(values, 0)
    centred: Array = y - y.mean(axis=0)
    rotated = vectors.T @ centred
    squares = vectors**2
    best = (centred**2).sum(axis=0)
    alpha: Array = np.zeros_like(centred)
    # People who are all alike have a kernel of zeros: any penalty gives the mean.
    for penalty in PENALTIES * (float(np.trace(kernel)) / len(kernel) or 1.0):
        shrunk = 1 / (values + penalty)
        candidate = vectors @ (shrunk[:, None] * rotated)
        error = ((candidate / (squares @ shrunk)[:, None]) ** 2).sum(axis=0)
        better = error < best
        best[better], alpha[:, better] = error[better], candidate[:, better]
    return alpha


def known_together(rows: Array) -> list[tuple[npt.NDArray[np.bool_], npt.NDArray[np.intp]]]:
    """Who has numbers, (S,) bool, and the targets of which that is so."""
    patterns, pattern_of = np.unique(np.isfinite(rows), axis=1, return_inverse=True)
    return [(known, np.flatnonzero(pattern_of.ravel() == p)) for p, known in enumerate(patterns.T)]
