"""What a person's data say at first sight: where their latent numbers start from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..cohort import NO_RESPONSE, Cohort, TaskData
from .segments import Segments

Float64 = npt.NDArray[np.float64]


def first_latents(cohort: Cohort, segments: Segments, n_dims: int) -> Float64:
    """(S,D) uncorrelated numbers of unit variance, 1 <= D <= ``n_dims``, 0 for who has no data.

    First the strength of each run's BOLD response, then principal components of reaction
    times, errors and misses per condition, as far as there is room.
    """
    gains = _responses(segments)
    behaviour = [
        column
        for data in cohort.tasks.values()
        for column in _behaviour(data)
        if column is not None
    ]
    parts = [gains]
    if behaviour and n_dims > gains.shape[1]:
        table = _standardised(np.stack(behaviour, axis=1))
        left, size, _ = np.linalg.svd(table, full_matrices=False)
        kept = size > 1e-6 * max(size[0], 1e-300)
        parts.append(left[:, kept][:, : n_dims - gains.shape[1]])
    found = np.concatenate(parts, axis=1)[:, :n_dims]
    # Where nobody differs from anybody there is a number to learn all the same.
    return _standardised(found) if found.shape[1] else np.zeros((len(found), 1))


def _behaviour(data: TaskData) -> list[Float64 | None]:
    # In logarithms, where people differ by factors and noise is alike; half a trial is added
    # to counts, so that none is infinite.
    with np.errstate(invalid="ignore", divide="ignore"):
        log_rt = np.log(np.where(data.rt_s > 0, data.rt_s, np.nan))
    log_rt = log_rt - _mean(log_rt, axis=0)
    condition = np.array(data.schedule.condition)
    columns: list[Float64 | None] = []
    for name in dict.fromkeys(data.schedule.condition):
        trials = condition == name
        measured = data.measured[:, trials].sum(axis=1)
        correct = data.is_correct[:, trials].sum(axis=1)
        missed = (data.choice[:, trials] == NO_RESPONSE).sum(axis=1)
        speed = _mean(log_rt[:, trials], axis=1)
        spread = np.sqrt(_mean((log_rt[:, trials] - speed[:, None]) ** 2, axis=1))
        counts = [np.log((count + 0.5) / (measured - count + 0.5)) for count in (correct, missed)]
        for column in (speed, np.log(spread + 0.05), *counts):
            known = np.where(measured > 0, column, np.nan)
            columns.append(known if np.isfinite(known).sum() > 1 else None)
    return columns


def _responses(segments: Segments) -> Float64:
    """(S,runs) slope of each person's BOLD on the group's mean course, per run."""
    n_subjects = len(segments.press)
    if segments.bold is None:
        return np.empty((n_subjects, 0))
    slopes = []
    for name in dict.fromkeys(segments.run):
        series = segments.bold[:, np.array(segments.run) == name].astype(np.float64)
        group = _mean(series, axis=0)
        measured = np.isfinite(series)
        power = np.where(measured, group**2, 0.0).sum(axis=(1, 2, 3))
        shared = np.where(measured, series * group, 0.0).sum(axis=(1, 2, 3))
        slopes.append(np.divide(shared, power, out=np.full(n_subjects, np.nan), where=power > 0))
    return _standardised(np.stack(slopes, axis=1))


def _standardised(table: Float64) -> Float64:
    """Columns of mean 0 and variance 1 over the people who have them; 0 for the others."""
    centred = table - _mean(table, axis=0)
    sd = np.sqrt(_mean(centred**2, axis=0))
    return np.nan_to_num(centred / np.where(sd > 0, sd, 1.0))


def _mean(array: npt.NDArray[np.floating], axis: int) -> Float64:
    """Mean of what is finite; NaN where nothing is."""
    finite = np.isfinite(array)
    count = finite.sum(axis=axis)
    total = np.where(finite, array, 0.0).sum(axis=axis, dtype=np.float64)
    mean: Float64 = np.divide(total, count, out=np.full(np.shape(count), np.nan), where=count > 0)
    return mean
