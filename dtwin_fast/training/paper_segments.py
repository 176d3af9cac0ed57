"""A cohort as the paper's recipe sees it: targets on every step of dt, for every person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..cohort import WRONG_BUTTON, Cohort, TaskData
from ..errors import MissingExtraError
from ..spec import TwinSpec
from ..tasks import TASKS
from .segments import WARM_UP_STEPS

Float32 = npt.NDArray[np.float32]

NOT_KNOWN = -1
"""Target of steps at which it is not known what was pressed."""


@dataclass(frozen=True, eq=False)
class PaperSegments:
    """M stretches of T steps, every T - 16, of the runs of S people.

    Attributes:
        inputs: (M,T,I) float32.
        action: (S,M,T) int8; 0 nothing pressed, c + 1 action c pressed, or NOT_KNOWN.
        bold: (S,M,T,regions) float32 z-scores, NaN where not measured; or None.
        bold_sd: (regions,) float64 SD behind the z-scores, over all people and volumes.
        pairs: (n,2) int64 person and stretch of those in which something was measured.
    """

    inputs: Float32
    action: npt.NDArray[np.int8]
    bold: Float32 | None
    bold_sd: npt.NDArray[np.float64]
    pairs: npt.NDArray[np.int64]


def cut_paper_segments(cohort: Cohort, spec: TwinSpec, press: str) -> PaperSegments:
    """Cut the runs of a cohort that ``cut_segments`` has accepted.

    BOLD is z-scored by region with the mean and SD over all people, runs and volumes.

    Args:
        cohort: S people.
        spec: sizes and steps.
        press: "impulse" or "hold", see ``PaperConfig``.

    Raises:
        MissingExtraError: there is BOLD and SciPy is not installed.
    """
    has_bold = bool(cohort.measured_bold_regions)
    mean, sd = _bold_scale(cohort) if has_bold else (np.empty(0), np.empty(0))
    inputs, action, bold = [], [], []
    for data in cohort.tasks.values():
        run = TASKS[data.schedule.task].encode(data.schedule, spec.dt_s)
        presses = press_series(data, len(run), spec.dt_s, press)
        if data.bold is None:
            series = np.full((len(cohort), len(run), len(sd)), np.nan, np.float32)
        else:
            series = interpolate((data.bold - mean) / sd, len(run), round(spec.tr_s / spec.dt_s))
        last = len(run) - spec.segment_steps
        for start in range(0, last + 1, spec.segment_steps - WARM_UP_STEPS):
            steps = slice(start, start + spec.segment_steps)
            inputs.append(run[steps])
            action.append(presses[:, steps])
            bold.append(series[:, steps])
    actions, targets = np.stack(action, axis=1), np.stack(bold, axis=1)
    measured = (actions != NOT_KNOWN).any(axis=2) | ~np.isnan(targets).all(axis=(2, 3))
    pairs = np.argwhere(measured)
    return PaperSegments(np.stack(inputs), actions, targets if has_bold else None, sd, pairs)


def press_series(data: TaskData, n_steps: int, dt_s: float, press: str) -> npt.NDArray[np.int8]:
    """(S,T) what was pressed at each step of a run, in the codes of ``PaperSegments.action``.

    Nothing is known from the onset of a trial that was not measured to the next onset, nor
    of a press of a wrong button. A press outside its trial's response window does not count.
    """
    windows = data.schedule.response_windows(dt_s)
    trial = np.searchsorted(windows[:, 0], np.arange(n_steps), side="right") - 1
    known = data.measured[:, np.maximum(trial, 0)]
    action = np.where(known, 0, NOT_KNOWN).astype(np.int8)
    for person, n in zip(*np.nonzero(data.pressed), strict=True):
        start, stop = windows[n]
        step = int((data.schedule.onset_s[n] + data.rt_s[person, n]) / dt_s)
        if start <= step < stop:
            choice = data.choice[person, n]
            code = NOT_KNOWN if choice == WRONG_BUTTON else choice + 1
            action[person, step : stop if press == "hold" else step + 1] = code
    return action


def interpolate(bold: npt.NDArray[np.floating], n_steps: int, per_volume: int) -> Float32:
    """(S,V,regions) at TR -> (S,T,regions) on the grid of dt, by cubic splines over the run.

    Volumes that were not measured (NaN) are left out of the spline, and the steps between
    them and their neighbours are NaN, as are those after the last volume.
    """
    try:
        from scipy.interpolate import CubicSpline
    except ImportError as error:
        raise MissingExtraError("scipy", "evaluate", "The paper's recipe") from error
    n_people, n_volumes, n_regions = bold.shape
    series = bold.transpose(0, 2, 1).reshape(-1, n_volumes)
    steps = np.full((len(series), n_steps), np.nan, np.float32)
    at = np.arange(min(n_steps, (n_volumes - 1) * per_volume + 1))
    before, after = at // per_volume, -(-at // per_volume)
    patterns, which = np.unique(~np.isnan(series), axis=0, return_inverse=True)
    for i, measured in enumerate(patterns):
        if measured.sum() < 2:
            continue
        rows, columns = np.flatnonzero(which.ravel() == i), at[measured[before] & measured[after]]
        volumes = np.flatnonzero(measured)
        spline = CubicSpline(volumes * per_volume, series[np.ix_(rows, volumes)], axis=1)
        steps[np.ix_(rows, columns)] = spline(columns)
    return np.ascontiguousarray(steps.reshape(n_people, n_regions, n_steps).transpose(0, 2, 1))


def _bold_scale(cohort: Cohort) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    runs = [data.bold for data in cohort.tasks.values() if data.bold is not None]
    volumes = np.concatenate([run.reshape(-1, run.shape[2]) for run in runs]).astype(np.float64)
    return np.nanmean(volumes, axis=0), np.nanstd(volumes, axis=0)
