"""What a twin predicts, with the tables that name its axes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .errors import DTwinInputError, MissingExtraError
from .spec import Head
from .tasks.schedule import Schedule

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True, eq=False)
class Prediction:
    """Predicted choices, reaction times and BOLD of S subjects.

    Trials of all tasks follow one another on the trial axis (N in all), volumes of all
    tasks on the volume axis (V in all), in the order of ``schedules``.

    Attributes:
        subjects: S ids.
        schedules: task name -> its trials.
        head: how the actions were read, see ``TwinSpec.head``.
        choice_prob: (S,N,actions) float32 probability of each action. With the head
            ``hazard`` the rest to 1 is no response; with ``sigmoid`` they are shares that
            add up to 1.
        rt_s: (S,N) float32 mean reaction time in seconds, given a response.
        bold: (S,V,regions) float32 BOLD at TR, in SDs of the training cohort's demeaned
            runs, or None when not asked for.
        contrasts: (S,K,regions) float32 GLM contrast effects of the predicted BOLD.
        contrast_names: K names, e.g. ``faces>shapes``.
        bold_regions: names of the BOLD regions.
        tr_s: repetition time in seconds.
        diverged: (S,) bool, True where the rollout left the finite numbers.
        flags: per subject, what was done to the input (missing regions, clipping ...).
        rejected: input errors of subjects that were left out.
        provenance: model sha256, versions, backend, ISA, precision, input digest, policy.
    """

    subjects: tuple[str, ...]
    schedules: dict[str, Schedule]
    head: Head
    choice_prob: npt.NDArray[np.float32]
    rt_s: npt.NDArray[np.float32]
    bold: npt.NDArray[np.float32] | None
    contrasts: npt.NDArray[np.float32]
    contrast_names: tuple[str, ...]
    bold_regions: tuple[str, ...]
    tr_s: float
    diverged: npt.NDArray[np.bool_]
    flags: tuple[tuple[str, ...], ...]
    rejected: tuple[DTwinInputError, ...]
    provenance: dict[str, Any]

    @property
    def choice(self) -> npt.NDArray[np.int8]:
        """(S,N) most probable action; -1 where the probabilities are NaN (diverged)."""
        unknown = np.isnan(self.choice_prob).any(axis=2)
        return np.where(unknown, -1, self.choice_prob.argmax(axis=2)).astype(np.int8)

    @property
    def no_response_prob(self) -> npt.NDArray[np.float32]:
        """(S,N) probability of no response within the window.

        NaN with the head ``sigmoid``, which says nothing about it: its probabilities are
        shares of the actions alone.
        """
        if self.head == "sigmoid":
            return np.full_like(self.rt_s, np.nan)
        rest: npt.NDArray[np.float32] = np.clip(1 - self.choice_prob.sum(axis=2), 0, 1)
        return rest

    def trial_slice(self, task: str) -> slice:
        """Where a task's trials lie on the trial axis (code ``task`` when it did not run)."""
        return self._slice(task, lambda schedule: schedule.n_trials)

    def volume_slice(self, task: str) -> slice:
        """Where a task's volumes lie on the volume axis (code ``task`` when it did not run)."""
        return self._slice(task, lambda schedule: schedule.n_volumes(self.tr_s))

    def _slice(self, task: str, count: Callable[[Schedule], int]) -> slice:
        start = 0
        for name, schedule in self.schedules.items():
            stop = start + count(schedule)
            if name == task:
                return slice(start, stop)
            start = stop
        raise DTwinInputError(
            "task",
            "this prediction does not hold the task",
            field="task",
            wanted=" | ".join(self.schedules),
            got=repr(task),
            fix="Name a task that was run",
        )

    def to_xarray(self) -> xarray.Dataset:
        """Labelled dataset with dims subject, trial, action, volume, region, contrast.

        Raises:
            MissingExtraError: xarray is not installed.
        """
        try:
            import xarray
        except ImportError as error:
            raise MissingExtraError("xarray", "xarray", "Prediction.to_xarray") from error
        schedules = self.schedules.values()
        n_actions = self.choice_prob.shape[2]
        variables: dict[str, Any] = {
            "choice_prob": (("subject", "trial", "action"), self.choice_prob),
            "rt": (("subject", "trial"), self.rt_s, {"units": "s"}),
            "contrasts": (("subject", "contrast", "region"), self.contrasts),
            "diverged": (("subject",), self.diverged),
        }
        coords: dict[str, Any] = {
            "subject": list(self.subjects),
            "action": np.arange(n_actions),
            "contrast": list(self.contrast_names),
            "region": list(self.bold_regions),
            "task": ("trial", [s.task for s in schedules for _ in range(s.n_trials)]),
            "condition": ("trial", [c for s in schedules for c in s.condition]),
            "onset": ("trial", np.concatenate([s.onset_s for s in schedules]), {"units": "s"}),
        }
        if self.bold is not None:
            volumes = [(s, np.arange(s.n_volumes(self.tr_s)) * self.tr_s) for s in schedules]
            variables["bold"] = (
                ("subject", "volume", "region"),
                self.bold,
                {"units": "SD of the training cohort"},
            )
            coords["volume_task"] = ("volume", [s.task for s, times in volumes for _ in times])
            coords["time"] = (
                "volume",
                np.concatenate([times for _, times in volumes]),
                {"units": "s"},
            )
        return xarray.Dataset(variables, coords, {k: str(v) for k, v in self.provenance.items()})
