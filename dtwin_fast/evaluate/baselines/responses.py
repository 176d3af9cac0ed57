"""From a row of targets to what a person does and shows in every trial of a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...spec import DT_S, N_ACTIONS
from ...tasks.schedule import Schedule
from ..predicted import Predicted
from .targets import RunTargets, mean_over_people

Array = npt.NDArray[Any]

LEAST_SHARE = 1e-3
"""No outcome of a trial is less likely."""
LAPSES = 0.02
"""Share of presses at any time of the window, so that no time is impossible."""
SHORTEST_S = 0.05
"""No mean reaction time is shorter."""

_N_QUANTILES = 201


class Responses:
    """Translates target rows of a run, as :meth:`RunTargets.rows` has them, into predictions.

    Learnt from the training people: the effect of each trial (mean over people of the reaction
    time less the person's mean in its condition), that of each stimulus for trials that nobody
    was seen in, and the spread of reaction times about ``expected_s``, as ratios.

    Args:
        targets: the training people in this run.
        expected_s: (S,C) the reaction time that the spread is about.
        with_items: add the trial's or the stimulus's effect.
    """

    def __init__(self, targets: RunTargets, expected_s: Array, *, with_items: bool) -> None:
        self._targets = targets
        data, of = targets.data, targets.trial_condition
        rest = np.where(data.pressed, data.rt_s - targets.rt_s[:, of], np.nan)
        self._trial_effect = mean_over_people(rest) if with_items else np.zeros(rest.shape[1])
        self._item_effect: dict[int, float] = {}
        for item in np.unique(data.schedule.item):
            seen = rest[:, data.schedule.item == item]
            if with_items and np.isfinite(seen).any():
                self._item_effect[int(item)] = float(np.nanmean(seen))
        ratios = (data.rt_s / expected_s[:, of])[data.pressed]
        ratios = ratios[np.isfinite(ratios)]
        self._shares = np.linspace(0, 1, _N_QUANTILES)
        # Nobody pressed: only the lapses are left.
        self._ratios = np.quantile(ratios if len(ratios) else [np.inf], self._shares)

    def predicted(self, schedule: Schedule, rows: Array) -> Predicted:
        """What (S,P) rows of targets mean in the trials of a run; NaN rows stay NaN."""
        rt_s, wrong, silent, contrasts = self._targets.parts(rows)
        known = {name: c for c, name in enumerate(self._targets.conditions)}
        # A condition that training lacks (flagged by the split) has no prediction.
        of = np.array([known.get(name, len(known)) for name in schedule.condition])
        rt_s, wrong, silent = (_with_nan(part)[:, of] for part in (rt_s, wrong, silent))
        rt_s = np.maximum(rt_s + self._effects(schedule), SHORTEST_S)
        choice_prob = _choice_prob(schedule, wrong, silent)
        press_prob = self._timing(schedule, rt_s)[..., None] * choice_prob[:, :, None]
        return Predicted(
            choice_prob=choice_prob,
            rt_s=rt_s.astype(np.float32),
            press_prob=press_prob,
            step_s=DT_S,
            contrasts=None if contrasts is None else contrasts.astype(np.float32),
        )

    def _effects(self, schedule: Schedule) -> Array:
        """(N,) seconds."""
        by_item = np.array([self._item_effect.get(int(item), 0.0) for item in schedule.item])
        if not same_trials(schedule, self._targets.data.schedule):
            return by_item
        return np.where(np.isfinite(self._trial_effect), self._trial_effect, by_item)

    def _timing(self, schedule: Schedule, rt_s: Array) -> npt.NDArray[np.float32]:
        """(S,N,L) probability of each step given a press."""
        n_steps = int(np.ceil(schedule.window_s.max() / DT_S - 1e-6))
        edges_s = np.minimum(DT_S * np.arange(n_steps + 1), schedule.window_s[:, None])
        upto = np.interp(edges_s / rt_s[..., None], self._ratios, self._shares)
        steps = np.diff(upto, axis=2)
        with np.errstate(invalid="ignore"):  # NaN for people of whom nothing is said
            steps /= steps.sum(axis=2, keepdims=True)
        steps = np.nan_to_num(steps, nan=0.0) * (1 - LAPSES)
        steps += LAPSES * np.diff(edges_s, axis=1) / schedule.window_s[:, None]
        steps /= steps.sum(axis=2, keepdims=True)
        steps[np.isnan(rt_s)] = np.nan
        return np.asarray(steps, np.float32)


def same_trials(one: Schedule, other: Schedule) -> bool:
    """Whether two runs show the same stimuli at the same times."""
    return (
        one.n_trials == other.n_trials
        and one.condition == other.condition
        and np.array_equal(one.onset_s, other.onset_s)
        and np.array_equal(one.item, other.item)
        and np.array_equal(one.correct, other.correct)
    )


def _choice_prob(schedule: Schedule, wrong: Array, silent: Array) -> npt.NDArray[np.float32]:
    """(S,N,A) the wrong presses spread evenly over the actions that are correct somewhere."""
    wrong, silent = np.maximum(wrong, LEAST_SHARE), np.maximum(silent, LEAST_SHARE)
    most = 1 - LEAST_SHARE
    scale = most / np.maximum(wrong + silent, most)
    wrong, silent = wrong * scale, silent * scale
    used = np.isin(np.arange(N_ACTIONS), schedule.correct)
    prob = (wrong / max(int(used.sum()) - 1, 1))[..., None] * used
    trials = np.arange(schedule.n_trials)
    prob[:, trials, schedule.correct] = 1 - wrong - silent
    return np.asarray(prob, np.float32)


def _with_nan(part: Array) -> Array:
    """(S,C) -> (S,C+1), the last column unknown."""
    return np.concatenate([part, np.full((len(part), 1), np.nan)], axis=1)
