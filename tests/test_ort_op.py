"""libdtwin_ort in real onnxruntime sessions: one file with it and without it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from dtwin_fast.benchmarks.cases import Case
from dtwin_fast.benchmarks.ort_op import as_line, op_model, run
from dtwin_fast.export import build, export_onnx
from onnx_twins import Array, options, people, run_model, short_twin

from dtwin_fast import ort, rollout
from dtwin_fast.cells import CELLS
from dtwin_fast.errors import BackendUnavailableError
from dtwin_fast.weights import RNNWeights, weight_shapes

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def registered(ort_library: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes options of sessions that have the library."""
    monkeypatch.setenv(ort.VARIABLE, str(ort_library))

    def make(n_threads: int = 1) -> Any:
        made = options(n_threads)
        ort.register(made)
        return made

    return make


def test_without_the_library_a_file_runs_as_standard_onnx(tmp_path: Path) -> None:
    twin = short_twin()
    session_options = options()
    assert _operators(build(twin, "twin"), session_options, tmp_path) >= {"Scan"}
    found = run_model(build(twin, "twin"), {"edges": people(twin, 3)}, session_options)
    assert found["rt_s"].shape == (3, 16)


@pytest.mark.parametrize("cell", CELLS)
def test_the_same_file_runs_the_engine_where_the_library_is(
    cell: str, registered: Any, tmp_path: Path, tolerances: ModuleType
) -> None:
    twin = short_twin(cell)
    file = tmp_path / "twin.onnx"
    export_onnx(twin, file)
    kept = _operators(file.read_bytes(), registered(), tmp_path)
    assert "Rollout" in kept
    assert "Scan" not in kept
    edges = people(twin, 11)
    edges[4, 3] = np.nan
    plain = run_model(file, {"edges": edges})
    fast = run_model(file, {"edges": edges}, registered())
    assert fast["diverged"].tolist() == plain["diverged"].tolist() == [i == 4 for i in range(11)]
    known = ~plain.pop("diverged")
    for name, wanted in plain.items():
        tolerances.assert_close(fast[name][known], wanted[known], "onnx", "float32")


@pytest.mark.parametrize("cell", CELLS)
def test_the_op_has_the_bits_of_the_engine(cell: str, registered: Any) -> None:
    rng = np.random.default_rng(0)
    for n_threads, (n_people, n_sequences, n_steps) in ((1, (1, 1, 1)), (2, (5, 3, 40)),
                                                        (2, (0, 1, 7))):  # fmt: skip
        inputs = _arguments(rng, cell, n_people, n_sequences, n_steps)
        if n_people > 1:
            inputs["w_hh"][1, 0, 0] = np.inf
        found = run_model(op_model(cell), inputs, registered(n_threads))
        weights = RNNWeights(cell, **{k: a for k, a in inputs.items() if k != "inputs"})
        wanted = rollout(weights, inputs["inputs"], backend="cpu")
        assert found["outputs"].tobytes() == wanted.outputs.tobytes()
        assert found["diverged"].tolist() == wanted.diverged.tolist()
        if n_people > 1:
            assert wanted.diverged.tolist() == [False, True, False, False, False]


def test_the_vjp_file_takes_the_library_too(registered: Any, tolerances: ModuleType) -> None:
    twin = short_twin("gru")
    rng = np.random.default_rng(0)
    shapes = {"d_choice_prob": (4, 16, 3), "d_rt_s": (4, 16), "d_contrasts": (4, 2, 4)}
    given = {"edges": people(twin, 4)} | {
        name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()
    }
    model = build(twin, "vjp")
    plain, fast = (run_model(model, given, made)["d_edges"] for made in (None, registered()))
    scale = np.abs(plain).max()
    tolerances.assert_close(fast / scale, plain / scale, "target_gradients", "float32")


def test_sessions_share_the_library(registered: Any) -> None:
    twin = short_twin()
    model, edges = build(twin, "twin"), people(twin, 5)
    sessions = [
        onnxruntime.InferenceSession(model, registered(2), providers=["CPUExecutionProvider"])
        for _ in range(3)
    ]
    alone = sessions[0].run(None, {"edges": edges})
    with ThreadPoolExecutor(6) as pool:
        results = pool.map(lambda i: sessions[i % 3].run(None, {"edges": edges}), range(24))
        for found in results:
            assert all((a == b).all() for a, b in zip(found, alone, strict=True))


@pytest.mark.parametrize(("name", "change", "said"), [
    ("w_hh", lambda a: a[:, :-1], "the shape of w_hh"),
    ("b_hh", lambda a: a[:-1], "the shape of b_hh"),
    ("w_out", lambda a: a[:, :, :-1], "the shape of w_out"),
    ("inputs", lambda a: a[:, :, :-1], "the shape of inputs"),
    ("inputs", lambda a: a[0], "inputs has 2 axes, not 3"),
    ("inputs", lambda a: a[:, :0], "size"),
    ("b_ih", lambda a: a[:, :, None], "b_ih has 3 axes, not 2"),
])  # fmt: skip
def test_shapes_that_do_not_fit_are_refused(
    name: str, change: Any, said: str, registered: Any
) -> None:
    inputs = _arguments(np.random.default_rng(0), "gru", 3, 2, 9)
    inputs[name] = np.ascontiguousarray(change(inputs[name]))
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument, match=said):
        run_model(op_model("gru"), inputs, registered())


@pytest.mark.parametrize("cell", ["elman", "a name that is longer than any of a cell"])
def test_a_cell_that_there_is_not_is_refused(cell: str, registered: Any) -> None:
    model = onnx.load_from_string(op_model("rnn"))
    (node,) = model.graph.node
    node.attribute[0].s = cell.encode()
    with pytest.raises(Exception, match=r"there is no such cell|buffer is not large enough"):
        run_model(model.SerializeToString(), {}, registered())


def test_every_failure_is_a_status_and_no_leak(
    ort_library: Path, build_program: Callable[[str], Path], run_program: Callable[..., str]
) -> None:
    memory, size, *registered = run_program(build_program("ort_memory")).splitlines()
    counts, rest = memory.split(" without memory: ")
    assert all(int(part.split()[0]) > 0 for part in counts.split(", "))
    assert rest == "1 domains, 0 leaks, 0 without an error"
    wanted = "dtwin::Rollout: an array would be larger than the address space, rolled out: 0"
    assert size == wanted
    assert registered == ["refused: 1, domains: 0", "refused: 0, domains: 1"]


def test_a_library_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ort.VARIABLE, str(tmp_path / "none.so"))
    with pytest.raises(BackendUnavailableError, match="make onnxruntime-header"):
        ort.library_path()
    (tmp_path / "none.so").write_bytes(b"no library")
    with pytest.raises(BackendUnavailableError, match="onnxruntime refuses"):
        ort.register(options())


def test_the_library_is_looked_for_beside_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ort.VARIABLE, raising=False)
    engine = Path(str(sys.modules["dtwin_fast._core"].__file__))
    if engine.with_name(ort.LIBRARY).is_file():
        assert ort.library_path() == engine.with_name(ort.LIBRARY)
    else:
        with pytest.raises(BackendUnavailableError, match=str(engine.parent)):
            ort.library_path()


def test_a_build_that_insists_says_where_headers_are(tmp_path: Path) -> None:
    cmake = Path(sys.executable).with_name("cmake")
    (tmp_path / "empty").mkdir()
    ran = subprocess.run(
        [
            *(cmake, "-S", ROOT, "-B", tmp_path / "build", "-DDTWIN_CUDA=OFF"),
            *("-DDTWIN_ORT=ON", f"-DDTWIN_ORT_INCLUDE={tmp_path / 'empty'}"),
        ],
        capture_output=True,
        text=True,
    )
    assert ran.returncode != 0
    assert "ship no headers" in " ".join(ran.stderr.split())


@pytest.mark.parametrize("cell", CELLS)
def test_the_benchmark_compares_before_it_times(cell: str, registered: Any) -> None:
    row = run(Case(cell, S=3, B=2, T=20, I=4, H=7, O=5), budget_s=0.1)
    assert set(row["rel_err"]) == {"scan", "op"}
    assert "times as fast" in as_line(row)


def _operators(model: bytes, session_options: Any, folder: Path) -> set[str]:
    """Operators of the graph that a session keeps after its optimisations."""
    session_options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(model, session_options, providers=["CPUExecutionProvider"])
    return {node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node}


def _arguments(
    rng: np.random.Generator, cell: str, n_people: int, n_sequences: int, n_steps: int
) -> dict[str, Array]:
    shapes = {name: (n_people, *shape) for name, shape in weight_shapes(cell, 4, 7, 5).items()}
    shapes["inputs"] = (n_sequences, n_steps, 4)
    return {
        name: rng.uniform(-0.4, 0.4, shape).astype(np.float32) for name, shape in shapes.items()
    }
