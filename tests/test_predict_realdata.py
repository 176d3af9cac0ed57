"""The whole path on real connectomes: simulate with their regions, train, predict."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from dtwin_fast import cli

pytest.importorskip("torch")
pytest.importorskip("nilearn")

pytestmark = pytest.mark.realdata

N_STEPS = 4
FLOAT32_NOISE = 1e-4
"""Text with six digits of float32 results of two inputs that differ in their last bits."""
TASKS = ("faces", "stroop")
N_TRIALS = {"faces": 108, "stroop": 78}


def run(*argv: object) -> int:
    return cli.main([str(word) for word in argv])


def train(folder: Path, regions: str, *, seed: int) -> Path:
    """A model of a few steps on simulated people with the regions of a table."""
    cohort, model = folder / "cohort", folder / "model"
    people = ["--people", 12, "--seed", seed]
    assert run("simulate", "--out", cohort, "--regions", regions, *people) == 0
    assert run("train", cohort, "--out", model, "--preset", "tiny", "--steps", N_STEPS) == 0
    return model


@pytest.fixture(scope="module")
def hcp(shared_data: Path) -> Path:
    return shared_data / "hcp-rest-task30"


@pytest.fixture(scope="module")
def pain(shared_data: Path) -> Path:
    return shared_data / "rest-fc-pain3site"


@pytest.fixture(scope="module")
def cifti(shared_data: Path) -> Path:
    return shared_data / "nifti-cifti"


@pytest.fixture(scope="module")
def parcels(hcp: Path) -> Path:
    """The parcels in the order of the edges."""
    return hcp / "parcels.csv"


@pytest.fixture(scope="module")
def hcp_model(parcels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("hcp"), str(parcels), seed=0)


@pytest.fixture(scope="module")
def pain_model(pain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Two labels occur twice; the column numbers are unique.
    return train(tmp_path_factory.mktemp("pain"), f"{pain / 'regions.csv'}:column", seed=1)


@pytest.fixture(scope="module")
def hcp_prediction(
    hcp: Path, parcels: Path, hcp_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("hcp-prediction")
    names = ["--regions", parcels, "--subjects", hcp / "subjects.csv"]
    assert run("predict", hcp_model, hcp / "fc_triu.npy", *names, "--out", out, "--bold") == 0
    return out


@dataclass(frozen=True)
class Table:
    """A TSV file: its header and rows."""

    header: list[str]
    rows: list[list[str]]

    def column(self, name: str) -> list[str]:
        return [row[self.header.index(name)] for row in self.rows]

    def numbers(self, start: int) -> npt.NDArray[np.float64]:
        """All columns from one on."""
        return np.array([[float(cell) for cell in row[start:]] for row in self.rows])


def read(path: Path) -> Table:
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file, delimiter="\t")
    return Table(header, rows)


def trials(out: Path, subject: str, task: str) -> Table:
    return read(out / subject / "func" / f"{subject}_task-{task}_desc-dtwin_beh.tsv")


def provenance(out: Path) -> dict[str, str]:
    description = json.loads((out / "dataset_description.json").read_text("utf-8"))
    return dict(description["Provenance"])


def source_ids(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as file:
        return [row["subject"] for row in csv.DictReader(file)]


def assert_complete(out: Path, subjects: list[str]) -> None:
    """A row for each person, a table for each task, and no value that is not a number."""
    assert len(read(out / "participants.tsv").rows) == len(subjects)
    assert read(out / "participants.tsv").column("source_id") == subjects
    people = read(out / "participants.tsv")
    means = people.numbers(people.header.index("faces_shape_p_correct"))
    assert np.isfinite(means).all()
    contrasts = read(out / "contrasts.tsv")
    assert len(contrasts.rows) == 2 * len(subjects)
    assert np.isfinite(contrasts.numbers(2)).all()
    labels = people.column("participant_id")
    assert sorted(labels) == sorted(path.name for path in out.glob("sub-*"))
    for label in labels:
        for task in TASKS:
            table = trials(out, label, task)
            assert len(table.rows) == N_TRIALS[task]
            chances = table.numbers(table.header.index("response_time"))
            assert np.isfinite(chances).all()


# HCP, Glasser parcels: 20 people


def test_hcp_edges(hcp: Path, hcp_prediction: Path) -> None:
    subjects = source_ids(hcp / "subjects.csv")
    assert len(subjects) == 20
    assert_complete(hcp_prediction, subjects)
    assert read(hcp_prediction / "rejected.tsv").rows == []
    assert set(read(hcp_prediction / "participants.tsv").column("flags")) == {"n/a"}
    for task, n_volumes in (("faces", 493), ("stroop", 510)):
        name = f"sub-07_task-{task}_desc-dtwin_timeseries.tsv"
        bold = read(hcp_prediction / "sub-07" / "func" / name)
        assert bold.numbers(0).shape == (n_volumes, 20)


def test_hcp_people_differ(hcp_prediction: Path) -> None:
    effects = read(hcp_prediction / "contrasts.tsv").numbers(2)[::2]
    assert len(np.unique(effects, axis=0)) == 20


def test_hcp_provenance(hcp_model: Path, hcp_prediction: Path) -> None:
    config = json.loads((hcp_model / "config.json").read_text("utf-8"))
    found = provenance(hcp_prediction)
    assert found["model_sha256"] == config["weights_sha256"]
    assert found["missing_policy"] == "reject"
    assert found["backend"] in ("cpu", "reference")
    assert len(found["input_sha256"]) == 64
    assert config["spec"]["n_regions"] == 360


# CIFTI of the same person, parcels in another order


def test_pconn_in_another_order_gives_the_prediction_of_the_edges(
    cifti: Path, parcels: Path, hcp_model: Path, hcp_prediction: Path, tmp_path: Path
) -> None:
    pconn = cifti / "hcp_sub-01_rest_mmp360.pconn.nii"
    assert run("predict", hcp_model, pconn, "--out", tmp_path) == 0
    people = read(tmp_path / "participants.tsv")
    (label,) = people.column("participant_id")
    assert_complete(tmp_path, people.column("source_id"))
    wanted = read(hcp_prediction / "contrasts.tsv").numbers(2)[:2]
    others = read(hcp_prediction / "contrasts.tsv").numbers(2)[2:4]
    got = read(tmp_path / "contrasts.tsv").numbers(2)
    assert np.abs(got - wanted).max() < FLOAT32_NOISE
    assert np.abs(got - others).max() > 100 * FLOAT32_NOISE
    for task in TASKS:
        got_p, wanted_p = (
            trials(out, name, task).numbers(5)
            for out, name in ((tmp_path, label), (hcp_prediction, "sub-01"))
        )
        assert np.abs(got_p - wanted_p).max() < FLOAT32_NOISE

    # Names matter: the same values under the model's order of names are another connectome.
    import nibabel as nib

    edges = np.asarray(nib.load(pconn).dataobj, np.float32)
    np.save(tmp_path / "sub-01.npy", edges)
    out = tmp_path / "by-position"
    wrong = ["--regions", parcels]
    assert run("predict", hcp_model, tmp_path / "sub-01.npy", *wrong, "--out", out) == 0
    got = read(out / "contrasts.tsv").numbers(2)
    assert np.abs(got - wanted).max() > 10 * FLOAT32_NOISE


def test_ptseries(cifti: Path, hcp_model: Path, tmp_path: Path) -> None:
    ptseries = cifti / "hcp_sub-01_rest300_mmp360.ptseries.nii"
    assert run("predict", hcp_model, ptseries, "--out", tmp_path) == 0
    subjects = read(tmp_path / "participants.tsv").column("source_id")
    assert len(subjects) == 1
    assert_complete(tmp_path, subjects)


def test_another_parcellation_is_refused(
    cifti: Path, pain_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pconn = cifti / "hcp_sub-01_rest_mmp360.pconn.nii"
    assert run("predict", pain_model, pconn, "--out", tmp_path / "out") == 4
    assert "[regions_missing]" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# Three sites: 90 people, of whom 8 lack a region


@pytest.fixture(scope="module")
def incomplete(pain: Path) -> list[str]:
    """The people whose edges have NaN, in the order of the file."""
    edges = np.load(pain / "fc_triu.npy")
    lost = np.isnan(edges).any(axis=1)
    found = [s for s, bad in zip(source_ids(pain / "subjects.csv"), lost, strict=True) if bad]
    assert len(found) == 8
    assert {name.split("-")[0] for name in found} == {"bochum"}
    return found


def predict_pain(pain: Path, model: Path, out: Path, *more: object) -> int:
    names = ["--regions", f"{pain / 'regions.csv'}:column", "--subjects", pain / "subjects.csv"]
    return run("predict", model, pain / "fc_triu.npy", *names, "--out", out, *more)


def test_labels_that_repeat_are_refused(
    pain: Path, pain_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["--regions", pain / "regions.csv"]
    code = run("predict", pain_model, pain / "fc_triu.npy", *names, "--out", tmp_path / "out")
    error = capsys.readouterr().err
    assert code == 4
    assert "[region_duplicate]" in error
    assert "regions.csv:COLUMN" in error


def test_people_without_a_region_are_rejected_by_default(
    pain: Path,
    pain_model: Path,
    incomplete: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert predict_pain(pain, pain_model, tmp_path) == 3
    assert "82 subjects predicted, 8 rejected" in capsys.readouterr().out
    rejected = read(tmp_path / "rejected.tsv")
    assert rejected.column("source_id") == incomplete
    assert set(rejected.column("code")) == {"missing_regions"}
    assert all(rejected.column("fix"))
    kept = [s for s in source_ids(pain / "subjects.csv") if s not in incomplete]
    assert_complete(tmp_path, kept)


@pytest.mark.parametrize(("policy", "flag"), [("mask", "masked"), ("impute", "imputed")])
def test_people_without_a_region_can_be_kept(
    pain: Path, pain_model: Path, incomplete: list[str], tmp_path: Path, policy: str, flag: str
) -> None:
    assert predict_pain(pain, pain_model, tmp_path, "--missing", policy) == 0
    subjects = source_ids(pain / "subjects.csv")
    assert_complete(tmp_path, subjects)
    assert read(tmp_path / "rejected.tsv").rows == []
    flags = dict(zip(subjects, read(tmp_path / "participants.tsv").column("flags"), strict=True))
    assert [subject for subject in subjects if flags[subject] != "n/a"] == incomplete
    for subject in incomplete:
        assert f"{flag}_regions:1" in flags[subject]
    assert provenance(tmp_path)["missing_policy"] == policy


def test_the_policy_changes_only_the_people_it_is_for(
    pain: Path, pain_model: Path, incomplete: list[str], tmp_path: Path
) -> None:
    tables = []
    for policy in ("reject", "mask", "impute"):
        code = predict_pain(pain, pain_model, tmp_path / policy, "--missing", policy)
        assert code == (3 if policy == "reject" else 0)
        people = read(tmp_path / policy / "participants.tsv")
        start = people.header.index("faces_shape_p_correct")
        tables.append({row[people.header.index("source_id")]: row[start:] for row in people.rows})
    reject, mask, impute = tables
    assert [subject for subject in mask if mask[subject] != impute[subject]] == incomplete
    assert all(mask[subject] == row for subject, row in reject.items())
