"""Scores of predicted choices: S people, N trials, A actions and no response."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..cohort import NOT_MEASURED, WRONG_BUTTON
from ..metrics import concordance
from ..spec import N_ACTIONS
from .observed import Observed
from .predicted import Predicted
from .statistics import area_under_curve, complete, mean_where, person_rows

Array = npt.NDArray[Any]

PROBABILITY_FLOOR = 1e-4
"""No outcome is taken to be less likely: one surprise must not cost infinitely many bits."""


def matching_choices(predicted: Predicted, observed: Observed) -> Array:
    """(S,1) share of measured trials in which the likeliest action was pressed.

    No response and an unknown wrong button count as wrong (Takahashi et al. 2026).
    """
    prob = _action_prob(predicted, observed)
    choice = prob.argmax(axis=2)
    share = np.full(len(prob), np.nan)
    for person in np.flatnonzero(_is_known(prob, observed)):
        one = slice(person, person + 1)
        share[person] = concordance(choice[one], observed.choice[one])
    return person_rows(share)


def error_area(predicted: Predicted, observed: Observed) -> Array:
    """(S,1) ROC area of the predicted P(no correct press) for trials without one.

    NaN for people who made no error or nothing else.
    """
    score, is_error = _error_prob(predicted, observed), _is_error(observed)
    measured = _measured(observed)
    area = np.full(len(score), np.nan)
    for person in np.flatnonzero(_is_known(score[:, :, None], observed)):
        positive, negative = is_error[person], measured[person] & ~is_error[person]
        area[person] = area_under_curve(score[person, positive], score[person, negative])
    return person_rows(area)


def error_balanced_accuracy(predicted: Predicted, observed: Observed) -> Array:
    """(S,1) mean of the shares of errors and of correct trials told from P(error) > 1/2.

    NaN for people who made no error or nothing else.
    """
    score, is_error = _error_prob(predicted, observed), _is_error(observed)
    right = np.where(np.isnan(score), np.nan, (score > 0.5) == is_error)
    is_correct = _measured(observed) & ~is_error
    return person_rows((mean_where(right, is_error) + mean_where(right, is_correct)) / 2)


def surprise_bits(predicted: Predicted, observed: Observed) -> Array:
    """(S,1) mean -log2 probability of what was done, bits per trial.

    The outcomes are each action and no response, of at least ``PROBABILITY_FLOOR`` each before
    they are made to add up to 1. An unknown wrong button has the sum of the wrong actions.
    """
    return person_rows(_bits(_action_prob(predicted, observed), observed))


def surprise_and_reference(predicted: Predicted, observed: Observed) -> Array:
    """(S,2) bits per trial of the prediction and of the training group's rates by condition.

    The reference spreads the group's wrong presses evenly over the other actions that are
    correct somewhere in the run; an action that never is (``unused`` of the faces) has
    ``PROBABILITY_FLOOR``.
    """
    reference = _bits(_group_prob(observed), observed)
    return person_rows(_bits(_action_prob(predicted, observed), observed), reference)


def skill(rows: Array) -> float:
    """1 - bits / bits of the reference, means over people of :func:`surprise_and_reference`."""
    rows = complete(rows)
    return float(1 - rows[:, 0].mean() / rows[:, 1].mean()) if len(rows) else float("nan")


def brier(predicted: Predicted, observed: Observed) -> Array:
    """(S,1) mean squared distance from what was done, over correct, wrong and no response.

    Brier 1950, 0 to 2. The wrong actions are one outcome, as not every button is known.
    """
    prob = _action_prob(predicted, observed)
    correct = _at(prob, observed.correct)
    pressed = prob.sum(axis=2)
    outcomes = np.stack([correct, pressed - correct, 1 - pressed], axis=2)
    is_correct = observed.choice == observed.correct
    is_wrong = ((observed.choice >= 0) & ~is_correct) | (observed.choice == WRONG_BUTTON)
    done = np.stack([is_correct, is_wrong, ~is_correct & ~is_wrong], axis=2)
    return person_rows(mean_where(((outcomes - done) ** 2).sum(axis=2), _measured(observed)))


def error_rates(predicted: Predicted, observed: Observed) -> Array:
    """(S,2) mean predicted P(no correct press) and the share of trials without one."""
    measured = _measured(observed)
    return person_rows(
        mean_where(_error_prob(predicted, observed), measured),
        mean_where(_is_error(observed), measured),
    )


def _action_prob(predicted: Predicted, observed: Observed) -> Array:
    if predicted.choice_prob is None:
        return np.full((*observed.choice.shape, N_ACTIONS), np.nan)
    return predicted.choice_prob.astype(np.float64)


def _measured(observed: Observed) -> Array:
    measured: Array = observed.choice != NOT_MEASURED
    return measured


def _is_error(observed: Observed) -> Array:
    is_error: Array = _measured(observed) & (observed.choice != observed.correct)
    return is_error


def _is_known(prob: Array, observed: Observed) -> Array:
    """(S,) who has measured trials, all of them predicted."""
    measured = _measured(observed)
    is_silent = measured & np.isnan(prob).any(axis=2)
    return np.asarray(measured.any(axis=1) & ~is_silent.any(axis=1))


def _error_prob(predicted: Predicted, observed: Observed) -> Array:
    return 1 - _at(_action_prob(predicted, observed), observed.correct)


def _at(prob: Array, action: Array) -> Array:
    return np.take_along_axis(prob, action[:, :, None], axis=2)[:, :, 0]


def _bits(prob: Array, observed: Observed) -> Array:
    n_actions = prob.shape[2]
    outcomes = np.concatenate([prob, 1 - prob.sum(axis=2, keepdims=True)], axis=2)
    outcomes = np.maximum(outcomes, PROBABILITY_FLOOR)
    outcomes /= outcomes.sum(axis=2, keepdims=True)
    wrong = outcomes[:, :, :n_actions].sum(axis=2) - _at(outcomes, observed.correct)
    known = _at(outcomes, np.where(observed.choice >= 0, observed.choice, n_actions))
    happened = np.where(observed.choice == WRONG_BUTTON, wrong, known)
    return mean_where(-np.log2(happened), _measured(observed))


def _group_prob(observed: Observed) -> Array:
    """(S,N,A) the training group's rates by condition."""
    error, no_response = (
        _by_condition(observed.reference[name], observed.condition)
        for name in ("error_rate", "no_response")
    )
    used = np.isin(np.arange(N_ACTIONS), observed.correct)
    wrong = (error - no_response) / max(used.sum() - 1, 1)
    prob: Array = wrong[:, :, None] * used
    np.put_along_axis(prob, observed.correct[:, :, None], (1 - error)[:, :, None], axis=2)
    return prob


def _by_condition(rates: dict[str, float], condition: Array) -> Array:
    names, where = np.unique(condition, return_inverse=True)
    values = np.array([rates.get(str(name), np.nan) for name in names])
    return values[where.reshape(condition.shape)]
