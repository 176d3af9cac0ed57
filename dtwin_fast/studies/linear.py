"""Closed-form floors of a battery: group mean, ridge, kernel ridge, CPM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

Array = npt.NDArray[Any]
Fit = Callable[..., "Linear | Constant"]

PENALTIES = np.logspace(-3, 4, 15)
"""Ridge penalties tried, in units of the mean eigenvalue of the training kernel."""
CPM_P = 0.01


@dataclass(frozen=True, eq=False)
class Constant:
    """Predicts (M,O) ``mean`` for everyone."""

    mean: Array

    def predict(self, x: Array) -> Array:
        """(S,F) -> (S,M,O)."""
        return np.broadcast_to(self.mean, (len(x), *self.mean.shape))


@dataclass(frozen=True, eq=False)
class Linear:
    """``mean`` (M,O) plus the features, transformed and centred, times F'-by-(M x O) weights.

    The weights are ``left`` (F',K) times ``right`` (K,M*O): for ridge, K training people, as the
    product itself may have billions of numbers.
    """

    mean: Array
    centre: Array
    left: Array
    right: Array
    transform: Callable[[Array], Array]

    def predict(self, x: Array) -> Array:
        """(S,F) -> (S,M,O)."""
        deviation = (self.transform(x) - self.centre) @ self.left @ self.right
        predicted: Array = self.mean + deviation.reshape(len(x), *self.mean.shape)
        return predicted


def group_mean(x: Array, codes: Array, targets: Array, *, seed: int) -> Constant:
    """The training mean, whoever the person is."""
    return Constant(np.nanmean(targets, axis=0))


def ridge(x: Array, codes: Array, targets: Array, *, seed: int) -> Linear:
    """Ridge on the features as they are; the penalty is chosen by leave-one-out error."""
    return _fit_ridge(x, targets, _as_float64, shared=True)


def krr(x: Array, codes: Array, targets: Array, *, seed: int) -> Linear:
    """Kernel ridge with the Pearson correlation of two people's features as kernel."""
    return _fit_ridge(x, targets, unit_rows, shared=True)


def ridge_each(x: Array, codes: Array, targets: Array, *, seed: int) -> Linear:
    """:func:`ridge` with a penalty for each of the M x O targets."""
    return _fit_ridge(x, targets, _as_float64, shared=False)


def krr_each(x: Array, codes: Array, targets: Array, *, seed: int) -> Linear:
    """:func:`krr` with a penalty for each of the M x O targets."""
    return _fit_ridge(x, targets, unit_rows, shared=False)


def cpm(x: Array, codes: Array, targets: Array, *, seed: int) -> Linear:
    """Connectome-based predictive modelling (Shen et al. 2017), target by target.

    Features with p < .01 are summed, those that correlate negatively with a minus sign; a
    regression on the sum predicts. Without such features: the training mean.
    """
    x = _as_float64(x)
    mean, y = _centred(targets)
    centre = x.mean(axis=0)
    x_c = x - centre
    scale = np.sqrt((x_c**2).sum(axis=0))[:, None] * np.sqrt((y**2).sum(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.nan_to_num(x_c.T @ y / scale)
    n = len(x)
    t = stats.t.isf(CPM_P / 2, n - 2)
    chosen = np.sign(r) * (np.abs(r) > t / np.sqrt(n - 2 + t**2))
    strength = x_c @ chosen
    power = (strength**2).sum(axis=0)
    slope = np.divide((strength * y).sum(axis=0), power, out=np.zeros(len(power)), where=power > 0)
    return Linear(mean, centre, chosen, np.diag(slope), _as_float64)


def unit_rows(x: Array) -> Array:
    """(S,F) float64 rows centred and of length one, so that products are correlations."""
    rows = _as_float64(x)
    rows = rows - rows.mean(axis=1, keepdims=True)
    unit: Array = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
    return unit


def _fit_ridge(
    x: Array, targets: Array, transform: Callable[[Array], Array], *, shared: bool
) -> Linear:
    """Ridge through the kernel of S people, with leave-one-out errors in closed form.

    With the hat matrix H of ridge with a free intercept, the left-out error of person i is
    (y_i - yhat_i) / (1 - H_ii).
    """
    features = transform(x)
    centre = features.mean(axis=0)
    features = features - centre
    mean, y = _centred(targets)
    values, vectors = np.linalg.eigh(features @ features.T)
    values = np.maximum(values, 0)
    # Of a kernel that is all zeros any penalty predicts the mean.
    penalties = PENALTIES * (values.mean() or 1.0)
    y_in_basis = vectors.T @ y
    errors = np.empty((len(penalties), y.shape[1]))
    for row, penalty in zip(errors, penalties, strict=True):
        shrink = values / (values + penalty)
        leverage = 1 / len(y) + (vectors**2) @ shrink
        left_out = (y - vectors @ (shrink[:, None] * y_in_basis)) / (1 - leverage)[:, None]
        row[:] = (left_out**2).sum(axis=0)
    if shared:
        errors[:] = errors.sum(axis=1, keepdims=True)
    penalty = penalties[errors.argmin(axis=0)]
    dual = vectors @ (y_in_basis / (values[:, None] + penalty))
    return Linear(mean, centre, features.T, dual, transform)


def _centred(targets: Array) -> tuple[Array, Array]:
    """(M,O) training mean and (S,M*O) deviations; a missing target counts as average."""
    mean = np.asarray(np.nanmean(targets, axis=0, dtype=np.float64))
    return mean, np.nan_to_num(targets - mean).reshape(len(targets), -1)


def _as_float64(x: Array) -> Array:
    return np.asarray(x, np.float64)
