"""The training group's BOLD, as a time course of a run that it may not have done whole."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ...cohort import TaskData
from ...tasks.design import design_matrix
from ...tasks.schedule import Schedule
from .responses import same_trials
from .targets import mean_over_people

Array = npt.NDArray[Any]

_design = lru_cache(maxsize=16)(design_matrix)


def group_time_course(
    data: TaskData, schedule: Schedule, tr_s: float
) -> npt.NDArray[np.float32] | None:
    """(V,R) float32 mean over people of demeaned series, of the run that ``schedule`` describes.

    Volumes that nobody was measured in, and all of a run with other trials, are what an
    ordinary-least-squares GLM of the mean series expects of the trials. None without BOLD.

    Raises:
        MissingExtraError: nilearn is not installed.
    """
    if data.bold is None:
        return None
    seen = mean_over_people(demeaned(data.bold[:, : data.schedule.n_volumes(tr_s)]))
    is_same = same_trials(schedule, data.schedule)
    if is_same and np.isfinite(seen).all():
        return seen.astype(np.float32)
    evoked = _evoked(seen, data.schedule, schedule, tr_s)
    if not is_same:
        return evoked
    unseen = np.isnan(seen)
    evoked -= mean_over_people(np.where(unseen, evoked, np.nan))
    return np.where(unseen, evoked, seen).astype(np.float32)


def demeaned(bold: Array) -> npt.NDArray[np.float32]:
    """(S,V,R) less each person's mean over the measured volumes: levels are not neural."""
    known = np.isfinite(bold)
    total = np.where(known, bold, 0).sum(axis=1, keepdims=True, dtype=np.float64)
    with np.errstate(invalid="ignore"):  # 0/0 where there is nothing measured
        mean = total / known.sum(axis=1, keepdims=True)
    return np.asarray(bold - mean, np.float32)


def _evoked(
    seen: Array, schedule: Schedule, wanted: Schedule, tr_s: float
) -> npt.NDArray[np.float32]:
    """(V,R) response to the trials of ``wanted``; NaN for regions that were never seen."""
    design, columns = _design(schedule, tr_s)
    new_design, new_columns = _design(wanted, tr_s)
    evoked = np.full((len(new_design), seen.shape[1]), np.nan)
    names = {f"{c}{suffix}" for c in wanted.condition for suffix in ("", "_derivative")}
    for region, series in enumerate(seen.T):
        known = np.isfinite(series)
        if not known.any():
            continue
        weights, *_ = np.linalg.lstsq(design[known], series[known], rcond=None)
        weight_of = dict(zip(columns, weights, strict=True))
        task = np.array([weight_of.get(c, 0.0) if c in names else 0.0 for c in new_columns])
        evoked[:, region] = new_design @ task
    evoked -= evoked.mean(axis=0)
    return evoked.astype(np.float32)
