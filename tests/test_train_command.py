"""``dtwin train`` and its settings files."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from dtwin_fast import DTwinInputError, cli
from dtwin_fast.cohort_files import load_cohort, save_cohort
from dtwin_fast.evaluate.splits import halves
from dtwin_fast.simulate import simulate
from dtwin_fast.spec import PRESETS
from dtwin_fast.training import StagedConfig, TrainConfig, fit
from dtwin_fast.training.config import PaperConfig
from dtwin_fast.training.config_files import CONFIGS, load_config
from dtwin_fast.training.sizes import fit_spec
from dtwin_fast.twin_files import load

QUICK = """
recipe = "staged"
[training]
n_steps = 3
group_steps = 2
seed = 4
"""


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("train") / "cohort"
    save_cohort(simulate(5, 16, seed=2, bold_regions=("LH_V1", "RH_V1")).cohort, folder)
    return folder


@pytest.fixture
def quick(tmp_path) -> Path:
    return written(tmp_path, QUICK)


def written(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text, "utf-8")
    return path


def train(cohort: Path, out: Path, *options: object) -> int:
    argv = ["train", cohort, "--out", out, "--preset", "tiny", *options]
    return cli.main([str(word) for word in argv])


# --- settings ---


def test_the_default_file_has_the_defaults_of_the_recipe():
    overrides, config = load_config("default")
    assert overrides == {"head": "hazard", "standardize": True}
    assert config == StagedConfig()
    assert set(settings("default")) == set(asdict(config))


def test_the_papers_file_has_the_papers_settings():
    overrides, config = load_config("paper")
    assert overrides == {"head": "sigmoid", "standardize": False, "dropout": 0.1}
    assert config == PaperConfig()
    assert (config.learning_rate, config.batch_size, config.max_epochs) == (1e-6, 50, 800)
    assert set(settings("paper")) == set(asdict(config))
    spec = PRESETS["tcp446"]
    assert {key: getattr(spec, key) for key in overrides} == overrides


def settings(name: str) -> list[str]:
    text = CONFIGS[name].read_text("utf-8").partition("[training]")[2]
    return [line.split("=")[0].strip() for line in text.splitlines() if "=" in line]


def test_a_file_gives_what_differs(tmp_path):
    text = 'recipe = "gradient"\n[twin]\nhyper_hidden = [8, 9]\ncell = "gru"\n'
    path = written(tmp_path, text + "[training]\nlearning_rate = 1\ninit = 'default'\n")
    overrides, config = load_config(path)
    assert overrides == {"hyper_hidden": (8, 9), "cell": "gru"}
    assert config == TrainConfig(learning_rate=1, init="default")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("# nothing", "recipe"),
        ("recipe = 3", "recipe"),
        ('recipe = "magic"', "recipe"),
        ('recipe = ["paper"]', "recipe"),
        ('recipe = "paper"\nspeed = 2', "speed"),
        ('recipe = "paper"\ntraining = 2', "training"),
        ('recipe = "paper"\n[[training]]\nseed = 1', "training"),
        ('recipe = "paper"\n[training]\nn_steps = 2', "training.n_steps"),
        ('recipe = "paper"\n[training]\npress = 2', "training.press"),
        ('recipe = "paper"\n[training]\nmax_epochs = "many"', "training.max_epochs"),
        ('recipe = "paper"\n[training]\nlearning_rate = nan', "training.learning_rate"),
        ('recipe = "paper"\n[training]\nlearning_rate = 2024-01-01', "training.learning_rate"),
        ('recipe = "gradient"\n[training]\ninit = ["default"]', "training.init"),
        ('recipe = "staged"\n[training]\nseed = 9223372036854775808', "training.seed"),
        ('recipe = "staged"\n[training]\nprior = 1' + "0" * 400, "training.prior"),
        ('recipe = "staged"\n[twin]\nn_regions = 3', "twin.n_regions"),
        ('recipe = "staged"\n[twin]\nhead = "tail"', "twin.head"),
        ('recipe = "staged"\n[twin]\ncell = "cnn"', "twin.cell"),
        ('recipe = "staged"\n[twin]\ndropout = "some"', "twin.dropout"),
        ('recipe = "staged"\n[twin]\nhyper_hidden = []', "twin.hyper_hidden"),
        ('recipe = "staged"\n[twin]\nstandardize = 1', "twin.standardize"),
        ("recipe =", "file"),
        ("recipe = 1" + "0" * 5000, "file"),
        ("recipe = " + "[" * 30000, "file"),
    ],
    ids=lambda text: text.replace("\n", " ")[-30:],
)
def test_wrong_settings_are_refused_by_name(tmp_path, text, key):
    path = written(tmp_path, text)
    with pytest.raises(DTwinInputError) as caught:
        load_config(path)
    assert (caught.value.code, caught.value.field) == ("train_config", f"{path}, {key}")
    assert caught.value.wanted
    assert len(str(caught.value)) < 1000


def test_files_that_cannot_be_settings(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_bytes(b"recipe = '\xff'")
    with pytest.raises(DTwinInputError, match="train_config"):
        load_config(path)
    path.write_bytes(b"#" * 2**17)
    with pytest.raises(DTwinInputError, match="file_too_large"):
        load_config(path)
    with pytest.raises(DTwinInputError, match=r"default \| paper") as caught:
        load_config(tmp_path / "absent.toml")
    assert caught.value.code == "train_config"
    with pytest.raises(DTwinInputError, match="file_kind"):
        load_config(tmp_path)


# --- the command ---


def test_losses_are_written_beside_the_model(cohort, quick, tmp_path, capsys):
    assert train(cohort, tmp_path / "model", "--config", quick, "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["recipe"], summary["people"]) == ("staged", 5)
    twin = load(tmp_path / "model")
    assert (twin.training["seed"], twin.training["runs"]) == (4, "whole")
    assert twin.spec.name == "tiny-r16"
    with (tmp_path / "model" / "loss.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [int(row["step"]) for row in rows] == list(range(1, summary["steps"] + 1))
    assert summary["steps"] >= 5
    assert [row["stage"] for row in rows] == twin.training["stage"]
    for column in ("action_loss", "bold_loss"):
        np.testing.assert_allclose([float(r[column]) for r in rows], twin.training[column], 1e-5)
    pytest.importorskip("matplotlib")
    assert (tmp_path / "model" / "loss.png").read_bytes()[:4] == b"\x89PNG"


def test_options_go_before_the_file(cohort, quick, tmp_path):
    assert train(cohort, tmp_path / "model", "--config", quick, "--seed", 9, "--steps", 1) == 0
    training = load(tmp_path / "model").training
    assert (training["seed"], training["n_steps"], training["group_steps"]) == (9, 1, 1)


def test_the_first_half_alone_is_trained_on(cohort, quick, tmp_path):
    assert train(cohort, tmp_path / "model", "--config", quick, "--first-half") == 0
    twin = load(tmp_path / "model")
    assert twin.training["runs"] == "first half"
    first, _ = halves(load_cohort(cohort))
    overrides, config = load_config(quick)
    assert overrides == {}
    wanted = fit(first, fit_spec(PRESETS["tiny"], first), config)
    for found, layer in zip(twin.layers, wanted.layers, strict=True):
        np.testing.assert_array_equal(found.weight, layer.weight)
    assert twin.training["action_loss"] == wanted.training["action_loss"]


def test_the_paper_by_name(cohort, tmp_path):
    text = CONFIGS["paper"].read_text("utf-8").replace("800", "1")
    path = written(tmp_path, text)
    assert train(cohort, tmp_path / "model", "--config", path, "--first-half") == 0
    twin = load(tmp_path / "model")
    assert (twin.spec.head, twin.spec.standardize) == ("sigmoid", False)
    assert twin.spec.name == "tiny-paper-r16"
    assert (twin.training["recipe"], twin.training["batch_size"]) == ("paper", 50)


def test_a_checkpoint_is_gone_on_from(cohort, quick, tmp_path, capsys):
    state = tmp_path / "state"
    assert train(cohort, tmp_path / "one", "--config", quick, "--checkpoint", state) == 0
    kept = {path.name: path.stat().st_mtime_ns for path in state.iterdir()}
    assert {"training.json", "group.safetensors", "people.safetensors"} <= set(kept)
    assert train(cohort, tmp_path / "two", "--config", quick, "--checkpoint", state) == 0
    assert kept == {path.name: path.stat().st_mtime_ns for path in state.iterdir()}
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two
    for other in (["--first-half"], ["--seed", 5]):
        capsys.readouterr()
        options = ["--config", quick, "--checkpoint", state, *other]
        assert train(cohort, tmp_path / "three", *options) != 0
        assert "[checkpoint]" in capsys.readouterr().err
        assert not (tmp_path / "three").exists()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--config", "paper", "--steps", "5"], 2, "[argument] --steps"),
        (["--config", "nowhere.toml"], 2, "[train_config] nowhere.toml, config"),
    ],
    ids=["steps of the paper", "no such file"],
)
def test_what_cannot_be_is_refused_before_the_cohort_is_read(
    tmp_path, capsys, options, code, message
):
    assert train(tmp_path / "absent", tmp_path / "model", *options) == code
    err = capsys.readouterr().err
    assert err.startswith("dtwin: " + message)
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
