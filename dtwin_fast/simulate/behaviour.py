"""Choices and reaction times: the drift-diffusion model with lapses and misses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..tasks import Schedule
from .diffusion import respond
from .traits import Responders

Float64 = npt.NDArray[np.float64]

N_ACTIONS = {"faces": 2, "stroop": 3}
ITEM_SD_S = {"faces": 0.085, "stroop": 0.06}
"""SD over trials of what a trial adds to everyone's reaction time, seconds."""

_DRIFT_SD = 0.30
_NONDECISION_CV = 0.12
_LAPSE_RT_S = (0.25, 1.75)
_MIN_RT_S = 0.15
_WORD_INTRUSION = 0.75
"""Share of wrong responses to an incongruent stimulus that name the word (I)."""


@dataclass(frozen=True, eq=False)
class TrialDraws:
    """Random numbers of S people in N trials, drawn whether a trial needs them or not.

    Kept, they make a change of the parameters act alone (common random numbers).

    Attributes:
        normal: (S,N,2) standard normal: drift, non-decision time.
        uniform: (S,N,6) in (0,1): choice, decision time, lapse, its time, miss, which button.
    """

    normal: Float64
    uniform: Float64


def behave(
    schedule: Schedule, people: Responders, item_effect_s: Float64, draws: TrialDraws
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Choice (S,N) int8, -1 where there is none, and rt_s (S,N) float32, NaN where there is none.

    Args:
        schedule: the run.
        people: parameters of the S people in it.
        item_effect_s: (N,) seconds each trial adds to everyone's reaction time.
        draws: the random numbers of the run.
    """
    u_choice, u_time, u_lapse, u_lapse_rt, u_miss, u_which = np.moveaxis(draws.uniform, -1, 0)

    def by_trial(values: Mapping[str, Float64]) -> Float64:
        return np.stack([values[c] for c in schedule.condition], axis=1)

    drift = by_trial(people.drift) + _DRIFT_SD * draws.normal[..., 0]
    is_correct, decision_s = respond(drift, by_trial(people.boundary), u_choice, u_time)
    jitter = 1 + _NONDECISION_CV * draws.normal[..., 1]
    progress = np.linspace(-0.5, 0.5, schedule.n_trials)
    rt_s = by_trial(people.nondecision_s) * jitter + decision_s + item_effect_s
    rt_s = np.maximum(rt_s + people.slope_s[:, None] * progress, _MIN_RT_S)
    lapses = u_lapse < people.lapse[:, None]
    rt_s = np.where(lapses, _LAPSE_RT_S[0] + np.ptp(_LAPSE_RT_S) * u_lapse_rt, rt_s)

    guesses = lapses | people.disengaged[:, None]
    choice = np.where(is_correct, schedule.correct, _wrong_choice(schedule, u_which))
    guess = (u_which * N_ACTIONS[schedule.task]).astype(np.int64)
    choice = np.where(guesses, guess, choice)
    missed = (u_miss < people.no_response[:, None]) | (rt_s > schedule.window_s)
    return (
        np.where(missed, -1, choice).astype(np.int8),
        np.where(missed, np.nan, rt_s).astype(np.float32),
    )


def _wrong_choice(schedule: Schedule, u_which: Float64) -> npt.NDArray[np.int64]:
    if schedule.task == "faces":
        return np.broadcast_to(1 - schedule.correct, u_which.shape)
    # The word's colour and the third colour; a congruent word is no wrong answer.
    word = schedule.stimulus[:, 3:6].argmax(axis=1)
    one = np.where(word == schedule.correct, (schedule.correct + 1) % 3, word)
    share = np.where(word == schedule.correct, 0.5, _WORD_INTRUSION)
    return np.where(u_which < share, one, 3 - schedule.correct - one)
