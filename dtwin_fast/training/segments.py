"""A cohort cut into training segments: RNN inputs and targets on the grid of dt."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..cohort import Cohort
from ..errors import DTwinInputError
from ..spec import TwinSpec
from ..tasks import TASKS

WARM_UP_STEPS = 16
"""Least overlap of segments: 262 steps every 246 cut the paper's 196.8 s into ten."""

NOT_AT_RISK = -1
"""Target of steps that say nothing about a press: outside windows, or after the press."""


@dataclass(frozen=True, eq=False)
class Segments:
    """M segments of T steps, the same stretches of the runs for S people.

    Attributes:
        inputs: (M,T,I) float32.
        press: (S,M,T) int8; 0 no press at this step, c + 1 press of action c,
            NOT_AT_RISK elsewhere.
        bold: (S,M,volumes,regions) float32, in units of ``bold_sd``, or None.
        volume_steps: (volumes,) steps of the BOLD targets in every segment.
        bold_sd: (regions,) pooled SD of the demeaned runs; empty without BOLD.
        n_warm_up: first steps of a segment that carry no loss: h starts from 0 there.
    """

    inputs: npt.NDArray[np.float32]
    press: npt.NDArray[np.int8]
    bold: npt.NDArray[np.float32] | None
    volume_steps: npt.NDArray[np.int64]
    bold_sd: npt.NDArray[np.float32]
    n_warm_up: int


def cut_segments(cohort: Cohort, spec: TwinSpec) -> Segments:
    """Cut every run into segments of ``spec.segment_steps`` that overlap by the warm-up.

    Raises:
        DTwinInputError: a TR that is not a whole number of steps, segments without room for
            a volume after the warm-up, a run shorter than one segment, or BOLD for some
            tasks only (code ``cohort``).
    """
    per_volume = round(spec.tr_s / spec.dt_s)
    if not math.isclose(per_volume * spec.dt_s, spec.tr_s, rel_tol=1e-9):
        raise _cohort_error(
            "tr_s",
            f"a TR of a whole number of steps of {spec.dt_s} s",
            f"{spec.tr_s} s",
            f"Set the spec's dt_s to {spec.tr_s / max(per_volume, 1):.10g}",
        )
    if spec.segment_steps < WARM_UP_STEPS + per_volume:
        raise _cohort_error(
            "segment_steps",
            f"at least {WARM_UP_STEPS + per_volume}, a warm-up and a volume",
            spec.segment_steps,
            "Train on longer segments",
        )
    # The stride is a whole number of volumes, so that the BOLD targets fall on the same
    # steps of every segment.
    stride = (spec.segment_steps - WARM_UP_STEPS) // per_volume * per_volume
    bold_sd = _bold_sd(cohort)
    inputs, press, bold = [], [], []
    volume_steps = np.arange(0, spec.segment_steps, per_volume)
    for name, data in cohort.tasks.items():
        run = TASKS[name].encode(data.schedule, spec.dt_s)
        if len(run) < spec.segment_steps:
            raise _cohort_error(name, f"a run of {spec.segment_steps} steps", f"{len(run)} steps")
        targets = _press_targets(
            data.choice,
            data.rt_s,
            data.schedule.onset_s,
            data.schedule.response_windows(spec.dt_s),
            len(run),
            spec.dt_s,
        )
        series = None if data.bold is None else _demean(data.bold) / bold_sd
        starts = range(0, len(run) - spec.segment_steps + 1, stride)
        for start in starts:
            steps = slice(start, start + spec.segment_steps)
            if series is not None:
                volumes = (start + volume_steps) // per_volume
                if volumes[-1] >= series.shape[1]:
                    break
                bold.append(series[:, volumes])
            inputs.append(run[steps])
            press.append(targets[:, steps])
    if bold and len(bold) != len(inputs):
        raise _cohort_error("tasks", "BOLD for every task or for none", "BOLD for some")
    return Segments(
        np.stack(inputs),
        np.stack(press, axis=1),
        np.stack(bold, axis=1) if bold else None,
        volume_steps,
        bold_sd,
        spec.segment_steps - stride,
    )


def _press_targets(
    choice: npt.NDArray[np.int8],
    rt_s: npt.NDArray[np.float32],
    onset_s: npt.NDArray[np.float64],
    windows: npt.NDArray[np.int64],
    n_steps: int,
    dt_s: float,
) -> npt.NDArray[np.int8]:
    press = np.full((len(choice), n_steps), NOT_AT_RISK, np.int8)
    for trial, (start, stop) in enumerate(windows):
        press[:, start:stop] = 0
        for subject in np.flatnonzero(choice[:, trial] >= 0):
            step = int((onset_s[trial] + rt_s[subject, trial]) / dt_s)
            # A press outside the window (too early or too late to count) is a trial
            # without a response in time: it stays censored.
            if start <= step < stop:
                press[subject, step] = choice[subject, trial] + 1
                press[subject, step + 1 : stop] = NOT_AT_RISK
    return press


def _demean(bold: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    # The level of a run says nothing about the task: offsets are a person's, not neural.
    change: npt.NDArray[np.float32] = bold - bold.mean(axis=1, keepdims=True)
    return change


def _bold_sd(cohort: Cohort) -> npt.NDArray[np.float32]:
    runs = [_demean(data.bold) for data in cohort.tasks.values() if data.bold is not None]
    if not runs:
        return np.empty(0, np.float32)
    squares = sum((run.astype(np.float64) ** 2).sum(axis=(0, 1)) for run in runs)
    count = sum(run.shape[0] * run.shape[1] for run in runs)
    sd: npt.NDArray[np.float64] = np.sqrt(squares / count)
    if not (sd > 0).all():
        raise _cohort_error("bold", "regions that vary", "a region that is constant")
    return sd.astype(np.float32)


def _cohort_error(
    field: str,
    wanted: str,
    got: object,
    fix: str = "Leave the task out, or complete its data",
) -> DTwinInputError:
    return DTwinInputError(
        "cohort",
        "this cohort cannot be cut into training segments",
        field=field,
        wanted=wanted,
        got=str(got),
        fix=fix,
    )
