"""What a person is like in a run, as a row of numbers that regressions can learn."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ...cohort import NO_RESPONSE, Cohort, TaskData
from ..contrasts import contrast_effects

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class RunTargets:
    """S people in one run whose trials have C conditions.

    Attributes:
        data: what was measured.
        conditions: C names.
        rt_s: (S,C) mean reaction time, seconds; NaN without a press.
        wrong, silent: (S,C) shares of trials with a wrong press and with none; NaN without a
            measured trial.
        n_trials: (S,C) measured trials.
        contrasts: (S,K,R) contrast effects, or None without BOLD.
    """

    data: TaskData
    conditions: tuple[str, ...]
    rt_s: Array
    wrong: Array
    silent: Array
    n_trials: Array
    contrasts: Array | None

    @cached_property
    def trial_condition(self) -> npt.NDArray[np.intp]:
        """(N,) position of each trial's condition in ``conditions``."""
        return np.array([self.conditions.index(c) for c in self.data.schedule.condition])

    def rows(self) -> Array:
        """(S,P) float64 all of them, flat; :meth:`parts` is the inverse."""
        parts = [self.rt_s, self.wrong, self.silent]
        if self.contrasts is not None:
            parts.append(self.contrasts.reshape(len(self.rt_s), -1))
        return np.concatenate(parts, axis=1, dtype=np.float64)

    def weights(self) -> Array:
        """(S,P) float64 number of trials behind each of :meth:`rows`; infinite for those that
        are no shares."""
        weights = np.full(self.rows().shape, np.inf)
        n = len(self.conditions)
        weights[:, n : 2 * n] = weights[:, 2 * n : 3 * n] = self.n_trials
        return weights

    def parts(self, rows: Array) -> tuple[Array, Array, Array, Array | None]:
        """(S,P) -> ``rt_s``, ``wrong``, ``silent`` and ``contrasts`` of these S people."""
        n = len(self.conditions)
        contrasts = None
        if self.contrasts is not None:
            contrasts = rows[:, 3 * n :].reshape(len(rows), *self.contrasts.shape[1:])
        return rows[:, :n], rows[:, n : 2 * n], rows[:, 2 * n : 3 * n], contrasts


def run_targets(cohort: Cohort, run: str) -> RunTargets:
    """The targets of one of the cohort's runs."""
    data = cohort.tasks[run]
    condition = np.array(data.schedule.condition)
    conditions = tuple(np.unique(condition).tolist())
    is_wrong = data.pressed & ~data.is_correct
    is_silent = data.choice == NO_RESPONSE
    rt_s, wrong, silent, n_trials = np.full((4, len(cohort), len(conditions)), np.nan)
    for c, name in enumerate(conditions):
        of = condition == name
        n_trials[:, c] = data.measured[:, of].sum(axis=1)
        with np.errstate(invalid="ignore"):  # 0/0 where there is no such trial
            wrong[:, c] = is_wrong[:, of].sum(axis=1) / n_trials[:, c]
            silent[:, c] = is_silent[:, of].sum(axis=1) / n_trials[:, c]
            rt_s[:, c] = _mean_rt(data, of)
    contrasts, _ = contrast_effects(cohort, run)
    return RunTargets(data, conditions, rt_s, wrong, silent, n_trials, contrasts)


def _mean_rt(data: TaskData, trials: npt.NDArray[np.bool_]) -> Array:
    pressed = data.pressed[:, trials]
    total = np.where(pressed, data.rt_s[:, trials], 0).sum(axis=1, dtype=np.float64)
    mean: Array = total / pressed.sum(axis=1)
    return mean


def mean_over_people(rows: Array) -> Array:
    """Means over the first axis without NaN; NaN where nobody has a number."""
    known = np.isfinite(rows)
    with np.errstate(invalid="ignore"):
        mean: Array = np.where(known, rows, 0).sum(axis=0, dtype=np.float64) / known.sum(axis=0)
    return mean
