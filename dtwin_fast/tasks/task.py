"""A task: its schedule, its contrasts and how its stimuli reach the main RNN."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import DTwinInputError
from ..spec import N_INPUTS
from .schedule import Float64, Schedule, first_step

N_SENSORY = N_INPUTS - 1
"""Sensory inputs; the last input is the task flag."""


class Variation(NamedTuple):
    """The trials of a run with other stimuli that ask the same, by the task's symmetries.

    A colour for a colour, a face for a face, left for right: what a person did with the one
    stimulus says what they would have done with the other, when actions are exchanged like the
    stimuli. Training draws these, so that a twin learns the rule of a task and not the few
    stimuli of one run.

    Attributes:
        stimulus: (N,C) float32 codes, as ``Schedule.stimulus``.
        action: (N,A) int64 the action channel that takes the place of each.
    """

    stimulus: npt.NDArray[np.float32]
    action: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Task:
    """One task a twin can do.

    Attributes:
        name: key in ``TASKS``.
        flag: value of the last input through the whole run.
        action_names: meaning of the three action channels.
        contrasts: contrast name -> condition name -> coefficient.
        make_schedule: seed -> Schedule.
        vary: draws another run that asks the same of a person, see :class:`Variation`.
    """

    name: str
    flag: float
    action_names: tuple[str, str, str]
    contrasts: Mapping[str, Mapping[str, float]]
    make_schedule: Callable[[int], Schedule]
    vary: Callable[[Schedule, np.random.Generator], Variation]

    def encode(self, schedule: Schedule, dt_s: float) -> npt.NDArray[np.float32]:
        """(T,9) float32 inputs of the main RNN, T = ``schedule.n_steps(dt_s)``.

        A stimulus or cue that comes on at ``t`` seconds is on from step
        ``ceil(t / dt_s) + 1`` for ``round(duration / dt_s)`` steps (at least one): the same
        number of steps wherever the onset falls between two steps. The added step is the shift
        by one (a zero row first, the last row dropped) of the authors' published code, so the
        output at a step has seen the stimulus up to the step before. The flag is on everywhere.

        Raises:
            DTwinInputError: a schedule of another task or with other than 8 codes
                (code ``schedule``).
        """
        if schedule.task != self.name or schedule.stimulus.shape[1] != N_SENSORY:
            raise DTwinInputError(
                "schedule",
                f"this schedule is not one of the task {self.name}",
                field="schedule",
                wanted=f"task {self.name} with {N_SENSORY} codes",
                got=f"task {schedule.task} with {schedule.stimulus.shape[1]} codes",
                fix=f"Make it with TASKS[{self.name!r}].make_schedule()",
            )
        inputs = np.zeros((schedule.n_steps(dt_s), N_INPUTS), np.float32)
        _show(inputs, schedule.cue, schedule.cue_onset_s, schedule.cue_duration_s, dt_s)
        _show(inputs, schedule.stimulus, schedule.onset_s, schedule.duration_s, dt_s)
        inputs[:, N_SENSORY] = self.flag
        return inputs


def _show(
    inputs: npt.NDArray[np.float32],
    codes: npt.NDArray[np.float32],
    onset_s: Float64,
    duration_s: Float64,
    dt_s: float,
) -> None:
    start = first_step(onset_s, dt_s) + 1
    width = np.maximum(np.rint(duration_s / dt_s).astype(np.int64), 1)
    for code, first, n in zip(codes, start, width, strict=True):
        inputs[first : first + n, :N_SENSORY] += code
