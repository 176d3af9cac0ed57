"""Scores of choices against counting trial by trial, sklearn and cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from dtwin_fast.cohort import NO_RESPONSE, NOT_MEASURED, WRONG_BUTTON
from dtwin_fast.evaluate.choice import PROBABILITY_FLOOR
from dtwin_fast.evaluate.metrics_table import METRICS
from dtwin_fast.evaluate.observed import Observed
from dtwin_fast.evaluate.predicted import Predicted
from dtwin_fast.metrics import concordance

CHOICE = [name for name, metric in METRICS.items() if metric.domain == "choice"]
FLOAT32 = 1e-5


def draw(seed=0, n_people=7, n_trials=53, n_used=3):
    """Random predictions and people; ``n_used`` of three actions are ever correct."""
    rng = np.random.default_rng(seed)
    shape = (n_people, n_trials)
    prob = rng.dirichlet([3, 1, 1, 0.5], shape)[:, :, :3].astype(np.float32)
    correct = rng.integers(0, n_used, shape)
    choice = np.where(rng.random(shape) < 0.7, correct, rng.integers(0, n_used, shape))
    other = rng.choice([NO_RESPONSE, NOT_MEASURED, WRONG_BUTTON], shape)
    choice = np.where(rng.random(shape) < 0.25, other, choice).astype(np.int8)
    rt_s = np.where((choice >= 0) | (choice == WRONG_BUTTON), 0.7, np.nan).astype(np.float32)
    reference = {
        "error_rate": {"con": 0.12, "inc": 0.3},
        "no_response": {"con": 0.04, "inc": 0.06},
    }
    condition = np.where(rng.random(shape) < 0.5, "con", "inc")
    return Predicted(prob), Observed(choice, rt_s, correct, condition, reference=reference)


def score(name, predicted, observed):
    metric = METRICS[name]
    return metric.combine(metric.summarise(predicted, observed))


def certain(observed):
    """The prediction of exactly what was done; an unknown wrong button is some wrong one."""
    prob = np.zeros((*observed.choice.shape, 3), np.float32)
    for index, choice in np.ndenumerate(observed.choice):
        if choice >= 0:
            prob[(*index, choice)] = 1
        elif choice == WRONG_BUTTON:
            prob[(*index, (observed.correct[index] + 1) % 3)] = 1
    return Predicted(prob)


def each_person(predicted, observed, count):
    """Mean over people of a number counted from each one's measured trials."""
    numbers = []
    for person in range(len(observed.choice)):
        trials = np.flatnonzero(observed.choice[person] != NOT_MEASURED)
        numbers.append(count(person, trials))
    return np.nanmean(numbers)


def test_concordance_is_that_of_metrics():
    predicted, observed = draw()
    wanted = concordance(predicted.choice_prob.argmax(axis=2), observed.choice)
    assert score("concordance", predicted, observed) == pytest.approx(wanted)


def test_no_response_is_wrong_even_where_nothing_is_predicted():
    predicted, observed = draw()
    choice = observed.choice.copy()
    choice[0] = NO_RESPONSE
    observed = Observed(choice, observed.rt_s, observed.correct, observed.condition)
    assert METRICS["concordance"].summarise(predicted, observed)[0, 0] == 0


def test_error_scores_are_those_of_sklearn():
    predicted, observed = draw(1)
    prob = predicted.choice_prob.astype(float)

    def labels(person, trials):
        is_error = observed.choice[person, trials] != observed.correct[person, trials]
        return is_error, 1 - prob[person, trials, observed.correct[person, trials]]

    area = each_person(predicted, observed, lambda *where: roc_auc_score(*labels(*where)))
    assert score("error AUC", predicted, observed) == pytest.approx(area)

    def balanced(person, trials):
        is_error, p_error = labels(person, trials)
        return balanced_accuracy_score(is_error, p_error > 0.5)

    wanted = each_person(predicted, observed, balanced)
    assert score("error balanced accuracy", predicted, observed) == pytest.approx(wanted)


def test_people_without_errors_have_no_error_scores():
    predicted, observed = draw(2)
    choice = observed.choice.copy()
    choice[1] = observed.correct[1]
    choice[2] = NO_RESPONSE
    choice[3] = NOT_MEASURED
    observed = Observed(choice, observed.rt_s, observed.correct, observed.condition)
    for name in ("error AUC", "error balanced accuracy"):
        rows = METRICS[name].summarise(predicted, observed)
        assert np.isnan(rows[:, 0]).tolist() == [False, True, True, True, False, False, False]
        assert np.isfinite(METRICS[name].combine(rows))


def bits_of(prob, choice, correct):
    outcome = np.append(prob, 1 - prob.sum())
    outcome = np.maximum(outcome, PROBABILITY_FLOOR)
    outcome /= outcome.sum()
    if choice == WRONG_BUTTON:
        return -np.log2(sum(outcome[a] for a in range(len(prob)) if a != correct))
    return -np.log2(outcome[choice if choice >= 0 else len(prob)])


def test_surprise_is_that_of_the_outcomes_one_by_one():
    predicted, observed = draw(3)
    prob = predicted.choice_prob.astype(float)

    def bits(person, trials):
        return np.mean(
            [
                bits_of(prob[person, t], observed.choice[person, t], observed.correct[person, t])
                for t in trials
            ]
        )

    wanted = each_person(predicted, observed, bits)
    assert score("NLL", predicted, observed) == pytest.approx(wanted)


@pytest.mark.parametrize("n_used", [2, 3])
def test_skill_is_zero_for_the_groups_rates(n_used):
    _, observed = draw(4, n_used=n_used)
    error, silent = (observed.reference[name] for name in ("error_rate", "no_response"))
    prob = np.zeros((*observed.choice.shape, 3), np.float32)
    for index, correct in np.ndenumerate(observed.correct):
        condition = observed.condition[index]
        wrong = (error[condition] - silent[condition]) / (n_used - 1)
        for action in range(n_used):
            prob[(*index, action)] = 1 - error[condition] if action == correct else wrong
    assert score("NLL skill", Predicted(prob), observed) == pytest.approx(0, abs=FLOAT32)


def test_a_press_of_the_unused_button_does_not_cost_infinitely_many_bits():
    predicted, observed = draw(5, n_used=2)
    choice = observed.choice.copy()
    choice[:, 0] = 2
    observed = Observed(
        choice, observed.rt_s, observed.correct, observed.condition, reference=observed.reference
    )
    bits = METRICS["NLL skill"].summarise(predicted, observed)
    assert (bits < -np.log2(PROBABILITY_FLOOR / (1 + 4 * PROBABILITY_FLOOR))).all()
    assert np.isfinite(METRICS["NLL skill"].combine(bits))


def test_a_condition_that_nobody_was_trained_on_has_no_skill():
    predicted, observed = draw(6)
    for rates in observed.reference.values():
        del rates["inc"]
    assert np.isnan(score("NLL skill", predicted, observed))


def test_brier_counts_three_outcomes():
    predicted, observed = draw(7)
    prob = predicted.choice_prob.astype(float)

    def squares(person, trials):
        total = 0.0
        for t in trials:
            correct, choice = observed.correct[person, t], observed.choice[person, t]
            p = prob[person, t, correct], prob[person, t].sum() - prob[person, t, correct]
            p = *p, 1 - sum(p)
            done = 0 if choice == correct else 2 if choice == NO_RESPONSE else 1
            total += sum((p[k] - (k == done)) ** 2 for k in range(3))
        return total / len(trials)

    assert score("Brier", predicted, observed) == pytest.approx(
        each_person(predicted, observed, squares)
    )


def test_error_rates_over_people():
    predicted, observed = draw(8, n_people=12)
    rows = METRICS["error-rate r"].summarise(predicted, observed)
    measured = observed.choice != NOT_MEASURED
    wanted = [(~(c == k))[m].mean() for c, k, m in zip(
        observed.choice, observed.correct, measured, strict=True)]  # fmt: skip
    assert rows[:, 1] == pytest.approx(wanted)
    assert score("error-rate r", predicted, observed) == pytest.approx(np.corrcoef(rows.T)[0, 1])


def test_the_perfect_prediction():
    _, observed = draw(9, n_people=3)
    choice = observed.choice.copy()
    choice[choice == NO_RESPONSE] = WRONG_BUTTON  # a choice is always foretold as a press
    observed = Observed(
        choice, observed.rt_s, observed.correct, observed.condition, reference=observed.reference
    )
    predicted = certain(observed)
    known = np.where(choice == WRONG_BUTTON, NOT_MEASURED, choice).astype(np.int8)
    pressed = Observed(known, observed.rt_s, observed.correct, observed.condition)
    assert score("concordance", predicted, pressed) == 1
    for name in ("error AUC", "error balanced accuracy", "error-rate r"):
        assert score(name, predicted, observed) == pytest.approx(1)
    assert score("Brier", predicted, observed) == 0
    assert score("NLL", predicted, observed) < 0.001
    assert score("NLL skill", predicted, observed) > 0.999


def test_the_same_prediction_for_everyone_knows_no_person():
    _, observed = draw(10)
    prob = np.zeros((*observed.choice.shape, 3), np.float32)
    np.put_along_axis(prob, observed.correct[:, :, None], np.float32(0.9), axis=2)
    assert score("error-rate r", Predicted(prob), observed) == 0
    assert score("error AUC", Predicted(prob), observed) == 0.5
    assert score("error balanced accuracy", Predicted(prob), observed) == 0.5


@pytest.mark.parametrize("name", CHOICE)
def test_unknown_people_are_left_out(name):
    predicted, observed = draw(11)
    everyone = METRICS[name].summarise(predicted, observed)
    prob = predicted.choice_prob.copy()
    prob[1] = np.nan
    prob[2, np.flatnonzero(observed.choice[2] == NOT_MEASURED)] = np.nan
    choice = observed.choice.copy()
    choice[4] = NOT_MEASURED
    seen = Observed(
        choice, observed.rt_s, observed.correct, observed.condition, reference=observed.reference
    )
    rows = METRICS[name].summarise(Predicted(prob), seen)
    known = np.delete(everyone, [1, 4], axis=0)
    assert np.isnan(rows[[1, 4]]).all()
    assert np.delete(rows, [1, 4], axis=0) == pytest.approx(known)
    assert METRICS[name].combine(rows) == pytest.approx(METRICS[name].combine(known))


@pytest.mark.parametrize("name", CHOICE)
def test_a_predictor_without_choices_has_no_score(name):
    _, observed = draw(12)
    rows = METRICS[name].summarise(Predicted(), observed)
    assert np.isnan(rows).all()
    assert len(rows) == len(observed.choice)
    assert np.isnan(METRICS[name].combine(rows))
