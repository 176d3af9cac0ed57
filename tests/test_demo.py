"""The demo: one seed gives one result, floors see training people alone, files are written."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("nilearn")

from dtwin_fast import cli
from dtwin_fast.cohort import Cohort
from dtwin_fast.demo import DemoResult, Row, as_table, run_demo, score
from dtwin_fast.prediction import Prediction
from dtwin_fast.simulate import simulate
from dtwin_fast.spec import PRESETS
from dtwin_fast.tasks import TASKS
from dtwin_fast.training import TrainConfig, TrainStep
from dtwin_fast.twin import Twin
from dtwin_fast.twin_files import load

N_PEOPLE = 60
CONFIG = TrainConfig(n_steps=3)
METRICS = ("choice concordance", "RT r over trials", "RT r over people")


@pytest.fixture(scope="module")
def result() -> DemoResult:
    return run_demo(n_people=N_PEOPLE, config=CONFIG, seed=5)


@pytest.fixture(scope="module")
def split() -> tuple[Cohort, Cohort]:
    """Test and training people of other data than the demo's."""
    cohort = simulate(30, PRESETS["demo"].n_regions, seed=8).cohort
    return cohort.select(range(10)), cohort.select(range(10, 30))


@pytest.fixture(scope="module")
def prediction(result: DemoResult, split: tuple[Cohort, Cohort]) -> Prediction:
    return result.twin.predict(split[0].connectomes)


def test_rows_are_finite_and_complete(result: DemoResult) -> None:
    wanted = []
    for task in TASKS.values():
        wanted += [(task.name, metric) for metric in METRICS]
        for contrast in task.contrasts:
            wanted += [
                (task.name, f"BOLD {contrast} pattern r, {of}") for of in ("group", "person")
            ]
    assert [(row.task, row.metric) for row in result.rows] == wanted
    for row in result.rows:
        assert math.isfinite(row.model)
        assert math.isfinite(row.floor)
        assert -1 <= min(row.model, row.floor) <= max(row.model, row.floor) <= 1
        assert row.floor_is


def test_a_fifth_of_the_people_is_held_out(result: DemoResult) -> None:
    assert (result.n_train, result.n_test) == (48, 12)
    assert len(result.prediction.subjects) == 12
    assert result.twin.training["people"] == 48


def test_one_seed_one_result(result: DemoResult) -> None:
    steps: list[TrainStep] = []
    again = run_demo(n_people=N_PEOPLE, config=CONFIG, seed=5, on_step=steps.append)
    assert again.rows == result.rows
    assert again.prediction.subjects == result.prediction.subjects
    np.testing.assert_array_equal(again.prediction.choice_prob, result.prediction.choice_prob)
    np.testing.assert_array_equal(again.prediction.contrasts, result.prediction.contrasts)
    assert [step.step for step in steps] == [1, 2, 3]


def test_another_seed_holds_out_others() -> None:
    few = [run_demo(n_people=20, config=TrainConfig(n_steps=1), seed=seed) for seed in (0, 1)]
    assert few[0].prediction.subjects != few[1].prediction.subjects
    assert few[0].rows != few[1].rows


def _rows(twin: Twin, prediction: Prediction, train: Cohort, test: Cohort) -> dict[str, Row]:
    return {f"{r.task} {r.metric}": r for r in score(twin, prediction, train, test)}


def test_scores_do_not_depend_on_the_order_of_people(
    result: DemoResult, prediction: Prediction, split: tuple[Cohort, Cohort]
) -> None:
    test, train = split
    rows = _rows(result.twin, prediction, train, test)
    order = np.random.default_rng(0).permutation(len(test))
    shuffled = result.twin.predict(test.connectomes.select(order))
    again = _rows(result.twin, shuffled, train, test.select(order))
    for name, row in rows.items():
        assert again[name].model == pytest.approx(row.model, abs=1e-6)
        assert again[name].floor == pytest.approx(row.floor, abs=1e-6)


def test_floors_do_not_see_the_model(
    result: DemoResult, prediction: Prediction, split: tuple[Cohort, Cohort]
) -> None:
    test, train = split
    other = result.twin.predict(test.connectomes.select(np.arange(10)[::-1]))
    rows = _rows(result.twin, prediction, train, test)
    wrong = _rows(result.twin, other, train, test)
    assert [row.floor for row in wrong.values()] == [row.floor for row in rows.values()]
    assert [row.model for row in wrong.values()] != [row.model for row in rows.values()]


@pytest.mark.parametrize("task", TASKS)
def test_floors_are_what_they_say(
    result: DemoResult, prediction: Prediction, split: tuple[Cohort, Cohort], task: str
) -> None:
    """Each floor again, from its definition and the training people."""
    test, train = split
    rows = _rows(result.twin, prediction, train, test)
    seen, data = train.tasks[task], test.tasks[task]

    share_correct = (data.choice == data.schedule.correct).mean()
    assert rows[f"{task} choice concordance"].floor == pytest.approx(share_correct)

    mean_of_trial = np.tile(np.nanmean(seen.rt_s, axis=0), (len(test), 1))
    pressed = np.isfinite(data.rt_s)
    r = np.corrcoef(mean_of_trial[pressed], data.rt_s[pressed])[0, 1]
    assert rows[f"{task} RT r over trials"].floor == pytest.approx(r, abs=1e-6)

    # The correlation with a line in age is that with age, in the direction of the training.
    age = [cohort.participants["age_years"] for cohort in (train, test)]
    mean = [np.nanmean(cohort.tasks[task].rt_s, axis=1) for cohort in (train, test)]
    direction = np.sign(np.corrcoef(age[0], mean[0])[0, 1])
    r = direction * np.corrcoef(age[1], mean[1])[0, 1]
    assert rows[f"{task} RT r over people"].floor == pytest.approx(r, abs=1e-6)


def test_floors_of_bold_are_the_training_group(
    result: DemoResult, prediction: Prediction, split: tuple[Cohort, Cohort]
) -> None:
    test, train = split
    rows = _rows(result.twin, prediction, train, test)
    twin, name = result.twin, result.twin.contrasts["faces"][0]
    steps = twin.schedules["faces"].volume_steps(twin.spec.tr_s, twin.spec.dt_s)
    effects = []
    for cohort in (train, test):
        bold = cohort.tasks["faces"].bold
        assert bold is not None
        effects.append(twin.projections["faces"][0, steps] @ (bold[:, : len(steps)] / twin.bold_sd))
    mean = effects[0].mean(axis=0)
    group = np.corrcoef(mean, effects[1].mean(axis=0))[0, 1]
    person = np.mean([np.corrcoef(mean, own)[0, 1] for own in effects[1]])
    assert rows[f"faces BOLD {name} pattern r, group"].floor == pytest.approx(group, abs=1e-5)
    assert rows[f"faces BOLD {name} pattern r, person"].floor == pytest.approx(person, abs=1e-5)


def test_table_text() -> None:
    rows = [
        Row("faces", "choice concordance", 0.5, 0.9375, "always the correct button"),
        Row("stroop", "RT r", -0.25, 1.0, "age alone"),
    ]
    assert as_table(rows).splitlines() == [
        "task    metric (held-out people)   model  floor  the floor is",
        "-" * 74,
        "faces   choice concordance         0.500  0.938  always the correct button",
        "stroop  RT r                      -0.250  1.000  age alone",
    ]


# The command


def test_the_command_writes_what_it_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    argv = ["demo", "--steps", "3", "--out", str(out)]
    assert cli.main([*argv, "--people", "40"]) == 0
    text, progress = capsys.readouterr()
    for name in ("model", "predictions", "demo.json"):
        assert (out / name).exists()
        assert f"{out}/{name}" in text
    said = [progress.index(t) for t in ("simulating 40 people", "train:", "predicting")]
    assert said == sorted(said)
    assert "Trained on 32 simulated people, tested on 8 others." in text
    summary = json.loads((out / "demo.json").read_text("utf-8"))
    assert summary["people_held_out"] == 8
    assert summary["provenance"]["backend"] in ("cpu", "reference")
    for row in summary["rows"]:
        assert f"{row['model']:.3f}" in text
        assert row["metric"] in text
    assert load(out / "model").training["people"] == 32
    first = {path.name for path in (out / "predictions").glob("sub-*")}
    assert len(first) == 8

    # Again into the same folder: nothing of the first run stays.
    assert cli.main([*argv, "--people", "20", "--json"]) == 0
    text = capsys.readouterr().out
    assert json.loads(text) == json.loads((out / "demo.json").read_text("utf-8"))
    second = {path.name for path in (out / "predictions").glob("sub-*")}
    assert len(second) == 4
    assert first - second
    assert load(out / "model").training["people"] == 16
