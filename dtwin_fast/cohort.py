"""A cohort: connectomes with the behaviour and BOLD of the same people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .connectome import Connectomes
from .errors import DTwinInputError
from .tasks.schedule import Schedule


@dataclass(frozen=True, eq=False)
class TaskData:
    """What S people did in one run of a task of N trials and V volumes.

    Attributes:
        schedule: the trials, the same for everyone.
        choice: (S,N) int8 action channel pressed; -1 = no response.
        rt_s: (S,N) float32 seconds from trial onset; NaN = no response.
        bold: (S,V,regions) float32 at TR in ``Cohort.bold_regions`` order, or None.
    """

    schedule: Schedule
    choice: npt.NDArray[np.int8]
    rt_s: npt.NDArray[np.float32]
    bold: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        trials = (len(self.choice), self.schedule.n_trials)
        for name in ("choice", "rt_s"):
            if getattr(self, name).shape != trials:
                raise _mismatch(name, trials, getattr(self, name).shape)
        if not np.array_equal(self.choice < 0, np.isnan(self.rt_s)):
            raise _mismatch("rt_s", "NaN exactly where choice is -1", "something else")
        if self.bold is not None and (self.bold.ndim != 3 or len(self.bold) != len(self.choice)):
            raise _mismatch("bold", f"({len(self.choice)}, volumes, regions)", self.bold.shape)

    def select(self, subjects: Sequence[int] | npt.NDArray[Any]) -> TaskData:
        """The data of some subjects."""
        bold = None if self.bold is None else self.bold[subjects]
        return TaskData(self.schedule, self.choice[subjects], self.rt_s[subjects], bold)


@dataclass(frozen=True, eq=False)
class Cohort:
    """People with connectomes and task data, subject by subject in the same order.

    Attributes:
        connectomes: S connectomes.
        tasks: task name -> data of the same S people.
        bold_regions: names of the BOLD columns.
        tr_s: repetition time of the BOLD series, seconds.
        participants: columns such as ``age_years`` (S,), ``site`` (S,), ``mean_fd_mm`` (S,).

    Raises:
        DTwinInputError: parts of different length (code ``cohort``).
    """

    connectomes: Connectomes
    tasks: dict[str, TaskData]
    bold_regions: tuple[str, ...]
    tr_s: float
    participants: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n_subjects = len(self.connectomes)
        for name, data in self.tasks.items():
            if len(data.choice) != n_subjects:
                raise _mismatch(f"tasks[{name!r}]", f"{n_subjects} subjects", len(data.choice))
            if data.bold is not None and data.bold.shape[2] != len(self.bold_regions):
                raise _mismatch(
                    f"tasks[{name!r}].bold",
                    f"{len(self.bold_regions)} regions",
                    data.bold.shape[2],
                )
        for name, column in self.participants.items():
            if len(column) != n_subjects:
                raise _mismatch(f"participants[{name!r}]", f"{n_subjects} rows", len(column))

    def __len__(self) -> int:
        return len(self.connectomes)

    def select(self, subjects: Sequence[int] | npt.NDArray[Any]) -> Cohort:
        """The cohort of some subjects."""
        index = np.asarray(subjects)
        return Cohort(
            self.connectomes.select(index),
            {name: data.select(index) for name, data in self.tasks.items()},
            self.bold_regions,
            self.tr_s,
            {name: column[index] for name, column in self.participants.items()},
        )


def _mismatch(field_name: str, wanted: object, got: object) -> DTwinInputError:
    return DTwinInputError(
        "cohort",
        "the parts of the cohort do not fit together",
        field=field_name,
        wanted=str(wanted),
        got=str(got),
        fix="Give every part the same subjects in the same order",
    )
