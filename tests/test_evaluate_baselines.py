"""Baselines against brute force, scikit-learn and known answers, and what they must not see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from dtwin_fast.cohort import NO_RESPONSE, NOT_MEASURED, WRONG_BUTTON, Cohort, TaskData
from dtwin_fast.connectome import Connectomes
from dtwin_fast.evaluate.baselines import BASELINES
from dtwin_fast.evaluate.baselines.cpm import P_THRESHOLD, chosen_edges
from dtwin_fast.evaluate.baselines.features import (
    AGE,
    DEMOGRAPHIC,
    SITE,
    complete_edges,
    covariates,
    pearson_edges,
    principal_components,
    standard_edges,
)
from dtwin_fast.evaluate.baselines.ridge import PENALTIES, solve
from dtwin_fast.evaluate.contrasts import contrast_effects
from dtwin_fast.evaluate.predicted import Predicted
from dtwin_fast.evaluate.splits import blank, held_out_people, within_person
from dtwin_fast.simulate import simulate

ROUNDING = 1e-9
FLOAT32_RELATIVE = 1e-4  # float32 edges in float64 solves
OF_PERSON = ("person mean", "person + item")
OF_CONNECTOME = ("ridge", "krr", "cpm", "pca-ridge")
OF_COVARIATES = ("demographics", "motion")


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return simulate(31, 20, seed=12, bold_regions=("LH_V1", "RH_HVC", "LH_M1")).cohort


@pytest.fixture(scope="module")
def parts(cohort: Cohort) -> tuple[Cohort, Cohort]:
    fold = held_out_people(cohort, n_folds=4, seed=0).folds[1]
    return fold.train, fold.test


def fitted(name: str, train: Cohort, people: Cohort) -> dict[str, Predicted]:
    predictor = BASELINES[name]()
    assert predictor.name == name.replace("-correct", " correct")
    predictor.fit(train, 0)
    return predictor.predict(blank(people))


def without(cohort: Cohort, task: str, trials: np.ndarray) -> Cohort:
    """The cohort without some trials, (S,N) or (N,) bool."""
    data = cohort.tasks[task]
    choice, rt_s = data.choice.copy(), data.rt_s.copy()
    trials = np.broadcast_to(trials, choice.shape)
    choice[trials], rt_s[trials] = NOT_MEASURED, np.nan
    return replace(
        cohort, tasks={**cohort.tasks, task: TaskData(data.schedule, choice, rt_s, data.bold)}
    )


@pytest.mark.parametrize("name", BASELINES)
def test_predictions_are_probabilities_of_the_right_shapes(
    name: str, parts: tuple[Cohort, Cohort]
) -> None:
    train, test = parts
    for task, predicted in fitted(name, train, test).items():
        n_trials = test.tasks[task].schedule.n_trials
        prob = predicted.choice_prob
        assert prob.shape == (len(test), n_trials, 3)
        if name in OF_PERSON:
            assert np.isnan(prob).all()
            continue
        assert (prob >= 0).all()
        assert (prob.sum(axis=2) <= 1 + 1e-6).all()
        if name == "always correct":
            correct = test.tasks[task].schedule.correct
            assert (prob.argmax(axis=2) == correct).all()
            assert predicted.rt_s is None
            continue
        assert predicted.rt_s.shape == (len(test), n_trials)
        assert (predicted.rt_s > 0).all()
        assert predicted.press_prob.dtype == predicted.rt_s.dtype == np.float32
        np.testing.assert_allclose(predicted.press_prob.sum(axis=2), prob, atol=1e-5)
        assert predicted.contrasts.shape == (len(test), 1, 3)
        assert np.isfinite(predicted.contrasts).all()


@pytest.mark.parametrize("name", BASELINES)
def test_nothing_of_the_test_people_moves_a_prediction(
    name: str, cohort: Cohort, parts: tuple[Cohort, Cohort]
) -> None:
    """Their data cannot (they are blank); other people beside them must not either."""
    train, test = parts
    alone = test.select([0])
    for task, one in fitted(name, train, alone).items():
        all_of_them = fitted(name, train, test)[task]
        for field in ("choice_prob", "rt_s", "contrasts"):
            mine, theirs = getattr(one, field), getattr(all_of_them, field)
            if mine is not None:
                np.testing.assert_allclose(mine[0], theirs[0], rtol=FLOAT32_RELATIVE, atol=1e-5)


@pytest.mark.parametrize("name", [*OF_CONNECTOME, *OF_COVARIATES, "group"])
def test_what_a_baseline_depends_on(name: str, parts: tuple[Cohort, Cohort]) -> None:
    train, test = parts
    rolled = np.roll(np.arange(len(test)), 1)
    other_fc = replace(
        test.connectomes, edges=test.connectomes.edges[rolled], missing=test.connectomes.missing
    )
    swapped = {
        "fc": replace(test, connectomes=other_fc),
        "covariates": replace(
            test, participants={k: v[rolled] for k, v in test.participants.items()}
        ),
    }

    def said(people: Cohort) -> np.ndarray:
        runs = fitted(name, train, people).values()
        return np.concatenate([np.hstack([p.rt_s, p.contrasts[:, 0]]) for p in runs], axis=1)

    moved = {what: not np.array_equal(said(people), said(test)) for what, people in swapped.items()}
    assert moved == {"fc": name in OF_CONNECTOME, "covariates": name in OF_COVARIATES}


def test_group_is_the_rates_and_means_of_the_trials(parts: tuple[Cohort, Cohort]) -> None:
    train, test = parts
    predicted = fitted("group", train, test)["stroop"]
    data = train.tasks["stroop"]
    condition = np.array(data.schedule.condition)
    effects, _ = contrast_effects(train, "stroop")
    np.testing.assert_allclose(predicted.contrasts[2], effects.mean(axis=0), rtol=1e-5)
    for name in ("con", "inc"):
        of = condition == name
        trial = int(np.flatnonzero(of)[3])
        # Everyone has all trials, so means over people are those over trials.
        silent = (data.choice[:, of] == NO_RESPONSE).mean()
        right = data.is_correct[:, of].mean()
        prob = predicted.choice_prob[1, trial]
        assert prob[data.schedule.correct[trial]] == pytest.approx(right, abs=1e-6)
        assert 1 - prob.sum() == pytest.approx(max(silent, 1e-3), abs=1e-6)
        others = np.delete(prob, data.schedule.correct[trial])
        np.testing.assert_allclose(others, (1 - right - silent) / 2, rtol=1e-4)
        mean = np.nanmean(np.nanmean(data.rt_s[:, of], axis=1))
        np.testing.assert_allclose(predicted.rt_s[:, of], mean, rtol=1e-5)


def test_the_groups_timing_is_the_histogram_of_its_times(parts: tuple[Cohort, Cohort]) -> None:
    train, test = parts
    predicted = fitted("group", train, test)["faces"]
    data = train.tasks["faces"]
    of = np.array(data.schedule.condition) == "face"
    trial = int(np.flatnonzero(of)[0])
    times = data.rt_s[:, of][data.pressed[:, of]]
    timing = predicted.press_prob[0, trial].sum(axis=1)
    timing = timing / timing.sum()
    edges = 0.08 * np.arange(len(timing) + 1)
    wanted, _ = np.histogram(times, edges)
    # The ratios are pooled over conditions, so the two are alike and not equal.
    assert np.abs(np.cumsum(timing) - np.cumsum(wanted / wanted.sum())).max() < 0.05
    assert (timing > 0).all()


def test_items_are_the_trials_own_or_those_of_the_stimulus(cohort: Cohort) -> None:
    (fold,) = within_person(cohort).folds
    schedule = cohort.tasks["stroop"].schedule
    whole = fitted("item mean", cohort, cohort)["stroop"].rt_s[0]
    data = cohort.tasks["stroop"]
    condition = np.array(schedule.condition)
    rest = np.empty(data.rt_s.shape)
    cell = {}
    for name in ("con", "inc"):
        of = condition == name
        own = np.nanmean(data.rt_s[:, of], axis=1, keepdims=True)
        rest[:, of] = data.rt_s[:, of] - own
        cell[name] = own.mean()
    wanted = np.array([cell[c] for c in condition]) + np.nanmean(rest, axis=0)
    np.testing.assert_allclose(whole, wanted, rtol=1e-5)
    # In the second half no trial was seen: those with one stimulus have one prediction.
    half = fitted("item mean", fold.train, fold.test)["stroop"].rt_s[0]
    late = schedule.onset_s >= schedule.run_s / 2
    for item in np.unique(schedule.item[late]):
        times = half[late & (schedule.item == item)]
        np.testing.assert_allclose(times, times[0])
    assert len(np.unique(half[late])) > 2


def test_a_person_is_their_own_first_half(cohort: Cohort) -> None:
    (fold,) = within_person(cohort).folds
    predicted = fitted("person mean", fold.train, fold.test)["faces"]
    data = fold.train.tasks["faces"]
    face = np.array(data.schedule.condition) == "face"
    trial = int(np.flatnonzero(face)[-1])
    np.testing.assert_allclose(
        predicted.rt_s[:, trial], np.nanmean(data.rt_s[:, face], axis=1), rtol=1e-5
    )
    effects, _ = contrast_effects(fold.train, "faces")
    np.testing.assert_allclose(predicted.contrasts, effects, rtol=1e-6)
    n = data.measured[0, face].sum()
    shares = {}
    for what, done in {
        "silent": data.choice == NO_RESPONSE,
        "wrong": data.pressed & ~data.is_correct,
    }.items():
        own = done[:, face].sum(axis=1)
        shares[what] = np.maximum((own + own.mean() / n) / (n + 1), 1e-3)
    right = predicted.choice_prob[np.arange(31), trial, data.schedule.correct[trial]]
    np.testing.assert_allclose(right, 1 - shares["silent"] - shares["wrong"], atol=1e-6)


def test_a_person_with_gaps(cohort: Cohort) -> None:
    """A condition without a press is the group's; a person without a trial is unknown."""
    stroop = cohort.tasks["stroop"]
    inc = np.array(stroop.schedule.condition) == "inc"
    gaps = np.zeros(stroop.choice.shape, bool)
    gaps[4, inc] = True
    gaps[6] = True
    data = without(cohort, "stroop", gaps).tasks["stroop"]
    behaviour = replace(cohort, tasks={"stroop": replace(data, bold=None)})
    own = fitted("person mean", behaviour, behaviour)["stroop"]
    group = fitted("group", behaviour, behaviour)["stroop"]
    np.testing.assert_array_equal(own.rt_s[4, inc], group.rt_s[4, inc])
    assert np.isnan(own.rt_s[6]).all()
    assert np.isnan(own.choice_prob[6]).all()
    assert np.isnan(own.press_prob[6]).all()
    assert np.isfinite(own.rt_s[5]).all()
    assert np.isfinite(fitted("krr", behaviour, behaviour)["stroop"].rt_s).all()


def test_an_unknown_wrong_button_is_an_error(cohort: Cohort) -> None:
    data = cohort.tasks["stroop"]
    choice = np.where(data.pressed & ~data.is_correct, np.int8(WRONG_BUTTON), data.choice)
    unknown = replace(cohort, tasks={"stroop": replace(data, choice=choice)})
    known = replace(cohort, tasks={"stroop": data})
    np.testing.assert_array_equal(
        fitted("group", unknown, cohort)["stroop"].choice_prob,
        fitted("group", known, cohort)["stroop"].choice_prob,
    )


def test_a_second_run_is_predicted_from_the_first(cohort: Cohort) -> None:
    data = cohort.tasks["stroop"]
    order = np.random.default_rng(0).permutation(data.schedule.n_trials)
    shuffled = replace(
        data.schedule,
        condition=tuple(data.schedule.condition[i] for i in order),
        item=data.schedule.item[order],
        correct=data.schedule.correct[order],
        stimulus=data.schedule.stimulus[order],
    )
    later = TaskData(shuffled, data.choice, data.rt_s, data.bold)
    test = replace(cohort, tasks={"stroop_run-2": later})
    for name in ("krr", "person mean", "group"):
        first = fitted(name, cohort, cohort)["stroop"]
        second = fitted(name, cohort, test)["stroop_run-2"]
        np.testing.assert_array_equal(second.contrasts, first.contrasts)
        con = [s.condition.index("con") for s in (data.schedule, shuffled)]
        if name != "krr":
            np.testing.assert_array_equal(second.rt_s[:, con[1]], first.rt_s[:, con[0]])
    faces_only = replace(cohort, tasks={"faces": cohort.tasks["faces"]})
    unknown = fitted("krr", faces_only, test)["stroop_run-2"]
    assert unknown.rt_s is unknown.choice_prob is unknown.contrasts is None


def test_groups_time_course(cohort: Cohort) -> None:
    seen = fitted("group", cohort, cohort)["faces"].bold
    bold = cohort.tasks["faces"].bold.astype(np.float64)
    wanted = (bold - bold.mean(axis=1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(seen[3], wanted, atol=1e-5)
    (fold,) = within_person(cohort).folds
    late = fitted("group", fold.train, fold.test)["faces"].bold[0]
    unseen = np.isfinite(fold.test.tasks["faces"].bold[0, :, 0])
    # What the GLM of the first half expects of the second is like what happened there.
    assert np.corrcoef(late[unseen, 0], wanted[unseen, 0])[0, 1] > 0.5
    np.testing.assert_allclose(late[unseen].mean(axis=0), 0, atol=1e-5)


def test_ridge_equals_leaving_one_out_by_hand() -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((17, 40))
    y = x[:, :5] @ rng.standard_normal((5, 4)) + 3 * rng.standard_normal((17, 4)) + 7
    kernel = x @ x.T
    penalties = PENALTIES * np.trace(kernel) / 17
    centred = y - y.mean(axis=0)
    errors = np.zeros((len(penalties), 4))
    for k, penalty in enumerate(penalties):
        for i in range(17):
            rest = np.delete(np.arange(17), i)
            ridge = kernel[np.ix_(rest, rest)] + penalty * np.eye(16)
            guess = kernel[i, rest] @ np.linalg.solve(ridge, centred[rest])
            errors[k] += (centred[i] - guess) ** 2
    best = penalties[errors.argmin(axis=0)]
    is_mean = (centred**2).sum(axis=0) <= errors.min(axis=0)
    assert is_mean.any()
    assert not is_mean.all()
    wanted = [
        np.linalg.solve(kernel + penalty * np.eye(17), centred[:, p]) * (not is_mean[p])
        for p, penalty in enumerate(best)
    ]
    np.testing.assert_allclose(solve(kernel, y), np.transpose(wanted), rtol=1e-6, atol=1e-12)


def test_krr_predicts_as_scikit_learn_does(parts: tuple[Cohort, Cohort]) -> None:
    from sklearn.kernel_ridge import KernelRidge

    train, test = parts
    mean = train.connectomes.fisher_z().astype(np.float64).mean(axis=0)
    z = {c: c.connectomes.fisher_z() - mean for c in (train, test)}
    kernel = np.corrcoef(z[train])
    across = np.corrcoef(z[test], z[train])[: len(test), len(test) :]
    effects = contrast_effects(train, "faces")[0][:, 0].astype(np.float64)
    predicted = fitted("krr", train, test)["faces"].contrasts[:, 0]
    guesses = []
    for penalty in PENALTIES * np.trace(kernel) / len(train):
        model = KernelRidge(alpha=penalty, kernel="precomputed")
        model.fit(kernel, effects - effects.mean(axis=0))
        guesses.append(model.predict(across) + effects.mean(axis=0))
    for region in range(3):
        guesses_or_mean = [*guesses, np.broadcast_to(effects.mean(axis=0), guesses[0].shape)]
        off = [np.abs(g[:, region] - predicted[:, region]).max() for g in guesses_or_mean]
        assert min(off) < FLOAT32_RELATIVE


def test_chosen_edges_have_the_p_values_of_scipy() -> None:
    rng = np.random.default_rng(7)
    edges = rng.standard_normal((25, 300)).astype(np.float32)
    edges[:, 4] = 0.5
    y = edges[:, :2] @ np.array([[1.0], [-1.0]]) + 0.5 * rng.standard_normal((25, 1))
    positive, negative = chosen_edges(edges, y)
    with np.errstate(invalid="ignore", divide="ignore"):
        for e in np.delete(np.arange(300), 4):
            r, p = stats.pearsonr(edges[:, e].astype(np.float64), y[:, 0])
            assert positive[e, 0] == (p < P_THRESHOLD and r > 0)
            assert negative[e, 0] == (p < P_THRESHOLD and r < 0)
    assert positive[0, 0]
    assert negative[1, 0]
    assert not positive[4, 0]


def test_missing_edges_are_the_training_mean(parts: tuple[Cohort, Cohort]) -> None:
    train, test = parts
    fc = train.connectomes
    edges, missing = fc.edges.copy(), fc.missing.copy()
    missing[2, 5] = True
    rows, columns = np.triu_indices(fc.n_regions, 1)
    edges[2, (rows == 5) | (columns == 5)] = np.nan
    gappy = replace(train, connectomes=replace(fc, edges=edges, missing=missing))
    lost = np.isnan(edges[2])
    filled = complete_edges(gappy)(gappy)
    z = gappy.connectomes.fisher_z()
    np.testing.assert_allclose(filled[2, lost], np.nanmean(z, axis=0)[lost], rtol=1e-6)
    np.testing.assert_array_equal(filled[:, ~lost], z[:, ~lost])
    for name in OF_CONNECTOME:
        assert np.isfinite(fitted(name, gappy, test)["faces"].rt_s).all()


def test_scales_are_those_of_the_training_people(parts: tuple[Cohort, Cohort]) -> None:
    train, test = parts
    z = standard_edges(train)(train) * np.sqrt(train.connectomes.n_edges)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(z.std(axis=0), 1, rtol=1e-4)
    read = standard_edges(train)
    np.testing.assert_array_equal(read(test)[1], read(test.select([1]))[0])
    rows = pearson_edges(train)(test)
    mean = train.connectomes.fisher_z().mean(axis=0)
    wanted = np.corrcoef(test.connectomes.fisher_z() - mean)
    np.testing.assert_allclose(rows @ rows.T, wanted, atol=1e-5)


def test_principal_components_equal_scikit_learn(parts: tuple[Cohort, Cohort]) -> None:
    from sklearn.decomposition import PCA

    train, test = parts
    z = train.connectomes.fisher_z().astype(np.float64)
    pca = PCA(n_components=5, svd_solver="full").fit(z)
    wanted = pca.transform(test.connectomes.fisher_z())
    got = principal_components(train)(test)
    assert got.shape[1] == len(train) - 1
    scale = wanted[:, 0].std() / got[:, 0].std()
    np.testing.assert_allclose(np.abs(got[:, :5]) * scale, np.abs(wanted), rtol=1e-2, atol=1e-2)


def people(**columns: list[object]) -> Cohort:
    (n,) = {len(column) for column in columns.values()}
    fc = Connectomes.from_arrays(np.random.default_rng(n).uniform(-0.5, 0.5, (n, 6)))
    return Cohort(fc, {}, (), 0.8, {k: np.array(v) for k, v in columns.items()})


def test_covariates_are_coded_by_the_training_people() -> None:
    train = people(
        age=[20.0, 30, 40, np.nan],
        sex=["F", "M", "n/a", "M"],
        site=[1, 2, 2, 2],
        mean_fd=[0.1, 0.2, 0.4, 0.3],
        null_trait=[9.0, 1, 4, 2],
    )
    test = people(
        age=[np.nan, 60.0],
        sex=["n/a", "other"],
        site=[3, 1],
        mean_fd=[0.25, np.nan],
        null_trait=[1.0, 2],
    )
    read = covariates(DEMOGRAPHIC)(train)
    seen, unseen = read(train), read(test)
    assert seen.shape == (4, 7)  # age, age squared, F, M, 1, 2, motion
    np.testing.assert_allclose(seen.mean(axis=0), 0, atol=ROUNDING)
    age = (np.array([20.0, 30, 40]) - 30) / np.std([20, 30, 40]) / np.sqrt(7)
    np.testing.assert_allclose(seen[:, 0], [*age, 0], atol=ROUNDING)
    np.testing.assert_allclose(unseen[0, [0, 1, 2, 3, 6]], 0, atol=ROUNDING)
    assert (unseen[0, 4:6] < 0).all()  # a site that training has not
    np.testing.assert_allclose(unseen[1, 6], 0, atol=ROUNDING)
    assert covariates((AGE, SITE))(train)(test).shape == (2, 4)
    assert covariates(DEMOGRAPHIC)(people(null_trait=[1.0, 2]))(train).shape == (4, 0)


def test_without_covariates_nothing_is_said(parts: tuple[Cohort, Cohort]) -> None:
    train, test = (replace(part, participants={}) for part in parts)
    for predicted in fitted("demographics", train, test).values():
        assert np.isnan(predicted.rt_s).all()
        assert np.isnan(predicted.contrasts).all()


def test_age_predicts_what_it_makes(parts: tuple[Cohort, Cohort]) -> None:
    """Reaction times that age determines are predicted by demographics and not by motion."""
    rng = np.random.default_rng(2)
    made = []
    for part in parts:
        data = part.tasks["faces"]
        age = rng.uniform(20, 60, len(part))
        speed = (0.4 + 0.01 * age)[:, None] + rng.normal(0, 0.02, data.rt_s.shape)
        rt_s = np.where(data.pressed, speed, np.nan).astype(np.float32)
        faces = TaskData(data.schedule, data.choice, rt_s)
        columns = {"age": age, "mean_fd": rng.uniform(0, 1, len(part))}
        made.append(replace(part, tasks={"faces": faces}, participants=columns))
    train, test = made
    truth = np.nanmean(test.tasks["faces"].rt_s, axis=1)
    by_age = fitted("demographics", train, test)["faces"].rt_s.mean(axis=1)
    by_motion = fitted("motion", train, test)["faces"].rt_s.mean(axis=1)
    assert np.corrcoef(by_age, truth)[0, 1] > 0.95
    assert np.abs(by_age - truth).mean() < 0.5 * np.abs(by_motion - truth).mean()
