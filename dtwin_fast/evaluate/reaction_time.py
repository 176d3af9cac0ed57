"""Scores of predicted reaction times: S people, N trials, seconds from the onset.

Trials with a press count, correct or not; a person with a press that is not predicted cannot be
scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..cohort import NOT_MEASURED
from ..tasks import TASKS
from .observed import Observed
from .predicted import Predicted
from .statistics import ROUNDING, complete, correlation, mean_where, person_rows

Array = npt.NDArray[Any]

QUANTILES = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
FEWEST_PRESSES = 5
"""For a person's mean, and in either condition for a person's condition effect."""
PROBABILITY_FLOOR = 1e-4
"""No step is taken to be less likely, given a press."""

# A time of 0.24 s is in step 3 of 0.08 s, though 0.24 / 0.08 is 2.9999999999999996 in binary.
_ON_GRID = 1e-6


def person_means(predicted: Predicted, observed: Observed) -> Array:
    """(S,2) predicted and observed mean, seconds; NaN with fewer than ``FEWEST_PRESSES`` presses.

    The observed mean is over the trials in which the person pressed, the predicted one over all
    trials that any of these people was measured in. Were it over the person's presses too, it
    would tell people apart by the trials that they missed, and what says the same of everybody
    would correlate with the truth.
    """
    times = _times(predicted, observed)
    return person_rows(mean_where(times, _asked(times, observed)), observed_means(observed))


def observed_means(observed: Observed) -> Array:
    """(S,) the observed part of :func:`person_means`, seconds."""
    pressed = np.isfinite(observed.rt_s)
    enough = pressed.sum(axis=1) >= FEWEST_PRESSES
    return np.where(enough, mean_where(observed.rt_s, pressed), np.nan)


def person_deviations(predicted: Predicted, observed: Observed) -> Array:
    """(S,2) observed person mean minus the predicted one and minus the training group's."""
    mean = person_means(predicted, observed)
    return person_rows(mean[:, 1] - mean[:, 0], mean[:, 1] - observed.reference["rt_mean"])


def explained_share(rows: Array) -> float:
    """R2 = 1 - SSE / SST of two columns of deviations, about the prediction and the reference."""
    squares = (complete(rows) ** 2).sum(axis=0)
    return float(1 - squares[0] / squares[1]) if squares[1] > 0 else float("nan")


def absolute_errors(predicted: Predicted, observed: Observed) -> Array:
    """(S,1) distance of the predicted from the observed person mean, seconds."""
    mean = person_means(predicted, observed)
    return person_rows(np.abs(mean[:, 1] - mean[:, 0]))


def trial_moments(predicted: Predicted, observed: Observed) -> Array:
    """(S,6) number of presses, sums over them of predicted p and observed o, p^2, o^2, p o."""
    pressed = np.isfinite(observed.rt_s)
    p, o = _times(predicted, observed), observed.rt_s.astype(np.float64)
    sums = (np.where(pressed, part, 0).sum(axis=1) for part in (p, o, p * p, o * o, p * o))
    n = pressed.sum(axis=1)
    return person_rows(np.where(n > 0, n, np.nan), *sums)


def pooled_r(rows: Array) -> float:
    """r over all trials of all people from :func:`trial_moments`; a constant prediction has 0."""
    n, p, o, pp, oo, po = complete(rows).sum(axis=0)
    if n < 3:
        return float("nan")
    spread_p, spread_o = pp / n - (p / n) ** 2, oo / n - (o / n) ** 2
    if spread_o <= ROUNDING**2 * oo / n:
        return float("nan")
    if spread_p <= ROUNDING**2 * pp / n:
        return 0.0
    return float((po / n - p * o / n**2) / np.sqrt(spread_p * spread_o))


def within_person_z(predicted: Predicted, observed: Observed) -> Array:
    """(S,1) Fisher z of r over a person's trials, person and condition means removed.

    NaN for people with fewer than three presses beyond the conditions they have them in.
    """
    times = _times(predicted, observed)
    z = np.full(len(times), np.nan)
    for person, pressed in enumerate(np.isfinite(observed.rt_s)):
        names, cell = np.unique(observed.condition[person, pressed], return_inverse=True)
        if len(cell) - len(names) >= 3 and np.isfinite(times[person, pressed]).all():
            r = correlation(
                *(_within(rows[person, pressed], cell) for rows in (times, observed.rt_s))
            )
            z[person] = np.arctanh(np.clip(r, -1 + ROUNDING, 1 - ROUNDING))
    return person_rows(z)


def r_of_mean_z(rows: Array) -> float:
    """The correlation whose Fisher z is the mean over people."""
    z = complete(rows)[:, 0]
    return float(np.tanh(z.mean())) if len(z) else float("nan")


def condition_effects(predicted: Predicted, observed: Observed) -> Array:
    """(S,2) predicted and observed difference of the mean RT between the task's conditions.

    Incongruent minus congruent, faces minus shapes: the signs are those of the first contrast
    in ``TASKS`` whose conditions the run has. NaN for a run without, and for people with fewer
    than ``FEWEST_PRESSES`` in a condition.

    Either mean is over the trials that :func:`person_means` counts, for the same reason: items
    differ, so a mean over the person's presses would give whoever missed others another effect.
    """
    more, less = effect_trials(observed)
    times = _times(predicted, observed)
    asked = _asked(times, observed)
    said = mean_where(times, asked & more) - mean_where(times, asked & less)
    return person_rows(said, observed_effects(observed))


def observed_effects(observed: Observed) -> Array:
    """(S,) the observed part of :func:`condition_effects`, seconds."""
    conditions = [trials & np.isfinite(observed.rt_s) for trials in effect_trials(observed)]
    more, less = (mean_where(observed.rt_s, pressed) for pressed in conditions)
    return np.where(_enough(conditions), more - less, np.nan)


def effect_trials(observed: Observed) -> tuple[Array, Array]:
    """(S,N) bool trials of the condition that is subtracted from, and of the one subtracted."""
    present = set(np.unique(observed.condition).tolist())
    for task in TASKS.values():
        for signs in task.contrasts.values():
            if set(signs) <= present:
                more = [name for name, sign in signs.items() if sign > 0]
                less = [name for name, sign in signs.items() if sign < 0]
                return np.isin(observed.condition, more), np.isin(observed.condition, less)
    nothing = np.zeros(observed.condition.shape, bool)
    return nothing, nothing


def log_likelihood(predicted: Predicted, observed: Observed) -> Array:
    """(S,1) mean log density of the reaction time given a press, nats per trial.

    The density is the probability of the time's step, at least ``PROBABILITY_FLOOR``, over the
    length of a step.
    """
    prob, step, _ = _press_steps(predicted, observed)
    density = np.maximum(prob, PROBABILITY_FLOOR) / predicted.step_s
    inside = np.minimum(step, prob.shape[2] - 1)
    at_time = np.take_along_axis(density, inside[:, :, None], axis=2)[:, :, 0]
    beyond = np.where(np.isnan(at_time), np.nan, PROBABILITY_FLOOR / predicted.step_s)
    at_time = np.where(step > inside, beyond, at_time)
    return person_rows(mean_where(np.log(at_time), np.isfinite(observed.rt_s)))


def quantile_shares(predicted: Predicted, observed: Observed) -> Array:
    """(S,5) share of a person's times below the predicted ``QUANTILES`` of their trials."""
    prob, step, within = _press_steps(predicted, observed)
    n_steps = prob.shape[2]
    inside = np.minimum(step, n_steps - 1)[:, :, None]
    upto = np.take_along_axis(prob.cumsum(axis=2), inside, axis=2)[:, :, 0]
    own = np.take_along_axis(prob, inside, axis=2)[:, :, 0]
    rank = np.where(step < n_steps, upto - own * (1 - within), upto)
    pressed = np.isfinite(observed.rt_s)
    below = [
        mean_where(np.where(np.isnan(rank), np.nan, rank < quantile), pressed)
        for quantile in QUANTILES
    ]
    return person_rows(*below)


def miscalibration(rows: Array) -> float:
    """Mean distance of the shares below the predicted quantiles from ``QUANTILES``."""
    rows = complete(rows)
    return float(np.abs(rows.mean(axis=0) - QUANTILES).mean()) if len(rows) else float("nan")


@dataclass(frozen=True, eq=False)
class DeltaPlot:
    """Difference between two conditions along the distribution, means over people, (Q,) each.

    Attributes:
        observed_mean_s, observed_delta_s: mean and difference of the conditions' quantiles.
        predicted_mean_s, predicted_delta_s: the same of the predicted distributions, NaN
            without any.
    """

    observed_mean_s: Array
    observed_delta_s: Array
    predicted_mean_s: Array
    predicted_delta_s: Array


def delta_plot(predicted: Predicted, observed: Observed) -> DeltaPlot:
    """The condition effect at each of ``QUANTILES`` (De Jong et al. 1994).

    A person's predicted distribution is the mean over the trials in which they pressed. People
    need ``FEWEST_PRESSES`` in both conditions.
    """
    conditions = [mask & np.isfinite(observed.rt_s) for mask in effect_trials(observed)]
    enough = _enough(conditions)
    prob, _, _ = _press_steps(predicted, observed)
    observed_q, predicted_q = np.full((2, 2, len(prob), len(QUANTILES)), np.nan)
    for c, trials in enumerate(conditions):
        for person in np.flatnonzero(enough):
            own = trials[person]
            observed_q[c, person] = np.quantile(observed.rt_s[person, own], QUANTILES)
            mixture = prob[person, own].mean(axis=0)
            predicted_q[c, person] = _step_quantiles(mixture, predicted.step_s)
    return DeltaPlot(*_mean_and_delta(observed_q), *_mean_and_delta(predicted_q))


def _enough(conditions: Sequence[Array]) -> Array:
    """(S,) bool from (S,N) presses in each condition."""
    fewest: Array = np.min([pressed.sum(axis=1) for pressed in conditions], axis=0)
    return fewest >= FEWEST_PRESSES


def _mean_and_delta(quantiles: Array) -> tuple[Array, Array]:
    """(2,S,Q) -> (Q,) mean of the two conditions and their difference, means over people."""
    people = quantiles[:, ~np.isnan(quantiles).any(axis=(0, 2))]
    if people.shape[1] == 0:
        nothing = np.full(len(QUANTILES), np.nan)
        return nothing, nothing
    more, less = people.mean(axis=1)
    return (more + less) / 2, more - less


def _asked(times: Array, observed: Observed) -> Array:
    """(S,N) bool trials that any of these people was measured in and that a time is said of.

    A press that no time is said of stays, and makes the mean NaN.
    """
    measured = (observed.choice != NOT_MEASURED).any(axis=0)
    asked: Array = measured & (np.isfinite(times) | np.isfinite(observed.rt_s))
    return asked


def _times(predicted: Predicted, observed: Observed) -> Array:
    if predicted.rt_s is None:
        return np.full(observed.rt_s.shape, np.nan)
    return predicted.rt_s.astype(np.float64)


def _within(values: Array, cell: Array) -> Array:
    """Values minus the mean of their cell; 0 where only rounding is left."""
    values = values.astype(np.float64)
    mean = np.bincount(cell, values) / np.bincount(cell)
    rest = values - mean[cell]
    is_rounding = np.abs(rest).max() <= ROUNDING * np.abs(values).max()
    return np.zeros_like(rest) if is_rounding else rest


def _press_steps(predicted: Predicted, observed: Observed) -> tuple[Array, Array, Array]:
    """(S,N,L) P(step | press), (S,N) step of each observed time and where in it, in [0, 1)."""
    if predicted.press_prob is None:
        prob = np.full((*observed.rt_s.shape, 1), np.nan)
    else:
        prob = predicted.press_prob.sum(axis=3, dtype=np.float64)
        total = prob.sum(axis=2, keepdims=True)
        prob = np.divide(prob, total, out=np.zeros_like(prob), where=total != 0)
    time = np.nan_to_num(observed.rt_s.astype(np.float64)) / predicted.step_s
    step = np.maximum(np.floor(time + _ON_GRID), 0)
    return prob, step.astype(np.int64), np.clip(time - step, 0, 1)


def _step_quantiles(prob: Array, step_s: float) -> Array:
    edges = step_s * np.arange(len(prob) + 1)
    upto = np.concatenate([[0], prob.cumsum()])
    quantiles: Array = np.interp(QUANTILES * upto[-1], upto, edges)
    return quantiles
