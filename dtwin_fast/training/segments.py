"""A cohort cut into training segments: RNN inputs and targets on the grid of dt."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..cohort import NOT_MEASURED, WRONG_BUTTON, Cohort, TaskData
from ..errors import DTwinInputError
from ..spec import N_ACTIONS, TwinSpec
from ..tasks import TASKS
from ..tasks.schedule import Schedule

WARM_UP_STEPS = 16
"""Least overlap of segments: 262 steps every 246 cut the paper's 196.8 s into ten."""

NOT_AT_RISK = -1
"""Target of steps that say nothing about a press: outside windows, or after the press."""


@dataclass(frozen=True, eq=False)
class Segments:
    """M segments of T steps, the same stretches of the runs for S people.

    Stretches in which nothing of anybody was measured are not among them.

    Attributes:
        inputs: (M,T,I) float32.
        press: (S,M,T) int8; 0 no press at this step, c + 1 press of action c,
            A + 1 + c press of one of A actions that is not c, NOT_AT_RISK elsewhere.
        bold: (S,M,volumes,regions) float32, in units of ``bold_sd``, NaN where not
            measured; or None.
        volume_steps: (volumes,) steps of the BOLD targets in every segment.
        bold_sd: (regions,) pooled SD of the demeaned runs; empty without BOLD.
        n_warm_up: first steps of a segment that carry no loss: h starts from 0 there.
        run, start: (M,) the entry of ``schedules`` and the step at which each is cut.
        schedules: the runs.
    """

    inputs: npt.NDArray[np.float32]
    press: npt.NDArray[np.int8]
    bold: npt.NDArray[np.float32] | None
    volume_steps: npt.NDArray[np.int64]
    bold_sd: npt.NDArray[np.float32]
    n_warm_up: int
    run: tuple[str, ...]
    start: npt.NDArray[np.int64]
    schedules: dict[str, Schedule]

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def scored_volume_steps(self) -> npt.NDArray[np.int64]:
        """Steps of the volumes after the warm-up, the last of each segment's."""
        return self.volume_steps[self.volume_steps >= self.n_warm_up]

    def vary(
        self, rng: np.random.Generator, dt_s: float
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """The segments with other stimuli that ask the same (``Task.vary``).

        Returns:
            inputs (M,T,I) float32, and (M,T,A) int64: the output that takes the place of
            each action, so that ``outputs[..., actions]`` has the columns of ``press``.
        """
        n_steps = self.inputs.shape[1]
        varied: dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]] = {}
        for name, schedule in self.schedules.items():
            task = TASKS[schedule.task]
            stimulus, action = task.vary(schedule, rng)
            run = task.encode(replace(schedule, stimulus=stimulus), dt_s)
            actions = np.tile(np.arange(N_ACTIONS), (len(run), 1))
            for trial, (start, stop) in enumerate(schedule.response_windows(dt_s)):
                actions[start:stop] = action[trial]
            varied[name] = run, actions
        cuts = [
            (varied[name], slice(start, start + n_steps))
            for name, start in zip(self.run, self.start, strict=True)
        ]
        inputs = np.stack([run[steps] for (run, _), steps in cuts])
        return inputs, np.stack([actions[steps] for (_, actions), steps in cuts])


def cut_segments(cohort: Cohort, spec: TwinSpec) -> Segments:
    """Cut every run into segments of ``spec.segment_steps`` that overlap by the warm-up.

    Raises:
        DTwinInputError: a TR that is not a whole number of steps, segments without room for
            a volume after the warm-up, a run shorter than one segment, BOLD regions that
            vary in nobody, or nothing measured at all (code ``cohort``).
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
    volume_steps = np.arange(0, spec.segment_steps, per_volume)
    inputs, press, bold, run_names, run_starts = [], [], [], [], []
    for name, data in cohort.tasks.items():
        run = TASKS[data.schedule.task].encode(data.schedule, spec.dt_s)
        if len(run) < spec.segment_steps:
            raise _cohort_error(name, f"a run of {spec.segment_steps} steps", f"{len(run)} steps")
        targets = _press_targets(data, len(run), spec.dt_s)
        series = _series(data, len(bold_sd), -(-len(run) // per_volume)) / bold_sd
        for start in range(0, len(run) - spec.segment_steps + 1, stride):
            presses = targets[:, start : start + spec.segment_steps]
            volumes = series[:, (start + volume_steps) // per_volume]
            if (presses == NOT_AT_RISK).all() and np.isnan(volumes).all():
                continue
            inputs.append(run[start : start + spec.segment_steps])
            press.append(presses)
            bold.append(volumes)
            run_names.append(name)
            run_starts.append(start)
    if not inputs:
        raise _cohort_error("tasks", "trials or BOLD of somebody", "nothing that was measured")
    return Segments(
        np.stack(inputs),
        np.stack(press, axis=1),
        np.stack(bold, axis=1) if len(bold_sd) else None,
        volume_steps,
        bold_sd,
        spec.segment_steps - stride,
        tuple(run_names),
        np.array(run_starts, np.int64),
        {name: data.schedule for name, data in cohort.tasks.items()},
    )


def _press_targets(data: TaskData, n_steps: int, dt_s: float) -> npt.NDArray[np.int8]:
    schedule = data.schedule
    codes = np.where(data.choice == WRONG_BUTTON, N_ACTIONS + schedule.correct, data.choice) + 1
    press = np.full((len(data.choice), n_steps), NOT_AT_RISK, np.int8)
    for trial, (start, stop) in enumerate(schedule.response_windows(dt_s)):
        press[data.choice[:, trial] != NOT_MEASURED, start:stop] = 0
        for subject in np.flatnonzero(data.pressed[:, trial]):
            step = int((schedule.onset_s[trial] + data.rt_s[subject, trial]) / dt_s)
            # A press outside the window (too early or too late to count) is a trial
            # without a response in time: it stays censored.
            if start <= step < stop:
                press[subject, step] = codes[subject, trial]
                press[subject, step + 1 : stop] = NOT_AT_RISK
    return press


def _series(data: TaskData, n_regions: int, n_volumes: int) -> npt.NDArray[np.float32]:
    """(S,V,regions) demeaned series of a run, NaN where there is none."""
    series = np.full((len(data.choice), n_volumes, n_regions), np.nan, np.float32)
    if data.bold is not None:
        measured = demean(data.bold)[:, :n_volumes]
        series[:, : measured.shape[1]] = measured
    return series


def demean(bold: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(S,V,regions) series without the mean of their measured volumes.

    The level of a run says nothing about the task: offsets are a person's, not neural.
    """
    measured = ~np.isnan(bold)
    count = np.maximum(measured.sum(axis=1, keepdims=True), 1)
    total = np.where(measured, bold, 0).sum(axis=1, keepdims=True, dtype=np.float64)
    change: npt.NDArray[np.float32] = bold - (total / count).astype(np.float32)
    return change


def _bold_sd(cohort: Cohort) -> npt.NDArray[np.float32]:
    runs = [demean(data.bold) for data in cohort.tasks.values() if data.bold is not None]
    if not runs:
        return np.empty(0, np.float32)
    squares = sum(np.nansum(run.astype(np.float64) ** 2, axis=(0, 1)) for run in runs)
    count = sum((~np.isnan(run)).sum(axis=(0, 1)) for run in runs)
    sd: npt.NDArray[np.float64] = np.sqrt(squares / np.maximum(count, 1))
    if not (sd > 0).all():
        raise _cohort_error("bold", "regions that vary in somebody", "a region that is constant")
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
