"""Scores of BOLD against scipy, sklearn, pairs counted one by one, and known cases."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from dtwin_fast.evaluate.bold import region_r
from dtwin_fast.evaluate.metrics_table import METRICS
from dtwin_fast.evaluate.observed import Observed
from dtwin_fast.evaluate.predicted import Predicted
from dtwin_fast.evaluate.statistics import (
    CountedScore,
    bootstrap_interval,
    difference_interval,
    mean_over_repeats,
)

BOLD = [name for name, metric in METRICS.items() if metric.domain == "bold"]
IDENTIFICATION = [name for name in BOLD if "identification" in name]
FLOAT32 = 1e-5


def score(name, predicted, observed):
    metric = METRICS[name]
    return metric.combine(metric.summarise(predicted, observed))


def observe(contrasts=None, mean=None, bold=None, bold_mean=None, n_people=None):
    n_people = n_people or len(bold if contrasts is None else contrasts)
    nothing = np.zeros((n_people, 0))
    reference = {"contrasts_mean": mean, "bold_mean": bold_mean}
    return Observed(
        nothing.astype(np.int8),
        nothing.astype(np.float32),
        nothing.astype(np.int64),
        nothing.astype(str),
        contrasts=contrasts,
        bold=bold,
        reference={name: part for name, part in reference.items() if part is not None},
    )


def draw(seed=0, n_people=11, shape=(2, 37), own=1.0, noise=1.0):
    """People whose maps are a group's and their own, predicted with noise."""
    rng = np.random.default_rng(seed)
    group = rng.normal(size=shape)
    maps = group + own * rng.normal(size=(n_people, *shape))
    guess = maps + noise * rng.normal(size=maps.shape)
    return (
        Predicted(contrasts=guess.astype(np.float32)),
        observe(maps.astype(np.float32), group.astype(np.float32)),
    )


def flat(contrasts):
    return contrasts.reshape(len(contrasts), -1).astype(float)


def mean_r(first, second):
    return np.mean([stats.pearsonr(a, b).statistic for a, b in zip(first, second, strict=True)])


def test_patterns_of_the_group():
    predicted, observed = draw()
    maps = [flat(part.contrasts) for part in (predicted, observed)]
    t = [stats.ttest_1samp(part, 0).statistic for part in maps]
    wanted = stats.pearsonr(*t).statistic
    assert score("BOLD group-pattern r", predicted, observed) == pytest.approx(wanted)
    wanted = stats.pearsonr(*(part.mean(axis=0) for part in maps)).statistic
    assert score("BOLD group-mean r", predicted, observed) == pytest.approx(wanted)


def test_the_group_pattern_of_a_constant_prediction_is_that_of_its_mean():
    _, observed = draw(1)
    mean = observed.reference["contrasts_mean"]
    same = Predicted(contrasts=np.broadcast_to(mean, observed.contrasts.shape))
    t = stats.ttest_1samp(flat(observed.contrasts), 0).statistic
    wanted = stats.pearsonr(mean.ravel(), t).statistic
    assert score("BOLD group-pattern r", same, observed) == pytest.approx(wanted)


def test_maps_of_people():
    predicted, observed = draw(2)
    guess, seen = flat(predicted.contrasts), flat(observed.contrasts)
    mean = observed.reference["contrasts_mean"].ravel()
    wanted = mean_r(guess, seen)
    assert score("BOLD individual r", predicted, observed) == pytest.approx(wanted)
    group = mean_r(np.broadcast_to(mean, seen.shape), seen)
    got = score("BOLD individual r gain", predicted, observed)
    assert got == pytest.approx(wanted - group, abs=FLOAT32)
    wanted = mean_r(guess - mean, seen - mean)
    assert score("BOLD mean-removed r", predicted, observed) == pytest.approx(wanted, abs=FLOAT32)
    columns = [stats.pearsonr(g, s).statistic for g, s in zip(guess.T, seen.T, strict=True)]
    assert score("BOLD region r", predicted, observed) == pytest.approx(np.median(columns))


@pytest.mark.parametrize("sum_in", [np.float32, np.float64])
def test_the_groups_mean_knows_no_person(sum_in):
    _, observed = draw(3)
    # A mean that was summed elsewhere differs by rounding.
    mean = observed.reference["contrasts_mean"].astype(sum_in)
    rounded = ((mean * sum_in(3.1)) / sum_in(3.1)).astype(np.float32)
    same = Predicted(contrasts=np.broadcast_to(rounded, observed.contrasts.shape))
    chance = 1 / len(observed.contrasts)
    wanted = {
        "BOLD individual r gain": 0,
        "BOLD mean-removed r": 0,
        "BOLD region r": 0,
        "BOLD identification top-1": chance,
        "BOLD identification rank": 0.5,
        "BOLD identification diagonality": 0,
        "BOLD identification AUC": 0.5,
    }
    got = {name: score(name, same, observed) for name in wanted}
    assert got == pytest.approx(wanted, abs=FLOAT32)
    assert got["BOLD mean-removed r"] == 0


def test_identification_pair_by_pair():
    predicted, observed = draw(4, noise=6.0)
    mean = observed.reference["contrasts_mean"].ravel()
    guess, seen = (flat(part.contrasts) - mean for part in (predicted, observed))
    n = len(seen)
    r = np.corrcoef(guess, seen)[:n, n:]
    is_own = np.eye(n, dtype=bool)
    wanted = {
        "BOLD identification top-1": np.mean(r.argmax(axis=1) == np.arange(n)),
        "BOLD identification rank": np.mean(
            [(np.delete(r[i], i) < r[i, i]).mean() for i in range(n)]
        ),
        "BOLD identification diagonality": (r[is_own].mean() - r[~is_own].mean())
        / r[is_own].mean(),
        "BOLD identification AUC": roc_auc_score(is_own.ravel(), r.ravel()),
    }
    assert 0 < wanted["BOLD identification top-1"] < 1  # the draw is neither hopeless nor easy
    got = {name: score(name, predicted, observed) for name in IDENTIFICATION}
    assert got == pytest.approx(wanted, abs=FLOAT32)


@pytest.mark.parametrize("name", IDENTIFICATION)
def test_a_person_drawn_twice_is_no_other(name):
    predicted, observed = draw(5, noise=0.0)
    rows = METRICS[name].summarise(predicted, observed)
    drawn = np.random.default_rng(0).integers(0, len(rows), len(rows))
    assert len(np.unique(drawn)) < len(drawn)
    once, again = METRICS[name].combine(rows), METRICS[name].combine(rows[drawn])
    if name.endswith("diagonality"):
        assert 0.7 < again < 1.3
    else:
        assert once == again == 1


def test_identification_of_draws_pair_by_pair():
    predicted, observed = draw(13, n_people=7, noise=5.0)
    rows = METRICS[IDENTIFICATION[0]].summarise(predicted, observed)
    half = rows.shape[1] // 2
    r = np.corrcoef(rows[:, :half], rows[:, half:])[:7, 7:]
    for drawn in np.random.default_rng(1).integers(0, 7, (20, 7)):
        own = np.array([r[i, i] for i in drawn])
        others = [[r[i, j] for j in drawn if j != i] for i in drawn]
        pooled = np.concatenate(others)
        wanted = {
            "BOLD identification top-1": np.mean(
                [o > max(x) for o, x in zip(own, others, strict=True)]
            ),
            "BOLD identification rank": np.mean(
                [np.mean([v < o for v in x]) for o, x in zip(own, others, strict=True)]
            ),
            "BOLD identification diagonality": (own.mean() - pooled.mean()) / own.mean()
            if own.mean() > 0
            else np.nan,
            "BOLD identification AUC": np.mean(own[:, None] > pooled),
        }
        got = {name: METRICS[name].combine(rows[drawn]) for name in IDENTIFICATION}
        assert got == pytest.approx(wanted, abs=FLOAT32, nan_ok=True)


@pytest.mark.parametrize(
    "name", [name for name in BOLD if isinstance(METRICS[name].combine, CountedScore)]
)
def test_many_draws_at_once_score_as_one_by_one(name):
    predicted, observed = draw(14, noise=4.0)
    seen = observed.contrasts.copy()
    seen[2, 1, 5] = np.nan
    observed = observe(seen, observed.reference["contrasts_mean"])
    rows = METRICS[name].summarise(predicted, observed)
    combine = METRICS[name].combine
    drawn = np.random.default_rng(2).integers(0, 11, (30, 11))
    drawn[0] = 4  # one person alone
    counts = np.stack([np.bincount(people, minlength=11) for people in drawn]).astype(float)
    wanted = [combine(rows[people]) for people in drawn]
    assert combine.of_draws(rows, counts) == pytest.approx(wanted, abs=1e-9, nan_ok=True)
    assert np.isnan(wanted[0]) == (name != "BOLD group-mean r")
    assert np.isfinite(wanted[1:]).all()


@pytest.mark.parametrize("name", ["BOLD group-pattern r", *IDENTIFICATION, "BOLD individual r"])
def test_the_mean_over_repeats(name):
    parts = [METRICS[name].summarise(*draw(seed, noise=4.0)) for seed in (15, 16, 17)]
    parts[1][3] = np.nan  # a person whom one repeat cannot score
    combine = mean_over_repeats(METRICS[name].combine, 3)
    rows = np.hstack(parts)
    wanted = np.mean([METRICS[name].combine(part) for part in parts])
    assert combine(rows) == pytest.approx(wanted)
    got = bootstrap_interval(rows, combine, n=100)
    slow = bootstrap_interval(rows, lambda rows: combine(rows), n=100)
    assert (got.value, got.low, got.high) == pytest.approx((wanted, slow.low, slow.high))


@pytest.mark.parametrize("name", IDENTIFICATION)
def test_one_person_cannot_be_told_from_others(name):
    predicted, observed = draw(6)
    rows = METRICS[name].summarise(predicted, observed)
    assert np.isnan(METRICS[name].combine(rows[[2, 2, 2]]))
    assert np.isnan(METRICS[name].combine(rows[:0]))


def test_diagonality_of_what_is_not_like_the_own_map_means_nothing():
    predicted, observed = draw(7, noise=0.0)
    mean = observed.reference["contrasts_mean"]
    opposite = Predicted(contrasts=2 * mean - predicted.contrasts)
    assert np.isnan(score("BOLD identification diagonality", opposite, observed))
    assert score("BOLD identification AUC", opposite, observed) == 0


@pytest.mark.parametrize("n_people", [3, 12])
def test_the_perfect_prediction(n_people):
    _, observed = draw(8, n_people=n_people)
    perfect = Predicted(contrasts=observed.contrasts)
    for name in BOLD:
        if "time-course" not in name and "gain" not in name and "diagonality" not in name:
            assert score(name, perfect, observed) == pytest.approx(1), name
    r = score("BOLD individual r gain", perfect, observed)
    assert 0 < r < 1
    assert score("BOLD identification diagonality", perfect, observed) > 0.7


def test_regions_that_were_not_measured_are_left_out():
    predicted, observed = draw(9, noise=0.5)
    seen, guess = observed.contrasts.copy(), predicted.contrasts.copy()
    seen[:, 0, 3] = np.nan  # in nobody
    seen[2, 1, 5] = np.nan  # in one person
    guess[4, 1, 6] = np.nan
    partly = observe(seen, observed.reference["contrasts_mean"])
    predicted = Predicted(contrasts=guess)
    mean = observed.reference["contrasts_mean"].ravel()
    r = []
    for a, b in zip(flat(guess) - mean, flat(seen) - mean, strict=True):
        both = np.isfinite(a) & np.isfinite(b)
        r.append(stats.pearsonr(a[both], b[both]).statistic)
    got = score("BOLD mean-removed r", predicted, partly)
    assert got == pytest.approx(np.mean(r), abs=FLOAT32)
    rows = METRICS["BOLD region r"].summarise(predicted, partly)
    known = region_r(rows, np.ones((1, len(rows))))[0]
    assert np.isnan(known).sum() == 1
    others = np.arange(11) != 2
    place = 37 + 5
    wanted = stats.pearsonr(flat(guess)[others, place], flat(seen)[others, place]).statistic
    assert known[place] == pytest.approx(wanted)
    both = [np.where(np.isnan(flat(guess) + flat(seen)), np.nan, flat(m)) for m in (guess, seen)]
    keep = np.arange(74) != 3
    t = [stats.ttest_1samp(part[:, keep], 0, nan_policy="omit").statistic for part in both]
    wanted = stats.pearsonr(*map(np.asarray, t)).statistic
    assert score("BOLD group-pattern r", predicted, partly) == pytest.approx(wanted, abs=FLOAT32)
    for name in IDENTIFICATION[:2]:
        assert score(name, predicted, partly) == 1


@pytest.mark.parametrize("name", [name for name in BOLD if "time-course" not in name])
def test_unknown_people_are_left_out(name):
    predicted, observed = draw(10)
    guess, seen = predicted.contrasts.copy(), observed.contrasts.copy()
    guess[1], seen[4] = np.nan, np.nan
    partly = observe(seen, observed.reference["contrasts_mean"])
    rows = METRICS[name].summarise(Predicted(contrasts=guess), partly)
    assert np.isnan(rows[[1, 4]]).all()
    known = np.delete(METRICS[name].summarise(predicted, observed), [1, 4], axis=0)
    assert METRICS[name].combine(rows) == pytest.approx(METRICS[name].combine(known))


@pytest.mark.parametrize("name", BOLD)
def test_a_predictor_or_a_cohort_without_bold_has_no_score(name):
    predicted, observed = draw(11)
    course = np.random.default_rng(0).normal(size=(11, 30, 4)).astype(np.float32)
    full = observe(observed.contrasts, observed.reference["contrasts_mean"], course, course[0])
    nothing = observe(n_people=11)
    said = Predicted(contrasts=predicted.contrasts, bold=course)
    for guess, seen in ((Predicted(), full), (said, nothing), (Predicted(), nothing)):
        rows = METRICS[name].summarise(guess, seen)
        assert len(rows) == 11
        assert np.isnan(rows).all()
        assert np.isnan(METRICS[name].combine(rows))
    known = METRICS[name].summarise(said, full)
    other = METRICS[name].summarise(Predicted(), full)
    combine = METRICS[name].combine
    assert "nobody" in difference_interval(known, other, combine, n=20).note


def test_a_region_of_two_people_has_no_r():
    predicted, observed = draw(19, n_people=5)
    seen = observed.contrasts.copy()
    seen[2:, 0, 7] = np.nan
    seen[3:, 0, 8] = np.nan
    rows = METRICS["BOLD region r"].summarise(predicted, observe(seen))
    known = np.isfinite(region_r(rows, np.ones((1, 5)))[0])
    assert np.flatnonzero(~known).tolist() == [7]


def test_without_a_training_groups_map_there_are_no_own_maps():
    predicted, observed = draw(18)
    alone = observe(observed.contrasts)
    without = {name for name in BOLD if np.isnan(score(name, predicted, alone))}
    courses = {name for name in BOLD if "time-course" in name}
    assert without - courses == {
        "BOLD individual r gain",
        "BOLD mean-removed r",
        *IDENTIFICATION,
    }


@pytest.mark.parametrize("name", BOLD[:-2])
def test_intervals_over_people_hold_the_score(name):
    predicted, observed = draw(12, n_people=25, noise=4.0)
    metric = METRICS[name]
    got = bootstrap_interval(metric.summarise(predicted, observed), metric.combine, n=200)
    assert got.low < got.value < got.high
    assert got.high - got.low < 1


def draw_courses(seed=0, n_people=5, n_volumes=61, n_regions=4):
    rng = np.random.default_rng(seed)
    group = rng.normal(size=(n_volumes, n_regions))
    bold = group + rng.normal(size=(n_people, n_volumes, n_regions))
    guess = bold + rng.normal(size=bold.shape)
    return guess.astype(np.float32), bold.astype(np.float32), group.astype(np.float32)


def test_explained_time_courses():
    guess, bold, group = draw_courses()
    sse = sst = group_sse = 0.0
    for person in range(5):
        for region in range(4):
            seen, said, mean = (
                part - part.mean()
                for part in (
                    bold[person, :, region].astype(float),
                    guess[person, :, region].astype(float),
                    group[:, region].astype(float),
                )
            )
            sse += ((seen - said) ** 2).sum()
            group_sse += ((seen - mean) ** 2).sum()
            sst += (seen**2).sum()
    observed = observe(bold=bold, bold_mean=group)
    predicted = Predicted(bold=guess)
    assert score("BOLD time-course R2", predicted, observed) == pytest.approx(1 - sse / sst)
    gain = score("BOLD time-course R2 gain", predicted, observed)
    assert gain == pytest.approx((group_sse - sse) / sst)
    same = Predicted(bold=np.broadcast_to(group, bold.shape))
    assert score("BOLD time-course R2 gain", same, observed) == pytest.approx(0)
    assert score("BOLD time-course R2", Predicted(bold=bold), observed) == 1


def test_a_constant_offset_explains_nothing_and_costs_nothing():
    guess, bold, _ = draw_courses(1)
    observed = observe(bold=bold)
    offset = 5 * np.arange(4, dtype=np.float32)
    wanted = score("BOLD time-course R2", Predicted(bold=guess), observed)
    got = score("BOLD time-course R2", Predicted(bold=guess + offset), observed)
    assert got == pytest.approx(wanted, abs=FLOAT32)
    still = Predicted(bold=np.zeros_like(bold) + offset)
    assert score("BOLD time-course R2", still, observed) == pytest.approx(0)


def test_volumes_that_were_not_measured_are_left_out():
    guess, bold, group = draw_courses(2)
    part = bold.copy()
    part[:, :20] = np.nan
    part[1, 50:] = np.nan
    part[2] = np.nan
    part[3, :, 1] = np.nan
    alone = [score("BOLD time-course R2", Predicted(bold=guess[i : i + 1, 20:]),
                   observe(bold=bold[i : i + 1, 20:])) for i in (0, 4)]  # fmt: skip
    observed = observe(bold=part[[0, 2, 4]])
    rows = METRICS["BOLD time-course R2"].summarise(Predicted(bold=guess[[0, 2, 4]]), observed)
    assert np.isnan(rows[1]).all()
    assert 1 - rows[[0, 2], 0] / rows[[0, 2], 1] == pytest.approx(alone)
    everyone = METRICS["BOLD time-course R2"].summarise(Predicted(bold=guess), observe(bold=part))
    assert np.isfinite(everyone[[0, 1, 3, 4]]).all()
    untrained = group.copy()
    untrained[20:] = np.nan
    observed = observe(bold=part, bold_mean=untrained)
    assert np.isnan(score("BOLD time-course R2 gain", Predicted(bold=guess), observed))
