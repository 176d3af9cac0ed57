"""Interventions on real connectomes: simulate with their regions, train, intervene, report."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from dtwin_fast import cli
from dtwin_fast.connectome import matrices
from dtwin_fast.interventions.out_of_range import LIMITS

pytest.importorskip("torch")
pytest.importorskip("nilearn")

pytestmark = pytest.mark.realdata


def run(*argv: object) -> int:
    return cli.main([str(word) for word in argv])


@pytest.fixture(scope="module")
def hcp(shared_data: Path) -> Path:
    return shared_data / "hcp-rest-task30"


@pytest.fixture(scope="module")
def done(hcp: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 people of the HCP, moved by a model that was trained a little on simulated people."""
    folder = tmp_path_factory.mktemp("hcp")
    parcels, out = hcp / "parcels.csv", folder / "out"
    cohort, model = folder / "cohort", folder / "model"
    assert run("simulate", "--out", cohort, "--regions", parcels, "--people", 12) == 0
    assert run("train", cohort, "--out", model, "--preset", "tiny", "--steps", 4) == 0
    names = ["--regions", parcels, "--subjects", hcp / "subjects.csv"]
    search = ["--target", "speed", "--steps", 3, "--random", 5, "--any-matrix"]
    assert run("intervene", model, hcp / "fc_triu.npy", *names, *search, "--out", out) == 0
    return out


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_everyone_has_an_effect_of_either_method(done: Path, hcp: Path) -> None:
    with (hcp / "subjects.csv").open(encoding="utf-8", newline="") as file:
        subjects = [row["subject"] for row in csv.DictReader(file)]
    effects = rows(done / "effects.tsv")
    for method in ("connectome", "weights"):
        own = [row for row in effects if row["method"] == method]
        assert [row["source_id"] for row in own] == subjects
        assert np.isfinite([float(row["effect"]) for row in own]).all()
    summary = json.loads((done / "intervention.json").read_text("utf-8"))
    assert summary["people"] == len(subjects)
    assert summary["methods"]["connectome"]["mean_effect"] > 0


def test_the_change_is_as_long_as_the_budget_and_r_stays_r(done: Path, hcp: Path) -> None:
    summary = json.loads((done / "intervention.json").read_text("utf-8"))
    change = np.load(done / "maps" / "connectome_change.npy")
    lengths = np.linalg.norm(change, axis=1)
    assert (lengths <= summary["settings"]["budget"] * (1 + 1e-5)).all()
    assert lengths.min() > 0
    before = np.load(hcp / "fc_triu.npy").astype(np.float64)
    after = np.load(done / "connectomes.npy").astype(np.float64)
    assert (np.abs(after) < 1).all()
    np.testing.assert_allclose(np.arctanh(after), np.arctanh(before) + change, atol=2e-4)


def test_real_people_are_judged_against_the_simulated_ones_trained_on(done: Path) -> None:
    scores = rows(done / "range.tsv")
    assert {row["when"] for row in scores} == {"before", "after"}
    for row in scores:
        flagged = float(row["deviation"]) > LIMITS["deviation"]
        assert flagged == ("deviation" in row["flags"])
    least = [float(row["min_eigenvalue"]) for row in scores if row["when"] == "after"]
    after = matrices(np.load(done / "connectomes.npy").astype(np.float64))
    np.testing.assert_allclose(least, np.linalg.eigvalsh(after)[:, 0], atol=1e-4)


def test_the_pages_are_written(done: Path) -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    assert run("report", done, "--people", 1) == 0
    pages = list((done / "report").glob("*.html"))
    assert len(pages) == 2
    assert all(page.stat().st_size < 1_000_000 for page in pages)
