"""The benchmarks on tiny sizes: what is verified, refused, timed, cut down and written."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from dtwin_fast.benchmarks import (
    limits,
    memory,
    ours,
    suite,
    targets,
    timing,
    training_step,
    ukb,
    verify,
)
from dtwin_fast.benchmarks.cases import CASES, OPS, Case
from dtwin_fast.benchmarks.peers import DEFAULT_PEERS, PEERS, ort, torch_calls
from dtwin_fast.benchmarks.problem import Call, Problem, draw, gradient_names
from dtwin_fast.benchmarks.report import as_line, as_markdown

from dtwin_fast import cli
from dtwin_fast.commands import bench
from dtwin_fast.dispatch import rollout

ROOT = Path(__file__).resolve().parents[1]
TINY = {
    "rnn": Case("rnn", 6, 1, 12, 3, 8, 5),
    "rnn-projected": Case("rnn", 5, 2, 12, 3, 8, 5, K=2),
    "gru": Case("gru", 5, 2, 12, 3, 8, 5),
    "lstm": Case("lstm", 5, 1, 12, 3, 8, 5, K=2),
}
NEEDS = {"jax": ("jax",), "ort": ("onnx", "onnxruntime"), "torch": ()}
ROW_NUMBERS = {
    *("median_s", "min_s", "q1_s", "q3_s", "rel_err", "gflops", "ratio_to_best_peer"),
    *("percent_sgemm", "percent_copy", "repeats", "S", "verified_subjects"),
}


@pytest.fixture(autouse=True)
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread, and limits that are measured in no time."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr(limits, "GEMM_SIZE", 64)
    monkeypatch.setattr(limits, "COPY_BYTES", 2**16)
    monkeypatch.setattr(limits, "COMPILERS", ())
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(timing, "MAX_REPEATS", 4)


def installed(peer: str) -> bool:
    return all(importlib.util.find_spec(package) for package in NEEDS[peer])


def run_suite(
    case: Case, op: str, peers: tuple[str, ...] = (), *, has_memory: bool = False
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return suite.run_case(
        "tiny",
        case,
        op,
        peers,
        limits.Limits(),
        budget_s=0.01,
        memory=has_memory,
        say=lambda text: None,
    )


# The command


@pytest.fixture
def tiny_cases(monkeypatch: pytest.MonkeyPatch) -> str:
    """The names of TINY, which stand in for the command's cases."""
    monkeypatch.setattr(bench, "CASES", TINY)
    return ",".join(TINY)


def test_a_run_writes_verified_rows_of_every_peer_that_is_installed(
    tiny_cases: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--cases", tiny_cases, "--seconds", "1", "--no-memory", "--json"]
    assert cli.main(["bench", *words, str(tmp_path / "x.json")]) == 0
    results = json.loads((tmp_path / "x.json").read_text("utf-8"))
    assert set(results) == {"machine", "limits", "rows", "left_out"}
    timed = {(row["case"], row["op"], row["impl"]) for row in results["rows"]}
    wanted = set()
    for name, case in TINY.items():
        for op in OPS:
            wanted |= {(name, op, impl) for impl in ours.variants(case, op)}
            for peer in DEFAULT_PEERS:
                if installed(peer):
                    wanted |= {(name, op, impl) for impl in PEERS[peer].variants(case, op)}
    assert timed == wanted
    absent = {peer for peer in DEFAULT_PEERS if not installed(peer)}
    assert {row["impl"] for row in results["left_out"]} == absent
    for row in results["left_out"]:
        assert not row["refused"]
        assert "not installed" in row["reason"]
    for row in results["rows"]:
        assert all(isinstance(row[name], int | float) for name in ROW_NUMBERS)
        assert 0 < row["min_s"] <= row["q1_s"] <= row["median_s"] <= row["q3_s"]
        assert row["verified_subjects"] == row["S"] == TINY[row["case"]].S
        assert row["repeats"] >= timing.MIN_REPEATS
    best = {(row["case"], row["op"]) for row in results["rows"] if row["ratio_to_best_peer"] == 1}
    assert best == {(name, op) for name in TINY for op in OPS}
    machine = results["machine"]
    assert machine["threads"] == 1
    assert machine["packages"]["numpy"] == np.__version__
    assert results["limits"]["sgemm_flops"]["torch"] > 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[1:] == [as_line(row) for row in results["rows"]]


def test_json_on_stdout_stands_alone(tiny_cases: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--cases", "rnn", "--peers", "none", "--seconds", "1", "--no-memory", "--json", "-"]
    assert cli.main(["bench", *words]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["op"] for row in rows if row["impl"] == "dtwin-cpu"] == list(OPS)
    assert {row["ratio_to_best_peer"] for row in rows} == {None}


@pytest.mark.parametrize("place", ["absent/x.json", "."])
def test_a_file_that_cannot_be_written_is_refused_before_the_work(
    tiny_cases: str, tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", "--cases", "rnn", "--json", str(tmp_path / place)]) == 2
    ran = capsys.readouterr()
    assert ran.out == ""
    assert ran.err.startswith("dtwin: [out_unwritable]")
    assert len(ran.err.splitlines()) == 1


def test_the_scripts_are_the_command_and_its_table(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "run.py", "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert ran.stdout.startswith("usage: dtwin bench")
    path = tmp_path / "x.json"
    path.write_text(json.dumps(results_of([row_of("dtwin-cpu", 1.0), row_of("jax-map", 3.0)])))
    ran = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "table.py", path],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "| paper-train | fwd | dtwin-cpu over best JAX | >= 2.5 | 3.00 | yes |" in ran.stdout


# Verification


def spoil(
    monkeypatch: pytest.MonkeyPatch, op: str, name: str, change: Callable[[Any], Any]
) -> list[int]:
    """Register a peer whose array ``name`` is changed; the list counts its calls."""
    n_calls: list[int] = []

    def prepare(problem: Problem) -> Call:
        right = ours.variants(problem.case, op)["dtwin-cpu"](problem)

        def run() -> Any:
            n_calls.append(1)
            return right.run()

        def arrays(result: Any) -> Any:
            found = dict(right.arrays(result))
            found[name] = change(found[name].copy())
            return found

        return Call(run, arrays)

    peer = SimpleNamespace(why_not=lambda case: None, variants=lambda case, op: {"odd": prepare})
    monkeypatch.setitem(PEERS, "odd", peer)
    return n_calls


def one_element(array: Any, factor: float) -> Any:
    """The array with its largest element changed by a part of it."""
    place = np.unravel_index(np.abs(array).argmax(), array.shape)
    array[place] *= 1 + factor
    return array


def with_nan(array: Any) -> Any:
    array.flat[-1] = np.nan
    return array


CHANGES: dict[str, Callable[[Any], Any]] = {
    "one element off": lambda array: one_element(array, 2e-5),
    "NaN": with_nan,
    "one axis more": lambda array: array[..., None],
    "subjects swapped": lambda array: array[::-1],
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    ("op", "name"),
    [("fwd", "outputs"), *(("fwd_bwd", name) for name in gradient_names(TINY["lstm"]))],
)
def test_wrong_results_are_refused_and_not_timed(
    monkeypatch: pytest.MonkeyPatch, op: str, name: str, change: str
) -> None:
    n_calls = spoil(monkeypatch, op, name, CHANGES[change])
    rows, left_out = run_suite(TINY["lstm"], op, ("odd",))
    assert "odd" not in {row["impl"] for row in rows}
    (refused,) = left_out
    assert (refused["impl"], refused["refused"]) == ("odd", True)
    assert "not timed" in refused["reason"]
    assert len(n_calls) <= 3, "only the trial and the verification may run it"


def test_right_results_of_the_same_kind_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    n_calls = spoil(monkeypatch, "fwd", "outputs", lambda array: one_element(array, 1e-7))
    rows, left_out = run_suite(TINY["lstm"], "fwd", ("odd",))
    assert "odd" in {row["impl"] for row in rows}
    assert left_out == []
    assert len(n_calls) > 3


def test_a_refusal_makes_the_exit_code_1(
    tiny_cases: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(monkeypatch, "fwd", "outputs", with_nan)
    monkeypatch.setattr(suite, "OPS", ("fwd",))
    words = ["--cases", "rnn", "--peers", "odd", "--seconds", "1", "--no-memory", "--json", "-"]
    assert cli.main(["bench", *words]) == 1
    ran = capsys.readouterr()
    assert "without odd: relative error nan" in ran.err
    assert json.loads(ran.out)["left_out"][0]["refused"] is True


def test_of_many_subjects_the_first_and_the_last_are_verified() -> None:
    case = replace(TINY["rnn"], S=9, T=verify.VERIFIED_STEPS // 5)
    problem = draw(case)
    expected = verify.expect(problem, "fwd")
    assert expected.subjects == [0, 1, 2, 7, 8]
    outputs = rollout(problem.weights, problem.inputs, problem.h0[0], backend="cpu").outputs
    assert verify.rel_err({"outputs": outputs}, 9, expected) < 1e-5
    assert verify.rel_err({"outputs": outputs[:4]}, 4, expected) < 1e-5
    outputs[8, 0, 0, 0] += 1
    assert verify.rel_err({"outputs": outputs}, 9, expected) > 1e-2


def test_the_reference_is_that_of_the_unrounded_weights() -> None:
    problem = draw(TINY["rnn"])
    expected = verify.expect(problem, "fwd")
    found = rollout(
        problem.weights, problem.inputs, problem.h0[0], backend="reference", precision="bfloat16"
    )
    error = verify.rel_err({"outputs": found.outputs}, problem.case.S, expected)
    assert verify.MAX_REL_ERR["float32"] < error < verify.MAX_REL_ERR["bfloat16"]


# Peers


def test_peers_say_why_they_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert PEERS["jax"].why_not(TINY["rnn"]) == "jax is not installed"
    assert PEERS["ort"].why_not(TINY["rnn"]) == "onnx and onnxruntime not installed"
    assert PEERS["torch"].why_not(TINY["rnn"]) is None
    assert "2460 steps" in PEERS["torch-compile"].why_not(CASES["paper-rollout"])
    assert PEERS["torch-compile"].why_not(CASES["paper-train"]) is None


def test_projected_and_whole_bold_are_both_timed_in_jax() -> None:
    case = CASES["contrast434-h128"]
    opponents = ("best JAX", "JAX sharded")
    whole = {impl for name in opponents for impl in targets.OPPONENTS[name]}
    projected = {f"{impl}-projected" for impl in whole}
    assert set(PEERS["jax"].variants(case, "fwd")) == whole | projected
    for name in opponents:
        wanted = {f"{impl}-projected" for impl in targets.OPPONENTS[name]}
        assert set(targets.OPPONENTS[f"{name}, states projected"]) == wanted
    assert set(PEERS["jax"].variants(replace(case, K=0), "fwd")) == whole


ON_TWO_DEVICES = """
import json, os, sys
os.sched_getaffinity = lambda pid: {0, 1}
from dtwin_fast.benchmarks import suite
from dtwin_fast.benchmarks.cases import Case
options = {"budget_s": 0.01, "memory": False, "say": lambda text: None}
limits = type("", (), {"sgemm_flops": 1, "copy_bytes_s": 1, "read_bytes_s": lambda *words: 1})()
found = []
for S, op in ((6, "fwd"), (6, "fwd_bwd"), (5, "fwd")):
    case = Case("gru", S, 1, 12, 3, 8, 5, K=2)
    found.append(suite.run_case("tiny", case, op, ("jax",), limits, **options))
import jax
print(json.dumps([found, jax.device_count("cpu")]))
"""


def test_jax_shards_equal_parts_of_the_subjects() -> None:
    pytest.importorskip("jax", reason="jax is not installed")
    # JAX takes the number of its devices once in a process.
    ran = subprocess.run(
        [sys.executable, "-c", ON_TWO_DEVICES],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    (fwd, fwd_bwd, odd), n_devices = json.loads(ran.stdout)
    assert n_devices == 2
    sharded = {"jax-shard", "jax-shard-projected"}
    for rows, left_out in (fwd, fwd_bwd):
        assert left_out == []
        assert sharded <= {row["impl"] for row in rows}
    rows, left_out = odd
    assert {row["impl"] for row in left_out} == sharded
    for row in left_out:
        assert not row["refused"]
        assert row["reason"] == "5 subjects are no equal shares for 2 cores"
    assert {"jax-map", "jax-vmap"} <= {row["impl"] for row in rows}


def test_every_opponent_is_an_implementation() -> None:
    case = CASES["contrast434-h128"]
    modules = (ours, *PEERS.values())
    known = {impl for module in modules for op in OPS for impl in module.variants(case, op)}
    assert {impl for names in targets.OPPONENTS.values() for impl in names} <= known
    assert {target.case for target in targets.TARGETS} <= set(CASES)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_the_onnx_graph_passes_the_checker_for_each_cell(cell: str) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    model = ort.build_model(replace(TINY["rnn"], cell=cell))
    assert [node.op_type for node in model.graph.node].count("Scan") == 1


def test_a_slow_peer_runs_on_fewer_subjects_and_its_row_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(suite, "MAX_CALL_S", 0.0)
    case = replace(TINY["rnn"], S=40, H=32)  # rounding spoils smaller ones more
    rows, left_out = run_suite(case, "fwd_bwd", ("torch",))
    assert left_out == []
    by_impl = {row["impl"]: row for row in rows}
    assert by_impl["dtwin-cpu"]["S"] == 40
    assert "note" not in by_impl["dtwin-cpu"]
    peers = [row for impl, row in by_impl.items() if impl.startswith("torch-")]
    assert [row["S"] for row in peers] == [5, 5]
    assert all(row["note"].startswith("5 of 40 subjects: all might take") for row in peers)
    best = min(row["median_s"] / 5 for row in peers)
    mine = by_impl["dtwin-cpu"]
    assert mine["ratio_to_best_peer"] == pytest.approx(best / (mine["median_s"] / 40))


def test_the_fewer_subjects_are_equal_shares_for_the_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(suite, "MAX_CALL_S", 0.0)
    for n_cores, n_subjects in ((2, 6), (4, 8), (64, 40)):
        monkeypatch.setattr(suite, "count_threads", lambda n=n_cores: n)
        rows, _ = run_suite(replace(TINY["rnn"], S=40), "fwd", ("torch",))
        peers = {row["S"] for row in rows if row["impl"].startswith("torch-")}
        assert peers == {n_subjects}


def test_memory_that_a_trial_may_not_show_cuts_a_peer_down_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = replace(TINY["rnn"], S=40)
    worst = 40 * 12 * 4 * 8 * 8  # S, T, bytes of w_hh
    for available, n_subjects in ((2 * worst - 2, {5}), (2**40, {40})):
        monkeypatch.setattr(suite, "available_bytes", lambda n=available: n)
        rows, _ = run_suite(case, "fwd_bwd", ("torch",))
        assert {row["S"] for row in rows if row["impl"].startswith("torch-")} == n_subjects


def test_what_cannot_run_here_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(problem: Problem) -> Call:
        return ours._prepare(problem, op="fwd", precision="float32")

    monkeypatch.setenv("DTWIN_ISA", "none")
    from dtwin_fast.backends import cpu

    monkeypatch.setitem(cpu.BUILD, "isa", None)
    peer = SimpleNamespace(why_not=lambda case: None, variants=lambda c, op: {"odd": unavailable})
    monkeypatch.setitem(PEERS, "odd", peer)
    monkeypatch.setattr(ours, "variants", lambda case, op: {})
    rows, (left_out,) = run_suite(TINY["rnn"], "fwd", ("odd",))
    assert rows == []
    assert left_out["refused"] is False
    assert "DTWIN_ISA" in left_out["reason"]


# Timing, limits, memory


def test_calls_take_turns_and_slow_ones_are_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "MAX_REPEATS", 6)
    monkeypatch.setattr(timing, "SETTLE_S", 0.0)
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in ("a", "b", "slow")}
    times = timing.take_turns(calls, {"a": 1e-6, "b": 1e-6, "slow": 1e3}, budget_s=1.0)
    assert {name: len(values) for name, values in times.items()} == {"a": 6, "b": 6, "slow": 3}
    assert "".join(name[0] for name in order) == "absababsababsab"


def test_flop_and_bytes_of_a_case_counted_by_hand() -> None:
    case = Case("gru", S=2, B=3, T=5, I=7, H=11, O=13)
    fwd = 2 * 2 * 3 * 5 * (3 * 11 * 7 + 3 * 11 * 11 + 13 * 11)
    assert (case.flop("fwd"), case.flop("fwd_bwd")) == (fwd, 3 * fwd)
    projected = 2 * 2 * 3 * (5 * (33 * 7 + 33 * 11) + 4 * 5 * 11 + 4 * 13 * 11)
    assert replace(case, K=4).flop("fwd") == projected
    problem = draw(case)
    arguments = [*problem.weight_arrays.values(), problem.inputs, *problem.h0]
    n_bytes = sum(array.nbytes for array in arguments)
    assert case.n_bytes("fwd") == n_bytes + problem.d_outputs.nbytes
    assert case.n_bytes("fwd_bwd") == 2 * n_bytes + problem.d_outputs.nbytes
    assert case.w_hh_bytes() == problem.weights.w_hh[0].nbytes


def test_the_block_read_bandwidth_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    found = limits.Limits()
    assert found.read_bytes_s(65536) is None
    assert "no C++ compiler" in found.to_dict()["block_read_bytes_s"]["65536"]
    monkeypatch.undo()
    found = limits._read_bandwidth(65536)
    if isinstance(found, str):
        pytest.skip(found)
    assert 1e8 < found < 1e14


@pytest.mark.parametrize("script", [None, "exit 3", "sleep 9", "echo 'what follows' >&2; exit 1"])
def test_a_compiler_that_does_not_compile_is_a_reason(
    script: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TIMEOUT_S", 0.5)
    program = tmp_path / "wrapper"
    if script is not None:
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    monkeypatch.setenv("CXX", f"{program} c++")
    found = limits.Limits()
    assert found.read_bytes_s(4096) is None
    reason = found.to_dict()["block_read_bytes_s"]["4096"]
    assert reason.startswith(f"not measured: {program}")
    assert "what follows" in reason or "what follows" not in (script or "")


def test_a_compiler_of_several_words_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = next(filter(shutil.which, ("c++", "g++", "clang++")), None)
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    monkeypatch.setenv("CXX", f"env '{compiler}'")
    assert isinstance(limits._read_bandwidth(4096), float)
    monkeypatch.setenv("CXX", f"'{compiler}")
    assert limits._read_bandwidth(4096) == "not measured: CXX: No closing quotation"


def test_peak_memory_of_a_call_counts_its_result() -> None:
    case = Case("rnn", 8, 1, 2000, 3, 8, 200)
    outputs = 4 * 8 * 2000 * 200
    peak = memory.peak_bytes(case, "fwd", "dtwin-cpu")
    assert peak is not None
    assert outputs <= peak < 4 * outputs
    assert memory.peak_bytes(case, "fwd", "no such implementation") is None


def test_memory_goes_into_the_rows() -> None:
    rows, _ = run_suite(TINY["rnn"], "fwd", has_memory=True)
    assert all(row["peak_bytes"] >= 0 for row in rows)


def test_torch_gets_the_threads_of_the_others() -> None:
    import torch

    torch_calls.prepare_torch(draw(TINY["rnn"]), op="fwd", forward=print)
    assert torch.get_num_threads() == 1


# The stream


def test_the_stream_reads_what_was_written(tmp_path: Path) -> None:
    ukb.write_edges(tmp_path / "edges", 150, 10)
    whole = np.fromfile(tmp_path / "edges", np.float32).reshape(150, 10)
    assert np.abs(whole).max() < 1
    chunks = [chunk.copy() for chunk in ukb.read_chunks(tmp_path / "edges", 64, 10)]
    assert [len(chunk) for chunk in chunks] == [64, 64, 22]
    np.testing.assert_array_equal(np.concatenate(chunks), whole)


def test_the_stream_has_rates_and_shares() -> None:
    (row,), left_out = ukb.run_ukb(70, limits.Limits(), say=lambda text: None, preset="tiny")
    assert left_out == []
    assert (row["case"], row["op"], row["S"]) == ("ukb", "stream", 70)
    assert row["subjects_per_s"] == pytest.approx(70 / row["median_s"])
    assert row["edge_bytes_per_s"] == pytest.approx(120 * 4 * 70 / row["median_s"])
    shares = [row[f"percent_{part}"] for part in ("read", "personalize", "rollout")]
    assert sum(shares) == pytest.approx(100)
    assert 0 < row["percent_of_disk_limit"] < 100
    assert "ukb" in as_line(row)
    assert f"| ukb | 70 | {row['subjects_per_s']:.0f} | {row['filesystem']} |" in as_markdown(
        results_of([row])
    )


def test_the_filesystem_of_a_folder_is_that_of_its_mount() -> None:
    assert ukb.filesystem(Path("/proc/self")) == "proc"
    mounts = Path("/proc/mounts").read_text().splitlines()
    assert ukb.filesystem(Path("/")) in {line.split()[2] for line in mounts}


def test_a_wrong_stream_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ukb, "_rel_err", lambda *words: 2e-5)
    rows, (left_out,) = ukb.run_ukb(5, limits.Limits(), say=lambda text: None, preset="tiny")
    assert rows == []
    assert left_out["refused"] is True


def test_the_stream_s_check_sees_a_wrong_hypernetwork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ukb, "mish", lambda u: u)
    rows, (left_out,) = ukb.run_ukb(5, limits.Limits(), say=lambda text: None, preset="tiny")
    assert rows == []
    assert "not timed" in left_out["reason"]


# The step of training


def test_steps_of_training_are_verified_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training_step, "BATCHES", {"few": (3, 2)})
    path = tmp_path / "steps.json"
    words = ["--preset", "tiny", "--budget", "1", "--json", str(path)]
    assert training_step.main(words) == 0
    results = json.loads(path.read_text("utf-8"))
    rows = {row["impl"]: row for row in results["rows"]}
    assert list(rows) == [
        training_step.OURS,
        *training_step.OPPONENTS,
        training_step.NO_ROLLOUT,
    ]
    ours_s = rows[training_step.OURS]["median_s"]
    for row in rows.values():
        assert (row["batch"], row["S"], row["B"]) == ("few", 3, 2)
        assert row["over_ours"] == pytest.approx(row["median_s"] / ours_s)
    assert all(rows[i]["rel_err"] < 1e-5 for i in rows if i != training_step.NO_ROLLOUT)
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(rows)


def test_steps_of_training_with_wrong_gradients_are_not_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training_step, "BATCHES", {"few": (3, 2)})
    right = training_step.loss_of

    def wrong(network: Any, batch: Any, impl: str | None) -> Any:
        found = right(network, batch, impl)
        return found * 1.001 if impl == "torch-eager" else found

    monkeypatch.setattr(training_step, "loss_of", wrong)
    assert training_step.main(["--preset", "tiny", "--budget", "1"]) == 1
    (line,) = (row for row in capsys.readouterr().out.splitlines() if "torch-eager" in row)
    assert "wrong gradients: not timed" in line


# The tables


def row_of(impl: str, median_s: float, **more: Any) -> dict[str, Any]:
    """A row of a results file."""
    row = {"case": "paper-train", "op": "fwd", "impl": impl, "S": 50, "rel_err": 1e-7}
    row |= {"median_s": median_s, "min_s": median_s, "q1_s": median_s, "q3_s": median_s}
    row |= {"gflops": 1.0, "ratio_to_best_peer": 1.0, "percent_sgemm": 50.0}
    return row | {"percent_w_hh_reads": 74.6, "percent_copy": 1.0} | more


def results_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    machine = {"processor": "P", "threads": 2, "engine_isa": "avx2", "time": "now"}
    machine |= {"caches": {"L2 Unified": "1M"}, "packages": {"numpy": "2", "jax": None}}
    return {"machine": machine, "limits": {}, "rows": rows, "left_out": []}


def test_the_tables_are_worked_out_from_the_rows() -> None:
    rows = [
        row_of("dtwin-cpu", 1.0),
        row_of("jax-map", 2.0),
        row_of("jax-vmap", 3.0),
        row_of("jax-shard", 1.5),
        row_of("torch-eager", 1.0, S=5, note="5 of 50 subjects"),
    ]
    text = as_markdown(results_of(rows))
    assert "| dtwin-cpu over best JAX | >= 2.5 | 2.00 | no |" in text
    assert "| dtwin-cpu over torch eager | >= 4.5 | 10.00 | yes |" in text
    assert "| % of the rate of reading w_hh | >= 75 | 74.6 | no |" in text
    header = "| case | op | impl | x best JAX | x JAX sharded |"
    assert header in text
    assert "| paper-train | fwd | dtwin-cpu | 2.0 | 1.5 |" in text
    assert "- paper-train fwd torch-eager: 5 of 50 subjects" in text
    missing = "| paper-train | fwd | dtwin-bf16 over float32 | >= 1.4 | not measured | - |"
    assert missing in text
    assert text.count("not measured") == len(targets.TARGETS) - 2 + len(CASES) - 1
    for table in text.split("\n\n"):
        lines = [line for line in table.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1


def test_limits_that_were_not_measured_are_in_the_table() -> None:
    rows = [row_of("dtwin-cpu", 1.0, percent_w_hh_reads=None)]
    figure = "% of the rate of reading w_hh | >= 75 | not measured | -"
    assert f"| paper-train | fwd | {figure} |" in as_markdown(results_of(rows))
    assert f"| paper-rollout | fwd | {figure} |" in as_markdown(results_of(rows))
    grouped = "| paper-train-grouped | fwd | % of sgemm peak | >= 60 | not measured | - |"
    assert grouped in as_markdown(results_of([]))


@pytest.mark.parametrize("target", targets.TARGETS, ids=lambda t: f"{t.case}-{t.op}-{t.opponent}")
def test_every_target_follows_from_one_file(target: targets.Target) -> None:
    where = {"case": target.case, "op": target.op}
    rows = [row_of(target.impl, 2.0, **where)]
    assert target.measured(rows) is None
    for i, impl in enumerate(targets.OPPONENTS[target.opponent]):
        rows.append(row_of(impl, 6.0 + i, **where))
    assert target.measured(rows) == pytest.approx(3.0)
