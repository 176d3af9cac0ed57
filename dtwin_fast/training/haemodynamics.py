"""BOLD of the group: what the chains of slow units take, and how BOLD is read from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from ..spec import TwinSpec
from .segments import Segments
from .units import CHAIN_TAU_S, CHAIN_UNITS, n_chains, n_fast

Float64 = npt.NDArray[np.float64]

_RIDGES = tuple(10.0 ** np.arange(-2, 3.5, 0.5))
_FOLDS = 5
_SMALLEST_SD = 1e-2
"""Directions of the features with a smaller share of the largest SD are rounding and chance."""


def mixtures(spec: TwinSpec, segments: Segments, fast: npt.NDArray[np.float32]) -> Float64:
    """(chains, fast units) what each chain takes, of unit variance over time.

    First what tells the conditions of the tasks best from the rest of the run, as the
    regressors of a GLM do; then, as far as there are chains, the directions that carry most of
    the group's BOLD (reduced-rank regression, Izenman 1975).

    Args:
        spec: sizes.
        segments: the training data, M segments.
        fast: (D,M,T,fast units) states of the fast units over D draws of ``Segments.vary``.
            What does not hold in all draws, as the identity of a stimulus, tells nothing.
    """
    n_units = n_fast(spec)
    states = fast[:, :, segments.n_warm_up :].reshape(-1, n_units).astype(np.float64)
    covariance = np.cov(states.T) + 1e-9 * np.eye(n_units)
    shown = conditions(spec, segments)[:, segments.n_warm_up :]
    shown = np.broadcast_to(shown, (len(fast), *shown.shape)).reshape(len(states), -1)
    together = (states - states.mean(axis=0)).T @ (shown - shown.mean(axis=0)) / len(states)
    ridge = 1e-4 * np.trace(covariance) / n_units
    of_conditions = np.linalg.solve(covariance + ridge * np.eye(n_units), together)

    features = _chains(spec, fast, segments.scored_volume_steps).reshape(-1, CHAIN_UNITS * n_units)
    slope, _ = _regress(features, *_targets(segments, len(fast)))
    slope = slope.reshape(CHAIN_UNITS, n_units, -1).swapaxes(0, 1).reshape(n_units, -1)
    middle = features.reshape(-1, CHAIN_UNITS, n_units)[:, CHAIN_UNITS // 2]
    root = np.linalg.cholesky(np.cov(middle.T) + 1e-6 * np.eye(n_units))
    strongest = np.linalg.svd(root.T @ slope, full_matrices=False)[0]
    of_bold = np.linalg.solve(root.T, strongest)

    chosen = np.concatenate([of_conditions, of_bold], axis=1)[:, : n_chains(spec)]
    sd = np.sqrt(np.einsum("fj,fg,gj->j", chosen, covariance, chosen))
    return (chosen / np.where(sd > 0, sd, 1.0)).T


def readout(
    spec: TwinSpec, segments: Segments, slow: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """BOLD of the group from the chains: weight (regions, chain units) and bias (regions,).

    Args:
        spec: sizes.
        segments: the training data, M segments.
        slow: (D,M,T,chain units) states over D draws of ``Segments.vary``.
    """
    at_volumes = slow[:, :, segments.scored_volume_steps]
    features = at_volumes.reshape(-1, slow.shape[-1]).astype(np.float64)
    weight, bias = _regress(features, *_targets(segments, len(slow)))
    return weight.T.astype(np.float32), bias.astype(np.float32)


def personal_readout(
    segments: Segments,
    states: Iterable[npt.NDArray[np.float32]],
    traits: Float64,
    weight: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
) -> tuple[Float64, Float64]:
    """What a person's traits change in the readout of BOLD.

    Regression of what the group's readout leaves of everybody's BOLD on the products of their
    traits and their chains. The ridge is the one that predicts other segments best, and
    infinite, no change at all, if none does.

    Args:
        segments: the training data of S people, M segments.
        states: each person's (M,volumes,chain units) at the scored volumes, S of them.
        traits: (S,L) uncorrelated numbers with a mean square of 1.
        weight, bias: (regions, chain units) and (regions,) the group's readout.

    Returns:
        (L,regions, chain units) and (L,regions) per unit of each trait.
    """
    assert segments.bold is not None
    n_traits, (n_regions, n_units) = traits.shape[1], weight.shape
    n_scored = len(segments.scored_volume_steps)
    folds = np.repeat(np.arange(len(segments)) % _FOLDS, n_scored)
    whiten, gram, shared = np.empty((0, 0)), [], []
    for slow, series in zip(states, segments.bold[:, :, -n_scored:], strict=True):
        rows = slow.reshape(-1, n_units).astype(np.float64)
        rest = series.reshape(-1, n_regions) - (rows @ weight.T + bias)
        # What was not measured is left as the group's readout has it.
        known = ~np.isnan(rest).all(axis=1)
        if not whiten.size:
            whiten = whitening(rows - rows.mean(axis=0))
        seen = np.concatenate([rows @ whiten, np.ones((len(rows), 1))], axis=1) * known[:, None]
        by_fold = [(seen[folds == f], np.nan_to_num(rest[folds == f])) for f in range(_FOLDS)]
        gram.append([x.T @ x for x, _ in by_fold])
        shared.append([x.T @ y for x, y in by_fold])
    # Sums over people of the Kronecker products of traits and chains.
    n_features = gram[0][0].shape[0]
    squares = np.einsum("sl,sm->lms", traits, traits).reshape(-1, len(traits))
    xx = np.einsum("ps,sfab->fpab", squares, np.array(gram), optimize=True)
    xx = xx.reshape(_FOLDS, n_traits, n_traits, n_features, n_features).swapaxes(2, 3)
    xx = xx.reshape(_FOLDS, n_traits * n_features, -1)
    xy = np.einsum("sl,sfar->flar", traits, np.array(shared), optimize=True)
    xy = xy.reshape(_FOLDS, n_traits * n_features, n_regions)
    n = len(traits) * np.bincount(folds, minlength=_FOLDS).astype(np.float64)
    slope = _ridge(xx, xy, n, (*_RIDGES[2:], np.inf))
    slope = slope.reshape(n_traits, n_features, n_regions)
    return (whiten @ slope[:, :-1]).swapaxes(1, 2), slope[:, -1]


def _targets(segments: Segments, n_draws: int) -> tuple[Float64, npt.NDArray[np.int64]]:
    """The group's mean BOLD at the scored volumes, once for each draw, and folds of segments."""
    assert segments.bold is not None
    n_scored = len(segments.scored_volume_steps)
    series = segments.bold[:, :, -n_scored:]
    measured = ~np.isnan(series)
    mean = np.nansum(series, axis=0, dtype=np.float64) / np.maximum(measured.sum(axis=0), 1)
    rows = np.where(measured.any(axis=0), mean, np.nan).reshape(-1, series.shape[-1])
    folds = np.repeat(np.arange(len(segments)) % _FOLDS, n_scored)
    return np.tile(rows, (n_draws, 1)), np.tile(folds, n_draws)


def _regress(
    features: Float64, targets: Float64, folds: npt.NDArray[np.int64]
) -> tuple[Float64, Float64]:
    """Ridge regression on whitened features; the ridge that predicts other segments best.

    Returns:
        slope (features, regions) and intercept (regions,).
    """
    known = np.isfinite(targets).all(axis=1)
    features, targets, folds = features[known], targets[known], folds[known]
    x_mean, y_mean = features.mean(axis=0), targets.mean(axis=0)
    x, y = features - x_mean, targets - y_mean
    whiten = whitening(x)
    x = x @ whiten
    parts = [(x[folds == f], y[folds == f]) for f in range(_FOLDS)]
    xx, xy = (np.array(m) for m in ([a.T @ a for a, _ in parts], [a.T @ b for a, b in parts]))
    slope = whiten @ _ridge(xx, xy, np.array([float(len(a)) for a, _ in parts]), _RIDGES)
    return slope, y_mean - x_mean @ slope


def whitening(x: Float64) -> Float64:
    """(features, directions) that make centred rows uncorrelated, of variance 1."""
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    kept = values > _SMALLEST_SD**2 * values[-1]
    whiten: Float64 = vectors[:, kept] / np.sqrt(values[kept])
    return whiten


def _ridge(xx: Float64, xy: Float64, n: Float64, ridges: Sequence[float]) -> Float64:
    """Slopes (features, outputs) with the ridge that predicts left-out folds best.

    Args:
        xx, xy: (folds, features, features) and (folds, features, outputs) sums of products.
        n: (folds,) how many rows they sum.
        ridges: candidates, per row; infinite = slopes of zero.
    """

    all_xx, all_xy, rows_in_all = xx.sum(0), xy.sum(0), float(n.sum())

    def solve(a: Float64, b: Float64, rows: float, ridge: float) -> Float64:
        if np.isinf(ridge) or rows == 0:
            return np.zeros_like(b)
        # np.linalg.solve is annotated with the supertype of its arguments' types.
        return np.asarray(np.linalg.solve(a + ridge * rows * np.eye(len(a)), b), np.float64)

    def error(ridge: float) -> float:
        total = 0.0
        for f in range(len(n)):
            slopes = solve(all_xx - xx[f], all_xy - xy[f], rows_in_all - n[f], ridge)
            total += float(np.sum(slopes * (xx[f] @ slopes)) - 2 * np.sum(slopes * xy[f]))
        return total

    return solve(all_xx, all_xy, rows_in_all, min(ridges, key=error))


def _chains(spec: TwinSpec, fast: npt.NDArray[np.float32], steps: npt.NDArray[np.int64]) -> Float64:
    """(D,M,steps,units of a chain, fast units): every fast unit seen through a chain."""
    n_draws, n_segments, _, n_units = fast.shape
    leak = math.exp(-spec.dt_s / CHAIN_TAU_S)
    now = np.zeros((n_draws, n_segments, CHAIN_UNITS, n_units))
    seen = np.empty((n_draws, n_segments, len(steps), CHAIN_UNITS, n_units))
    for step in range(1, steps[-1] + 1):
        driven = np.concatenate([fast[:, :, step - 1, None], now[:, :, :-1]], axis=2)
        now = leak * now + (1 - leak) * driven
        seen[:, :, steps == step] = now[:, :, None]
    return seen


def conditions(spec: TwinSpec, segments: Segments) -> Float64:
    """(M,T,C) for every condition of the tasks: 1 while one of its stimuli acts on the states."""
    # Runs of a task share their conditions: what tells runs apart is not in the stimuli.
    names = list(
        dict.fromkeys(
            (schedule.task, condition)
            for schedule in segments.schedules.values()
            for condition in schedule.condition
        )
    )
    n_steps = segments.inputs.shape[1]
    shown = np.zeros((len(segments), n_steps, len(names)))
    for row, (run, start) in enumerate(zip(segments.run, segments.start, strict=True)):
        schedule = segments.schedules[run]
        windows = schedule.response_windows(spec.dt_s)[:, 0] + 1 - start
        lengths = np.maximum(np.rint(schedule.duration_s / spec.dt_s).astype(np.int64), 1) + 2
        for first, length, condition in zip(windows, lengths, schedule.condition, strict=True):
            here = slice(max(first, 0), max(first + length, 0))
            shown[row, here, names.index((schedule.task, condition))] = 1
    return shown
