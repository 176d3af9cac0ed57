"""A cohort: connectomes with the behaviour and BOLD of the same people."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from .connectome import Connectomes
from .errors import DTwinInputError
from .spec import N_ACTIONS
from .tasks.schedule import Schedule

NO_RESPONSE, NOT_MEASURED, WRONG_BUTTON = -1, -2, -3
"""Codes of ``TaskData.choice`` beside the actions. ``WRONG_BUTTON``: pressed, and not the correct
one, but which is not known (the TCP releases no button of its Stroop errors)."""


@dataclass(frozen=True, eq=False)
class TaskData:
    """What S people did in one run of a task of N trials and V volumes.

    Attributes:
        schedule: the trials, the same for everyone.
        choice: (S,N) int8 action channel pressed, or ``NO_RESPONSE``, ``NOT_MEASURED``,
            ``WRONG_BUTTON``.
        rt_s: (S,N) float32 seconds from trial onset; NaN where nothing was pressed or measured.
        bold: (S,V,regions) float32 at TR in ``Cohort.bold_regions`` order, NaN where it was not
            measured (people without the run, volumes after a run broken off, regions without
            signal), or None.

    Raises:
        DTwinInputError: other shapes or dtypes, actions that do not exist, reaction times
            without a press or presses without one, infinite numbers (code ``cohort``).
    """

    schedule: Schedule
    choice: npt.NDArray[np.int8]
    rt_s: npt.NDArray[np.float32]
    bold: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.schedule, Schedule):
            raise _mismatch("schedule", "a Schedule", _describe(self.schedule))
        n_trials = self.schedule.n_trials
        _check_array("choice", self.choice, np.int8, (None, n_trials))
        _check_array("rt_s", self.rt_s, np.float32, (len(self.choice), n_trials))
        if ((self.choice < WRONG_BUTTON) | (self.choice >= N_ACTIONS)).any():
            raise _mismatch("choice", f"{WRONG_BUTTON} to {N_ACTIONS - 1}", "other numbers")
        if not np.array_equal(self.pressed, ~np.isnan(self.rt_s)) or np.isinf(self.rt_s).any():
            raise _mismatch("rt_s", "seconds, NaN exactly where nobody pressed", "something else")
        if self.bold is not None:
            _check_array("bold", self.bold, np.float32, (len(self.choice), None, None))
            if np.isinf(self.bold).any():
                raise _mismatch("bold", "numbers, NaN where not measured", "infinity")

    @property
    def pressed(self) -> npt.NDArray[np.bool_]:
        """(S,N) whether a button was pressed."""
        pressed: npt.NDArray[np.bool_] = (self.choice >= 0) | (self.choice == WRONG_BUTTON)
        return pressed

    @property
    def measured(self) -> npt.NDArray[np.bool_]:
        """(S,N) whether the trial was."""
        measured: npt.NDArray[np.bool_] = self.choice != NOT_MEASURED
        return measured

    @property
    def is_correct(self) -> npt.NDArray[np.bool_]:
        """(S,N) whether the correct button was pressed; no response is not correct."""
        correct: npt.NDArray[np.bool_] = self.choice == self.schedule.correct
        return correct

    def select(self, subjects: Sequence[int] | npt.NDArray[Any]) -> TaskData:
        """The data of some subjects."""
        bold = None if self.bold is None else self.bold[subjects]
        return TaskData(self.schedule, self.choice[subjects], self.rt_s[subjects], bold)


@dataclass(frozen=True, eq=False)
class Cohort:
    """People with connectomes and task data, subject by subject in the same order.

    Attributes:
        connectomes: S connectomes.
        tasks: task -> data of the same S people. A second run of a task is one more entry,
            ``stroop_run-2``.
        bold_regions: names of the BOLD columns.
        tr_s: repetition time of the BOLD series, seconds.
        participants: columns such as ``age_years`` (S,), ``site`` (S,), ``mean_fd_mm`` (S,).

    Raises:
        DTwinInputError: parts that do not fit together (code ``cohort``).
    """

    connectomes: Connectomes
    tasks: dict[str, TaskData]
    bold_regions: tuple[str, ...]
    tr_s: float
    participants: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, part, kind in (
            ("connectomes", self.connectomes, Connectomes),
            ("tasks", self.tasks, dict),
            ("bold_regions", self.bold_regions, tuple),
            ("participants", self.participants, dict),
        ):
            if not isinstance(part, kind):
                raise _mismatch(name, f"a {kind.__name__}", _describe(part))
        n_subjects = len(self.connectomes)
        if not isinstance(self.tr_s, Real) or not 0 < self.tr_s < math.inf:
            raise _mismatch("tr_s", "positive seconds", repr(self.tr_s))
        for name, data in self.tasks.items():
            if not isinstance(data, TaskData):
                raise _mismatch(f"tasks[{name!r}]", "a TaskData", _describe(data))
            if not is_run_of(name, data.schedule.task):
                raise _mismatch(
                    f"tasks[{name!r}]",
                    "a schedule of the task, under its name or TASK_run-N",
                    data.schedule.task,
                )
            if len(data.choice) != n_subjects:
                raise _mismatch(f"tasks[{name!r}]", f"{n_subjects} subjects", len(data.choice))
            if data.bold is not None:
                self._check_bold(name, data.schedule, data.bold.shape)
        for name, column in self.participants.items():
            if not isinstance(column, np.ndarray) or column.shape != (n_subjects,):
                raise _mismatch(
                    f"participants[{name!r}]", f"array ({n_subjects},)", _describe(column)
                )

    def _check_bold(self, task: str, schedule: Schedule, shape: tuple[int, ...]) -> None:
        n_volumes = schedule.n_volumes(self.tr_s)
        if shape[1] < n_volumes or shape[2] != len(self.bold_regions):
            raise _mismatch(
                f"tasks[{task!r}].bold",
                f"at least {n_volumes} volumes of {len(self.bold_regions)} regions",
                f"{shape[1]} volumes of {shape[2]} regions",
            )

    def __len__(self) -> int:
        return len(self.connectomes)

    @property
    def measured_bold_regions(self) -> tuple[str, ...]:
        """``bold_regions``, or none when no task has BOLD."""
        has_bold = any(data.bold is not None for data in self.tasks.values())
        return self.bold_regions if has_bold else ()

    def select(self, subjects: Sequence[int] | npt.NDArray[Any]) -> Cohort:
        """The cohort of some subjects."""
        index = np.asarray(subjects)
        if index.size == 0:
            index = index.astype(np.intp)
        return Cohort(
            self.connectomes.select(index),
            {name: data.select(index) for name, data in self.tasks.items()},
            self.bold_regions,
            self.tr_s,
            {name: column[index] for name, column in self.participants.items()},
        )


def is_run_of(name: str, task: str) -> bool:
    """Whether an entry of ``Cohort.tasks`` may hold a run of this task."""
    return name == task or re.fullmatch(re.escape(task) + "_run-[1-9][0-9]*", name) is not None


def _check_array(
    name: str, array: npt.NDArray[Any], dtype: type, shape: tuple[int | None, ...]
) -> None:
    fits = (
        isinstance(array, np.ndarray)
        and array.dtype == dtype
        and array.ndim == len(shape)
        and all(want in (None, got) for want, got in zip(shape, array.shape, strict=True))
    )
    if not fits:
        sizes = ", ".join("any" if size is None else str(size) for size in shape)
        raise _mismatch(name, f"{np.dtype(dtype)} array ({sizes})", _describe(array))


def _describe(part: object) -> str:
    if isinstance(part, np.ndarray):
        return f"{part.dtype} array {part.shape}"
    return type(part).__name__


def _mismatch(field_name: str, wanted: object, got: object) -> DTwinInputError:
    return DTwinInputError(
        "cohort",
        "the parts of the cohort do not fit together",
        field=field_name,
        wanted=str(wanted),
        got=str(got),
        fix="Give every part the same subjects in the same order, as numpy arrays",
    )
