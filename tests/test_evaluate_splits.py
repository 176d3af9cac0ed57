"""Splits: who and what is trained on, what is tested, and what reports are told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dtwin_fast.cohort import NO_RESPONSE, NOT_MEASURED, Cohort, TaskData
from dtwin_fast.errors import DTwinInputError
from dtwin_fast.evaluate.splits import (
    blank,
    cross_run,
    held_out_people,
    left_out_sites,
    make_split,
    usable,
    within_person,
)
from dtwin_fast.simulate import simulate

N_PEOPLE = 23


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return simulate(N_PEOPLE, 16, seed=4, with_bold=False).cohort


@pytest.fixture(scope="module")
def with_bold(cohort: Cohort) -> Cohort:
    """Noise in place of simulated BOLD, with volumes after the run."""
    rng = np.random.default_rng(1)
    tasks = {}
    for name, data in cohort.tasks.items():
        n_volumes = data.schedule.n_volumes(cohort.tr_s) + 3
        bold = rng.standard_normal((len(cohort), n_volumes, len(cohort.bold_regions)))
        tasks[name] = replace(data, bold=bold.astype(np.float32))
    return replace(cohort, tasks=tasks)


def with_column(cohort: Cohort, name: str, values: list[object]) -> Cohort:
    return replace(cohort, participants={**cohort.participants, name: np.array(values)})


def test_within_person_parts_share_nothing_and_lose_what_crosses(with_bold: Cohort) -> None:
    (fold,) = within_person(with_bold).folds
    for name, data in with_bold.tasks.items():
        schedule = data.schedule
        half = schedule.run_s / 2
        train, test = fold.train.tasks[name], fold.test.tasks[name]
        assert not (train.measured & test.measured).any()
        ends_early = schedule.onset_s + schedule.window_s <= half
        starts_late = schedule.onset_s >= half
        np.testing.assert_array_equal(train.measured, ends_early & data.measured)
        np.testing.assert_array_equal(test.measured, starts_late & data.measured)
        np.testing.assert_array_equal(test.rt_s[:, starts_late], data.rt_s[:, starts_late])
        assert np.isnan(test.rt_s[:, ~starts_late]).all()
        border = int(np.ceil(half / with_bold.tr_s))
        np.testing.assert_array_equal(train.bold[:, :border], data.bold[:, :border])
        assert np.isnan(train.bold[:, border:]).all()
        assert np.isnan(test.bold[:, :border]).all()
        assert np.isfinite(test.bold[:, border : schedule.n_volumes(with_bold.tr_s)]).all()


def test_the_papers_halves(cohort: Cohort) -> None:
    """196.8 s: 54 faces trials in the second part (science of the TCP release)."""
    (fold,) = within_person(cohort, half_s=196.8).folds
    starts = cohort.tasks["faces"].schedule.onset_s
    assert fold.test.tasks["faces"].measured.any(axis=0).sum() == (starts >= 196.8).sum() == 54
    tested = fold.test.tasks["stroop"].measured.any(axis=0)
    stroop = cohort.tasks["stroop"].schedule
    assert (stroop.onset_s[tested] >= 196.8).all()
    assert (stroop.onset_s + stroop.window_s)[tested].max() <= 393.6


def test_everyone_is_tested_once_a_repeat_by_others(cohort: Cohort) -> None:
    split = held_out_people(cohort, n_folds=5, n_repeats=3, seed=2)
    assert len(split.folds) == 15
    for repeat in range(3):
        folds = [f for f in split.folds if f.repeat == repeat]
        tested = np.concatenate([f.people for f in folds])
        np.testing.assert_array_equal(np.sort(tested), np.arange(N_PEOPLE))
        for fold in folds:
            seen, unseen = fold.train.connectomes.subjects, fold.test.connectomes.subjects
            assert set(seen) | set(unseen) == set(cohort.connectomes.subjects)
            assert not set(seen) & set(unseen)
            assert unseen == tuple(cohort.connectomes.subjects[i] for i in fold.people)
    first, second = split.folds[0], split.folds[5]
    assert set(first.people) != set(second.people)


def test_folds_are_even_over_sites_and_in_size(cohort: Cohort) -> None:
    rng = np.random.default_rng(8)
    site = rng.permutation(["a"] * 12 + ["b"] * 10 + ["c"])
    split = held_out_people(with_column(cohort, "site", list(site)), n_folds=4, seed=1)
    for name, least, most in (("a", 3, 3), ("b", 2, 3)):
        counts = [(site[f.people] == name).sum() for f in split.folds]
        assert least <= min(counts) <= max(counts) <= most
    sizes = [len(f.people) for f in split.folds]
    assert max(sizes) - min(sizes) <= 1
    assert any("one person" in flag and flag.endswith("c") for flag in split.flags)


def test_families_stay_together(cohort: Cohort) -> None:
    family = np.array([i // 3 for i in range(N_PEOPLE)], float)
    family[-2:] = np.nan
    split = held_out_people(with_column(cohort, "family", list(family)), n_folds=4, seed=3)
    for fold in split.folds:
        outside = np.setdiff1d(np.arange(N_PEOPLE), fold.people)
        assert not set(family[fold.people]) & set(family[outside])  # NaN equals nothing
    fold_of = {int(p): k for k, f in enumerate(split.folds) for p in f.people}
    assert len(fold_of) == N_PEOPLE


def test_as_many_folds_as_people(cohort: Cohort) -> None:
    split = held_out_people(cohort, n_folds=N_PEOPLE)
    assert sorted(int(f.people[0]) for f in split.folds) == list(range(N_PEOPLE))


@pytest.mark.parametrize("n_folds", [0, 1, N_PEOPLE + 1])
def test_folds_that_cannot_be_made(cohort: Cohort, n_folds: int) -> None:
    with pytest.raises(DTwinInputError, match=r"\[split\] folds"):
        held_out_people(cohort, n_folds=n_folds)


def test_every_site_is_left_out_in_turn_but_the_single_and_the_unknown(cohort: Cohort) -> None:
    site = ["n/a"] + ["york"] * 10 + ["rome"] * 11 + ["oslo"]
    split = left_out_sites(with_column(cohort, "site", site))
    assert [f.name for f in split.folds] == ["site rome", "site york"]
    for fold in split.folds:
        assert set(fold.test.participants["site"]) == {fold.name.removeprefix("site ")}
        assert fold.name.removeprefix("site ") not in fold.train.participants["site"]
        assert "n/a" not in fold.train.participants["site"]
        assert "oslo" in fold.train.participants["site"]
    assert any("not tested: oslo" in flag for flag in split.flags)
    assert any("site unknown" in flag for flag in split.flags)


def test_one_site_cannot_be_left_out(cohort: Cohort) -> None:
    with pytest.raises(DTwinInputError, match=r"\[split\] participants\['site'\]"):
        left_out_sites(with_column(cohort, "site", [1] * N_PEOPLE))
    bare = replace(cohort, participants={})
    with pytest.raises(DTwinInputError, match="nobody's site is known"):
        left_out_sites(bare)


def test_cross_run_trains_on_first_runs(cohort: Cohort) -> None:
    later = cohort.tasks["stroop"]
    choice, rt_s = later.choice.copy(), later.rt_s.copy()
    choice[2], rt_s[2] = NOT_MEASURED, np.nan
    second = TaskData(later.schedule, choice, rt_s)
    both = replace(cohort, tasks={**cohort.tasks, "stroop_run-2": second})
    split = make_split("D", both)
    (fold,) = split.folds
    assert set(fold.train.tasks) == {"faces", "stroop"}
    assert set(fold.test.tasks) == {"stroop_run-2"}
    assert 2 not in fold.people
    assert any("one part only" in flag and "sub-00003" in flag for flag in split.flags)
    with pytest.raises(DTwinInputError, match="no task has a second run"):
        cross_run(cohort)


def test_a_fold_that_lacks_a_condition_is_flagged(cohort: Cohort) -> None:
    data = cohort.tasks["stroop"]
    choice, rt_s = data.choice.copy(), data.rt_s.copy()
    early = data.schedule.onset_s < data.schedule.run_s / 2
    incongruent = np.array(data.schedule.condition) == "inc"
    choice[:, early & incongruent] = NOT_MEASURED
    rt_s[:, early & incongruent] = np.nan
    gap = replace(cohort, tasks={"stroop": TaskData(data.schedule, choice, rt_s)})
    assert any("condition inc" in flag for flag in within_person(gap).flags)
    assert within_person(cohort).flags == ()


def test_blank_keeps_only_what_predictors_may_use(with_bold: Cohort) -> None:
    empty = blank(with_bold)
    for name, data in empty.tasks.items():
        assert (data.choice == NOT_MEASURED).all()
        assert np.isnan(data.rt_s).all()
        assert np.isnan(data.bold).all()
        assert data.bold.shape == with_bold.tasks[name].bold.shape
    assert empty.connectomes is with_bold.connectomes


def test_usable_leaves_out_constant_series_and_people_without_data(with_bold: Cohort) -> None:
    tasks = {}
    for name, data in with_bold.tasks.items():
        choice, rt_s, bold = data.choice.copy(), data.rt_s.copy(), data.bold.copy()
        choice[5], rt_s[5], bold[5] = NOT_MEASURED, np.nan, np.nan
        bold[7, 10:, 2] = 0.25
        bold[7, :10, 2] = np.nan
        choice[9], rt_s[9] = NO_RESPONSE, np.nan  # measured: nothing was pressed
        tasks[name] = TaskData(data.schedule, choice, rt_s, bold)
    kept, flags = usable(replace(with_bold, tasks=tasks))
    assert len(kept) == N_PEOPLE - 1
    assert "sub-00006" not in kept.connectomes.subjects
    assert "sub-00010" in kept.connectomes.subjects
    for data in kept.tasks.values():
        assert np.isnan(data.bold[6, :, 2]).all()
        assert np.isfinite(data.bold[6, :, 3]).all()
    assert [("constant" in f, "sub-00008" in f) for f in flags[:2]] == [(True, True)] * 2
    assert "sub-00006" in flags[2]
    assert usable(with_bold)[1] == []
    with pytest.raises(DTwinInputError, match=r"\[no_trials\]"):
        usable(blank(with_bold))


def test_unknown_split(cohort: Cohort) -> None:
    with pytest.raises(DTwinInputError, match="there is no such split"):
        make_split("E", cohort)
