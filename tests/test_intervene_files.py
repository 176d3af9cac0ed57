"""What an intervention leaves on disk: by its contract, whole or not at all."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dtwin_fast import prediction_files
from dtwin_fast.connectome import Connectomes, matrices
from dtwin_fast.errors import DTwinInputError
from dtwin_fast.interventions import (
    Constraint,
    Intervention,
    intervene,
    site,
    target_gradients,
    write_intervention,
)
from dtwin_fast.interventions.effect import DOSES
from dtwin_fast.interventions.files import as_json
from dtwin_fast.networks import network_of
from dtwin_fast.prediction_files import NOTICE
from dtwin_fast.readers import read_connectomes
from dtwin_fast.simulate import simulate
from dtwin_fast.twin import Twin

pytest.importorskip("torch")
pytest.importorskip("nilearn")

Rows = list[dict[str, str]]
N_PEOPLE = 11
N_RANDOM = 3
NAMES = (
    *("LH_VisCent_1", "LH_VisCent_2", "RH_VisCent_1", "LH_SomMotA_1", "RH_SomMotA_1"),
    *("LH_DefaultA_1", "LH_DefaultB_1", "RH_DefaultA_1", "LH_ContA_1", "RH_ContA_1"),
    *("LH_LimbicA_1", "RH_LimbicB_1", "lAMY-rh", "hip-lh", "tha-rh", "odd, \"one\""),
)  # fmt: skip
TABLES = {
    "effects": "participant_id source_id method pre post effect predicted flags",
    "targets": "participant_id outcome unit method pre post",
    "doses": "participant_id method dose value",
    "off_target": "method outcome unit mean_change sd_change n",
    "random": "method direction mean_effect sd_effect",
    "range": "participant_id when deviation beyond_share mahalanobis min_eigenvalue flags",
    "networks": "method network_1 network_2 n_edges mean_gradient mean_change",
    "rejected": "source_id code reason fix",
}
"""Name -> columns. Those of edges and regions depend on the methods."""


@pytest.fixture(scope="module")
def twin(tiny_twin: Twin) -> Twin:
    return replace(tiny_twin, regions=NAMES)


@pytest.fixture(scope="module")
def people(twin: Twin) -> Connectomes:
    """Eleven people, one of whom lacks a region; another lacks too much, and is rejected."""
    rng = np.random.default_rng(2)
    z = twin.edge_mean + twin.edge_sd * rng.standard_normal((N_PEOPLE + 1, 120))
    fc = matrices(np.tanh(z))
    fc[4, 6] = fc[4, :, 6] = np.nan
    fc[7] = np.nan
    return Connectomes.from_arrays(
        fc,
        regions=NAMES,
        subjects=[f"person {i}" for i in range(N_PEOPLE + 1)],
        bad_subjects="drop",
    )


@pytest.fixture(scope="module")
def done(twin: Twin, people: Connectomes) -> Intervention:
    return intervene(
        twin, people, "amygdala", missing="impute", constraint=Constraint(), n_steps=4,
        n_random=N_RANDOM,
    )  # fmt: skip


@pytest.fixture(scope="module")
def edit(twin: Twin, people: Connectomes) -> Intervention:
    some = people.select(slice(0, 3))
    return intervene(twin, some, "amygdala", method=site("hip-lh", 0.3), n_random=2)


@pytest.fixture(scope="module")
def folder(done: Intervention, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("intervention") / "new" / "folder"
    write_intervention(done, folder)
    return folder


def rows_of(folder: Path, name: str) -> tuple[list[str], Rows]:
    with (folder / f"{name}.tsv").open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t")
        rows = list(reader)
        assert reader.fieldnames is not None
        return list(reader.fieldnames), rows


def number(text: str) -> float:
    return float("nan") if text == "n/a" else float(text)


def close(found: Any, wanted: npt.ArrayLike) -> None:
    np.testing.assert_allclose(
        [number(text) for text in found], np.asarray(wanted, np.float64), rtol=1e-5, atol=1e-12
    )


def names_in(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


# The contract


def test_files_and_columns(folder: Path) -> None:
    assert names_in(folder) == {
        *(f"{name}.tsv" for name in (*TABLES, "edges", "regions")),
        *(f"maps/{m}.npy" for m in ("connectome_gradient", "connectome_change")),
        "maps/weights_gradient.npy",
        "connectomes.npy",
        "intervention.json",
    }
    for name, columns in TABLES.items():
        assert rows_of(folder, name)[0] == columns.split(), name
    assert rows_of(folder, "edges")[0] == [
        *("region_1", "region_2", "connectome_gradient", "connectome_gradient_sd"),
        *("connectome_change", "weights_gradient", "weights_gradient_sd"),
    ]
    assert rows_of(folder, "regions")[0] == [
        *("name", "network", "connectome_gradient", "connectome_change", "weights_gradient"),
    ]


def test_effects(folder: Path, done: Intervention) -> None:
    rows = rows_of(folder, "effects")[1]
    assert len(rows) == 2 * N_PEOPLE
    for method, effect in done.effects.items():
        own = [row for row in rows if row["method"] == method]
        assert [row["source_id"] for row in own] == list(done.subjects)
        assert [row["participant_id"] for row in own][:2] == ["sub-person0", "sub-person1"]
        for column in ("pre", "post", "effect", "predicted"):
            close([row[column] for row in own], getattr(effect, column))
        lost = done.subjects.index("person 4")
        assert "imputed_regions:1" in own[lost]["flags"].split(",")
    # Each method's row is flagged for the connectome that it leaves.
    closed, weights = done.effects["connectome"], done.effects["weights"]
    assert closed.range_after is not None
    for method, scores in (("connectome", closed.range_after), ("weights", weights.range_before)):
        own = [row for row in rows if row["method"] == method]
        for i, flags in enumerate(scores.flags()):
            told = own[i]["flags"].split(",")
            assert [f for f in told if f.startswith("outside")] == list(flags)


def test_targets_doses_and_off_target(folder: Path, done: Intervention) -> None:
    k = len(done.outcomes)
    targets = rows_of(folder, "targets")[1]
    assert len(targets) == 2 * N_PEOPLE * k
    doses = rows_of(folder, "doses")[1]
    assert len(doses) == 2 * N_PEOPLE * len(DOSES)
    off_target = rows_of(folder, "off_target")[1]
    assert len(off_target) == 2 * (k - 1)
    for method, effect in done.effects.items():
        own = [row for row in targets if row["method"] == method]
        for when, wanted in (("pre", effect.outcomes_pre), ("post", effect.outcomes_post)):
            close([row[when] for row in own], wanted.T.ravel())
        assert [row["outcome"] for row in own[:k]] == list(done.outcomes)
        assert [row["unit"] for row in own[:k]] == list(done.outcome_units)
        own = [row for row in doses if row["method"] == method]
        close([row["value"] for row in own], effect.curve.T.ravel())
        close([row["dose"] for row in own[: len(DOSES)]], DOSES)
        own = [row for row in off_target if row["method"] == method]
        assert [row["outcome"] for row in own] == list(done.outcomes[1:])
        change = (effect.outcomes_post - effect.outcomes_pre)[1:]
        change /= effect.outcomes_pre[1:].std(axis=1, ddof=1, keepdims=True)
        close([row["mean_change"] for row in own], change.mean(axis=1))
        close([row["sd_change"] for row in own], change.std(axis=1, ddof=1))
        assert {row["n"] for row in own} == {str(N_PEOPLE)}


def test_random_and_range(folder: Path, done: Intervention) -> None:
    random = rows_of(folder, "random")[1]
    assert [(row["method"], row["direction"]) for row in random] == [
        (method, str(i)) for method in ("connectome", "weights") for i in range(N_RANDOM)
    ]
    means = [e.random.effects.mean(axis=1) for e in done.effects.values()]
    close([row["mean_effect"] for row in random], np.concatenate(means))
    rows = rows_of(folder, "range")[1]
    assert [row["when"] for row in rows] == ["before"] * N_PEOPLE + ["after"] * N_PEOPLE
    effect = done.effects["connectome"]
    assert effect.range_after is not None
    for when, scores in (("before", effect.range_before), ("after", effect.range_after)):
        own = [row for row in rows if row["when"] == when]
        close([row["deviation"] for row in own], scores.deviation)
        close([row["min_eigenvalue"] for row in own], scores.min_eigenvalue)
        assert own[4]["min_eigenvalue"] == "n/a", "a region is missing"


def test_maps(folder: Path, done: Intervention) -> None:
    closed, weights = done.effects["connectome"], done.effects["weights"]
    for name, wanted in (
        ("connectome_gradient", closed.gradient),
        ("connectome_change", closed.change),
        ("weights_gradient", weights.gradient),
    ):
        found = np.load(folder / "maps" / f"{name}.npy")
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, wanted)
    edges = rows_of(folder, "edges")[1]
    first, second = np.triu_indices(len(NAMES), 1)
    assert [(row["region_1"], row["region_2"]) for row in edges] == [
        (NAMES[i], NAMES[j]) for i, j in zip(first, second, strict=True)
    ]
    columns = {
        "connectome_gradient": closed.gradient.mean(axis=0, dtype="d"),
        "connectome_gradient_sd": closed.gradient.astype("d").std(axis=0, ddof=1),
        "connectome_change": closed.change.mean(axis=0, dtype="d"),
        "weights_gradient": weights.gradient.mean(axis=0, dtype="d"),
        "weights_gradient_sd": weights.gradient.astype("d").std(axis=0, ddof=1),
    }
    for name, wanted in columns.items():
        close([row[name] for row in edges], wanted)
    regions = rows_of(folder, "regions")[1]
    assert tuple(row["name"] for row in regions) == NAMES
    networks = network_of(NAMES)
    assert tuple(row["network"] for row in regions) == networks
    full = matrices(columns["connectome_change"][None], diagonal=0)[0]
    close([row["connectome_change"] for row in regions], full.sum(axis=1) / (len(NAMES) - 1))
    blocks = rows_of(folder, "networks")[1]
    assert sum(int(row["n_edges"]) for row in blocks if row["method"] == "connectome") == 120
    network = np.array(networks)
    for row in blocks:
        ends = {row["network_1"], row["network_2"]}
        inside = np.array(
            [{network[i], network[j]} == ends for i, j in zip(first, second, strict=True)]
        )
        assert int(row["n_edges"]) == inside.sum()
        close([row["mean_gradient"]], [columns[f"{row['method']}_gradient"][inside].mean()])
        if row["method"] == "weights":
            assert row["mean_change"] == "n/a"
        else:
            close([row["mean_change"]], [columns["connectome_change"][inside].mean()])


def test_rejected(folder: Path) -> None:
    (row,) = rows_of(folder, "rejected")[1]
    assert row["source_id"] == "person 7"
    assert row["code"] == "all_missing"


def refuse(constant: str) -> float:
    raise AssertionError(f"{constant} is no JSON")


def test_json_holds_every_number_and_null_for_what_is_none(
    folder: Path, done: Intervention
) -> None:
    text = (folder / "intervention.json").read_text("utf-8")
    found = json.loads(text, parse_constant=refuse)
    assert found == as_json(done)
    assert found["notice"] == NOTICE
    assert found["target"] == {"name": "amygdala", "unit": "SD", "goal": "down", "tasks": ["faces"]}
    assert (found["people"], found["rejected"]) == (N_PEOPLE, 1)
    assert 1 <= found["flagged"] <= N_PEOPLE
    closed, weights = found["methods"]["connectome"], found["methods"]["weights"]
    both = {
        *("mean_effect", "sd_effect", "share_improved", "share_above_0.8", "mean_change_in_unit"),
        *("predicted_r", "monotone_share", "random", "regression_to_mean_r", "stability"),
    }
    assert set(closed) == both | {"range"}
    assert set(weights) == both | {"pls"}
    assert {"n", "people", "mean_effect", "z", "p", "sd_of_intervention", "sd_effect_mean",
            "sd_z", "sd_p"} <= set(closed["random"])  # fmt: skip
    assert set(closed["stability"]) == {
        "split_half_r", "split_half_dice", "seed_r", "seed_dice"
    }  # fmt: skip
    assert set(weights["pls"]) == {
        "participation_ratio", "null_r", "in_sample_r", "permutation_p", "cv_r"
    }  # fmt: skip
    assert weights["predicted_r"] is None
    assert closed["stability"]["seed_r"] is None
    assert closed["mean_effect"] == pytest.approx(done.effects["connectome"].effect.mean())
    assert isinstance(found["flags"], list)
    assert found["settings"]["budget"] > 0


def test_an_edit(edit: Intervention, tmp_path: Path) -> None:
    write_intervention(edit, tmp_path)
    assert {"maps/edit_gradient.npy", "maps/edit_change.npy", "connectomes.npy"} < names_in(
        tmp_path
    )
    assert rows_of(tmp_path, "edges")[0][2:] == [
        "edit_gradient", "edit_gradient_sd", "edit_change"
    ]  # fmt: skip
    assert {row["method"] for row in rows_of(tmp_path, "effects")[1]} == {"edit"}
    assert json.loads((tmp_path / "intervention.json").read_text())["settings"]["method"] == (
        "site:hip-lh:0.3"
    )


def test_weights_alone_change_no_connectome(
    twin: Twin, people: Connectomes, tmp_path: Path
) -> None:
    weights = intervene(twin, people, "amygdala", method="weights", missing="impute", n_random=0)
    write_intervention(weights, tmp_path)
    assert not {"connectomes.npy", "maps/weights_change.npy"} & names_in(tmp_path)
    rows = rows_of(tmp_path, "range")[1]
    assert [row["when"] for row in rows] == ["before"] * N_PEOPLE
    assert rows_of(tmp_path, "random")[1] == []


def test_one_person(twin: Twin, people: Connectomes, tmp_path: Path) -> None:
    """Nothing over people exists, and nothing of it is written as a number."""
    alone = intervene(
        twin, people.select([2]), "amygdala", constraint=Constraint(budget=0.2), n_steps=2,
        n_random=2,
    )  # fmt: skip
    write_intervention(alone, tmp_path)
    found = json.loads((tmp_path / "intervention.json").read_text(), parse_constant=refuse)
    assert found["methods"]["connectome"]["mean_effect"] is None
    (row,) = rows_of(tmp_path, "effects")[1]
    assert row["effect"] == "n/a"
    assert {row["mean_change"] for row in rows_of(tmp_path, "off_target")[1]} == {"n/a"}
    assert {row["sd_effect"] for row in rows_of(tmp_path, "random")[1]} == {"n/a"}


def test_truth_is_written(tiny_twin: Twin, tmp_path: Path) -> None:
    simulated = simulate(10, 16, seed=5, with_bold=False)
    twin = replace(tiny_twin, regions=simulated.cohort.connectomes.regions)
    result = intervene(
        twin, simulated.cohort.connectomes, "speed", truth=simulated.truth, n_steps=2, n_random=0,
        constraint=Constraint(budget=0.2),
    )  # fmt: skip
    write_intervention(result, tmp_path)
    found = json.loads((tmp_path / "intervention.json").read_text(), parse_constant=refuse)
    closed, weights = (found["methods"][m]["truth"] for m in ("connectome", "weights"))
    assert {"trait", "cosine", "cosine_low", "cosine_high", "auc", "auc_low", "auc_high",
            "slope", "slope_r", "sign_accuracy"} <= set(closed)  # fmt: skip
    assert {"trait", "cosine", "auc"} <= set(weights)


# What is written is read again


@pytest.mark.parametrize("which", ["done", "edit"])
def test_changed_connectomes_give_post(
    which: str, twin: Twin, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    result: Intervention = request.getfixturevalue(which)
    write_intervention(result, tmp_path)
    read = read_connectomes(
        tmp_path / "connectomes.npy",
        regions=tmp_path / "regions.tsv",
        subjects=f"{tmp_path / 'effects.tsv'}:source_id" if len(result.effects) == 1 else None,
    )
    assert read.regions == twin.regions
    effect = next(iter(result.effects.values()))
    found = target_gradients(twin, read, "amygdala", missing="impute").value
    np.testing.assert_allclose(found, effect.post, rtol=0, atol=1e-3 * effect.pre.std())
    prediction = twin.predict(read, ["faces"], missing="impute", bold=False)
    columns = [i for i, name in enumerate(prediction.bold_regions) if "amygdala" in name]
    contrast = prediction.contrasts[:, 0, columns].mean(axis=1)
    np.testing.assert_allclose(contrast, effect.post, rtol=0, atol=1e-3 * effect.pre.std())


# An interrupted write is never taken for an intervention


def patch_writes(monkeypatch: pytest.MonkeyPatch, write: Any) -> None:
    for module in ("prediction_files", "tables", "files"):
        monkeypatch.setattr(f"dtwin_fast.{module}.write_atomic", write)


def test_intervention_json_is_written_last(
    done: Intervention, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    write = prediction_files.write_atomic

    def record(path: Path, data: bytes | str) -> None:
        written.append(str(path.relative_to(tmp_path)))
        write(path, data)

    patch_writes(monkeypatch, record)
    write_intervention(done, tmp_path)
    assert written[-1] == "intervention.json"
    assert set(written) == names_in(tmp_path)
    assert len(written) == len(set(written)) == 15


@pytest.mark.parametrize("n_files", range(15))
def test_an_interrupted_write_over_another_leaves_none(
    edit: Intervention,
    done: Intervention,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    n_files: int,
) -> None:
    write, left = prediction_files.write_atomic, [n_files]
    (tmp_path / "intervention.json").write_bytes((folder / "intervention.json").read_bytes())

    def stop(path: Path, data: bytes | str) -> None:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        write(path, data)

    patch_writes(monkeypatch, stop)
    with pytest.raises(KeyboardInterrupt):
        write_intervention(done, tmp_path)
    assert not (tmp_path / "intervention.json").exists()
    assert len(names_in(tmp_path)) == n_files


def test_names_that_collide_are_refused_before_anything_is_written(
    twin: Twin, people: Connectomes, tmp_path: Path
) -> None:
    two = replace(people.select([0, 1]), subjects=("person 1", "person-1"))
    result = intervene(
        twin, two, "amygdala", constraint=Constraint(budget=0.2), n_steps=2, n_random=0
    )
    with pytest.raises(DTwinInputError, match="subject_label"):
        write_intervention(result, tmp_path)
    assert names_in(tmp_path) == set()


def test_the_same_intervention_has_the_same_bytes(
    folder: Path, done: Intervention, tmp_path: Path
) -> None:
    write_intervention(done, tmp_path)
    for name in names_in(folder):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_nothing_of_an_earlier_intervention_stays(
    twin: Twin, people: Connectomes, folder: Path, tmp_path: Path, edit: Intervention
) -> None:
    write_intervention(edit, tmp_path)
    weights = intervene(twin, people, "amygdala", method="weights", missing="impute", n_random=0)
    write_intervention(weights, tmp_path)
    assert names_in(tmp_path) == {
        *(f"{name}.tsv" for name in (*TABLES, "edges", "regions")),
        "maps/weights_gradient.npy",
        "intervention.json",
    }
