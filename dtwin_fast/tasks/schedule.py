"""What happens when in one run of a task: trials, cues and response windows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DTwinInputError

# 8.24 / 0.08 is 103.00000000000001 in binary: a time this many steps above a step is on it.
_ON_GRID = 1e-6
_MAX_RUN_S = 86_400.0
_MAX_TRIALS = 100_000

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Schedule:
    """The N trials and the cues of one run, the same for everyone who does it.

    Attributes:
        task: key of ``dtwin_fast.tasks.TASKS``.
        run_s: length of the run, seconds.
        onset_s: (N,) float64 stimulus onsets from the start of the run, ascending.
        duration_s: (N,) float64 how long the stimulus stays on, seconds.
        window_s: (N,) float64 length of the response window from the onset, seconds.
        condition: N condition names, the ones the task's contrasts use.
        correct: (N,) int64 action channel of the correct response.
        stimulus: (N,C) float32 codes on the C sensory inputs while the stimulus is on.
        item: (N,) int64 number of the stimulus; equal numbers are equal stimuli.
        cue_onset_s, cue_duration_s: (cues,) float64 seconds; cues need no response.
        cue: (cues,C) float32 codes on the sensory inputs while the cue is on.

    Raises:
        DTwinInputError: parts of different length, or times outside the run
            (code ``schedule``).
    """

    task: str
    run_s: float
    onset_s: Float64
    duration_s: Float64
    window_s: Float64
    condition: tuple[str, ...]
    correct: npt.NDArray[np.int64]
    stimulus: npt.NDArray[np.float32]
    item: npt.NDArray[np.int64]
    cue_onset_s: Float64
    cue_duration_s: Float64
    cue: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        for name, kind, ndim in _ARRAYS:
            array = getattr(self, name)
            if not isinstance(array, np.ndarray) or array.dtype != kind or array.ndim != ndim:
                raise _error(name, f"a {ndim}-D {np.dtype(kind)} array", _kind_of(array))
            if not np.isfinite(array).all():
                raise _error(name, "finite numbers", "NaN or infinity")
        if not 0 < self.run_s <= _MAX_RUN_S:
            raise _error("run_s", f"seconds in (0, {_MAX_RUN_S:g}]", self.run_s)
        if not 1 <= len(self.onset_s) <= _MAX_TRIALS:
            raise _error("onset_s", f"1 to {_MAX_TRIALS} trials", len(self.onset_s))
        for name in ("duration_s", "window_s", "condition", "correct", "stimulus", "item"):
            if len(getattr(self, name)) != len(self.onset_s):
                raise _error(name, f"{len(self.onset_s)} trials", len(getattr(self, name)))
        for name in ("cue_duration_s", "cue"):
            if len(getattr(self, name)) != len(self.cue_onset_s):
                raise _error(name, f"{len(self.cue_onset_s)} cues", len(getattr(self, name)))
        if self.stimulus.shape[1] != self.cue.shape[1]:
            raise _error("cue", f"{self.stimulus.shape[1]} codes", self.cue.shape[1])
        if not (np.diff(self.onset_s) > 0).all():
            raise _error("onset_s", "ascending onsets", "a trial that starts before the last")
        if (self.correct < 0).any() or (self.item < 0).any():
            raise _error("correct, item", "numbers from 0", "a negative number")
        for onset, length in (
            ("onset_s", "duration_s"),
            ("onset_s", "window_s"),
            ("cue_onset_s", "cue_duration_s"),
        ):
            start, span = getattr(self, onset), getattr(self, length)
            # A window may end with the run, and 389.75 + 8.25 may come out a bit above 398.
            if (start < 0).any() or (span <= 0).any() or (start + span > self.run_s + 1e-9).any():
                raise _error(length, "positive seconds that end within the run", "others")

    @property
    def n_trials(self) -> int:
        """N."""
        return len(self.onset_s)

    def n_steps(self, dt_s: float) -> int:
        """Steps T of ``dt_s`` seconds in the run, rounded to the nearest."""
        return round(self.run_s / _positive("dt_s", dt_s))

    def n_volumes(self, tr_s: float) -> int:
        """Volumes V of ``tr_s`` seconds in the run, rounded to the nearest."""
        return round(self.run_s / _positive("tr_s", tr_s))

    def volume_steps(self, tr_s: float, dt_s: float) -> npt.NDArray[np.int64]:
        """(V,) int64 the step at which each volume starts, rounded to the nearest."""
        start_s = tr_s * np.arange(self.n_volumes(tr_s))
        step: npt.NDArray[np.int64] = np.rint(start_s / dt_s).astype(np.int64)
        np.minimum(step, self.n_steps(dt_s) - 1, out=step)
        return step

    def response_windows(self, dt_s: float) -> npt.NDArray[np.int64]:
        """(N,2) int64 steps [start, stop) in which the response to each trial can fall.

        A response at ``t`` seconds of the run lies in step ``floor(t / dt_s)``. Both ends are
        the first step that begins at or after the time in question, so a response earlier than
        the end of the window is inside it, and windows that follow one another share no step.
        """
        start = first_step(self.onset_s, dt_s)
        stop = np.minimum(first_step(self.onset_s + self.window_s, dt_s), self.n_steps(dt_s))
        return np.stack([start, np.maximum(stop, start + 1)], axis=1)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form, the exact inverse of :meth:`from_dict`."""
        arrays = {name: getattr(self, name).tolist() for name, _, _ in _ARRAYS}
        # JSON has no shape for an empty (0,C) array.
        return {
            "task": self.task,
            "run_s": self.run_s,
            "n_codes": self.stimulus.shape[1],
            "condition": list(self.condition),
            **arrays,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Schedule:
        """Build from the JSON form.

        Raises:
            DTwinInputError: an unknown, missing or ill-typed field (code ``schedule``).
        """
        wanted = {f.name for f in fields(cls)} | {"n_codes"}
        if set(values) != wanted:
            raise _error("schedule", f"the fields {sorted(wanted)}", sorted(map(str, values)))
        if not isinstance(values["task"], str):
            raise _error("task", "a name", values["task"])
        if type(values["run_s"]) not in (int, float):
            raise _error("run_s", "seconds", values["run_s"])
        if type(values["n_codes"]) is not int or not 1 <= values["n_codes"] <= 1000:
            raise _error("n_codes", "an integer from 1 to 1000", values["n_codes"])
        condition = values["condition"]
        if not isinstance(condition, list) or not all(isinstance(c, str) for c in condition):
            raise _error("condition", "a list of names", _kind_of(condition))
        arrays = {
            name: _array(name, values[name], kind, (values["n_codes"],) * (ndim - 1))
            for name, kind, ndim in _ARRAYS
        }
        return cls(
            task=values["task"],
            run_s=float(values["run_s"]),
            condition=tuple(condition),
            **arrays,
        )


_ARRAYS: tuple[tuple[str, type, int], ...] = (
    ("onset_s", np.float64, 1),
    ("duration_s", np.float64, 1),
    ("window_s", np.float64, 1),
    ("correct", np.int64, 1),
    ("stimulus", np.float32, 2),
    ("item", np.int64, 1),
    ("cue_onset_s", np.float64, 1),
    ("cue_duration_s", np.float64, 1),
    ("cue", np.float32, 2),
)


def first_step(time_s: Float64, dt_s: float) -> npt.NDArray[np.int64]:
    """The first step that begins at or after each time; step k spans [k, k+1) x ``dt_s``."""
    return np.ceil(time_s / _positive("dt_s", dt_s) - _ON_GRID).astype(np.int64)


def _array(name: str, values: Any, kind: type, row: tuple[int, ...]) -> npt.NDArray[Any]:
    if not isinstance(values, list) or len(values) > _MAX_TRIALS:
        raise _error(name, f"a list of at most {_MAX_TRIALS} entries", _kind_of(values))
    numbers = (int,) if kind is np.int64 else (int, float)
    for entry in values:
        cells = entry if row else [entry]
        if not isinstance(cells, list) or (row and len(cells) != row[0]):
            raise _error(name, f"rows of {row[0]} numbers", repr(entry)[:60])
        if not all(type(cell) in numbers and _fits(cell, kind) for cell in cells):
            raise _error(name, f"{np.dtype(kind)} numbers", repr(entry)[:60])
    return np.array(values, dtype=kind).reshape(len(values), *row)


def _fits(number: float, kind: type) -> bool:
    if kind is np.int64:
        return abs(number) < 2**63
    return math.isfinite(number) and abs(number) <= float(np.finfo(kind).max)


def _positive(name: str, seconds: float) -> float:
    if not 0 < seconds < math.inf:
        raise _error(name, "positive seconds", seconds)
    return seconds


def _kind_of(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.ndim}-D {value.dtype}"
    return type(value).__name__


def _error(field: str, wanted: str, got: object) -> DTwinInputError:
    return DTwinInputError(
        "schedule",
        "this schedule cannot be used",
        field=field,
        wanted=wanted,
        got=str(got),
        fix="Start from TASKS[name].make_schedule() or from a file that to_dict() wrote",
    )
