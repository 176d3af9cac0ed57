"""The folder that write_prediction leaves: labels, columns, values, and nothing half written."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dtwin_fast import files, prediction_files
from dtwin_fast.connectome import Connectomes, matrices
from dtwin_fast.errors import DTwinInputError
from dtwin_fast.prediction import Prediction
from dtwin_fast.prediction_files import bids_labels, write_json, write_prediction
from dtwin_fast.tables import write_tsv
from dtwin_fast.twin import Twin

SUBJECTS = ["sub-01", "02", "A_b-3", "sub-04"]
LABELS = ["sub-01", "sub-02", "sub-Ab3"]
SIX_DIGITS = 0.5e-5  # relative, what "%.6g" keeps


@pytest.fixture(scope="module")
def prediction(tiny_twin: Twin) -> Prediction:
    """Three subjects, the second with an imputed region; the fourth was rejected."""
    edges = np.random.default_rng(3).uniform(-0.5, 0.9, (4, 120))
    fc = matrices(edges)
    fc[1, 4] = fc[1, :, 4] = np.nan
    fc[3, 0, 1] = 0.99
    connectomes = Connectomes.from_arrays(
        fc, regions=tiny_twin.regions, subjects=SUBJECTS, bad_subjects="drop"
    )
    return tiny_twin.predict(connectomes, missing="impute")


@pytest.fixture(scope="module")
def folder(prediction: Prediction, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("out") / "predictions"
    write_prediction(prediction, path)
    return path


def _table(path: Path) -> tuple[list[str], dict[str, list[str]]]:
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file, delimiter="\t"))
    assert all(len(row) == len(header) for row in rows)
    assert len(set(header)) == len(header)
    return header, {name: [row[i] for row in rows] for i, name in enumerate(header)}


def _numbers(texts: list[str]) -> np.ndarray:
    return np.array([np.nan if text == "n/a" else float(text) for text in texts])


def _assert_printed(texts: list[str], wanted: np.ndarray) -> None:
    np.testing.assert_allclose(_numbers(texts), wanted, rtol=SIX_DIGITS, atol=1e-12)


def test_files(folder: Path) -> None:
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    runs = {
        f"{label}/func/{label}_task-{task}_desc-dtwin_{kind}.tsv"
        for label in LABELS
        for task in ("faces", "stroop")
        for kind in ("beh", "timeseries")
    }
    top = {"dataset_description.json", "participants.tsv", "contrasts.tsv", "rejected.tsv"}
    assert found == runs | top


@pytest.mark.parametrize("task", ["faces", "stroop"])
def test_trials(folder: Path, prediction: Prediction, task: str) -> None:
    names = {"faces": ["left", "right", "unused"], "stroop": ["red", "green", "blue"]}[task]
    schedule, trials = prediction.schedules[task], prediction.trial_slice(task)
    for i, label in enumerate(LABELS):
        header, table = _table(folder / label / "func" / f"{label}_task-{task}_desc-dtwin_beh.tsv")
        assert header == [
            "onset", "duration", "trial_type", "correct", "choice", "response_time",
            *(f"p_{name}" for name in names), "p_no_response",
        ]  # fmt: skip
        assert len(table["onset"]) == schedule.n_trials
        _assert_printed(table["onset"], schedule.onset_s)
        _assert_printed(table["duration"], schedule.duration_s)
        assert table["trial_type"] == list(schedule.condition)
        assert table["correct"] == [names[c] for c in schedule.correct]
        assert table["choice"] == [names[c] for c in prediction.choice[i, trials]]
        _assert_printed(table["response_time"], prediction.rt_s[i, trials])
        for c, name in enumerate(names):
            _assert_printed(table[f"p_{name}"], prediction.choice_prob[i, trials, c])
        _assert_printed(table["p_no_response"], prediction.no_response_prob[i, trials])


@pytest.mark.parametrize("task", ["faces", "stroop"])
def test_series(folder: Path, prediction: Prediction, task: str) -> None:
    assert prediction.bold is not None
    for i, label in enumerate(LABELS):
        stem = f"{label}_task-{task}_desc-dtwin_timeseries.tsv"
        header, table = _table(folder / label / "func" / stem)
        assert tuple(header) == prediction.bold_regions
        series = prediction.bold[i, prediction.volume_slice(task)]
        for r, region in enumerate(header):
            _assert_printed(table[region], series[:, r])


def test_participants(folder: Path, prediction: Prediction) -> None:
    header, table = _table(folder / "participants.tsv")
    assert header[:3] == ["participant_id", "source_id", "flags"]
    assert table["participant_id"] == LABELS
    assert table["source_id"] == SUBJECTS[:3]
    assert table["flags"] == ["n/a", "missing_regions:1,imputed_regions:1", "n/a"]
    conditions = {f"{task}_{c}" for task, s in prediction.schedules.items() for c in s.condition}
    assert {h.removesuffix("_p_correct") for h in header if h.endswith("p_correct")} == conditions
    for task, schedule in prediction.schedules.items():
        start = prediction.trial_slice(task).start
        for condition in set(schedule.condition):
            trials = [n for n, c in enumerate(schedule.condition) if c == condition]
            at = [start + n for n in trials]
            correct = np.stack(
                [prediction.choice_prob[:, start + n, schedule.correct[n]] for n in trials]
            ).mean(axis=0)
            name = f"{task}_{condition}"
            _assert_printed(table[f"{name}_p_correct"], correct)
            _assert_printed(table[f"{name}_rt_s"], prediction.rt_s[:, at].mean(axis=1))
            _assert_printed(
                table[f"{name}_p_no_response"], prediction.no_response_prob[:, at].mean(axis=1)
            )


def test_contrasts(folder: Path, prediction: Prediction) -> None:
    header, table = _table(folder / "contrasts.tsv")
    assert header == ["participant_id", "contrast", *prediction.bold_regions]
    assert table["participant_id"] == [label for label in LABELS for _ in range(2)]
    assert table["contrast"] == list(prediction.contrast_names) * 3
    for r, region in enumerate(prediction.bold_regions):
        _assert_printed(table[region], prediction.contrasts[:, :, r].ravel())


def test_rejected(folder: Path, prediction: Prediction) -> None:
    header, table = _table(folder / "rejected.tsv")
    assert header == ["source_id", "code", "reason", "fix"]
    (error,) = prediction.rejected
    row = ["sub-04", "asymmetric", error.what, error.fix]
    assert [table[name][0] for name in header] == row


def test_description(folder: Path, prediction: Prediction) -> None:
    text = (folder / "dataset_description.json").read_text()
    facts = json.loads(text)
    assert text.endswith("}\n")
    assert facts["Provenance"] == prediction.provenance
    assert facts["DatasetType"] == "derivative"
    assert facts["GeneratedBy"] == [
        {"Name": "dtwin_fast", "Version": prediction.provenance["dtwin_fast"]}
    ]
    assert "not clinical" in facts["Notice"]
    assert facts["RepetitionTime"] == 0.8
    assert (facts["Subjects"], facts["Rejected"], facts["Diverged"]) == (3, 1, 0)


def test_without_bold(prediction: Prediction, tmp_path: Path) -> None:
    write_prediction(replace(prediction, bold=None), tmp_path)
    assert not list(tmp_path.rglob("*timeseries*"))
    assert len(list(tmp_path.rglob("*_beh.tsv"))) == 6


def test_diverged_subject_has_no_choice(prediction: Prediction, tmp_path: Path) -> None:
    choice_prob, rt_s = prediction.choice_prob.copy(), prediction.rt_s.copy()
    choice_prob[1], rt_s[1] = np.nan, np.nan
    spoilt = replace(
        prediction,
        choice_prob=choice_prob,
        rt_s=rt_s,
        bold=None,
        diverged=np.array([False, True, False]),
    )
    write_prediction(spoilt, tmp_path)
    _, table = _table(tmp_path / "participants.tsv")
    assert table["flags"][1] == "missing_regions:1,imputed_regions:1,diverged"
    assert table["faces_face_p_correct"][1] == "n/a"
    assert table["faces_face_p_correct"][0] != "n/a"
    _, trials = _table(tmp_path / "sub-02" / "func" / "sub-02_task-faces_desc-dtwin_beh.tsv")
    for name in ("choice", "response_time", "p_left", "p_no_response"):
        assert set(trials[name]) == {"n/a"}
    facts = json.loads((tmp_path / "dataset_description.json").read_text())
    assert facts["Diverged"] == 1


def test_sigmoid_head_knows_nothing_of_no_response(prediction: Prediction, tmp_path: Path) -> None:
    write_prediction(replace(prediction, head="sigmoid", bold=None), tmp_path)
    _, people = _table(tmp_path / "participants.tsv")
    assert set(people["faces_face_p_no_response"]) == {"n/a"}
    assert "n/a" not in people["faces_face_p_correct"]
    _, trials = _table(tmp_path / "sub-01" / "func" / "sub-01_task-faces_desc-dtwin_beh.tsv")
    assert set(trials["p_no_response"]) == {"n/a"}
    assert "n/a" not in trials["p_left"]


def test_nobody(tiny_twin: Twin, tmp_path: Path) -> None:
    fc = matrices(np.full((1, 120), 0.1))
    fc[0, 4] = fc[0, :, 4] = np.nan
    p = tiny_twin.predict(fc, bad_subjects="drop")
    write_prediction(p, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "dataset_description.json", "participants.tsv", "contrasts.tsv", "rejected.tsv",
    }  # fmt: skip
    assert _table(tmp_path / "participants.tsv")[1]["participant_id"] == []
    assert _table(tmp_path / "rejected.tsv")[1]["code"] == ["missing_regions"]


def test_progress(prediction: Prediction, tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    write_prediction(prediction, tmp_path, progress=lambda i, n: done.append((i, n)))
    assert done == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("subjects", "labels"),
    [
        (("01", "sub-02"), ["sub-01", "sub-02"]),
        (("a_b", "a c"), ["sub-ab", "sub-ac"]),
        (("sub-sub-1",), ["sub-sub1"]),
        (("sub", "Sub-1"), ["sub-sub", "sub-Sub1"]),
        (("NDAR_INV1/..",), ["sub-NDARINV1"]),
        ((), []),
    ],
    ids=str,
)
def test_labels(subjects: tuple[str, ...], labels: list[str]) -> None:
    assert bids_labels(subjects) == labels


@pytest.mark.parametrize(
    "subjects",
    [("01", "sub-01"), ("a-b", "a_b"), ("sub-",), ("",), ("..",), ("é",), ("ok", "日本")],
    ids=repr,
)
def test_labels_that_collide(
    prediction: Prediction, tmp_path: Path, subjects: tuple[str, ...]
) -> None:
    with pytest.raises(DTwinInputError) as caught:
        bids_labels(subjects)
    assert (caught.value.code, caught.value.subject) == ("subject_label", subjects[-1])
    # Nothing is written for the others either.
    three = (*subjects, "x1", "x2")[-3:] if len(subjects) == 1 else (*subjects, "x")
    with pytest.raises(DTwinInputError):
        write_prediction(replace(prediction, subjects=three), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_as_long_as_subjects_can_be(tiny_twin: Twin, tmp_path: Path) -> None:
    fc = Connectomes.from_arrays(
        np.full((1, 120), 0.1), regions=tiny_twin.regions, subjects=["x" * 200]
    )
    write_prediction(tiny_twin.predict(fc, ["stroop"]), tmp_path)
    assert len(list(tmp_path.rglob("*timeseries.tsv"))) == 1


class TestInterrupted:
    def _fail_at(self, monkeypatch: pytest.MonkeyPatch, last: int) -> None:
        fsync: Callable[[int], None] = files.os.fsync
        count = 0

        def fail(handle: int) -> None:
            nonlocal count
            count += 1
            if count > last:
                raise OSError("disk full")
            fsync(handle)

        monkeypatch.setattr(files.os, "fsync", fail)

    @pytest.mark.parametrize("last", [0, 2, 4, 8, 20, 28, 30])
    def test_no_description_and_no_litter(
        self, prediction: Prediction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: int
    ) -> None:
        # The folder still holds an older, complete prediction.
        write_prediction(prediction, tmp_path)
        self._fail_at(monkeypatch, last)
        with pytest.raises(OSError, match="disk full"):
            write_prediction(prediction, tmp_path)
        assert not (tmp_path / "dataset_description.json").exists()
        assert not list(tmp_path.rglob("*.part"))
        for path in tmp_path.rglob("*.tsv"):
            _table(path)

    def test_description_is_last(
        self, prediction: Prediction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        written: list[str] = []
        for module_name in ("tables", "prediction_files"):
            monkeypatch.setattr(
                f"dtwin_fast.{module_name}.write_atomic",
                lambda path, _data: written.append(path.name),
            )
        write_prediction(prediction, tmp_path)
        assert written[-1] == prediction_files.DESCRIPTION_FILE
        assert len(written) == 3 + 3 * 4 + 1


class TestTables:
    def test_cells(self, tmp_path: Path) -> None:
        row = ["a", 1, 1234567.0, 0.1, float("nan"), float("inf"), True, "two\twords"]
        write_tsv(tmp_path / "x.tsv", list("abcdefgh"), [row])
        _, table = _table(tmp_path / "x.tsv")
        cells = [column[0] for column in table.values()]
        assert cells == ["a", "1", "1.23457e+06", "0.1", "n/a", "n/a", "True", "two\twords"]

    def test_lines(self, tmp_path: Path) -> None:
        write_tsv(tmp_path / "x.tsv", ["a", "b"], [["µ", 0.5], ["", -0.25]])
        assert (tmp_path / "x.tsv").read_bytes() == "a\tb\nµ\t0.5\n\t-0.25\n".encode()

    def test_json_refuses_nan(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="JSON"):
            write_json(tmp_path / "x.json", {"a": float("nan")})
        assert not list(tmp_path.iterdir())
