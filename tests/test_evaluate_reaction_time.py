"""Scores of reaction times against scipy, counting and distributions with known quantiles."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dtwin_fast.evaluate.metrics_table import METRICS
from dtwin_fast.evaluate.observed import Observed
from dtwin_fast.evaluate.predicted import Predicted
from dtwin_fast.evaluate.reaction_time import (
    PROBABILITY_FLOOR,
    QUANTILES,
    delta_plot,
    quantile_shares,
)

RT = [name for name, metric in METRICS.items() if metric.domain == "rt"]
STEP_S = 0.08
N_STEPS = 24


def draw(seed=0, n_people=9, n_trials=61, conditions=("con", "inc"), silent=0.1):
    """Random predictions and people, with trials that nobody pressed in."""
    rng = np.random.default_rng(seed)
    shape = (n_people, n_trials)
    condition = np.where(rng.random(shape) < 0.4, conditions[1], conditions[0])
    mean = 0.8 + 0.1 * rng.normal(size=(n_people, 1)) + 0.15 * (condition == conditions[1])
    rt_s = (mean + 0.15 * rng.normal(size=shape)).clip(0.1, 1.8).astype(np.float32)
    guess = (mean + 0.1 * rng.normal(size=shape)).astype(np.float32)
    rt_s[rng.random(shape) < silent] = np.nan
    press = rng.dirichlet(np.ones(N_STEPS), shape)
    share = rng.dirichlet([4, 2, 1, 1], shape)[:, :, :3]
    press = (press[:, :, :, None] * share[:, :, None]).astype(np.float32)
    choice = np.where(np.isnan(rt_s), -1, 0).astype(np.int8)
    observed = Observed(
        choice, rt_s, np.zeros(shape, np.int64), condition, reference={"rt_mean": 0.83}
    )
    return Predicted(rt_s=guess, press_prob=press, step_s=STEP_S), observed


def score(name, predicted, observed):
    metric = METRICS[name]
    return metric.combine(metric.summarise(predicted, observed))


def of_people(predicted, observed):
    return [np.nanmean(rows.astype(float), axis=1) for rows in (predicted.rt_s, observed.rt_s)]


def test_person_means():
    predicted, observed = draw()
    guess, seen = of_people(predicted, observed)
    wanted = np.corrcoef(guess, seen)[0, 1]
    assert score("RT person-mean r", predicted, observed) == pytest.approx(wanted, abs=1e-6)
    r2 = 1 - ((seen - guess) ** 2).sum() / ((seen - 0.83) ** 2).sum()
    assert score("RT person-mean R2", predicted, observed) == pytest.approx(r2)
    mae = np.abs(seen - guess).mean()
    assert score("RT person-mean MAE", predicted, observed) == pytest.approx(mae)


def test_means_of_trials_tell_nobody_apart_by_what_they_missed():
    _, observed = draw(6)
    items = np.linspace(0.5, 1.5, observed.rt_s.shape[1], dtype=np.float32)
    same = Predicted(rt_s=np.tile(items, (len(observed.rt_s), 1)))
    pressed = np.isfinite(observed.rt_s)
    of_presses = np.nanmean(np.where(pressed, same.rt_s, np.nan), axis=1)
    assert abs(np.corrcoef(of_presses, np.nanmean(observed.rt_s, axis=1))[0, 1]) > 0.01
    assert score("RT person-mean r", same, observed) == 0


def test_few_presses_make_no_mean():
    predicted, observed = draw(7)
    for person, n in ((2, 1), (3, 4), (5, 5)):
        observed.rt_s[person, np.flatnonzero(np.isfinite(observed.rt_s[person]))[n:]] = np.nan
    for name in ("RT person-mean r", "RT person-mean R2", "RT person-mean MAE"):
        rows = METRICS[name].summarise(predicted, observed)
        assert np.flatnonzero(np.isnan(rows).any(axis=1)).tolist() == [2, 3]


def test_the_training_groups_mean_explains_nothing():
    _, observed = draw(1)
    same = Predicted(rt_s=np.full(observed.rt_s.shape, 0.83, np.float32))
    assert score("RT person-mean R2", same, observed) == pytest.approx(0, abs=1e-5)
    for name in ("RT person-mean r", "RT trial r", "RT within-person r", "RT condition-effect r"):
        assert score(name, same, observed) == 0


def test_trial_r_is_scipys_over_all_trials():
    predicted, observed = draw(2)
    pressed = np.isfinite(observed.rt_s)
    wanted = stats.pearsonr(predicted.rt_s[pressed], observed.rt_s[pressed]).statistic
    assert score("RT trial r", predicted, observed) == pytest.approx(wanted, abs=1e-6)


def test_within_person_r_is_that_of_the_residuals():
    predicted, observed = draw(3)
    z = []
    for person, pressed in enumerate(np.isfinite(observed.rt_s)):
        condition = observed.condition[person, pressed]
        rest = []
        for rows in (predicted.rt_s, observed.rt_s):
            values = rows[person, pressed].astype(float)
            for name in ("con", "inc"):
                values[condition == name] -= values[condition == name].mean()
            rest.append(values)
        z.append(np.arctanh(stats.pearsonr(*rest).statistic))
    wanted = np.tanh(np.mean(z))
    assert score("RT within-person r", predicted, observed) == pytest.approx(wanted, abs=1e-6)


def test_within_person_r_knows_no_person_and_no_condition():
    _, observed = draw(4)
    rows = observed.rt_s
    means = np.nanmean(rows, axis=1, keepdims=True) + 0.31 * (observed.condition == "inc")
    # float32 sums in which a cell's equal numbers differ by rounding
    cell = Predicted(rt_s=(means + 1e-8 * np.arange(rows.shape[1])).astype(np.float32))
    assert score("RT within-person r", cell, observed) == 0
    assert score("RT person-mean r", cell, observed) > 0.9


@pytest.mark.parametrize("conditions", [("con", "inc"), ("shape", "face")])
def test_condition_effects_follow_the_tasks_contrast(conditions):
    predicted, observed = draw(5, conditions=conditions)
    more, less = (observed.condition == name for name in conditions[::-1])
    effects = [
        [np.nanmean(row[m].astype(float)) - np.nanmean(row[k].astype(float)) for row, m, k in zip(
            rows, more, less, strict=True)]
        for rows in (predicted.rt_s, observed.rt_s)
    ]  # fmt: skip
    rows = METRICS["RT condition-effect r"].summarise(predicted, observed)
    assert rows == pytest.approx(np.array(effects).T)
    wanted = stats.pearsonr(*effects).statistic
    assert score("RT condition-effect r", predicted, observed) == pytest.approx(wanted)


def test_who_missed_which_trial_gives_a_mean_over_people_no_condition_effect():
    rng = np.random.default_rng(17)
    n_people, n_trials = 40, 80
    condition = np.tile(np.where(np.arange(n_trials) % 2, "inc", "con"), (n_people, 1))
    item_s = 0.8 + 0.2 * rng.random(n_trials)
    rt_s = (item_s + 0.02 * rng.normal(size=condition.shape)).astype(np.float32)
    rt_s[rng.random(rt_s.shape) < 0.6 * rng.random((n_people, 1))] = np.nan
    choice = np.where(np.isnan(rt_s), -1, 0).astype(np.int8)
    observed = Observed(choice, rt_s, np.zeros(rt_s.shape, int), condition)
    same = np.tile(item_s.astype(np.float32), (n_people, 1))
    pressed_alone = Predicted(rt_s=np.where(np.isnan(rt_s), np.nan, same))
    assert score("RT condition-effect r", pressed_alone, observed) > 0.5
    assert score("RT condition-effect r", Predicted(rt_s=same), observed) == 0


def test_condition_effects_are_of_the_trials_that_were_measured():
    predicted, observed = draw(18)
    observed.choice[:, 40:], observed.rt_s[:, 40:] = -2, np.nan
    observed.choice[0, :3], observed.rt_s[0, :3] = -2, np.nan
    rows = METRICS["RT condition-effect r"].summarise(predicted, observed)
    guess, condition = predicted.rt_s[0, :40].astype(float), observed.condition[0, :40]
    wanted = guess[condition == "inc"].mean() - guess[condition == "con"].mean()
    assert rows[0, 0] == pytest.approx(wanted)


def test_people_with_few_presses_in_a_condition_have_no_condition_effect():
    predicted, observed = draw(19, silent=0)
    inc = np.flatnonzero(observed.condition[2] == "inc")
    observed.rt_s[2, inc[5:]] = np.nan
    summarise = METRICS["RT condition-effect r"].summarise
    assert np.isfinite(summarise(predicted, observed)).all()
    observed.rt_s[2, inc[4]] = np.nan
    rows = summarise(predicted, observed)
    assert np.isnan(rows[:, 0]).tolist() == [person == 2 for person in range(len(rows))]


def test_a_run_of_one_condition_has_no_effect():
    predicted, observed = draw(6, conditions=("con", "con"))
    assert np.isnan(score("RT condition-effect r", predicted, observed))


def test_log_likelihood_one_by_one():
    predicted, observed = draw(7)
    means = []
    for person, trials in enumerate(np.isfinite(observed.rt_s)):
        logs = []
        for t in np.flatnonzero(trials):
            steps = predicted.press_prob[person, t].astype(float).sum(axis=1)
            p = steps[int(observed.rt_s[person, t] / STEP_S)] / steps.sum()
            logs.append(np.log(max(p, PROBABILITY_FLOOR) / STEP_S))
        means.append(np.mean(logs))
    assert score("RT log-likelihood", predicted, observed) == pytest.approx(np.mean(means))


def flat(observed, first, stop, n_steps=N_STEPS):
    """Every time from step ``first`` to ``stop`` is equally likely, by two actions."""
    press = np.zeros((*observed.rt_s.shape, n_steps, 3), np.float32)
    press[:, :, first:stop, :2] = 0.4 / (stop - first)
    return Predicted(press_prob=press, step_s=STEP_S)


def observe(rt_s, condition="con"):
    rt_s = np.asarray(rt_s, np.float32)
    choice = np.where(np.isnan(rt_s), -1, 0).astype(np.int8)
    correct = np.zeros(rt_s.shape, np.int64)
    return Observed(choice, rt_s, correct, np.full(rt_s.shape, condition))


def test_log_likelihood_of_a_flat_distribution_is_that_of_its_width():
    observed = observe([[0.4, 0.5, 0.79], [0.45, np.nan, 0.7]])
    got = score("RT log-likelihood", flat(observed, 5, 10), observed)
    assert got == pytest.approx(-np.log(5 * STEP_S), abs=1e-6)


@pytest.mark.parametrize("rt_s", [0.1, 1.0, 9.0], ids=["before", "after", "beyond the window"])
def test_log_likelihood_of_the_impossible_is_bounded(rt_s):
    observed = observe([[rt_s]] * 3)
    got = score("RT log-likelihood", flat(observed, 5, 10), observed)
    assert got == pytest.approx(np.log(PROBABILITY_FLOOR / STEP_S))


def test_a_time_on_the_grid_lies_in_the_step_that_begins_there():
    steps = np.arange(1, N_STEPS)
    observed = observe([steps * STEP_S])
    press = np.zeros((1, len(steps), N_STEPS, 1), np.float32)
    press[0, np.arange(len(steps)), steps, 0] = 1
    got = score("RT log-likelihood", Predicted(press_prob=press, step_s=STEP_S), observed)
    assert got == pytest.approx(-np.log(STEP_S))


def test_quantiles_of_times_drawn_from_the_prediction_are_calibrated():
    rng = np.random.default_rng(8)
    n_people, n_trials = 40, 500
    weights = rng.dirichlet(np.ones(N_STEPS), (n_people, n_trials))
    step = (weights.cumsum(axis=2) < rng.random((n_people, n_trials, 1))).sum(axis=2)
    observed = observe((step + rng.random(step.shape)) * STEP_S)
    predicted = Predicted(press_prob=weights[..., None].astype(np.float32), step_s=STEP_S)
    shares = quantile_shares(predicted, observed).mean(axis=0)
    # 20,000 trials: the standard error of a share is at most .0035.
    assert shares == pytest.approx(QUANTILES, abs=0.014)
    assert score("RT quantile miscalibration", predicted, observed) < 0.01


def test_quantile_shares_by_hand():
    observed = observe([[0.41, 0.47, 0.53, 0.61, 0.75, np.nan, 5.0]])
    # Flat from .4 to .8 s: quantiles .44, .52, .60, .68, .76.
    shares = quantile_shares(flat(observed, 5, 10), observed)[0]
    assert shares == pytest.approx(np.array([1, 2, 3, 4, 5]) / 6)
    miscalibration = np.abs(np.array([1, 2, 3, 4, 5]) / 6 - QUANTILES).mean()
    got = score("RT quantile miscalibration", flat(observed, 5, 10), observed)
    assert got == pytest.approx(miscalibration)


def test_delta_plot_of_shifted_flat_distributions():
    rng = np.random.default_rng(9)
    n_people, n_trials = 30, 800
    condition = np.where(np.arange(n_trials) % 2, "inc", "con")
    condition = np.tile(condition, (n_people, 1))
    is_inc = condition == "inc"
    rt_s = 0.4 + (0.4 + 0.16 * is_inc) * rng.random(condition.shape) + 0.08 * is_inc
    rt_s[3] = np.nan
    choice = np.where(np.isnan(rt_s), -1, 0).astype(np.int8)
    observed = Observed(choice, rt_s.astype(np.float32), np.zeros(rt_s.shape, int), condition)
    press = np.zeros((*rt_s.shape, N_STEPS, 1), np.float32)
    press[:, :, 5:10, 0] = 0.2
    press[is_inc] = 0
    press[is_inc, 6:13] = 0.1
    delta = delta_plot(Predicted(press_prob=press, step_s=STEP_S), observed)
    wanted = 0.08 + 0.16 * QUANTILES
    assert delta.predicted_delta_s == pytest.approx(wanted, abs=1e-6)
    assert delta.predicted_mean_s == pytest.approx(0.4 + 0.4 * QUANTILES + wanted / 2, abs=1e-6)
    assert delta.observed_delta_s == pytest.approx(wanted, abs=0.01)
    assert delta.observed_mean_s == pytest.approx(delta.predicted_mean_s, abs=0.01)


def test_delta_plot_of_nobody():
    predicted, observed = draw(10, n_trials=6)
    delta = delta_plot(predicted, observed)
    assert np.isnan(delta.observed_delta_s).all()
    assert delta.observed_delta_s.shape == QUANTILES.shape
    _, observed = draw(10)
    delta = delta_plot(Predicted(), observed)
    assert np.isfinite(delta.observed_delta_s).all()
    assert np.isnan(delta.predicted_delta_s).all()


@pytest.mark.parametrize("n_people", [3, 8])
def test_the_perfect_prediction(n_people):
    _, observed = draw(11, n_people=n_people)
    press = np.zeros((*observed.rt_s.shape, N_STEPS, 3), np.float32)
    step = np.floor(np.nan_to_num(observed.rt_s) / STEP_S).astype(int)
    np.put_along_axis(press, step[:, :, None, None], 1, axis=2)
    perfect = Predicted(rt_s=observed.rt_s, press_prob=press, step_s=STEP_S)
    for name in RT:
        if name.endswith((" r", "R2")):
            assert score(name, perfect, observed) == pytest.approx(1, abs=1e-5)
    assert score("RT person-mean MAE", perfect, observed) == 0
    assert score("RT log-likelihood", perfect, observed) == pytest.approx(-np.log(STEP_S))


@pytest.mark.parametrize("name", RT)
def test_unknown_people_are_left_out(name):
    predicted, observed = draw(12)
    everyone = METRICS[name].summarise(predicted, observed)
    guess, press, rt_s = predicted.rt_s.copy(), predicted.press_prob.copy(), observed.rt_s.copy()
    guess[1], press[1] = np.nan, np.nan
    # These count what is said of silent trials too.
    if name != "RT condition-effect r" and not name.startswith("RT person-mean"):
        silent = np.isnan(rt_s[2])
        guess[2, silent], press[2, silent] = np.nan, np.nan
    rt_s[4] = np.nan
    seen = Observed(
        observed.choice, rt_s, observed.correct, observed.condition, reference=observed.reference
    )
    rows = METRICS[name].summarise(Predicted(rt_s=guess, press_prob=press, step_s=STEP_S), seen)
    known = np.delete(everyone, [1, 4], axis=0)
    assert np.isnan(rows[[1, 4]]).all()
    assert np.delete(rows, [1, 4], axis=0) == pytest.approx(known)
    assert METRICS[name].combine(rows) == pytest.approx(METRICS[name].combine(known))


@pytest.mark.parametrize("name", RT)
def test_a_predictor_without_times_has_no_score(name):
    _, observed = draw(13)
    rows = METRICS[name].summarise(Predicted(), observed)
    assert np.isnan(rows).all()
    assert len(rows) == len(observed.rt_s)
    assert np.isnan(METRICS[name].combine(rows))


def test_within_person_r_needs_three_presses_beyond_the_conditions():
    rng = np.random.default_rng(14)
    rt_s = rng.uniform(0.4, 1.2, (2, 6)).astype(np.float32)
    rt_s[0, 5] = np.nan  # five presses and two conditions leave three
    rt_s[1, 4:] = np.nan
    observed = observe(rt_s)
    observed.condition[:, ::2] = "inc"
    predicted = Predicted(rt_s=rng.uniform(0.4, 1.2, (2, 6)).astype(np.float32))
    rows = METRICS["RT within-person r"].summarise(predicted, observed)
    assert np.isnan(rows[:, 0]).tolist() == [False, True]


def test_a_time_beyond_the_window_is_not_in_its_last_step():
    observed = observe([[0.79, 0.9]])
    got = score("RT log-likelihood", flat(observed, 5, 10, n_steps=10), observed)
    wanted = (-np.log(5 * STEP_S) + np.log(PROBABILITY_FLOOR / STEP_S)) / 2
    assert got == pytest.approx(wanted)


def test_delta_plot_leaves_out_people_with_few_presses():
    _, observed = draw(15, n_people=6, n_trials=80, silent=0)
    everyone = delta_plot(Predicted(), observed)
    rt_s = observed.rt_s.copy()
    rt_s[2, np.flatnonzero(observed.condition[2] == "inc")[4:]] = np.nan
    few = Observed(observed.choice, rt_s, observed.correct, observed.condition)
    others = np.delete(np.arange(6), 2)
    alone = Observed(*(part[others] for part in (
        observed.choice, observed.rt_s, observed.correct, observed.condition)))  # fmt: skip
    got, wanted = (delta_plot(Predicted(), o).observed_delta_s for o in (few, alone))
    assert got == pytest.approx(wanted)
    assert got != pytest.approx(everyone.observed_delta_s)


def test_a_prediction_that_differs_by_rounding_alone_knows_no_trial():
    _, observed = draw(16)
    noise = np.random.default_rng(0).choice([0, 1], observed.rt_s.shape)
    guess = np.float32(0.83) + np.float32(2**-24) * noise.astype(np.float32)
    assert len(np.unique(guess)) == 2
    assert score("RT trial r", Predicted(rt_s=guess), observed) == 0
