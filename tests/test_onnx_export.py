"""Exported models: what ONNX Runtime says is what the engine says, and a wrong model is refused."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from dtwin_fast.export import PARTS, build, export_onnx, hypernetwork, to_onnx, verify, write
from dtwin_fast.export.cells import CELL_NODES
from dtwin_fast.export.exact import peak_gap
from dtwin_fast.export.readout import READOUT_NODES
from dtwin_fast.export.verify import GRADIENT_TOLERANCE, TOLERANCE
from onnx_twins import people, run_model, short_twin

from dtwin_fast import rollout
from dtwin_fast.cells import CELLS
from dtwin_fast.cli import main
from dtwin_fast.connectome import Connectomes
from dtwin_fast.connectome_checks import R_TOLERANCE
from dtwin_fast.errors import DTwinInputError, MissingExtraError, VerificationError
from dtwin_fast.hypernetwork import Layer
from dtwin_fast.interventions.gradients import target_gradients
from dtwin_fast.spec import HEADS, TwinSpec
from dtwin_fast.tasks import Schedule
from dtwin_fast.twin import Twin

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

READ = ("choice_prob", "rt_s", "bold", "contrasts")


@pytest.fixture(scope="module")
def twin() -> Twin:
    return short_twin()


@pytest.fixture(scope="module")
def model(twin: Twin) -> bytes:
    return build(twin, "twin")


@pytest.fixture(scope="module")
def models(twin: Twin) -> dict[str, bytes]:
    """Every part of the twin."""
    return {part: build(twin, part) for part in PARTS}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_model_predicts_what_the_twin_does(cell: str, head: Any, tolerances: ModuleType) -> None:
    twin = short_twin(cell, head)
    model = build(twin, "twin")
    for n_people in (1, 40):
        edges = people(twin, n_people)
        found, wanted = run_model(model, {"edges": edges}), twin.predict(edges, backend="cpu")
        if head == "sigmoid":  # equal peaks may change places
            outputs = rollout(twin.personalize(edges), twin.encode(list(twin.schedules))).outputs
            for rt_s in (found.pop("rt_s"), wanted.rt_s):
                assert peak_gap(twin, outputs, rt_s).max() <= TOLERANCE
        for name in set(READ) & set(found):
            tolerances.assert_close(found[name], getattr(wanted, name), "onnx", "float32")
        assert not found["diverged"].any()


@pytest.mark.parametrize(("part", "head"), [
    *((part, "hazard") for part in PARTS), ("twin", "sigmoid"), ("vjp", "sigmoid")
])  # fmt: skip
@pytest.mark.parametrize("cell", CELLS)
def test_every_part_is_verified_by_three_programs(part: str, cell: str, head: Any) -> None:
    twin = short_twin(cell, head)
    done = verify(twin, part, build(twin, part))
    assert set(done.errors) == {"onnxruntime", "reference", "engine"}
    wanted = {
        "twin": {*READ, "diverged"},
        "rollout": {"outputs", "diverged"},
        "vjp": {"choice_prob", "rt_s", "contrasts", "d_edges", "diverged"},
        "hypernetwork": {"weights", "diverged"},
    }[part]
    for errors in done.errors.values():
        assert set(errors) == wanted


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("part", ["twin", "vjp"])
def test_a_twin_without_bold_says_nothing_of_it(part: str, head: Any) -> None:
    twin = short_twin(head=head, bold_regions=())
    done = verify(twin, part, build(twin, part))
    assert {"choice_prob", "rt_s"} <= set(done.compared)
    assert not {"bold", "contrasts"} & set(done.compared)


def test_every_cell_and_head_can_be_exported() -> None:
    assert (set(CELL_NODES), set(READOUT_NODES)) == (set(CELLS), set(HEADS))


@pytest.mark.parametrize("cell", CELLS)
def test_a_rollout_takes_any_number_of_people_sequences_and_steps(
    cell: str, tolerances: ModuleType
) -> None:
    twin = short_twin(cell)
    model = build(twin, "rollout")
    rng = np.random.default_rng(1)
    for n_people, *shape in ((1, 1, 1), (3, 4, 50), (9, 1, 200)):
        edges = people(twin, n_people)
        inputs = rng.standard_normal((*shape, twin.spec.n_inputs)).astype(np.float32)
        found = run_model(model, {"edges": edges, "inputs": inputs})
        wanted = rollout(twin.personalize(edges), inputs, backend="cpu")
        tolerances.assert_close(found["outputs"], wanted.outputs, "onnx", "float32")


@pytest.mark.parametrize("target", ["speed", "accuracy", "amygdala"])
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_are_those_of_interventions(
    cell: str, target: str, tolerances: ModuleType
) -> None:
    twin = short_twin(cell)
    edges = people(twin, 5)
    wanted = target_gradients(twin, edges, target, backend="cpu")
    n_trials = [schedule.n_trials for schedule in twin.schedules.values()]
    given = {
        "d_choice_prob": np.zeros((5, sum(n_trials), 3), np.float32),
        "d_rt_s": np.zeros((5, sum(n_trials)), np.float32),
        "d_contrasts": np.zeros((5, 2, len(twin.spec.bold_regions)), np.float32),
    }
    if target == "speed":
        given["d_rt_s"][:] = np.repeat([-0.5 / n for n in n_trials], n_trials)
    elif target == "accuracy":
        correct = np.concatenate([s.correct for s in twin.schedules.values()])
        given["d_choice_prob"][:, np.arange(sum(n_trials)), correct] = 1 / sum(n_trials)
    else:
        rows = [twin.spec.bold_regions.index(f"{side}_amygdala") for side in ("LH", "RH")]
        given["d_contrasts"][:, 0, rows] = 0.5
    found = run_model(build(twin, "vjp"), {"edges": edges, **given})["d_edges"]
    scale = np.abs(wanted.edges).max()
    tolerances.assert_close(found / scale, wanted.edges / scale, "target_gradients", "float32")


def test_edges_beyond_the_clip_have_no_gradient() -> None:
    twin = short_twin()
    edges = people(twin, 2)
    edges[:, :3] = [1, -1, 1 - 1e-7]
    rng = np.random.default_rng(0)
    given = {"d_choice_prob": (2, 16, 3), "d_rt_s": (2, 16), "d_contrasts": (2, 2, 4)}
    found = run_model(
        build(twin, "vjp"),
        {"edges": edges}
        | {name: rng.standard_normal(shape).astype(np.float32) for name, shape in given.items()},
    )["d_edges"]
    assert (found[:, :3] == 0).all()
    assert (found[:, 3:] != 0).all()


def test_who_diverges_is_marked_as_by_the_engine(twin: Twin) -> None:
    # A weight of the readout that overflows float32 in some people.
    last, row = twin.layers[-1], -1 - twin.spec.n_outputs
    weight, bias = last.weight.copy(), last.bias.copy()
    weight[row] /= np.abs(weight[row]).max()
    weight[row] *= np.finfo(np.float32).max
    wild = replace(twin, layers=(*twin.layers[:-1], Layer(weight, bias)))
    edges = people(twin, 40)
    wanted = wild.predict(edges, backend="cpu").diverged
    assert 0 < wanted.sum() < 40
    found = run_model(build(wild, "twin"), {"edges": edges})
    assert (found["diverged"] == wanted).all()
    verify(wild, "twin", build(wild, "twin"))


LARGEST_R = np.nextafter(np.float32(1 + R_TOLERANCE), np.float32(0))


@pytest.mark.parametrize(
    ("edge", "is_r"),
    [
        *((np.nan, False), (1.5, False), (-1.5, False), (np.inf, False), (-np.inf, False)),
        *((1 + 2e-5, False), (-LARGEST_R, True), (np.nextafter(LARGEST_R, np.float32(2)), False)),
    ],
)
def test_an_edge_that_is_no_correlation_marks_its_person_alone(
    edge: float, is_r: bool, models: dict[str, bytes], twin: Twin
) -> None:
    edges, rng = people(twin, 6), np.random.default_rng(3)
    given: dict[str, dict[str, np.ndarray]] = {part: {} for part in PARTS}
    given["rollout"] = {"inputs": rng.standard_normal((2, 20, twin.spec.n_inputs))}
    shapes = {"d_choice_prob": (6, 16, 3), "d_rt_s": (6, 16), "d_contrasts": (6, 2, 4)}
    given["vjp"] = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    spoilt = edges.copy()
    spoilt[2, 7] = edge
    # The files mark whom the engine refuses.
    with nullcontext() if is_r else pytest.raises(DTwinInputError):
        Connectomes.from_arrays(spoilt[2])
    marked = np.arange(6) == (99 if is_r else 2)
    for part, model in models.items():
        inputs = {name: array.astype(np.float32) for name, array in given[part].items()}
        clean = run_model(model, {"edges": edges, **inputs})
        found = run_model(model, {"edges": spoilt, **inputs})
        if part == "hypernetwork":
            assert np.isnan(found["weights"]).all(axis=1).tolist() == marked.tolist()
        else:
            assert found["diverged"].tolist() == marked.tolist()
        others = np.arange(6) != 2
        for name, array in found.items():
            assert array[others].tobytes() == clean[name][others].tobytes()
        if part == "vjp":
            # Beyond the clip there is no gradient; where nothing is known, none of the others.
            assert found["d_edges"][2, 7] == 0
            assert np.isnan(np.delete(found["d_edges"][2], 7)).all() == (not is_r)


@pytest.mark.parametrize("part", PARTS)
def test_a_file_that_takes_any_number_for_a_correlation_is_refused(
    part: str, twin: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hypernetwork, "R_TOLERANCE", np.inf)
    with pytest.raises(VerificationError, match=f"{part}, diverged"):
        verify(twin, part, build(twin, part))


def test_a_file_is_one_and_says_what_it_is(twin: Twin, tmp_path: Path) -> None:
    path = tmp_path / "twin.onnx"
    export_onnx(twin, path)
    assert list(tmp_path.iterdir()) == [path]
    proto = onnx.load(path, load_external_data=False)
    assert not any(tensor.external_data for tensor in proto.graph.initializer)
    assert [(f.domain, f.name) for f in proto.functions] == [("dtwin", "Rollout")]
    said = {entry.key: entry.value for entry in proto.metadata_props}
    assert TwinSpec.from_dict(json.loads(said["spec"])) == twin.spec
    assert tuple(json.loads(said["regions"])) == twin.regions
    assert json.loads(said["contrasts"]) == {k: list(v) for k, v in twin.contrasts.items()}
    for name, schedule in json.loads(said["tasks"]).items():
        assert Schedule.from_dict(schedule).to_dict() == twin.schedules[name].to_dict()
    assert said["model_sha256"] == twin.sha256
    assert said["notice"].startswith("In silico, not clinical")
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*proto.graph.input, *proto.graph.output)
    }
    n_volumes = sum(s.n_volumes(twin.spec.tr_s) for s in twin.schedules.values())
    assert shapes == {
        "edges": ["S", 120],
        "choice_prob": ["S", 16, 3],
        "rt_s": ["S", 16],
        "bold": ["S", n_volumes, 4],
        "contrasts": ["S", 2, 4],
        "diverged": ["S"],
    }


def test_the_same_twin_gives_the_same_bytes(twin: Twin, model: bytes) -> None:
    assert build(twin, "twin") == model


LAYERS = tuple(f"hyper.{i}.{part}" for i in range(3) for part in ("weight", "bias"))
INITIALISERS = ("edge_mean", "edge_sd", "inputs", "projection", *LAYERS)


@pytest.mark.parametrize("name", INITIALISERS)
def test_a_wrong_number_is_refused(name: str, twin: Twin, model: bytes) -> None:
    proto = onnx.load_from_string(model)
    (tensor,) = (t for t in proto.graph.initializer if t.name == name)
    values = onnx.numpy_helper.to_array(tensor) * np.float32(1.001)
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, name))
    with pytest.raises(VerificationError, match="does not compute what the engine does"):
        verify(twin, "twin", proto.SerializeToString())


@pytest.mark.parametrize(("part", "op", "other"), [
    ("twin", "Tanh", "Softsign"),
    ("twin", "Atanh", "Identity"),
    ("vjp", "LessOrEqual", "Greater"),
])  # fmt: skip
def test_a_wrong_operator_is_refused(part: str, op: str, other: str, twin: Twin) -> None:
    proto = onnx.load_from_string(build(twin, part))
    changed = [node for node in _nodes(proto) if node.op_type == op]
    assert changed
    for node in changed:
        node.op_type = other
    with pytest.raises(VerificationError):
        verify(twin, part, proto.SerializeToString())


def _nodes(proto: Any) -> list[Any]:
    """All of a model, those of its functions and of their Scans too."""
    found = [*proto.graph.node]
    for function in proto.functions:
        for node in function.node:
            found.append(node)
            for attribute in node.attribute:
                found += attribute.g.node
    return found


def test_roundings_that_grow_are_told_from_mistakes(twin: Twin) -> None:
    wild = _amplified(twin, 3)
    done = verify(wild, "twin", build(wild, "twin"))
    assert done.errors["engine"]["bold"] > TOLERANCE
    assert 0 < done.compared["bold"] < done.n_people


def test_a_twin_that_nobody_can_follow_is_not_verified(twin: Twin) -> None:
    wild = _amplified(twin, 5)
    with pytest.raises(VerificationError, match="chaotic"):
        verify(wild, "twin", build(wild, "twin"))


def _amplified(twin: Twin, gain: float) -> Twin:
    *hidden, last = twin.layers
    return replace(twin, layers=(*hidden, Layer(last.weight * gain, last.bias * gain)))


def test_what_fails_leaves_the_file_that_was_there(
    twin: Twin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = build(replace(twin, edge_mean=twin.edge_mean + np.float32(0.01)), "twin")
    monkeypatch.setattr(write, "build", lambda twin, part: other)
    with pytest.raises(VerificationError):
        export_onnx(twin, tmp_path / "new.onnx")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "old.onnx").write_bytes(b"before")
    with pytest.raises(VerificationError):
        export_onnx(twin, tmp_path / "old.onnx")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]


def test_a_twin_too_large_for_protobuf_is_refused_before_it_is_built(
    twin: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(build(twin, "hypernetwork"))
    monkeypatch.setattr(to_onnx, "MAX_BYTES", size // 2)
    monkeypatch.setitem(sys.modules, "onnx", None)  # needed by whatever builds
    with pytest.raises(DTwinInputError) as caught:
        build(twin, "twin")
    assert caught.value.code == "onnx_size"


def test_without_onnx_the_extra_is_named(twin: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"dtwin_fast\[onnx\]"):
        build(twin, "twin")


def test_a_part_that_there_is_not_is_refused(twin: Twin) -> None:
    with pytest.raises(DTwinInputError) as caught:
        build(twin, "training")
    assert caught.value.code == "argument"


def test_the_command_writes_and_says_what_it_measured(
    twin: Twin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twin.save(tmp_path / "model")
    files = {option: tmp_path / f"{option}.onnx" for option in ("onnx", "hypernetwork")}
    arguments = [text for option, file in files.items() for text in (f"--{option}", str(file))]
    assert main(["export", str(tmp_path / "model"), *arguments, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [one["part"] for one in said["written"]] == ["twin", "hypernetwork"]
    assert [one["path"] for one in said["written"]] == [str(file) for file in files.values()]
    assert main(["export", str(tmp_path / "model"), "--onnx", str(files["onnx"])]) == 0
    assert "In silico, not clinical" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["--onnx", "no/such/folder/twin.onnx"], ["--vjp", "."]])
def test_the_command_refuses_at_once(
    arguments: list[str], twin: Twin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tmp_path / "no-model"), *arguments]) == 2
    assert "dtwin: [" in capsys.readouterr().err


def test_the_tolerances_are_those_that_the_documents_name() -> None:
    assert (TOLERANCE, GRADIENT_TOLERANCE) == (2e-6, 2e-5)
