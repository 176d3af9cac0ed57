"""Contrast effects of measured BOLD at TR, the truth that predicted maps are judged by."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import numpy.typing as npt

from ..cohort import Cohort
from ..tasks import TASKS
from ..tasks.design import contrast_design, fit_contrasts
from ..tasks.schedule import Float64, Schedule

FEWEST_VOLUMES_A_COLUMN = 2
"""A GLM needs at least this many measured volumes for each column of its design."""
LARGEST_VARIANCE_RATIO = 100.0
"""Variance of a contrast from the measured volumes over that from the whole run; above it the
condition has hardly a trial in the measured part."""

_ROUNDING = 1e-10
_MAX_KNOWN = 20_000
_known: dict[bytes, npt.NDArray[np.float32]] = {}


def contrast_effects(cohort: Cohort, run: str) -> tuple[npt.NDArray[np.float32] | None, list[str]]:
    """(S,K,R) float32 effects of the task's contrasts, in units of BOLD, and flags.

    nilearn's GLM with AR(1) prewhitening on the volumes that were measured: of the whole run's
    design the rows of those volumes, which demeans the part too. NaN where a series is constant
    or not measured, and where :func:`is_estimable` says no, which is flagged. None without BOLD.

    Effects are remembered by the content of a person's run, so that folds and predictors that
    share people share the fits.

    Raises:
        MissingExtraError: nilearn is not installed.
    """
    data = cohort.tasks[run]
    if data.bold is None:
        return None, []
    schedule = data.schedule
    n_volumes = schedule.n_volumes(cohort.tr_s)
    design, vectors = contrast_design(schedule, TASKS[schedule.task].contrasts, cohort.tr_s)
    key = design.tobytes() + vectors.tobytes()
    shape = (len(cohort), len(vectors), len(cohort.bold_regions))
    effects = np.full(shape, np.nan, np.float32)
    lacking = []
    for s, series in enumerate(data.bold):
        series = series[:n_volumes]
        if not np.isfinite(series).any():
            continue
        effects[s] = _remembered(series, schedule, cohort.tr_s, key)
        if np.isnan(effects[s]).all(axis=1).any():
            lacking.append(cohort.connectomes.subjects[s])
    flags = []
    if lacking:
        shown = ", ".join(lacking[:5]) + (" ..." if len(lacking) > 5 else "")
        flags.append(
            f"{run}: contrasts of {len(lacking)} people cannot be estimated, too few volumes or "
            f"trials: {shown}"
        )
    return effects, flags


def is_estimable(design: Float64, volumes: npt.NDArray[np.bool_], vector: Float64) -> bool:
    """Whether some volumes of a run tell a contrast.

    They must be ``FEWEST_VOLUMES_A_COLUMN`` for each column, and the variance c'(X'X)^-1 c of
    the contrast from them at most ``LARGEST_VARIANCE_RATIO`` times that from the whole run; it
    is infinite where their rows do not span the contrast.
    """
    if volumes.sum() < FEWEST_VOLUMES_A_COLUMN * design.shape[1]:
        return False
    return _variance(design[volumes], vector) < LARGEST_VARIANCE_RATIO * _variance(design, vector)


def _variance(design: Float64, vector: Float64) -> float:
    _, singular, rows = np.linalg.svd(design, full_matrices=False)
    parts = rows @ vector
    told = singular > _ROUNDING * singular[0]
    if np.abs(parts[~told]).max(initial=0) > _ROUNDING:
        return math.inf
    return float(np.sum((parts[told] / singular[told]) ** 2))


def _remembered(
    series: npt.NDArray[np.float32], schedule: Schedule, tr_s: float, key: bytes
) -> npt.NDArray[np.float32]:
    digest = hashlib.blake2b(key)
    digest.update(series.tobytes())
    name = digest.digest()
    if name not in _known:
        if len(_known) >= _MAX_KNOWN:
            _known.clear()
        _known[name] = _effects(series, schedule, tr_s)
    return _known[name]


def _effects(
    series: npt.NDArray[np.float32], schedule: Schedule, tr_s: float
) -> npt.NDArray[np.float32]:
    """(K,R) effects of one person, region by region where their measured volumes differ."""
    contrasts = TASKS[schedule.task].contrasts
    design, vectors = contrast_design(schedule, contrasts, tr_s)
    effects = np.full((len(vectors), series.shape[1]), np.nan, np.float32)
    patterns, pattern_of = np.unique(np.isfinite(series), axis=1, return_inverse=True)
    for p, volumes in enumerate(patterns.T):
        tells = [is_estimable(design, volumes, vector) for vector in vectors]
        regions = np.flatnonzero(pattern_of.ravel() == p)
        part = series[volumes][:, regions]
        varies = np.ptp(part, axis=0) > 0 if len(part) else np.zeros(len(regions), np.bool_)
        if not any(tells) or not varies.any():
            continue
        part = part[:, varies] - part[:, varies].mean(axis=0)
        effect, _ = fit_contrasts(part, schedule, contrasts, tr_s, volumes)
        effects[:, regions[varies]] = np.where(np.array(tells)[:, None], effect, np.nan)
    return effects
