"""Twins as predictors: what they may know, units and shapes, controls, the command."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dtwin_fast.cohort import Cohort, TaskData
from dtwin_fast.cohort_files import save_cohort
from dtwin_fast.commands import evaluate as command
from dtwin_fast.connectome import Connectomes
from dtwin_fast.dispatch import RolloutResult
from dtwin_fast.errors import DTwinInputError
from dtwin_fast.evaluate.baselines import BASELINES
from dtwin_fast.evaluate.controls import PermutedConnectomes
from dtwin_fast.evaluate.predicted import Predicted
from dtwin_fast.evaluate.predictor import Predictor
from dtwin_fast.evaluate.protocol import evaluate
from dtwin_fast.evaluate.runner import exchanged
from dtwin_fast.evaluate.splits import blank, held_out_people
from dtwin_fast.readouts import hazard, hazard_steps
from dtwin_fast.simulate import simulate
from dtwin_fast.spec import PRESETS, TwinSpec
from dtwin_fast.tasks import TASKS
from dtwin_fast.tasks.design import contrast_design

pytest.importorskip("nilearn")
training = pytest.importorskip("dtwin_fast.training")
twin_module = pytest.importorskip("dtwin_fast.evaluate.twin")
sizes = pytest.importorskip("dtwin_fast.training.sizes")
twin_predictor = pytest.importorskip("dtwin_fast.evaluate.twin_predictor")

FLOAT32 = 1e-5
AREAS = ("LH_V1", "RH_V1", "LH_HVC")
QUICK = training.StagedConfig(n_steps=4, group_steps=3, personal_share=0.2)
Factory = Callable[[], Predictor]


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return simulate(13, 17, seed=5, bold_regions=AREAS).cohort


@pytest.fixture(scope="module")
def stroop(cohort: Cohort) -> Cohort:
    return replace(cohort, tasks={"stroop": replace(cohort.tasks["stroop"], bold=None)})


@pytest.fixture(scope="module")
def predictors() -> dict[str, Factory]:
    found: dict[str, Factory] = twin_module.twin_predictors(QUICK, PRESETS["tiny"], "cpu")
    return found


@pytest.fixture(scope="module")
def trained(cohort: Cohort, predictors: dict[str, Factory]) -> Predictor:
    predictor = predictors["twin"]()
    predictor.fit(cohort, 3)
    return predictor


def same(one: dict[str, Predicted], other: dict[str, Predicted]) -> None:
    assert one.keys() == other.keys()
    for name, predicted in one.items():
        for part, values in vars(predicted).items():
            np.testing.assert_array_equal(values, getattr(other[name], part))


def without_connectomes(people: Cohort) -> Cohort:
    return replace(people, connectomes=Connectomes.none(people.connectomes.subjects))


def test_shapes_and_probabilities(cohort: Cohort, trained: Predictor) -> None:
    predictions = trained.predict(blank(cohort))
    assert list(predictions) == ["faces", "stroop"]
    for name, predicted in predictions.items():
        schedule = cohort.tasks[name].schedule
        n_people, n_trials = len(cohort), schedule.n_trials
        assert predicted.choice_prob.shape == (n_people, n_trials, 3)
        assert predicted.rt_s.shape == (n_people, n_trials)
        assert predicted.press_prob.shape[:2] == (n_people, n_trials)
        assert predicted.bold.shape == (n_people, schedule.n_volumes(0.8), len(AREAS))
        assert predicted.contrasts.shape == (n_people, 1, len(AREAS))
        parts = (getattr(predicted, p) for p in ("choice_prob", "rt_s", "press_prob", "bold"))
        assert {part.dtype for part in parts} == {np.dtype(np.float32)}
        total = predicted.press_prob.sum(axis=2, dtype=np.float64)
        np.testing.assert_allclose(total, predicted.choice_prob, atol=FLOAT32)
        middle_s = predicted.step_s * (np.arange(predicted.press_prob.shape[2]) + 0.5)
        mean_s = (predicted.press_prob.sum(axis=3) @ middle_s) / total.sum(axis=2)
        np.testing.assert_allclose(mean_s, predicted.rt_s, atol=1e-4)
        np.testing.assert_allclose(predicted.bold.mean(axis=1), 0, atol=1e-5)


def test_it_is_the_twin_that_fit_trains(cohort: Cohort, trained: Predictor) -> None:
    spec = sizes.fit_spec(PRESETS["tiny"], cohort)
    twin = training.fit(cohort, spec, replace(QUICK, seed=3))
    whole = twin.predict(cohort.connectomes)
    for name, predicted in trained.predict(blank(cohort)).items():
        trials, rows = whole.trial_slice(name), list(whole.schedules).index(name)
        np.testing.assert_allclose(predicted.rt_s, whole.rt_s[:, trials], atol=FLOAT32)
        np.testing.assert_allclose(
            predicted.choice_prob, whole.choice_prob[:, trials], atol=FLOAT32
        )
        assert predicted.contrasts is not None
        in_units = whole.contrasts[:, [rows]] * twin.bold_sd
        np.testing.assert_allclose(predicted.contrasts, in_units, rtol=1e-3, atol=1e-6)
        assert whole.bold is not None
        bold = whole.bold[:, whole.volume_slice(name)] * twin.bold_sd
        bold -= bold.mean(axis=1, keepdims=True)
        np.testing.assert_allclose(predicted.bold, bold, atol=1e-5)


def test_nothing_that_test_people_did_matters(
    cohort: Cohort, predictors: dict[str, Factory]
) -> None:
    fold = held_out_people(cohort, n_folds=3).folds[0]
    for name in ("twin", "direct-input", "twin-demographics"):
        predictor = predictors[name]()
        predictor.fit(fold.train, 1)
        same(predictor.predict(fold.test), predictor.predict(blank(fold.test)))
        # Nor does who else is tested.
        one = predictor.predict(blank(fold.test.select([1])))["faces"]
        among = predictor.predict(blank(fold.test))["faces"]
        np.testing.assert_array_equal(one.press_prob[0], among.press_prob[1])
        np.testing.assert_array_equal(one.bold[0], among.bold[1])


def test_seeds_decide(cohort: Cohort, predictors: dict[str, Factory], trained: Predictor) -> None:
    again, other = predictors["twin"](), predictors["twin"]()
    again.fit(cohort, 3)
    other.fit(cohort, 4)
    same(again.predict(cohort), trained.predict(cohort))
    assert (other.predict(cohort)["faces"].rt_s != trained.predict(cohort)["faces"].rt_s).any()


def test_own_connectomes_tell_people_apart(cohort: Cohort, trained: Predictor) -> None:
    own = trained.predict(cohort)["faces"].rt_s
    assert (np.ptp(own, axis=0) > 0).all()
    others = trained.predict(exchanged(cohort, np.random.default_rng(0)))["faces"].rt_s
    assert (own != others).any(axis=1).all()


def test_zero_predicts_the_same_for_everybody(
    cohort: Cohort, predictors: dict[str, Factory]
) -> None:
    predictor = predictors["twin-zero"]()
    predictor.fit(cohort, 0)
    for predicted in predictor.predict(cohort).values():
        for part in (predicted.press_prob, predicted.rt_s, predicted.bold, predicted.contrasts):
            np.testing.assert_array_equal(part, np.broadcast_to(part[:1], part.shape))


def test_random_id_knows_names_alone(stroop: Cohort, predictors: dict[str, Factory]) -> None:
    predictor = predictors["twin-random-id"]()
    predictor.fit(stroop, 0)
    rt_s = predictor.predict(stroop)["stroop"].rt_s
    assert len(np.unique(rt_s[:, 0])) == len(stroop)
    strangers = exchanged(stroop, np.random.default_rng(1))
    np.testing.assert_array_equal(predictor.predict(strangers)["stroop"].rt_s, rt_s)
    order = np.arange(len(stroop))[::-1]
    np.testing.assert_array_equal(
        predictor.predict(stroop.select(order))["stroop"].rt_s[order], rt_s
    )
    read = twin_module.random_id(stroop)
    assert read(stroop).shape == (13, 17 * 16 // 2)
    np.testing.assert_array_equal(
        read(stroop), twin_module.random_id(stroop.select([0, 1]))(stroop)
    )


def test_permuted_keeps_what_was_dealt(stroop: Cohort, predictors: dict[str, Factory]) -> None:
    fold = held_out_people(stroop, n_folds=3).folds[0]
    permuted, twin = predictors["permuted"](), predictors["twin"]()
    permuted.fit(fold.train, 7)
    twin.fit(fold.train, 7)
    strangers = exchanged(fold.train, np.random.default_rng(1))
    seen = permuted.predict(fold.train)
    same(seen, permuted.predict(strangers))
    assert (seen["stroop"].rt_s != twin.predict(fold.train)["stroop"].rt_s).any()
    new = permuted.predict(fold.test)["stroop"].rt_s
    swapped = permuted.predict(exchanged(fold.test, np.random.default_rng(1)))["stroop"].rt_s
    assert (new != swapped).any(axis=1).all()


class Recorder:
    """Remembers the people that it is given."""

    name = "recorder"

    def __init__(self) -> None:
        self.seen: list[Cohort] = []

    def fit(self, train: Cohort, seed: int) -> None:
        self.seen.append(train)

    def predict(self, people: Cohort) -> dict[str, Predicted]:
        self.seen.append(people)
        return {}


def test_columns_are_dealt_where_nobody_has_a_connectome(stroop: Cohort) -> None:
    people = without_connectomes(stroop)
    recorder = Recorder()
    permuted = PermutedConnectomes(lambda: recorder)
    permuted.fit(people.select(range(9)), 2)
    permuted.predict(people)
    train, tested = recorder.seen
    age = people.participants["age_years"]
    dealt = train.participants["age_years"]
    assert (dealt != age[:9]).any()
    np.testing.assert_array_equal(np.sort(dealt), np.sort(age[:9]))
    np.testing.assert_array_equal(tested.participants["age_years"], [*dealt, *age[9:]])
    # A person's columns stay together.
    pairs = set(
        zip(
            *(people.participants[c][:9].tolist() for c in ("age_years", "mean_fd_mm")), strict=True
        )
    )
    assert (
        set(
            zip(*(train.participants[c].tolist() for c in ("age_years", "mean_fd_mm")), strict=True)
        )
        == pairs
    )


def test_people_without_connectomes(stroop: Cohort, predictors: dict[str, Factory]) -> None:
    people = without_connectomes(stroop)
    own, demographics = predictors["twin"](), predictors["twin-demographics"]()
    own.fit(people, 0)
    demographics.fit(people, 0)
    predicted = own.predict(people)
    same(predicted, demographics.predict(people))
    assert (np.ptp(predicted["stroop"].rt_s, axis=0) > 0).all()
    nobody_known = replace(people, participants={})
    shared = predictors["twin"]()
    shared.fit(nobody_known, 0)
    rt_s = shared.predict(nobody_known)["stroop"].rt_s
    np.testing.assert_array_equal(rt_s, np.broadcast_to(rt_s[:1], rt_s.shape))


def test_connectome_and_demographics_have_half_the_variance_each(stroop: Cohort) -> None:
    train, others = stroop.select(range(7)), stroop.select(range(7, len(stroop)))
    read = twin_module.connectome_and_demographics(train)
    both = read(others)
    n_edges = train.connectomes.n_edges
    edges, rest = np.split(both, [n_edges], axis=1)
    np.testing.assert_array_equal(edges, twin_module.own(train)(others))
    share = [part.var(axis=0).sum() for part in np.split(read(train), [n_edges], axis=1)]
    np.testing.assert_allclose(share[1], share[0], rtol=1e-4)
    wanted = twin_module.demographics(train)(others)
    assert rest.shape == wanted.shape
    np.testing.assert_allclose(
        rest * (np.abs(wanted).max() / np.abs(rest).max()), wanted, atol=1e-5
    )


def test_a_name_is_learnt_without_shrinkage() -> None:
    found = twin_module.twin_predictors(training.StagedConfig(ridge=0.7), PRESETS["tiny"], "cpu")
    ridges = {name: getattr(found[name](), "_config", None) for name in found}
    assert ridges["twin-random-id"].ridge < 0.01
    assert ridges["twin"].ridge == ridges["twin-demographics"].ridge == 0.7
    assert twin_module.twin_predictors(None, PRESETS["tiny"], "cpu")["twin"]()._config is None


def test_missing_edges_are_the_training_mean(
    stroop: Cohort, predictors: dict[str, Factory]
) -> None:
    fc = stroop.connectomes
    edges = fc.edges.copy()
    edges[4, :7] = np.nan
    lacking = replace(stroop, connectomes=replace(fc, edges=edges))
    read = twin_module.own(lacking)
    others = np.delete(fc.fisher_z(), 4, axis=0)
    np.testing.assert_allclose(read(lacking)[4, :7], others[:, :7].mean(axis=0), rtol=1e-5)
    predictor = predictors["twin"]()
    predictor.fit(lacking, 0)
    assert np.isfinite(predictor.predict(lacking)["stroop"].rt_s).all()


def test_bold_that_is_missing(cohort: Cohort, predictors: dict[str, Factory]) -> None:
    nothing = {
        name: replace(data, bold=np.full_like(data.bold, np.nan))
        for name, data in cohort.tasks.items()
    }
    none = {name: replace(data, bold=None) for name, data in cohort.tasks.items()}
    predictions = []
    for tasks in (nothing, none):
        predictor = predictors["twin"]()
        predictor.fit(replace(cohort, tasks=tasks), 0)
        predictions.append(predictor.predict(blank(cohort)))
    for predicted in predictions[0].values():
        assert predicted.bold is None
        assert predicted.contrasts is None
    same(
        *(
            {run: replace(p, bold=None, contrasts=None) for run, p in ps.items()}
            for ps in predictions
        )
    )


def test_runs_that_were_not_trained(cohort: Cohort, predictors: dict[str, Factory]) -> None:
    only = replace(cohort, tasks={"stroop": cohort.tasks["stroop"]})
    silent: TaskData = blank(cohort).tasks["faces"]
    for train in (only, replace(cohort, tasks={**only.tasks, "faces": silent})):
        predictor = predictors["twin"]()
        predictor.fit(train, 0)
        later = replace(cohort, tasks={**cohort.tasks, "stroop_run-2": cohort.tasks["stroop"]})
        predictions = predictor.predict(later)
        assert list(predictions) == ["faces", "stroop", "stroop_run-2"]
        assert predictions["faces"].choice_prob is None
        assert predictions["faces"].bold is None
        np.testing.assert_array_equal(
            predictions["stroop"].press_prob, predictions["stroop_run-2"].press_prob
        )


def rolled(outputs: np.ndarray) -> RolloutResult:
    diverged = ~np.isfinite(outputs).all(axis=(1, 2, 3))
    return RolloutResult(outputs, None, outputs[:, :, 0], "cpu", diverged)


def test_contrasts_of_known_bold_are_in_its_units(cohort: Cohort) -> None:
    spec: TwinSpec = sizes.fit_spec(PRESETS["tiny"], cohort)
    schedule = cohort.tasks["faces"].schedule
    rng = np.random.default_rng(11)
    design, vectors = contrast_design(schedule, TASKS["faces"].contrasts, spec.tr_s)
    betas = rng.normal(size=(4, design.shape[1], len(AREAS)))
    outputs = rng.normal(size=(4, 1, schedule.n_steps(spec.dt_s), spec.n_outputs))
    steps = schedule.volume_steps(spec.tr_s, spec.dt_s)
    outputs[:, 0, steps, spec.n_actions :] = design @ betas
    outputs[2, 0, 5, 0] = np.inf
    bold_sd = np.array([0.5, 3, 20], np.float32)
    predicted = twin_predictor.read_out(rolled(outputs), schedule, spec, bold_sd)
    kept = [0, 1, 3]
    np.testing.assert_allclose(
        predicted.contrasts[kept], (vectors @ betas * bold_sd)[kept], rtol=1e-4, atol=1e-4
    )
    bold = design @ betas * bold_sd
    bold -= bold.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(predicted.bold[kept], bold[kept], atol=1e-3)
    for part in (predicted.choice_prob, predicted.press_prob, predicted.rt_s, predicted.bold):
        assert np.isnan(part[2]).all()
        assert np.isfinite(part[kept]).all()


@pytest.mark.parametrize("late", [0.0, 0.25])
def test_hazard_steps_count_from_the_onset(late: float) -> None:
    dt_s, windows = 0.08, np.array([[2, 9], [11, 14]])
    onset_s = (windows[:, 0] - late) * dt_s
    actions = np.random.default_rng(2).normal(-1, 1, (3, 20, 3))
    prob = hazard_steps(actions, windows, onset_s, dt_s)
    assert prob.shape == (3, 2, 8, 3)
    for n, (start, stop) in enumerate(windows):
        expected, alive = np.zeros((3, 8, 3)), np.ones((3, 1))
        for step in range(stop - start):
            odds = np.exp(actions[:, start + step])
            press = alive * odds / (1 + odds.sum(axis=1, keepdims=True))
            expected[:, step] += (1 - late) * press
            expected[:, step + 1] += late * press
            alive = alive / (1 + odds.sum(axis=1, keepdims=True))
        np.testing.assert_allclose(prob[:, n], expected, atol=1e-6)
    whole = hazard(actions, windows, onset_s, dt_s)
    np.testing.assert_allclose(prob.sum(axis=2), whole.choice_prob, atol=1e-6)


def test_heads_that_do_not_say_when(stroop: Cohort) -> None:
    spec = replace(PRESETS["tiny"], head="sigmoid", bold_regions=())
    schedule = stroop.tasks["stroop"].schedule
    outputs = np.random.default_rng(0).normal(size=(2, 1, schedule.n_steps(spec.dt_s), 3))
    predicted = twin_predictor.read_out(rolled(outputs), schedule, spec, np.empty(0, np.float32))
    assert predicted.press_prob is None
    assert predicted.bold is None
    np.testing.assert_allclose(predicted.choice_prob.sum(axis=2), 1, atol=1e-6)


def test_direct_input_reads_the_connectome(cohort: Cohort, predictors: dict[str, Factory]) -> None:
    predictor = predictors["direct-input"]()
    predictor.fit(cohort, 0)
    own = predictor.predict(blank(cohort))
    for name, predicted in own.items():
        assert np.isfinite(predicted.press_prob).all()
        assert predicted.bold.shape[2] == len(AREAS)
        assert (np.ptp(predicted.rt_s, axis=0) > 0).all(), name
    fc = cohort.connectomes
    alike = replace(cohort, connectomes=replace(fc, edges=np.repeat(fc.edges[:1], len(fc), axis=0)))
    rt_s = predictor.predict(alike)["faces"].rt_s
    np.testing.assert_array_equal(rt_s, np.repeat(own["faces"].rt_s[:1], len(fc), axis=0))


def test_gradient_descent_trains_the_same_controls(stroop: Cohort) -> None:
    config = training.TrainConfig(n_steps=3)
    for name, make in twin_module.twin_predictors(config, PRESETS["tiny"], "cpu").items():
        predictor = make()
        predictor.fit(stroop.select(range(6)), 0)
        assert np.isfinite(predictor.predict(stroop)["stroop"].press_prob).all(), name


def test_progress_says_the_cost_first(stroop: Cohort, predictors: dict[str, Factory]) -> None:
    told: list[tuple[int, int, str]] = []
    evaluate(
        stroop,
        {
            "group": BASELINES["group"],
            "twin": predictors["twin"],
            "permuted": predictors["permuted"],
        },
        model="twin",
        null="permuted",
        splits=("B",),
        n_folds=2,
        n_nulls=2,
        n_swaps=1,
        n_resamples=5,
        progress=lambda *step: told.append(step),
    )
    assert told[0] == (0, 8, "folds B 2; predictors 2; nulls 2")
    assert [done for done, _, _ in told] == list(range(9))


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add(parser)
    return parser.parse_args(words)


def test_command(stroop: Cohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = stroop.select(range(6))
    save_cohort(few, tmp_path / "cohort")
    settings = tmp_path / "few.toml"
    settings.write_text('recipe = "staged"\n[training]\nn_steps = 2\ngroup_steps = 2\n')
    words = [str(tmp_path / "cohort"), "--model-config", str(settings), "--preset", "tiny"]
    words += ["--splits", "B", "--folds", "2", "--nulls", "1", "--baselines", "group"]
    assert command.run(arguments(*words, "--json")) == 0
    out, err = capsys.readouterr()
    scores = json.loads(out)
    controls = [f"twin-{name}" for name in twin_module.CONTROLS] + ["direct-input"]
    assert scores["settings"]["controls"] == controls
    assert set(scores["rows"][0]["baselines"]) == {"group", *controls}
    assert "16 trainings (folds B 2; predictors 7; nulls 1)" in err
    save_cohort(without_connectomes(few), tmp_path / "none")
    words[0] = str(tmp_path / "none")
    assert command.run(arguments(*words)) == 0
    printed = capsys.readouterr().out
    assert "twin-zero" in printed
    assert "trained on permuted" in printed
    assert "direct-input" not in printed
    assert "another's connectome" not in printed


def test_settings_of_the_twin_are_taken(
    stroop: Cohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_cohort(stroop, tmp_path / "cohort")
    settings = tmp_path / "other.toml"
    settings.write_text(
        'recipe = "gradient"\n[twin]\nhead = "sigmoid"\ncell = "gru"\n[training]\nn_steps = 2\n'
    )
    words = [str(tmp_path / "cohort"), "--model-config", str(settings), "--preset", "tiny"]
    words += ["--splits", "A", "--nulls", "0", "--baselines", "group", "--controls", "twin-zero"]
    assert command.run(arguments(*words, "--json")) == 0
    out, err = capsys.readouterr()
    rows = {row["metric"]: row for row in json.loads(out)["rows"]}
    assert rows["RT person-mean MAE"]["model"] > 0
    assert set(rows["RT person-mean MAE"]["baselines"]) == {"group", "twin-zero"}
    assert "3 trainings (folds A 1; predictors 3; nulls 0)" in err
    assert rows["RT log-likelihood"]["model"] is None  # the head does not say when
    with pytest.raises(DTwinInputError, match="training"):
        command.run(arguments("nowhere", "--model-config", "nowhere.toml"))


def test_steps_are_those_of_every_twin(
    stroop: Cohort,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained: list[Any] = []
    train_layers = twin_predictor.train_layers

    def record(*args: Any) -> Any:
        trained.append(args[4])
        return train_layers(*args)

    monkeypatch.setattr(twin_predictor, "train_layers", record)
    save_cohort(stroop, tmp_path / "cohort")
    words = [str(tmp_path / "cohort"), "--preset", "tiny", "--splits", "A", "--baselines", "group"]
    words += ["--nulls", "1", "--controls", "twin-zero", "--steps", "3", "--seed", "4", "--json"]
    assert command.run(arguments(*words)) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["steps"] == 3
    # 1200 and 1000 by default.
    assert [(c.n_steps, c.group_steps) for c in trained] == [(3, 2)] * 3
    with pytest.raises(DTwinInputError, match="counts epochs"):
        command.run(arguments(*words, "--model-config", "paper"))


def test_cheap_by_default() -> None:
    assert arguments("cohort").nulls == 3
