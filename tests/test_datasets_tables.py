"""Tables of one's own, people without connectomes, runs as fMRIPrep leaves them."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dtwin_fast.cohort import NO_RESPONSE, NOT_MEASURED, WRONG_BUTTON, Cohort
from dtwin_fast.cohort_files import load_cohort, save_cohort
from dtwin_fast.connectome import Connectomes
from dtwin_fast.datasets import clean_series, read_confounds, read_stroop_events, read_tables
from dtwin_fast.datasets.columns import read_table, typed
from dtwin_fast.errors import DTwinInputError
from dtwin_fast.tasks import TASKS
from dtwin_fast.tasks.stroop import COLOURS

N_PEOPLE, N_TRIALS = 5, 17


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng()


@pytest.fixture
def trials(rng: np.random.Generator) -> pd.DataFrame:
    """A Stroop run with the pressed colours and a second faces run, of people 01 to 05."""
    word, ink = rng.choice(COLOURS, (2, N_TRIALS))
    side = rng.permutation(np.arange(N_TRIALS) % 2)
    parts = []
    for person in range(1, N_PEOPLE + 1):
        run = {"subject": f"{person:02d}", "trial": np.arange(1, N_TRIALS + 1), "window": 2.0}
        rt = np.where(rng.random(N_TRIALS) < 0.2, np.nan, rng.uniform(0.2, 1.9, N_TRIALS))
        pressed = rng.choice([*COLOURS, "wrong"], N_TRIALS)
        stroop = pd.DataFrame(
            {"task": "stroop", "onset": 1 + 2.5 * np.arange(N_TRIALS), "duration": 0.25, "rt": rt}
            | {"choice": np.where(np.isnan(rt), "none", pressed), "word": word, "ink": ink}
            | run
        )
        rt = rng.uniform(0.2, 1.9, N_TRIALS)
        faces = pd.DataFrame(
            {"task": "faces_run-2", "onset": 3.0 * np.arange(N_TRIALS), "duration": 2.0, "rt": rt}
            | {"accuracy": rng.integers(0, 2, N_TRIALS), "condition": "face", "top": "a.jpg"}
            | {"left": np.where(side == 0, "a.jpg", "b.jpg")}
            | {"right": np.where(side == 1, "a.jpg", "b.jpg")}
            | run
        )
        parts += [stroop, faces]
    return pd.concat(parts, ignore_index=True)


def written(trials: pd.DataFrame, folder: Path, name: str = "trials.tsv") -> Path:
    separator = "\t" if ".tsv" in name else ","
    trials.to_csv(folder / name, sep=separator, index=False, na_rep="n/a")
    return folder / name


def of(trials: pd.DataFrame, task: str, person: int) -> pd.DataFrame:
    """A view on one person's run, sorted."""
    return trials[(trials["task"] == task) & (trials["subject"] == f"{person:02d}")]


@pytest.mark.parametrize("name", ["trials.tsv", "trials.csv", "trials.tsv.gz"])
def test_tables_of_ones_own(trials: pd.DataFrame, tmp_path: Path, name: str) -> None:
    shuffled = trials.sample(frac=1).sort_values("subject", kind="stable")
    cohort = read_tables(written(shuffled, tmp_path, name), tr_s=1.2)
    assert cohort.connectomes.subjects == tuple(f"{i:02d}" for i in range(1, N_PEOPLE + 1))
    assert cohort.connectomes.n_regions == 0
    assert set(cohort.tasks) == {"stroop", "faces_run-2"}
    assert cohort.tr_s == 1.2
    for person in range(N_PEOPLE):
        rows = of(trials, "stroop", person + 1)
        code = {"none": NO_RESPONSE, "wrong": WRONG_BUTTON} | {c: i for i, c in enumerate(COLOURS)}
        assert cohort.tasks["stroop"].choice[person].tolist() == [code[c] for c in rows["choice"]]
        np.testing.assert_array_equal(
            cohort.tasks["stroop"].rt_s[person], rows["rt"].to_numpy(np.float32)
        )
        rows = of(trials, "faces_run-2", person + 1)
        right = (rows["right"] == rows["top"]).to_numpy(int)
        wanted = np.where(rows["accuracy"] == 1, right, 1 - right)
        np.testing.assert_array_equal(cohort.tasks["faces_run-2"].choice[person], wanted)
    assert cohort.connectomes.flags == ((),) * N_PEOPLE
    schedule = cohort.tasks["faces_run-2"].schedule
    assert schedule.task == "faces"
    assert schedule.run_s == pytest.approx(3.0 * (N_TRIALS - 1) + 2)
    assert schedule.cue.shape == (0, 8)  # the first trial begins with the run
    assert cohort.tasks["stroop"].schedule.run_s == pytest.approx(1 + 2.5 * (N_TRIALS - 1) + 2)


def test_a_named_choice_goes_before_accuracy(trials: pd.DataFrame, tmp_path: Path) -> None:
    trials["accuracy"] = 1
    is_face = trials["task"] == "faces_run-2"
    trials.loc[is_face, "choice"] = "wrong"
    cohort = read_tables(written(trials, tmp_path))
    faces = cohort.tasks["faces_run-2"]
    assert (faces.choice == 1 - faces.schedule.correct).all()
    trials.loc[0, ["rt", "choice"]] = [np.nan, "red"]
    trials.loc[1, ["rt", "choice"]] = [0.5, "none"]
    trials.loc[2, ["rt", "choice", "accuracy"]] = [0.5, np.nan, np.nan]
    trials.loc[3, ["rt", "choice", "accuracy"]] = [0.5, np.nan, 1]
    trials.loc[4, ["rt", "choice", "accuracy"]] = [np.nan, np.nan, 0]
    cohort = read_tables(written(trials, tmp_path))
    assert (cohort.tasks["stroop"].choice[0, :3] == NOT_MEASURED).all()
    assert cohort.tasks["stroop"].is_correct[0, 3]
    assert cohort.tasks["stroop"].choice[0, 4] == NO_RESPONSE
    assert cohort.connectomes.flags[0] == ("contradictory:stroop:3",)


def test_participants_and_connectomes(
    trials: pd.DataFrame, tmp_path: Path, rng: np.random.Generator
) -> None:
    people = ["sub-04", "sub-99", "sub-01", "sub-02", "sub-05"]
    fc = rng.uniform(-0.9, 0.9, (5, 6))
    fc[3, 2] = np.inf
    names = np.array([f"r{i}" for i in range(4)])
    np.savez(tmp_path / "fc.npz", fc=fc, subjects=np.array(people), regions=names)
    participants = pd.DataFrame(
        {"participant_id": ["03", "01", "04"], "age": [30, 10, 40], "arm": ["x", "n/a", "y"]}
    )
    cohort = read_tables(
        written(trials, tmp_path),
        participants=written(participants, tmp_path, "people.tsv"),
        connectomes=tmp_path / "fc.npz",
    )
    assert cohort.connectomes.subjects == ("01", "04", "05")
    np.testing.assert_array_equal(cohort.connectomes.edges, fc[[2, 0, 4]].astype(np.float32))
    np.testing.assert_array_equal(cohort.participants["age"], [10, 40, np.nan])
    assert cohort.participants["arm"].tolist() == ["n/a", "y", "n/a"]
    rejected = {error.subject: error.code for error in cohort.connectomes.rejected}
    assert rejected == {"02": "infinite", "03": "no_connectome", "sub-99": "no_trials"}
    whole = read_tables(written(trials, tmp_path))
    np.testing.assert_array_equal(
        cohort.tasks["stroop"].choice, whole.tasks["stroop"].choice[[0, 3, 4]]
    )


Damage = Callable[[pd.DataFrame], Any]
BAD: dict[str, tuple[str, Damage]] = {
    "no rt": ("table_column", lambda t: t.drop(columns="rt")),
    "no word": ("table_column", lambda t: t.drop(columns="word")),
    "neither score nor choice": ("table_column", lambda t: t.drop(columns=["accuracy", "choice"])),
    "words for numbers": ("table_number", lambda t: t.assign(rt="late")),
    "infinite onset": ("table_number", lambda t: t.assign(onset=np.inf)),
    "negative onset": ("trial", lambda t: t.assign(onset=t["onset"] - 2)),
    "no onset": ("trial", lambda t: t.assign(onset=t["onset"].where(t.index > 3))),
    "no duration": ("trial", lambda t: t.assign(duration=0)),
    "trial 0": ("trial", lambda t: t.assign(trial=t["trial"] - 1)),
    "half a trial": ("trial", lambda t: t.assign(trial=t["trial"] / 2)),
    "accuracy in percent": ("trial", lambda t: t.assign(accuracy=100 * t["accuracy"])),
    "an unknown button": ("trial", lambda t: t.assign(choice="yellow")),
    "a trial twice": ("trial_duplicate", lambda t: pd.concat([t, t[3:4]])),
    "trial 4 is nobody's": ("trial_order", lambda t: t[t["trial"] != 4]),
    "everyone has an own order": (
        "trial_order",
        lambda t: t.assign(word=np.random.default_rng(0).choice(COLOURS, len(t))),
    ),
    "windows overlap": ("trial_window", lambda t: t.assign(window=2.6)),
    "onsets go back": ("trial_window", lambda t: t.assign(onset=100 - t["onset"], window=0.1)),
    "two people at other times": (
        "trial_order",
        lambda t: t[t["subject"] < "03"].assign(
            onset=lambda u: u["onset"] + 5 * u["subject"].eq("02")
        ),
    ),
    "an unknown colour": ("stimulus", lambda t: t.assign(ink="pink")),
    "no side is right": ("stimulus", lambda t: t.assign(top="c.jpg")),
    "both sides are right": ("stimulus", lambda t: t.assign(left="a.jpg", right="a.jpg")),
    "a condition of no task": ("stimulus", lambda t: t.assign(condition="house")),
    "another task": ("task", lambda t: t.assign(task="nback")),
    "no rows": ("table_empty", lambda t: t[:0]),
    "one person under two names": (
        "subject_duplicate",
        lambda t: pd.concat([t, of(t, "stroop", 1).assign(subject="sub-01")]),
    ),
}


@pytest.mark.parametrize(("code", "damage"), BAD.values(), ids=BAD)
def test_bad_trials(trials: pd.DataFrame, tmp_path: Path, code: str, damage: Damage) -> None:
    fc = Connectomes.from_arrays(np.full((2, 6), 0.5), subjects=["01", "02"])
    with pytest.raises(DTwinInputError) as caught:
        read_tables(written(damage(trials), tmp_path), connectomes=fc)
    assert caught.value.code == code
    assert caught.value.fix


def test_connectomes_of_other_people(trials: pd.DataFrame, tmp_path: Path) -> None:
    fc = Connectomes.from_arrays(np.full((2, 3), 0.5), subjects=["88", "89"])
    with pytest.raises(DTwinInputError, match="subject_mismatch"):
        read_tables(written(trials, tmp_path), connectomes=fc)


def test_the_most_common_order_counts_not_the_longest(trials: pd.DataFrame, tmp_path: Path) -> None:
    extra = of(trials, "stroop", 3).tail(1).assign(trial=N_TRIALS + 1, onset=90.0)
    cut = of(trials, "stroop", 2).tail(9).index
    cohort = read_tables(written(pd.concat([trials.drop(cut), extra]), tmp_path))
    stroop = cohort.tasks["stroop"]
    assert stroop.schedule.n_trials == N_TRIALS
    assert cohort.connectomes.flags[2] == ("other_trials:stroop",)
    assert cohort.connectomes.flags[1] == ("trials_missing:stroop:9",)
    assert stroop.measured.sum(axis=1).tolist() == [N_TRIALS, N_TRIALS - 9, 0, N_TRIALS, N_TRIALS]


def test_a_response_is_counted_as_one_problem(trials: pd.DataFrame, tmp_path: Path) -> None:
    is_stroop = trials["task"] == "stroop"
    trials.loc[is_stroop, ["window", "rt", "choice"]] = [0.1, 0.12, "red"]
    cohort = read_tables(written(trials, tmp_path))
    assert cohort.connectomes.flags == ((f"early_responses:stroop:{N_TRIALS}",),) * N_PEOPLE


def test_faces_shown_together_differ_in_corner(trials: pd.DataFrame, tmp_path: Path) -> None:
    schedule = read_tables(written(trials, tmp_path)).tasks["faces_run-2"].schedule
    assert (np.abs(schedule.stimulus[:, 4:6] - schedule.stimulus[:, 6:8]).max(axis=1) > 0.5).all()


def test_more_pictures_than_corners(rng: np.random.Generator, tmp_path: Path) -> None:
    pictures = [f"{i}.jpg" for i in range(6)]  # each against each: no four corners can do
    pairs = [(a, b) for a in pictures for b in pictures if a != b]
    n = len(pairs)
    trials = pd.DataFrame(
        {"subject": "a", "task": "faces", "trial": np.arange(n) + 1, "onset": 3.0 * np.arange(n)}
        | {"duration": 1.9, "window": 1.9, "rt": 0.7, "accuracy": 1, "condition": "face"}
        | {"top": [a for a, _ in pairs], "left": [a for a, _ in pairs]}
        | {"right": [b for _, b in pairs]}
    )
    schedule = read_tables(written(trials, tmp_path)).tasks["faces"].schedule
    assert len(np.unique(schedule.stimulus[:, 2:4], axis=0)) == 6
    assert sorted(schedule.item) == list(range(n))
    assert (np.abs(schedule.stimulus[:, 4:6] - schedule.stimulus[:, 6:8]).max(axis=1) > 0).all()
    assert TASKS["faces"].encode(schedule, 0.1).shape[1] == 9


# Tables


def test_columns_are_what_load_cohort_reads() -> None:
    for cells, kind in (
        (["1", "-2", "30"], "i"),
        (["1", "n/a", "30"], "f"),
        (["1.5", "", "1e3"], "f"),
        (["007", "1", "2"], "U"),
        (["a", "n/a", "1"], "U"),
        (["9" * 30, "1", "2"], "f"),
    ):
        assert typed(np.array(cells)).dtype.kind == kind
    assert typed(np.array(["a", "NaN"])).tolist() == ["a", "n/a"]


def test_a_packed_table_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv.gz"
    path.write_bytes(gzip.compress(b"a\tb\n" + b"1\t2\n" * 12_000_000))
    with pytest.raises(DTwinInputError, match="file_bomb"):
        read_table(path)
    path.write_bytes(gzip.compress(b"a\tb\n1\t2\n")[:-9])
    with pytest.raises(DTwinInputError, match="unreadable"):
        read_table(path)


# People without connectomes


def test_a_cohort_without_connectomes_comes_back(trials: pd.DataFrame, tmp_path: Path) -> None:
    cohort = read_tables(written(trials, tmp_path))
    save_cohort(cohort, tmp_path / "cohort")
    read = load_cohort(tmp_path / "cohort")
    assert read.connectomes.subjects == cohort.connectomes.subjects
    assert read.connectomes.edges.shape == (N_PEOPLE, 0)
    assert read.connectomes.regions == ()
    for name, data in cohort.tasks.items():
        np.testing.assert_array_equal(read.tasks[name].choice, data.choice)
    chosen = read.select([3, 1])
    assert chosen.connectomes.subjects == ("04", "02")
    assert chosen.connectomes.n_edges == 0
    assert len(read.select([])) == 0


def test_an_earlier_cohort_leaves_no_connectomes(
    trials: pd.DataFrame, tmp_path: Path, rng: np.random.Generator
) -> None:
    without = read_tables(written(trials, tmp_path))
    fc = Connectomes.from_arrays(
        rng.uniform(-1, 1, (N_PEOPLE, 10)),
        regions=[f"r{i}" for i in range(5)],
        subjects=without.connectomes.subjects,
    )
    save_cohort(replace(without, connectomes=fc), tmp_path / "cohort")
    assert load_cohort(tmp_path / "cohort").connectomes.n_regions == 5
    save_cohort(without, tmp_path / "cohort")
    assert load_cohort(tmp_path / "cohort").connectomes.n_regions == 0
    header = tmp_path / "cohort" / "cohort.json"
    header.write_text(
        header.read_text().replace('"has_connectomes": false', '"has_connectomes": 0')
    )
    with pytest.raises(DTwinInputError, match="cohort_file"):
        load_cohort(tmp_path / "cohort")


@pytest.mark.parametrize(
    ("names", "code"),
    [([], "no_subjects"), (["a", "a"], "subject_duplicate"), (["a\n"], "subject_id")],
)
def test_nobody_without_a_name(names: list[str], code: str) -> None:
    with pytest.raises(DTwinInputError) as caught:
        Connectomes.none(names)
    assert caught.value.code == code


# fMRIPrep


@pytest.fixture
def confounds(rng: np.random.Generator, tmp_path: Path) -> pd.DataFrame:
    names = ["csf", "white_matter", "global_signal", "framewise_displacement", "dvars"]
    names += [f"a_comp_cor_{i:02d}" for i in range(7)] + ["cosine00", "cosine01"]
    names += ["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z", "trans_x_derivative1"]
    table = pd.DataFrame(rng.normal(3, 2, (120, len(names))), columns=names)
    table["framewise_displacement"] = rng.uniform(0, 0.4, 120)
    table.loc[0, ["framewise_displacement", "dvars", "trans_x_derivative1", "csf"]] = np.nan
    return table


def test_confounds(confounds: pd.DataFrame, tmp_path: Path) -> None:
    path = written(confounds, tmp_path, "sub-1_desc-confounds_timeseries.tsv")
    read = read_confounds(path)
    wanted = confounds[list(read.names)].bfill().to_numpy()
    np.testing.assert_allclose(read.values, wanted, rtol=1e-12)
    assert len(read.names) == len(set(read.names)) == 15
    assert not {"global_signal", "dvars", "a_comp_cor_05", "trans_x_derivative1"} & {*read.names}
    assert set(read_confounds(path, global_signal=True).names) == {*read.names, "global_signal"}
    displacement = confounds["framewise_displacement"]
    assert read.mean_fd_mm == pytest.approx(displacement.mean())
    np.testing.assert_array_equal(read.high_motion(0.3), displacement > 0.3)


def test_cleaning_is_a_regression_on_the_volumes_kept(
    confounds: pd.DataFrame, tmp_path: Path, rng: np.random.Generator
) -> None:
    read = read_confounds(written(confounds, tmp_path, "c.tsv"))
    series = 100 + rng.normal(size=(120, 4)) + read.values @ rng.normal(size=(15, 4))
    series[:, 1] = 5
    for threshold in (None, 0.3):
        kept = np.ones(120, bool) if threshold is None else ~read.high_motion(threshold)
        cleaned = clean_series(series, read, tr_s=1.2, max_fd_mm=threshold)
        design = np.column_stack([read.values[kept], np.ones(kept.sum())])
        residual = series[kept] - design @ np.linalg.lstsq(design, series[kept], rcond=None)[0]
        got = cleaned[kept]
        np.testing.assert_allclose(
            (got - got.mean(axis=0))[:, [0, 2, 3]], residual[:, [0, 2, 3]], atol=1e-4
        )
        assert np.isnan(cleaned[:, 1]).all()
        assert np.isnan(cleaned[~kept]).all()
    with pytest.raises(DTwinInputError, match="too_short"):
        clean_series(series, read, tr_s=1.2, max_fd_mm=0.02)
    with pytest.raises(DTwinInputError, match="bold"):
        clean_series(series[1:], read, tr_s=1.2)


@pytest.mark.parametrize(
    ("column", "row", "value", "code"),
    [
        ("csf", 7, "n/a", "table_number"),
        ("framewise_displacement", 7, "n/a", "table_number"),
        ("rot_x", 7, "far", "table_number"),
        ("rot_x", None, None, "table_column"),
    ],
)
def test_bad_confounds(
    confounds: pd.DataFrame, tmp_path: Path, column: str, row: int | None, value: Any, code: str
) -> None:
    confounds = confounds.astype(object)
    if row is None:
        confounds = confounds.drop(columns=column)
    else:
        confounds.loc[row, column] = value
    with pytest.raises(DTwinInputError) as caught:
        read_confounds(written(confounds, tmp_path, "c.tsv"))
    assert caught.value.code == code


def test_spoken_stroop(tmp_path: Path) -> None:
    events = pd.DataFrame(
        {"onset": [3.0, 9, 13.5, 20, 26], "duration": 2, "response_time": [0.7, 0.8, 0, 0.9, 0.6]}
        | {"trial_type": ["Con", "InCon", "InCon", "Con", "Con"]}
        | {"response_accuracy": ["1", "0", "no-response", "unintelligible", "1"]}
    )
    run = read_stroop_events(written(events, tmp_path, "sub-7_task-Stroop_events.tsv"), run_s=30)
    data = run.data
    correct = data.schedule.correct[0]
    wanted = [correct, WRONG_BUTTON, NO_RESPONSE, NOT_MEASURED, correct]
    assert data.choice.tolist() == [wanted]
    np.testing.assert_allclose(data.rt_s[0], [0.7, 0.8, np.nan, np.nan, 0.6], rtol=1e-6)
    assert data.schedule.condition == ("con", "inc", "inc", "con", "con")
    assert data.schedule.window_s.tolist() == [6, 4.5, 6.5, 6, 4]
    assert run.flags == (("trials_missing:stroop:1",),)
    for column, value in (("trial_type", "Neutral"), ("response_accuracy", "maybe")):
        with pytest.raises(DTwinInputError, match="trial"):
            read_stroop_events(
                written(events.assign(**{column: value}), tmp_path, "e.tsv"), run_s=30
            )
    with pytest.raises(DTwinInputError, match="trial"):
        read_stroop_events(written(events, tmp_path, "e.tsv"), run_s=20)


def test_a_cohort_may_hold_one_such_run(tmp_path: Path) -> None:
    events = pd.DataFrame(
        {"onset": [3.0, 9], "duration": 2, "response_time": [0.7, 0.8]}
        | {"trial_type": ["Con", "InCon"], "response_accuracy": ["1", "1"]}
    )
    run = read_stroop_events(written(events, tmp_path, "sub-7_events.tsv"), run_s=30)
    cohort = Cohort(Connectomes.none(["sub-7"]), {"stroop": run.data}, (), 1.2)
    assert cohort.tasks["stroop"].is_correct.all()
