"""The protocol end to end on baselines: folds, floors, nulls, exchanged connectomes, files."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dtwin_fast.cohort import NOT_MEASURED, Cohort, TaskData
from dtwin_fast.cohort_files import save_cohort
from dtwin_fast.commands import evaluate as command
from dtwin_fast.connectome import Connectomes
from dtwin_fast.errors import DTwinInputError
from dtwin_fast.evaluate.baselines import BASELINES
from dtwin_fast.evaluate.controls import PermutedConnectomes
from dtwin_fast.evaluate.metrics_table import METRICS
from dtwin_fast.evaluate.observe import observe
from dtwin_fast.evaluate.predicted import Predicted
from dtwin_fast.evaluate.predictor import Predictor
from dtwin_fast.evaluate.protocol import Report, evaluate
from dtwin_fast.evaluate.report_files import as_json, write_report
from dtwin_fast.evaluate.runner import Runner, exchanged
from dtwin_fast.evaluate.splits import blank, held_out_people, make_split, within_person
from dtwin_fast.evaluate.table import Row, to_markdown
from dtwin_fast.simulate import simulate

Factory = Callable[[], Predictor]

ROUNDING = 1e-9
SOME = ("always correct", "group", "item mean", "person mean", "demographics", "krr")
QUICK = {"n_resamples": 12, "n_folds": 3, "n_swaps": 4}


pytest.importorskip("nilearn")


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    areas = ("LH_V1", "RH_V1", "LH_HVC", "RH_M1")
    return simulate(21, 18, seed=3, bold_regions=areas).cohort


@pytest.fixture(scope="module")
def behaviour(cohort: Cohort) -> Cohort:
    tasks = {name: replace(data, bold=None) for name, data in cohort.tasks.items()}
    return replace(cohort, tasks=tasks)


@pytest.fixture(scope="module")
def few(behaviour: Cohort) -> Cohort:
    people = behaviour.select(range(12))
    return replace(people, tasks={"stroop": people.tasks["stroop"]})


@pytest.fixture(scope="module")
def report(cohort: Cohort) -> Report:
    predictors = {name: BASELINES[name] for name in SOME}
    predictors["permuted"] = lambda: PermutedConnectomes(BASELINES["krr"])
    return evaluate(cohort, predictors, model="krr", null="permuted", n_nulls=3, **QUICK)


def find(report: Report, split: str, task: str, metric: str) -> Row:
    (row,) = [r for r in report.rows if (r.split, r.task, r.metric) == (split, task, metric)]
    return row


class Spy:
    """Remembers what a predictor is given, and predicts as another does."""

    name = "spy"

    def __init__(self, make: Factory, seen: list[tuple[Cohort, int, list[Cohort]]]) -> None:
        self._inner = make()
        self._seen = seen

    def fit(self, train: Cohort, seed: int) -> None:
        self._seen.append((train, seed, []))
        self._inner.fit(train, seed)

    def predict(self, people: Cohort) -> dict[str, Predicted]:
        self._seen[-1][2].append(people)
        return self._inner.predict(people)


class Oracle:
    """Knows the truth of people by name."""

    name = "oracle"

    def __init__(self, truth: Cohort) -> None:
        self._truth = truth

    def fit(self, train: Cohort, seed: int) -> None:
        self._seed = seed

    def predict(self, people: Cohort) -> dict[str, Predicted]:
        index = [self._truth.connectomes.subjects.index(s) for s in people.connectomes.subjects]
        predictions = {}
        for name, data in self._truth.select(index).tasks.items():
            mean = np.nanmean(data.rt_s, axis=1, keepdims=True)
            rt_s = np.where(np.isnan(data.rt_s), mean, data.rt_s)
            prob = (data.choice[:, :, None] == np.arange(3)).astype(np.float32)
            predictions[name] = Predicted(choice_prob=prob, rt_s=rt_s)
        return predictions


def test_every_metric_of_every_run_and_split_has_a_row(report: Report) -> None:
    rows = [(r.split, r.task, r.metric) for r in report.rows]
    assert rows == [(s, t, m) for s in "AB" for t in ("faces", "stroop") for m in METRICS]
    assert report.settings["people"] == 21
    for row in report.rows:
        assert set(row.baselines) == set(SOME) - {"krr"}


def test_the_floor_is_the_best_baseline_and_the_difference_is_to_it(report: Report) -> None:
    compared = 0
    for row in report.rows:
        scores = {k: v for k, v in row.baselines.items() if np.isfinite(v)}
        if not scores:
            assert row.floor_name == ""
            continue
        best = max if METRICS[row.metric].higher_is_better else min
        assert row.floor == best(scores.values()) == scores[row.floor_name]
        if np.isfinite(row.diff) and row.n_people == 21:
            sign = 1 if METRICS[row.metric].higher_is_better else -1
            assert row.diff == pytest.approx(sign * (row.model - row.floor), abs=1e-6)
            compared += 1
    assert compared > 20


def test_rounding_beats_no_floor(behaviour: Cohort) -> None:
    """Reaction times that differ by trial alike differ by the rounding of person means only."""
    predictors = {name: BASELINES[name] for name in ("item mean", "demographics")}
    result = evaluate(behaviour, predictors, model="demographics", **QUICK)
    for task in ("faces", "stroop"):
        row = find(result, "B", task, "RT within-person r")
        assert np.isfinite(row.model)
        assert row.diff_low == row.diff_high == 0


def test_a_persons_own_first_half_is_no_floor_for_unseen_people(report: Report) -> None:
    for metric in ("RT person-mean r", "concordance", "BOLD individual r"):
        assert np.isfinite(find(report, "A", "faces", metric).baselines["person mean"])
        assert np.isnan(find(report, "B", "faces", metric).baselines["person mean"])
    assert find(report, "A", "stroop", "RT person-mean r").floor_name == "person mean"
    assert report.flags == ["B: nothing is predicted by person mean"]


def test_nulls_and_exchanges(report: Report) -> None:
    row = find(report, "B", "faces", "RT person-mean r")
    assert row.null_p in (0.25, 0.5, 0.75, 1.0)
    assert np.isfinite(row.null_mean)
    entries = [e for e in report.information if e.metric == "RT person-mean MAE"]
    assert len(entries) == 4
    for entry in entries:
        assert entry.n == 4
        assert entry.gain == pytest.approx(entry.others - entry.own)
        assert entry.p in (0.2, 0.4, 0.6, 0.8, 1.0)
    within = next(e for e in entries if e.split == "A" and e.task == "faces")
    assert within.own == find(report, "A", "faces", "RT person-mean MAE").model


def test_the_score_of_one_fold_is_the_metric_of_its_people(cohort: Cohort) -> None:
    """By hand, without the runner."""
    result = evaluate(
        cohort,
        {"krr": BASELINES["krr"], "group": BASELINES["group"]},
        model="krr",
        splits=("A",),
        **QUICK,
    )
    (fold,) = within_person(cohort).folds
    predictor = BASELINES["krr"]()
    predictor.fit(fold.train, 0)
    predictions = predictor.predict(blank(fold.test))
    for task in ("faces", "stroop"):
        observed, flags = observe(fold.test, fold.train, task)
        assert flags == []
        for metric in METRICS.values():
            wanted = metric.combine(metric.summarise(predictions[task], observed))
            got = find(result, "A", task, metric.name).model
            assert got == pytest.approx(wanted, abs=ROUNDING, nan_ok=True)


def test_people_of_all_folds_are_scored_together_and_repeats_averaged(cohort: Cohort) -> None:
    two = evaluate(
        cohort, {"krr": BASELINES["krr"]}, model="krr", splits=("B",), n_repeats=2, seed=5, **QUICK
    )
    split = held_out_people(cohort, n_folds=3, n_repeats=2, seed=5)
    for metric in (METRICS["RT person-mean r"], METRICS["RT person-mean MAE"]):
        scores = []
        for repeat in range(2):
            rows = []
            for fold in [f for f in split.folds if f.repeat == repeat]:
                predictor = BASELINES["krr"]()
                predictor.fit(fold.train, 0)
                observed, _ = observe(fold.test, fold.train, "stroop")
                predicted = predictor.predict(blank(fold.test))["stroop"]
                rows.append(metric.summarise(predicted, observed))
                if metric.unit == "r":
                    rows[-1] -= rows[-1].mean(axis=0)
            scores.append(metric.combine(np.concatenate(rows)))
        assert scores[0] != scores[1]
        row = find(two, "B", "stroop", metric.name)
        assert row.model == pytest.approx(np.mean(scores), abs=ROUNDING)
        assert row.low <= row.model <= row.high
        assert row.n_people == 21


@pytest.mark.parametrize("name", ["group", "always correct"])
def test_who_tells_nobody_apart_has_no_correlation_over_folds(cohort: Cohort, name: str) -> None:
    """Group means of folds are anticorrelated with the people left out."""
    predictors = {key: BASELINES[key] for key in (name, "krr")}
    result = evaluate(cohort, predictors, model=name, splits=("B",), **QUICK)
    for task in ("faces", "stroop"):
        assert find(result, "B", task, "error-rate r").model == 0
        if name == "group":
            assert find(result, "B", task, "BOLD region r").model == 0


def test_everyone_in_a_fold_of_their_own(behaviour: Cohort) -> None:
    few = behaviour.select(range(9))
    options = {**QUICK, "n_folds": 9}
    result = evaluate(few, {"krr": BASELINES["krr"]}, model="krr", splits=("B",), **options)
    row = find(result, "B", "faces", "RT person-mean r")
    assert -1 <= row.model <= 1
    assert row.n_people == 9
    assert result.information == []  # nobody to exchange connectomes with


def test_a_predictor_sees_nothing_of_whom_it_predicts(cohort: Cohort) -> None:
    seen: list[tuple[Cohort, int, list[Cohort]]] = []
    predictors: dict[str, Factory] = {
        "spy": lambda: Spy(BASELINES["group"], seen),
        "null": lambda: Spy(BASELINES["group"], seen),
    }
    evaluate(cohort, predictors, model="spy", null="null", n_nulls=2, splits=("A", "B"), **QUICK)
    assert len(seen) == (1 + 3) * (1 + 2)
    for _, _, predicted in seen:
        for people in predicted:
            for data in people.tasks.values():
                assert (data.choice == NOT_MEASURED).all()
                assert np.isnan(data.rt_s).all()
                assert np.isnan(data.bold).all()
    within, *across = seen[0], *seen[3:]
    late = cohort.tasks["faces"].schedule.onset_s >= cohort.tasks["faces"].schedule.run_s / 2
    assert not within[0].tasks["faces"].measured[:, late].any()
    for train, _, predicted in across:
        if set(train.connectomes.subjects) != set(cohort.connectomes.subjects):
            assert not set(train.connectomes.subjects) & set(predicted[0].connectomes.subjects)
    nulls = [seed for _, seed, _ in seen]
    assert len(set(nulls)) == len(nulls)


@pytest.mark.parametrize("split", ["A", "B"])
def test_another_truth_of_the_test_people_changes_no_prediction(cohort: Cohort, split: str) -> None:
    """A scaler fitted on everybody would be seen here."""
    fold = make_split(split, cohort, n_folds=3, seed=1).folds[0]
    rng = np.random.default_rng(0)
    tasks = dict(cohort.tasks)
    for name, data in fold.test.tasks.items():
        whole = tasks[name]
        hidden = np.zeros(whole.choice.shape, bool)
        hidden[fold.people] = data.measured
        volumes = np.zeros(whole.bold.shape, bool)
        volumes[fold.people] = np.isfinite(data.bold)
        speed = rng.uniform(0.5, 1.5, whole.rt_s.shape)
        tasks[name] = TaskData(
            whole.schedule,
            np.where(hidden, np.int8(1), whole.choice),
            np.where(hidden, speed, whole.rt_s).astype(np.float32),
            np.where(volumes, 50 * rng.standard_normal(volumes.shape), whole.bold).astype("f4"),
        )
    changed = make_split(split, replace(cohort, tasks=tasks), n_folds=3, seed=1).folds[0]
    assert not np.array_equal(changed.test.tasks["faces"].rt_s, fold.test.tasks["faces"].rt_s)
    for name in BASELINES:
        said = []
        for one in (fold, changed):
            predictor = BASELINES[name]()
            predictor.fit(one.train, 0)
            said.append(predictor.predict(blank(one.test)))
        for task in said[0]:
            for field in ("choice_prob", "rt_s", "press_prob", "contrasts", "bold"):
                before, after = (getattr(s[task], field) for s in said)
                if before is not None:
                    np.testing.assert_array_equal(before, after)
    before, after = (observe(f.test, f.train, "faces")[0].reference for f in (fold, changed))
    assert before["error_rate"] == after["error_rate"]
    assert before["rt_mean"] == after["rt_mean"]
    np.testing.assert_array_equal(before["contrasts_mean"], after["contrasts_mean"])
    np.testing.assert_array_equal(before["bold_mean"], after["bold_mean"])


def test_the_truth_beats_every_floor(behaviour: Cohort) -> None:
    predictors: dict[str, Factory] = {name: BASELINES[name] for name in SOME}
    predictors["oracle"] = lambda: Oracle(behaviour)
    result = evaluate(behaviour, predictors, model="oracle", splits=("B",), **QUICK)
    for task in ("faces", "stroop"):
        for metric in ("RT person-mean r", "RT trial r", "error-rate r", "error AUC"):
            row = find(result, "B", task, metric)
            assert row.model == pytest.approx(1, abs=1e-6)
            assert row.beats_floor
    assert {r.domain for r in result.rows} == {"choice", "rt"}


def test_what_a_connectome_tells_is_lost_when_it_is_anothers(behaviour: Cohort) -> None:
    """People whose speed is written into an edge: own beats others', the null does not."""
    rng = np.random.default_rng(4)
    edges = rng.uniform(-0.3, 0.3, behaviour.connectomes.edges.shape).astype(np.float32)
    speed = rng.uniform(-0.3, 0.3, len(behaviour))
    edges += speed[:, None].astype(np.float32) * np.sign(edges.mean(axis=0))
    tasks = {}
    for name, data in behaviour.tasks.items():
        rt_s = np.where(data.pressed, 0.8 + speed[:, None], np.nan)
        rt_s += rng.normal(0, 0.02, rt_s.shape)
        tasks[name] = replace(data, rt_s=rt_s.astype(np.float32))
    made = replace(behaviour, tasks=tasks, connectomes=replace(behaviour.connectomes, edges=edges))
    predictors: dict[str, Factory] = {
        "ridge": BASELINES["ridge"],
        "permuted": lambda: PermutedConnectomes(BASELINES["ridge"]),
        "item mean": BASELINES["item mean"],
    }
    result = evaluate(
        made, predictors, model="ridge", null="permuted", n_nulls=6, splits=("B", "A"), **QUICK
    )
    row = find(result, "B", "stroop", "RT person-mean r")
    assert row.model > 0.9
    assert row.null_p == pytest.approx(1 / 7)
    assert row.beats_floor
    (own,) = [
        e
        for e in result.information
        if (e.split, e.task, e.metric) == ("B", "stroop", "RT person-mean r")
    ]
    assert own.p == pytest.approx(1 / 5)
    assert own.gain > 0.5


def test_permuted_connectomes_are_a_name_as_good_within_persons(behaviour: Cohort) -> None:
    (fold,) = within_person(behaviour).folds
    seen: list[tuple[Cohort, int, list[Cohort]]] = []
    permuted = PermutedConnectomes(lambda: Spy(BASELINES["group"], seen))
    permuted.fit(fold.train, 3)
    permuted.predict(blank(fold.test))
    ((train, _, (people,)),) = seen
    np.testing.assert_array_equal(train.connectomes.edges, people.connectomes.edges)
    own = behaviour.connectomes.edges
    assert not np.array_equal(train.connectomes.edges, own)
    np.testing.assert_array_equal(np.sort(train.connectomes.edges, axis=0), np.sort(own, axis=0))
    assert train.connectomes.subjects == behaviour.connectomes.subjects


@pytest.mark.parametrize("n", [2, 3, 11])
def test_nobody_keeps_their_connectome(behaviour: Cohort, n: int) -> None:
    people = behaviour.select(range(n))
    for seed in range(5):
        others = exchanged(people, np.random.default_rng(seed))
        same = (others.connectomes.edges == people.connectomes.edges).all(axis=1)
        assert not same.any()
        assert others.connectomes.subjects == people.connectomes.subjects
        np.testing.assert_array_equal(
            np.sort(others.connectomes.edges, axis=0), np.sort(people.connectomes.edges, axis=0)
        )


def test_ceilings_are_those_of_the_data(cohort: Cohort) -> None:
    runner = Runner(cohort, within_person(cohort), 0, lambda note: None)
    ceilings = runner.ceilings("faces")
    assert 0.9 < ceilings["RT person-mean r"] <= 1
    # In split A the maps of the first half are the other measurement: the person's floor.
    floor = runner.scores("person mean", BASELINES["person mean"])
    metric = METRICS["BOLD individual r"]
    score = metric.combine(floor["faces", metric.summarise][0])
    assert ceilings["BOLD individual r"] == pytest.approx(score, abs=1e-6)


def test_same_seed_same_report(few: Cohort) -> None:
    predictors: dict[str, Factory] = {name: BASELINES[name] for name in ("krr", "group")}
    predictors["permuted"] = lambda: PermutedConnectomes(BASELINES["krr"])
    options = {"model": "krr", "null": "permuted", "n_nulls": 2, "splits": ("B",), **QUICK}
    one, same, other = (evaluate(few, predictors, seed=s, **options) for s in (1, 1, 2))
    assert as_json(one) == as_json(same)
    assert as_json(one) != as_json(other)


def test_progress_counts_trainings(few: Cohort) -> None:
    told: list[tuple[int, int, str]] = []
    predictors: dict[str, Factory] = {name: BASELINES[name] for name in ("group", "item mean")}
    predictors["null"] = lambda: PermutedConnectomes(BASELINES["group"])
    evaluate(
        few,
        predictors,
        model="group",
        null="null",
        n_nulls=2,
        n_repeats=2,
        progress=lambda *now: told.append(now),
        **QUICK,
    )
    total = 2 * (1 + 6) + 2 * (1 + 3)
    assert [done for done, _, _ in told] == list(range(total + 1))
    assert {of for _, of, _ in told} == {total}


def test_sites_and_second_runs(cohort: Cohort) -> None:
    """A second run that equals the first is predicted by who one was in the first."""
    tasks = {**cohort.tasks, "stroop_run-2": cohort.tasks["stroop"]}
    site = np.array(["york", "rome", "oslo"])[np.arange(len(cohort)) % 3]
    both = replace(cohort, tasks=tasks, participants={**cohort.participants, "site": site})
    predictors = {name: BASELINES[name] for name in ("group", "person mean", "krr")}
    result = evaluate(both, predictors, model="krr", splits=("C", "D"), **QUICK)
    row = find(result, "D", "stroop_run-2", "RT person-mean r")
    assert row.baselines["person mean"] > 0.97
    assert {r.task for r in result.rows if r.split == "D"} == {"stroop_run-2"}
    maps = find(result, "D", "stroop_run-2", "BOLD individual r")
    assert maps.baselines["person mean"] == pytest.approx(1, abs=1e-5)
    assert maps.ceiling == pytest.approx(1, abs=1e-5)
    assert find(result, "D", "stroop_run-2", "BOLD time-course R2").baselines["group"] > 0
    assert find(result, "C", "stroop_run-2", "concordance").n_people == len(cohort)


def test_people_without_connectomes(behaviour: Cohort) -> None:
    nobody = replace(behaviour, connectomes=Connectomes.none(behaviour.connectomes.subjects))
    result = evaluate(nobody, BASELINES, model="demographics", splits=("B",), **QUICK)
    row = find(result, "B", "faces", "RT person-mean r")
    assert np.isfinite(row.model)
    for name in ("krr", "ridge", "cpm", "pca-ridge"):
        assert np.isnan(row.baselines[name])
    assert result.information == []


def test_what_is_wrong_with_the_data_is_flagged(cohort: Cohort) -> None:
    tasks = {}
    for name, data in cohort.tasks.items():
        choice, rt_s, bold = data.choice.copy(), data.rt_s.copy(), data.bold.copy()
        choice[3], rt_s[3], bold[3] = NOT_MEASURED, np.nan, np.nan
        bold[5, 40:] = np.nan
        bold[6, :, 1] = -2
        tasks[name] = TaskData(data.schedule, choice, rt_s, bold)
    result = evaluate(
        replace(cohort, tasks=tasks), {"group": BASELINES["group"]}, model="group", **QUICK
    )
    assert result.settings["people"] == 20
    for words in (("no measured trial", "sub-00004"), ("constant", "sub-00007"), ("sub-00006",)):
        assert any(all(word in flag for word in words) for flag in result.flags)
    assert len(set(result.flags)) == len(result.flags)
    assert find(result, "B", "faces", "BOLD individual r").n_people == 19


def test_unknown_predictors(behaviour: Cohort) -> None:
    with pytest.raises(DTwinInputError, match=r"\[predictor\]"):
        evaluate(behaviour, BASELINES, model="twin")
    with pytest.raises(DTwinInputError, match="folds"):
        evaluate(behaviour, BASELINES, model="krr", splits=("B",), n_folds=22)


def test_files(report: Report, cohort: Cohort, tmp_path: Path) -> None:
    write_report(report, tmp_path, cohort.bold_regions)
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["statement"] == "In silico, not clinical."
    assert len(scores["rows"]) == len(report.rows)
    assert scores["settings"]["model"] == "krr"
    assert (tmp_path / "scores.md").read_text("utf-8") == to_markdown(report.rows)
    for name in ("scores.tsv", "scores.csv"):
        assert len((tmp_path / name).read_text().splitlines()) == 1 + len(report.rows)
    lines = (tmp_path / "predictions" / "A_stroop_trials.tsv").read_text().splitlines()
    measured = report.runs["A", "stroop"].observed.choice != NOT_MEASURED
    assert len(lines) == 1 + measured.sum()
    first = dict(zip(lines[0].split("\t"), lines[1].split("\t"), strict=True))
    assert first["participant_id"] == "sub-00001"
    assert float(first["onset"]) >= 204
    result = report.runs["B", "faces"]
    maps = (tmp_path / "predictions" / "B_faces_contrasts.tsv").read_text().splitlines()
    assert len(maps) == 1 + 2 * 21
    assert maps[1].split("\t")[:3] == [result.subjects[0], "faces>shapes", "measured"]
    assert float(maps[1].split("\t")[3]) == pytest.approx(
        float(result.observed.contrasts[0, 0, 0]), rel=1e-5
    )
    assert sorted(result.subjects) == sorted(cohort.connectomes.subjects)


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add(parser)
    return parser.parse_args(words)


def test_command(few: Cohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "cohort"
    save_cohort(few, folder)
    words = [str(folder), "--model", "krr", "--splits", "B", "--folds", "2", "--nulls", "1"]
    words += ["--baselines", "group,item mean", "--out", str(tmp_path / "out")]
    assert command.run(arguments(*words)) == 0
    printed = capsys.readouterr().out
    assert printed.rstrip().endswith("In silico, not clinical.")
    assert "another's" in printed
    assert (tmp_path / "out" / "scores.json").is_file()
    assert command.run(arguments(*words[:-2], "--json")) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["settings"]["nulls"] == 1
    assert set(scores["rows"][0]["baselines"]) == {"group", "item mean"}
    with pytest.raises(DTwinInputError, match="--baselines"):
        command.run(arguments(str(folder), "--model", "krr", "--baselines", "none"))
    with pytest.raises(DTwinInputError, match="--model"):
        command.run(arguments(str(folder), "--model", "magic"))


@pytest.mark.realdata
def test_trivial_predictors_reach_the_papers_numbers_on_real_people(shared_data: Path) -> None:
    """Takahashi et al. 2026 report concordance .94/.90, RT r .90/.85, unseen people .36-.42."""
    from dtwin_fast.datasets import read_tcp_trials

    people = read_tcp_trials(shared_data / "tcp-behaviour")
    predictors = {name: BASELINES[name] for name in ("always correct", "person mean")}
    predictors["demographics"] = BASELINES["demographics"]
    result = evaluate(
        people, predictors, model="demographics", splits=("A", "B"), n_resamples=20, n_swaps=0
    )
    for task, concordance, own_r, unseen_r in (
        ("faces", 0.93, 0.9, 0.3),
        ("stroop", 0.9, 0.82, 0.2),
    ):
        within = find(result, "A", task, "RT person-mean r")
        assert within.baselines["person mean"] > own_r
        choice = find(result, "A", task, "concordance")
        assert choice.baselines["always correct"] > concordance
        assert find(result, "B", task, "RT person-mean r").model > unseen_r
