"""Intervals, nulls and reliabilities against scipy, published examples and counting."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from dtwin_fast.cohort import NO_RESPONSE, NOT_MEASURED
from dtwin_fast.evaluate.observed import Observed
from dtwin_fast.evaluate.reliability import map_ceilings, split_half_ceilings
from dtwin_fast.evaluate.statistics import (
    area_under_curve,
    benjamini_hochberg,
    bootstrap_interval,
    correlation,
    correlation_over_people,
    difference_interval,
    icc_3_1,
    mean_over_people,
    n_scored,
    permutation_p,
    person_rows,
    spearman_brown,
)
from dtwin_fast.tasks import TASKS

ROUNDING = 1e-9  # float64 sums of a few hundred terms


def column(*values):
    return np.array(values, float)[:, None]


def test_a_person_with_a_gap_is_wholly_unknown():
    rows = person_rows(np.array([1.0, np.nan, 3]), np.array([4.0, 5, 6]))
    assert np.isnan(rows).tolist() == [[False, False], [True, True], [False, False]]
    assert n_scored(rows) == 2


def test_mean_over_people_leaves_the_unknown_out():
    assert mean_over_people(column(1, np.nan, 3)) == 2
    assert np.isnan(mean_over_people(column(np.nan, np.nan)))


def test_correlation_of_a_constant_prediction_is_zero_and_of_a_constant_truth_unknown():
    rising = np.arange(5.0)
    assert correlation(np.full(5, 0.3), rising) == 0
    assert np.isnan(correlation(rising, np.full(5, 0.3)))
    assert np.isnan(correlation(rising[:2], rising[:2]))
    assert np.isnan(correlation(np.full(5, 0.3), np.full(5, 0.3)))


@pytest.mark.parametrize("tied", [False, True])
def test_area_is_that_of_sklearn(tied):
    rng = np.random.default_rng(1)
    score = rng.normal(size=57)
    if tied:
        score = score.round()
    label = rng.random(57) < 0.3
    wanted = roc_auc_score(label, score)
    assert area_under_curve(score[label], score[~label]) == pytest.approx(wanted, abs=ROUNDING)
    assert np.isnan(area_under_curve(score[:0], score))


@pytest.mark.parametrize("combine", [mean_over_people, lambda rows: float(rows[:, 0].mean())])
def test_interval_of_a_mean_is_scipys(combine):
    values = np.random.default_rng(2).exponential(size=31)
    with_gap = np.insert(values, 7, np.nan)
    wanted = stats.bootstrap(
        (values,), np.mean, n_resamples=2000, method="BCa", rng=np.random.default_rng(5)
    ).confidence_interval
    got = bootstrap_interval(with_gap[:, None], combine, seed=5)
    assert (got.low, got.high) == pytest.approx(tuple(wanted), rel=ROUNDING)
    assert got.value == pytest.approx(values.mean())
    assert got.note == ""


def test_interval_of_a_correlation_is_scipys():
    rng = np.random.default_rng(3)
    x = rng.normal(size=40)
    rows = np.stack([x, x + rng.normal(size=40)], axis=1)
    wanted = stats.bootstrap(
        (rows[:, 0], rows[:, 1]),
        lambda a, b: stats.pearsonr(a, b).statistic,
        paired=True,
        vectorized=False,
        n_resamples=2000,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    got = bootstrap_interval(rows, correlation_over_people)
    assert (got.low, got.high) == pytest.approx(tuple(wanted), rel=1e-6)


def test_interval_covers_the_mean_of_skewed_people():
    rng = np.random.default_rng(4)
    hits = 0
    for seed in range(300):
        interval = bootstrap_interval(
            rng.exponential(size=(40, 1)), mean_over_people, n=500, seed=seed
        )
        hits += interval.low <= 1 <= interval.high
    # 95 % nominal; 300 tries have a standard error of 1.3 %.
    assert 0.89 <= hits / 300 <= 0.985


def test_interval_where_everyone_scores_the_same():
    got = bootstrap_interval(np.full((9, 1), 0.7), mean_over_people)
    assert (got.value, got.low, got.high) == pytest.approx((0.7, 0.7, 0.7))
    assert "degenerate" in got.note


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (np.zeros((0, 1)), "nobody"),
        (np.full((4, 1), np.nan), "nobody"),
        (column(1, 2), "fewer than three"),
    ],
    ids=["empty", "unknown", "two"],
)
def test_too_few_people_have_no_interval_and_it_is_said(rows, words):
    got = bootstrap_interval(rows, mean_over_people)
    assert np.isnan(got.low)
    assert np.isnan(got.high)
    assert words in got.note


def test_resamples_that_cannot_be_scored_are_counted():
    # Of three people every ninth resample is one person, whose correlation is not defined.
    rows = np.array([[1.0, 1], [2, 3], [3, 2]])
    got = bootstrap_interval(np.vstack([rows, rows + 0.1]), correlation_over_people, n=1000)
    assert got.low < got.value < got.high
    got = bootstrap_interval(rows, correlation_over_people, n=1000)
    undefined = int(got.note.split()[0])
    # Resamples of one or the same person thrice, 3 of 27, have a constant truth.
    assert 60 < undefined < 170


def test_difference_has_the_same_resamples():
    rng = np.random.default_rng(6)
    base = rng.normal(size=(25, 1))
    got = difference_interval(base + 0.25, base, mean_over_people)
    assert (got.value, got.low, got.high) == pytest.approx((0.25, 0.25, 0.25))
    got = difference_interval(base + 0.25, base, mean_over_people, higher_is_better=False)
    assert got.value == pytest.approx(-0.25)


def test_difference_is_of_the_people_that_both_know():
    first, second = column(1, 2, 3, np.nan, 100), column(0, 1, 2, 7, np.nan)
    got = difference_interval(first, second, mean_over_people)
    assert got.value == pytest.approx(1)


def test_difference_equals_the_interval_of_differences():
    rng = np.random.default_rng(7)
    first, second = rng.normal(size=(2, 33, 1))
    got = difference_interval(first, second, mean_over_people, seed=3)
    wanted = bootstrap_interval(first - second, mean_over_people, seed=3)
    assert (got.value, got.low, got.high) == pytest.approx((wanted.value, wanted.low, wanted.high))


def test_permutation_p():
    null = np.array([0.1, 0.2, 0.3, np.nan])
    assert permutation_p(0.25, null) == (1 + 1) / (1 + 3)
    assert permutation_p(0.3, null) == (1 + 1) / (1 + 3)
    assert permutation_p(0.15, null, higher_is_better=False) == (1 + 1) / (1 + 3)
    assert np.isnan(permutation_p(np.nan, null))
    assert np.isnan(permutation_p(0.5, np.array([np.nan])))


def test_spearman_brown():
    assert spearman_brown(0.5) == pytest.approx(2 / 3)
    assert spearman_brown(1.0) == 1
    assert spearman_brown(-1.0) == -np.inf
    assert np.isnan(spearman_brown(np.nan))


def test_icc_is_that_of_shrout_and_fleiss():
    # Their table 2; ICC(3,1) = .71 in table 4.
    ratings = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    assert icc_3_1(np.array(ratings)) == pytest.approx(0.71, abs=0.005)
    with_gap = np.array([*ratings, [np.nan, 1, 1, 1]])
    assert icc_3_1(with_gap) == pytest.approx(icc_3_1(np.array(ratings)))


def test_icc_does_not_mind_a_shift_of_everybody():
    first = np.random.default_rng(8).normal(size=19)
    assert icc_3_1(np.stack([first, first + 5], axis=1)) == pytest.approx(1)
    assert np.isnan(icc_3_1(first[:, None]))
    assert np.isnan(icc_3_1(np.ones((5, 2))))


def test_benjamini_hochberg_by_its_definition():
    p = np.array([[0.01, np.nan, 0.04], [0.03, 0.8, 0.02]])
    known = np.sort(p[np.isfinite(p)])
    adjusted = benjamini_hochberg(p)
    assert np.isnan(adjusted[0, 1])
    for value, got in zip(p.ravel(), adjusted.ravel(), strict=True):
        if np.isfinite(value):
            wanted = min(known[k] * 5 / (k + 1) for k in range(5) if known[k] >= value)
            assert got == pytest.approx(wanted)
    assert np.isnan(benjamini_hochberg(np.full(3, np.nan))).all()


def people_of(seed, n_people, *, sd_person=0.15, sd_effect=0.1, sd_trial=0.2, error=0.1):
    """Observed Stroop runs; people have a mean, a Stroop effect and an error rate of their own."""
    rng = np.random.default_rng(seed)
    schedule = TASKS["stroop"].make_schedule(seed)
    condition = np.tile(np.array(schedule.condition), (n_people, 1))
    correct = np.tile(schedule.correct, (n_people, 1))
    mean = 0.9 + sd_person * rng.normal(size=(n_people, 1))
    effect = 0.2 + sd_effect * rng.normal(size=(n_people, 1))
    rt_s = mean + effect * (condition == "inc") + sd_trial * rng.normal(size=condition.shape)
    is_wrong = rng.random(condition.shape) < 2 * error * rng.random((n_people, 1))
    choice = np.where(is_wrong, (correct + 1) % 3, correct)
    choice[:, 3], rt_s[:, 3] = NO_RESPONSE, np.nan
    return Observed(choice.astype(np.int8), rt_s.astype(np.float32), correct, condition)


def test_split_half_ceilings_are_what_the_variances_say():
    people = people_of(9, 3000)
    con, inc = ((people.condition[0] == name).sum() for name in ("con", "inc"))
    got = split_half_ceilings(people)
    # Reliability = variance of the persons' values over that of their measurements.
    noise = 0.2**2 * (1 / con + 1 / inc)
    wanted = np.sqrt(0.1**2 / (0.1**2 + noise))
    assert got["RT condition-effect r"] == pytest.approx(wanted, abs=0.02)
    assert got["RT person-mean r"] > 0.98
    rate = np.random.default_rng(0).random(10**6) * 0.2
    noise = (rate * (1 - rate)).mean() / people.choice.shape[1]
    wanted = np.sqrt(rate.var() / (rate.var() + noise))
    assert got["error-rate r"] == pytest.approx(wanted, abs=0.03)


def test_ceilings_of_what_does_not_differ_between_people_are_low():
    got = split_half_ceilings(people_of(10, 2000, sd_effect=0, sd_person=0, error=0))
    assert got["RT condition-effect r"] < 0.3
    assert got["RT person-mean r"] < 0.3
    assert np.isnan(got["error-rate r"])  # nobody errs: nothing to predict


def test_ceilings_split_the_measured_trials():
    people = people_of(11, 40)
    half = people.choice.shape[1] // 2
    choice, rt_s = people.choice.copy(), people.rt_s.copy()
    choice[:, :half], rt_s[:, :half] = NOT_MEASURED, np.nan
    choice[0], rt_s[0] = NOT_MEASURED, np.nan
    seen = Observed(choice, rt_s, people.correct, people.condition)
    cut = Observed(*(a[1:, half:] for a in (choice, rt_s, people.correct, people.condition)))
    got, wanted = split_half_ceilings(seen), split_half_ceilings(cut)
    assert got == pytest.approx(wanted)
    assert all(0 < value < 1 for value in got.values())


def test_map_ceilings():
    rng = np.random.default_rng(12)
    group = rng.normal(size=(2, 50))
    own = group + rng.normal(size=(30, 2, 50))
    first, second = (own + 0.5 * rng.normal(size=own.shape) for _ in range(2))
    first[4] = np.nan
    got = map_ceilings(first, second, group)
    assert got["BOLD mean-removed r"] == pytest.approx(1 / 1.25, abs=0.03)
    assert got["BOLD individual r"] == pytest.approx(2 / 2.25, abs=0.03)
    assert got["BOLD region r"] == pytest.approx(1 / 1.25, abs=0.05)
    assert got["BOLD identification top-1"] == 1
    assert got["BOLD identification AUC"] > 0.99


def test_the_interval_of_a_biased_score_holds_the_score():
    # Means of resamples are noisier than the mean, so the square of it is larger in resamples.
    def squared_mean(rows):
        return float((rows.mean(axis=0) ** 2).mean())

    rows = np.random.default_rng(13).normal(size=(20, 500))
    got = bootstrap_interval(rows, squared_mean, n=500)
    assert got.low < got.value < got.high
    assert "biased" in got.note
