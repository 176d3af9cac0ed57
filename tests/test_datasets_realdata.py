"""Loaders on the real tables beside the repository, against what their README says of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dtwin_fast.cohort import NO_RESPONSE, NOT_MEASURED, WRONG_BUTTON, Cohort
from dtwin_fast.datasets import (
    clean_series,
    read_confounds,
    read_stroop_events,
    read_tcp_release,
    read_tcp_trials,
)
from dtwin_fast.datasets.tcp import EVENT_TITLES

pytestmark = pytest.mark.realdata
RUNS = {"faces": "hammerAP", "stroop": "stroopAP", "stroop_run-2": "stroopPA"}


@pytest.fixture(scope="module")
def table(shared_data: Path) -> pd.DataFrame:
    return pd.read_csv(shared_data / "tcp-behaviour" / "trials.csv.gz")


@pytest.fixture(scope="module")
def tcp(shared_data: Path) -> Cohort:
    return read_tcp_trials(shared_data / "tcp-behaviour", tasks=tuple(RUNS))


def mean_rt(cohort: Cohort, run: str, condition: str) -> np.ndarray:
    data = cohort.tasks[run]
    use = data.is_correct & (np.array(data.schedule.condition) == condition)
    rt = np.where(use, data.rt_s, np.nan)
    with np.errstate(all="ignore"):
        return np.nansum(rt, axis=1) / use.sum(axis=1)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    both = np.isfinite(a) & np.isfinite(b)
    return float(np.corrcoef(a[both], b[both])[0, 1])


def test_the_cohort_rule(tcp: Cohort, shared_data: Path) -> None:
    assert len(tcp) == 152
    first_runs = read_tcp_trials(shared_data / "tcp-behaviour")
    assert first_runs.connectomes.subjects == tcp.connectomes.subjects
    assert {name: int(d.measured.any(1).sum()) for name, d in tcp.tasks.items()} == {
        "faces": 147,
        "stroop": 150,
        "stroop_run-2": 144,
    }
    assert tcp.connectomes.rejected == ()
    people = pd.read_csv(shared_data / "tcp-behaviour" / "participants.tsv", sep="\t")
    people = people.set_index("participant_id").loc[list(tcp.connectomes.subjects)]
    np.testing.assert_array_equal(tcp.participants["age_years"], people["age"])
    np.testing.assert_array_equal(tcp.participants["site"], people["Site"])
    assert tcp.participants["sex"].tolist() == people["sex"].tolist()
    assert tcp.participants["group"].tolist() == people["Group"].tolist()


def test_designs_are_those_of_the_project(tcp: Cohort) -> None:
    faces, stroop = tcp.tasks["faces"].schedule, tcp.tasks["stroop"].schedule
    assert (faces.n_trials, faces.n_volumes(0.8)) == (108, 493)
    assert faces.condition.count("face") == faces.condition.count("shape") == 54
    assert faces.correct.sum() == 54
    assert len(faces.cue) == 18
    assert (stroop.n_trials, stroop.n_volumes(0.8)) == (78, 510)
    assert stroop.condition.count("con") == 54
    assert stroop.onset_s[0] == 2.0
    assert (stroop.onset_s + stroop.window_s).max() == pytest.approx(398.0)
    assert np.bincount(stroop.item).tolist() == [18] * 3 + [4] * 6
    second = tcp.tasks["stroop_run-2"].schedule
    assert second.n_trials == 78
    assert not np.array_equal(second.item, stroop.item)


def test_trials_are_the_table(tcp: Cohort, table: pd.DataFrame) -> None:
    """Trial by trial against pandas: presses, times, sides and the counts in the README."""
    place = {name: i for i, name in enumerate(tcp.connectomes.subjects)}
    n_early = 0
    for run, code in RUNS.items():
        data = tcp.tasks[run]
        rows = table[table["task"] == code]
        at = rows["subject"].map(place).to_numpy(), rows["trial"].to_numpy() - 1
        choice, rt = data.choice[at], data.rt_s[at]
        early = (rows["rt"] < 0.15).to_numpy()
        n_early += early.sum()
        none = rows["rt"].isna().to_numpy()
        right = (rows["accuracy"] == 1).to_numpy()
        assert (choice[none] == NO_RESPONSE).all()
        assert (choice[early] == NOT_MEASURED).all()
        assert (data.is_correct[at] == (right & ~early)).all()
        pressed = ~none & ~early
        np.testing.assert_array_equal(rt[pressed], rows["rt"][pressed].to_numpy(np.float32))
        if run == "faces":
            side = rows["choice_derived"].map({"left": 0, "right": 1})
            np.testing.assert_array_equal(choice[pressed], side[pressed].to_numpy(np.int8))
        else:
            assert (choice[pressed & ~right] == WRONG_BUTTON).all()
    flagged = [flag for flags in tcp.connectomes.flags for flag in flags if "early" in flag]
    assert sum(int(flag.split(":")[-1]) for flag in flagged) == n_early > 0


def test_reliabilities_are_the_known_ones(tcp: Cohort) -> None:
    con = [mean_rt(tcp, run, "con") for run in ("stroop", "stroop_run-2")]
    inc = [mean_rt(tcp, run, "inc") for run in ("stroop", "stroop_run-2")]
    assert correlation(*con) == pytest.approx(0.83, abs=0.04)
    assert correlation(inc[0] - con[0], inc[1] - con[1]) == pytest.approx(0.38, abs=0.12)
    assert np.nanmean(inc[0] - con[0]) == pytest.approx(0.182, abs=0.03)
    face, shape = (mean_rt(tcp, "faces", condition) for condition in ("face", "shape"))
    assert np.nanmean(face - shape) == pytest.approx(0.101, abs=0.02)
    assert correlation((face + shape) / 2, con[0]) == pytest.approx(0.58, abs=0.1)


def test_the_same_events_as_a_release(
    tcp: Cohort, table: pd.DataFrame, shared_data: Path, tmp_path: Path
) -> None:
    """The table written out as the events files it was built from gives the same cohort."""
    own = {title: source for source, title in EVENT_TITLES.items() if source != "trial_type"}
    for (subject, code), rows in table.groupby(["subject", "task"]):
        path = tmp_path / subject / "func" / f"{subject}_task-{code}_run-01_events.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = rows.rename(columns=own).drop(columns=["subject", "task", "trial", "condition"])
        rows.dropna(axis=1, how="all").to_csv(path, sep="\t", index=False, na_rep="NaN")
    people = (shared_data / "tcp-behaviour" / "participants.tsv").read_bytes()
    (tmp_path / "participants.tsv").write_bytes(people)
    release = read_tcp_release(tmp_path, tasks=tuple(RUNS))
    assert release.connectomes.subjects == tcp.connectomes.subjects
    assert release.connectomes.flags == tcp.connectomes.flags
    for run, data in tcp.tasks.items():
        assert release.tasks[run].schedule.to_dict() == data.schedule.to_dict()
        np.testing.assert_array_equal(release.tasks[run].choice, data.choice)
        np.testing.assert_array_equal(release.tasks[run].rt_s, data.rt_s)


@pytest.mark.parametrize("person", ["f1027ao", "f1031ax", "f1342ku"])
def test_fmriprep_runs(shared_data: Path, person: str) -> None:
    folder = shared_data / "fmriprep-confounds"
    stem = f"sub-{person}_ses-wave1bas_task-Stroop_acq-mb4AP_run-1"
    events = pd.read_csv(folder / f"{stem}_events.tsv", sep="\t", dtype={"response_accuracy": str})
    run = read_stroop_events(folder / f"{stem}_events.tsv", run_s=540 * 1.2)
    data = run.data
    assert data.choice.shape == (1, 108)
    assert (data.schedule.n_volumes(1.2), data.schedule.condition.count("con")) == (
        540,
        int((events["trial_type"] == "Con").sum()),
    )
    score = events["response_accuracy"]
    np.testing.assert_array_equal(data.is_correct[0], score == "1")
    np.testing.assert_array_equal(data.choice[0] == WRONG_BUTTON, score == "0")
    answered = score.isin(["0", "1"]).to_numpy()
    np.testing.assert_allclose(
        data.rt_s[0][answered], events["response_time"].to_numpy(float)[answered], rtol=1e-6
    )
    assert run.flags == ((),)

    path = folder / f"{stem}_desc-confounds_regressors.tsv"
    table = pd.read_csv(path, sep="\t")
    read = read_confounds(path, global_signal=True)
    assert read.mean_fd_mm == pytest.approx(table["framewise_displacement"].mean())
    np.testing.assert_allclose(read.values, table[list(read.names)].to_numpy())
    assert len(read.names) == 6 + 2 + 5 + 1 + 9
    series = np.random.default_rng().normal(size=(540, 6)) + read.values[:, :6]
    cleaned = clean_series(series, read, tr_s=1.2, max_fd_mm=0.5)
    kept = ~read.high_motion(0.5)
    assert np.isnan(cleaned[~kept]).all()
    left = [
        np.corrcoef(cleaned[kept, i], column)[0, 1]
        for i in range(6)
        for column in read.values[kept].T
        if np.ptp(column)
    ]
    assert np.abs(left).max() < 1e-3
