"""benchmarks/gpu.py as far as it goes without a GPU: all but events, graphs and the kernels."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from dtwin_fast.benchmarks import gpu
from dtwin_fast.benchmarks.cases import OPS, Case
from dtwin_fast.benchmarks.device import (
    cases,
    ceilings,
    implementations,
    jax_form,
    machine,
    problem,
    suite,
    targets,
    timing,
    torch_forms,
    verify,
)
from dtwin_fast.benchmarks.device.implementations import IMPLEMENTATIONS
from dtwin_fast.benchmarks.device.problem import Call, Problem
from dtwin_fast.benchmarks.device.report import as_markdown
from dtwin_fast.benchmarks.peers.torch_eager import unbound

from dtwin_fast.errors import BackendUnavailableError

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "benchmarks" / "gpu.py"
TINY = {
    "rnn": Case("rnn", 7, 1, 13, 3, 9, 5),
    "rnn-projected": Case("rnn", 5, 3, 13, 3, 9, 5, K=2),
    "gru": Case("gru", 5, 2, 13, 3, 9, 5, K=2),
    "lstm": Case("lstm", 5, 1, 13, 3, 9, 5),
}
PRETENDED = {"dtwin-cuda": torch_forms.eager, "torch-unbind": torch_forms.eager}
H100 = {
    "capability": "9.0",
    "multiprocessors": 132,
    "sm_clock_max_mhz": 1980.0,
    "l2_bytes": 50 << 20,
}


@pytest.fixture
def seed() -> int:
    """Anew for each test; pytest shows it when the test fails."""
    return int.from_bytes(os.urandom(3))


def run_script(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *words], capture_output=True, text=True, timeout=120, check=False
    )


# The command


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU")
def test_without_a_gpu_it_says_why_and_writes_nothing(tmp_path: Path) -> None:
    ran = run_script("--json", tmp_path / "x.json")
    assert ran.returncode == 4
    assert ran.stdout == ""
    (line,) = ran.stderr.splitlines()
    assert line == f"gpu.py: there is no CUDA GPU: {gpu.why_no_gpu()}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [(), ("--json", "absent/x.json"), ("--json", ".")])
def test_wrong_usage_is_refused(tmp_path: Path, words: tuple[str, ...]) -> None:
    ran = run_script(*(tmp_path / w if w.endswith((".", "x.json")) else w for w in words))
    assert ran.returncode == 2
    assert "--json" in ran.stderr


def test_reasons_for_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise RuntimeError("Found no NVIDIA driver on your system.\nMore lines.")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", refuse)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert gpu.why_no_gpu() == "Found no NVIDIA driver on your system."
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "built without CUDA" in str(gpu.why_no_gpu())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert gpu.why_no_gpu() == "torch is not installed"


@pytest.fixture
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU in the place of the GPU, with the host's clock: the rest of the command is real."""
    monkeypatch.setattr(gpu, "why_no_gpu", lambda: None)
    monkeypatch.setattr(cases, "PLAN", tuple((name, op) for name in TINY for op in OPS))
    monkeypatch.setattr(suite, "CASES", TINY)
    facts = {"gpu": "pretended", "driver": None, "cuda": None, "packages": {}, "time": "now"}
    monkeypatch.setattr(machine, "examine", lambda: H100 | facts)
    monkeypatch.setattr(ceilings, "COPY_BYTES", 1 << 16)
    monkeypatch.setattr(ceilings, "GEMM_SIZE", 32)
    measure = ceilings.measure
    monkeypatch.setattr(ceilings, "measure", lambda seconds, device: measure(seconds, "cpu"))
    monkeypatch.setattr(timing, "event_seconds", host_seconds)
    monkeypatch.setattr(timing, "MAX_ROUNDS", 4)
    monkeypatch.setattr(problem, "MAX_SETS", 2)
    setting = suite.Setting
    monkeypatch.setattr(suite, "Setting", lambda device, *rest: setting("cpu", *rest))
    monkeypatch.setattr(implementations, "IMPLEMENTATIONS", dict(PRETENDED))


def host_seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def test_a_run_writes_rows_targets_and_tables(
    pretended_gpu: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.json"
    assert gpu.main(["--json", str(path)]) == 0
    results = json.loads(path.read_text("utf-8"))
    assert results["device"] == "pretended"
    assert results["left_out"] == []
    timed = {(row["case"], row["op"], row["impl"]) for row in results["rows"]}
    assert timed == {(name, op, impl) for name in TINY for op in OPS for impl in PRETENDED}
    for row in results["rows"]:
        assert 0 < row["q1_s"] <= row["median_s"] <= row["q3_s"]
        assert row["repeats"] >= timing.MIN_ROUNDS
        assert row["bit_equal"] is True
        assert 0 < row["rel_err"] < 1e-5
        assert 0 < row["rel_norm_err"] < 1e-5
        is_floor = TINY[row["case"]].B == 1 and row["op"] == "fwd"
        assert (row["percent_of_floor"] is not None) == is_floor
        if row["impl"] == "torch-unbind":
            assert row["ratio_to_best_peer"] == 1
    ran = capsys.readouterr()
    assert f"seed {results['seed']}" in ran.err
    assert ran.out == as_markdown(results) + "\n"
    table = [sys.executable, ROOT / "benchmarks" / "table.py", path]
    printed = subprocess.run(table, capture_output=True, text=True, check=True, timeout=60)
    assert printed.stdout == ran.out


def test_a_wrong_engine_makes_the_exit_code_1(
    pretended_gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = changed(lambda found: found.mul_(1.001))
    monkeypatch.setattr(implementations, "IMPLEMENTATIONS", PRETENDED | {"dtwin-cuda": wrong})
    path = tmp_path / "x.json"
    assert gpu.main(["--json", str(path), "--cases", "gru"]) == 1
    results = json.loads(path.read_text("utf-8"))
    assert {row["impl"] for row in results["rows"]} == {"torch-unbind"}
    for row in results["left_out"]:
        assert (row["impl"], row["refused"]) == ("dtwin-cuda", True)
        assert row["reason"].startswith("failed verification: relative error")
    assert {row["verdict"] for row in results["targets"]} == {"not measured", "missed"}


def test_an_unknown_case_is_refused(
    pretended_gpu: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        gpu.main(["--json", str(tmp_path / "x.json"), "--cases", "gru,odd"])
    assert "'odd' is none of rnn, rnn-projected, gru, lstm" in capsys.readouterr().err


def test_what_there_is_no_time_for_is_named(pretended_gpu: None, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    assert gpu.main(["--json", str(path), "--minutes", "0.1", "--cases", "rnn,gru"]) == 0
    results = json.loads(path.read_text("utf-8"))
    assert results["rows"] == []
    wanted = [(name, op) for name in ("rnn", "gru") for op in OPS]
    assert [(row["case"], row["op"]) for row in results["left_out"]] == wanted
    assert {row["reason"] for row in results["left_out"]} == {suite.TIME_UP}


# The build


@pytest.mark.slow
def test_the_engine_is_built_without_an_installation(tmp_path: Path) -> None:
    pytest.importorskip("pybind11")
    site = gpu.build(tmp_path / "build", "-DDTWIN_CUDA=OFF")
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        # As provide_engine does: an editable install must not win.
        "sys.meta_path[:] = [f for f in sys.meta_path if 'dtwin_fast' not in type(f).__module__]\n"
        "import dtwin_fast._core as core, dtwin_fast.benchmarks.device.suite, dtwin_fast.kernels\n"
        "print(core.__file__, repr(core.build_info()['cuda']))"
    )
    ran = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    file, cuda = ran.stdout.split()
    assert Path(file).parent == site / "dtwin_fast"
    assert cuda == "''"


def test_a_failed_build_says_what_failed(tmp_path: Path) -> None:
    pytest.importorskip("pybind11")
    (tmp_path / "CMakeCache.txt").mkdir()
    with pytest.raises(RuntimeError, match=r"the engine cannot be built: .*cmake failed"):
        gpu.build(tmp_path)


# Peers, on CPU tensors


def compare(case: Case, op: str, prepare: problem.Prepare, seed: int) -> verify.Verdict:
    given = problem.draw(case, seed, "cpu")
    subjects = verify.choose_subjects(given, seed)
    expected = verify.expect(given, op, subjects)
    (call,) = prepare([given], op)
    return verify.verify(call, case.S, expected, subjects)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("impl", ["torch-unbind", "jax-vmap"])
def test_peers_agree_with_the_float64_reference(impl: str, name: str, op: str, seed: int) -> None:
    if impl == "jax-vmap":
        pytest.importorskip("jax", reason="jax is not installed")
    found = compare(TINY[name], op, IMPLEMENTATIONS[impl], seed)
    assert found.fault("float32", must_repeat=True) is None, (found, seed)
    assert found.rel_err > 0, "float32 is not float64"


def test_each_set_of_arguments_has_its_own_result(seed: int) -> None:
    sets = [problem.draw(TINY["gru"], seed + i, "cpu") for i in range(2)]
    for call, given in zip(torch_forms.eager(sets, "fwd_bwd"), sets, strict=True):
        subjects = list(range(given.case.S))
        expected = verify.expect(given, "fwd_bwd", subjects)
        found = verify.errors(call.tensors(call.run()), given.case.S, expected, subjects)
        assert max(found) < 1e-5


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(
    ("impl", "options"),
    [
        ("dtwin-cuda", {"backend": "cuda", "precision": None}),
        ("dtwin-cuda-bf16", {"backend": "cuda", "precision": "bfloat16"}),
        ("dtwin-triton", {"backend": "triton", "precision": None}),
        ("dtwin-triton-bf16", {"backend": "triton", "precision": "bfloat16"}),
    ],
)
def test_the_engine_is_asked_for_by_name(
    impl: str, options: dict[str, Any], op: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dtwin_fast.torch

    asked: list[dict[str, Any]] = []

    def rollout(
        cell: str, weights: Any, inputs: Any, h0: Any, *, time_projection: Any, **others: Any
    ) -> Any:
        asked.append(others)
        case = TINY["lstm"]
        assert isinstance(h0, tuple)
        return SimpleNamespace(outputs=unbound(case, weights, inputs, h0, time_projection))

    monkeypatch.setattr(dtwin_fast.torch, "rollout", rollout)
    found = compare(TINY["lstm"], op, IMPLEMENTATIONS[impl], seed)
    assert found.fault(cases.precision_of(impl), must_repeat=True) is None
    assert asked == [options, options]


def test_a_missing_jax_is_a_reason(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendUnavailableError, match="jax is not installed"):
        jax_form.prepare([problem.draw(TINY["rnn"], seed, "cpu")], "fwd")


def test_a_compiler_that_takes_too_long_is_stopped_and_not_asked_again(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    def compile_slowly(*words: Any, **options: Any) -> Any:
        def forward(*words: Any) -> None:
            try:
                time.sleep(60)
            except Exception as error:
                raise AssertionError("compilers wrap exceptions") from error

        return forward

    monkeypatch.setattr(torch, "compile", compile_slowly)
    monkeypatch.setattr(torch_forms, "COMPILE_S", 0.05)
    compiled = torch_forms.Compiled()
    given = [problem.draw(TINY["rnn"], seed, "cpu")]
    start = time.monotonic()
    with pytest.raises(BackendUnavailableError, match="took more than 0 s for 13 unrolled steps"):
        compiled(given, "fwd")
    assert time.monotonic() - start < 10
    with pytest.raises(BackendUnavailableError, match="not tried"):
        compiled(given, "fwd")
    monkeypatch.setattr(torch, "compile", lambda forward, **options: forward)
    short = Case("rnn", 5, 1, 6, 3, 9, 5)
    assert compare(short, "fwd", compiled, seed).fault("float32", must_repeat=True) is None


def test_all_compilations_together_have_a_limit(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(torch_forms, "ALL_COMPILES_S", 1e-6)
    monkeypatch.setattr(torch, "compile", lambda forward, **options: forward)
    compiled = torch_forms.Compiled()
    given = [problem.draw(TINY["rnn"], seed, "cpu")]
    monkeypatch.setattr(torch_forms, "time_limit", lambda seconds: nullcontext())
    compiled(given, "fwd")
    with pytest.raises(BackendUnavailableError, match="went into compiling"):
        compiled(given, "fwd")


# Verification


def changed(change: Callable[[torch.Tensor], Any], name: str = "outputs") -> problem.Prepare:
    """The right results with one tensor changed."""

    def prepare(problems: list[Problem], op: str) -> list[Call]:
        def tensors(right: Call, result: Any) -> dict[str, torch.Tensor]:
            found = right.tensors(result)
            change(found[name if name in found else "w_hh"])
            return found

        calls = torch_forms.eager(problems, op)
        return [Call(c.run, lambda result, c=c: tensors(c, result)) for c in calls]

    return prepare


def largest_off(tensor: torch.Tensor) -> None:
    place = tensor.abs().flatten().argmax()
    tensor[np.unravel_index(int(place), tensor.shape)] *= 1 + 2e-5


def all_off_a_little(tensor: torch.Tensor) -> None:
    # Each within 1e-5 of the largest element, together not.
    tensor.add_(torch.where(torch.randn_like(tensor) > 0, 1.0, -1.0), alpha=9e-6 * tensor.max())


def last_nan(tensor: torch.Tensor) -> None:
    tensor[(-1,) * tensor.ndim] = math.nan


def second_subject_infinite(tensor: torch.Tensor) -> None:
    tensor[1, ...] = math.inf


@pytest.mark.parametrize(
    "change", [largest_off, all_off_a_little, last_nan, second_subject_infinite]
)
@pytest.mark.parametrize("name", ["outputs", "w_ih", "b_hh", "inputs", "h0"])
def test_wrong_results_fail_verification(
    change: Callable[[torch.Tensor], Any], name: str, seed: int
) -> None:
    op = "fwd" if name == "outputs" else "fwd_bwd"
    found = compare(TINY["rnn"], op, changed(change, name), seed)
    fault = found.fault("float32", must_repeat=False)
    assert fault is not None
    assert fault.startswith("failed verification: relative error")


def test_nan_in_a_subject_that_is_not_compared_fails_too(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "choose_subjects", lambda given, seed: [0, given.case.S - 1])
    found = compare(TINY["rnn"], "fwd", changed(second_subject_infinite), seed)
    assert math.isnan(found.rel_err)
    assert found.fault("bfloat16", must_repeat=False) is not None


def kept(problems: list[Problem], op: str, *, n_written: int | None) -> list[Call]:
    """Results in memory that stays, as a graph's do, of which only some subjects are written."""
    (right,) = torch_forms.eager(problems, op)
    memory: dict[str, torch.Tensor] = {}

    def run() -> dict[str, torch.Tensor]:
        found = right.tensors(right.run())
        for name, tensor in found.items():
            memory.setdefault(name, tensor.clone())[:n_written] = tensor[:n_written]
        return memory

    return [Call(run, lambda found: found)]


@pytest.mark.parametrize("op", OPS)
def test_what_is_not_written_anew_is_seen(op: str, seed: int) -> None:
    right = compare(TINY["rnn"], op, lambda p, op: kept(p, op, n_written=None), seed)
    assert right.fault("float32", must_repeat=True) is None
    wrong = compare(TINY["rnn"], op, lambda p, op: kept(p, op, n_written=-1), seed)
    assert wrong.fault("float32", must_repeat=False) is not None


def unsteady(problems: list[Problem], op: str) -> list[Call]:
    """Right within the limit, but not twice the same."""
    (right,) = torch_forms.eager(problems, op)
    signs = iter((1, -1))

    def run() -> Any:
        return right.run() * (1 + next(signs) * 2.0**-22)

    return [Call(run, right.tensors)]


def test_other_bits_in_the_second_call_fail_the_engine_alone(seed: int) -> None:
    found = compare(TINY["rnn"], "fwd", unsteady, seed)
    assert not found.bit_equal
    assert found.fault("float32", must_repeat=False) is None
    fault = found.fault("float32", must_repeat=True)
    assert fault == "failed verification: two calls gave different bits"


def test_a_wrong_number_of_results_or_another_shape_is_infinite(seed: int) -> None:
    given = problem.draw(TINY["rnn"], seed, "cpu")
    expected = verify.expect(given, "fwd", [0, 6])
    outputs = torch_forms.eager([given], "fwd")[0].run()
    for found in ({}, {"outputs": outputs[:-1]}, {"outputs": outputs[..., None]}):
        assert verify.errors(found, 7, expected, [0, 6]) == (math.inf, math.inf)


def test_the_subjects_that_are_verified_hold_the_first_and_the_last(seed: int) -> None:
    case = Case("rnn", 50, 1, verify.VERIFIED_STEPS // 5, 1, 2, 1)
    subjects = verify.choose_subjects(problem.draw(case, seed, "cpu"), seed)
    assert len(set(subjects)) == 5
    assert subjects[0] == 0
    assert subjects[-1] == 49
    for n in (1, 2, 3):
        few = problem.draw(Case("rnn", n, 1, 2, 1, 2, 1), seed, "cpu")
        assert verify.choose_subjects(few, seed) == list(range(n))


# Turns, budget, floor


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_calls_take_turns_over_their_sets() -> None:
    clock, order = Clock(), []

    def run(name: str) -> Callable[[], Any]:
        def call() -> None:
            order.append(name)
            clock.now_s += 0.5

        return call

    def seconds(call: Callable[[], Any]) -> float:
        start = clock()
        call()
        return clock() - start

    runs = {"a": [run("a0"), run("a1")], "b": [run("b0"), run("b1")]}
    times, failed = timing.take_turns(runs, 5.5, lambda impl: seconds, clock)
    assert failed == {}
    assert order[:8] == ["a0", "b0", "a1", "b1", "a0", "b0", "a1", "b1"]
    # Two rounds to warm up, of one second each; the round that begins before the end counts.
    assert times == {"a": [0.5] * 4, "b": [0.5] * 4}
    times, _ = timing.take_turns(runs, 0.0, lambda impl: seconds, clock)
    assert [len(found) for found in times.values()] == [timing.MIN_ROUNDS] * 2
    times, _ = timing.take_turns(runs, 1e9, lambda impl: seconds, clock)
    assert [len(found) for found in times.values()] == [timing.MAX_ROUNDS] * 2


def test_a_call_that_fails_while_it_is_timed_does_not_end_the_others() -> None:
    calls = iter(range(100))

    def fail() -> None:
        if next(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    runs = {"a": [fail], "b": [lambda: None]}
    times, failed = timing.take_turns(runs, 0.0, lambda impl: host_seconds)
    assert list(failed) == ["a"]
    assert len(times["b"]) == timing.MIN_ROUNDS


def test_the_budget_stops_before_the_end() -> None:
    clock = Clock()
    budget = timing.Budget(60, clock() - 10, clock)  # a build has taken ten seconds
    assert budget.left_s == 50
    assert budget.begin()
    clock.now_s += 26
    budget.finish()
    assert not budget.begin(), "24 s are left, and the longest took 26"
    shorter = timing.Budget(60, clock(), clock)
    assert shorter.begin()
    clock.now_s += 60 - timing.FIRST_GUESS_S
    shorter.finish()
    assert not shorter.begin()


def test_no_implementation_is_prepared_when_the_time_is_up(
    pretended_gpu: None, tmp_path: Path
) -> None:
    clock = Clock()
    setting = suite.Setting(
        "cuda", 1, H100, {}, timing.Budget(suite.LEAST_LEFT_S - 1, clock(), clock), lambda t: None
    )
    rows, left_out = suite.run_pair("rnn", "fwd", PRETENDED, setting)
    assert rows == []
    assert {row["impl"] for row in left_out} == set(PRETENDED)
    assert {row["reason"] for row in left_out} == {suite.TIME_UP}


def test_what_an_implementation_raises_is_noted(
    pretended_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising(error: Exception) -> problem.Prepare:
        def prepare(problems: list[Problem], op: str) -> list[Call]:
            raise error

        return prepare

    implementations = {
        "torch-unbind": torch_forms.eager,
        "torch-graph": raising(torch.OutOfMemoryError("CUDA out of memory")),
        "jax-vmap": raising(ValueError("odd")),
        "dtwin-triton": raising(BackendUnavailableError("400 hidden units\nmore")),
        "dtwin-cuda": raising(RuntimeError("an illegal memory access")),
    }
    budget = timing.Budget(600, time.monotonic())
    limits = {"copy_bytes_s": 1.0, "sgemm_flops": 1.0}
    setting = suite.Setting("cuda", 1, H100, limits, budget, lambda text: None)
    rows, left_out = suite.run_pair("rnn", "fwd", implementations, setting)
    assert [row["impl"] for row in rows] == ["torch-unbind"]
    found = {row["impl"]: (row["refused"], row["reason"]) for row in left_out}
    assert found == {
        "torch-graph": (False, "OutOfMemoryError: CUDA out of memory"),
        "jax-vmap": (False, "ValueError: odd"),
        "dtwin-triton": (False, "BackendUnavailableError: 400 hidden units"),
        "dtwin-cuda": (True, "RuntimeError: an illegal memory access"),
    }


def test_recurrence_cases_are_of_the_engine_alone(
    pretended_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suite, "RECURRENCE_CASES", {"rnn": TINY["rnn"]})
    budget = timing.Budget(600, time.monotonic())
    limits = {"copy_bytes_s": 1.0, "sgemm_flops": 1.0}
    setting = suite.Setting("cuda", 1, H100, limits, budget, lambda text: None)
    rows, left_out = suite.run_pair("rnn", "fwd", PRETENDED, setting)
    assert [row["impl"] for row in rows] == ["dtwin-cuda"]
    assert rows[0]["ratio_to_best_peer"] is None
    assert left_out == []


def test_the_floor_by_hand() -> None:
    # 128 x (128 + 16) multiply-adds on 128 lanes: 144 cycles a step.
    case = cases.CASES["recurrence-h128"]
    wanted = 4096 * 500 * 144 / (132 * 1.98e9)
    assert ceilings.floor_s(case, H100) == pytest.approx(wanted)
    lstm = Case("lstm", 4096, 1, 500, 16, 128, 1, K=1)
    assert ceilings.floor_s(lstm, H100) == pytest.approx(4 * wanted)
    assert ceilings.floor_s(case, H100 | {"capability": "8.0"}) == pytest.approx(2 * wanted)
    assert ceilings.floor_s(case, H100 | {"sm_clock_max_mhz": None}) is None


def test_sets_of_arguments_go_round_a_cache() -> None:
    assert problem.count_sets(101, 50) == 1
    assert problem.count_sets(60, 50) == 3
    assert problem.count_sets(1, 50) == problem.MAX_SETS
    for n_bytes in range(1, 200):
        n_sets = problem.count_sets(n_bytes, 50)
        assert n_sets in (1, problem.MAX_SETS) or (n_sets - 1) * n_bytes >= 100


# Facts


def test_the_driver_is_asked_and_nothing_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(
        f"#!/bin/sh\necho \"$@\" > {tmp_path}/asked\necho '580.1, 1980, [N/A], 2619'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    found = machine.ask_driver("1-2")
    assert found == {
        "driver": "580.1",
        "sm_clock_max_mhz": 1980.0,
        "sm_clock_mhz": None,
        "memory_clock_mhz": 2619.0,
    }
    asked = (tmp_path / "asked").read_text().split()
    assert all(word.startswith(("--id=", "--query-gpu=", "--format=")) for word in asked)
    program.write_text("#!/bin/sh\nexit 9\n")
    assert set(machine.ask_driver("1-2").values()) == {None}


# Targets and tables


def row_of(case: str, op: str, impl: str, median_s: float, **others: Any) -> dict[str, Any]:
    return {
        "case": case,
        "op": op,
        "impl": impl,
        "median_s": median_s,
        "q1_s": 0.9 * median_s,
        "q3_s": 1.1 * median_s,
        "rel_err": 2e-6,
        "rel_norm_err": 1e-6,
        "bit_equal": True,
        "gflops": 1e3,
        "ratio_to_best_peer": None,
        "percent_sgemm": 5.0,
        "percent_copy": 10.0,
        "percent_of_floor": None,
    } | others


def verdicts(rows: list[Any], left_out: list[Any]) -> dict[tuple[str, str], tuple[Any, str]]:
    return {
        (row["case"], row["op"]): (row["measured"], row["verdict"])
        for row in targets.judge(rows, left_out)
        if row["case"] != "all"
    }


CONTRAST = "contrast434-h128-s4096"


def test_targets_are_met_missed_or_not_measured() -> None:
    rows = [
        row_of(CONTRAST, "fwd", "dtwin-cuda", 0.01),
        row_of(CONTRAST, "fwd", "torch-graph", 0.3),
        row_of(CONTRAST, "fwd", "torch-unbind", 0.25),
        row_of(CONTRAST, "fwd", "jax-vmap", 0.02),
        row_of(CONTRAST, "fwd_bwd", "dtwin-cuda", 0.1),
        row_of(CONTRAST, "fwd_bwd", "torch-graph", 0.9),
        row_of("plain23-h128-s4096", "fwd", "dtwin-cuda", 0.01),
        row_of("plain23-h128-s4096", "fwd", "torch-unbind", 9.0),
        row_of("recurrence-h128", "fwd", "dtwin-cuda", 0.01, percent_of_floor=50.0),
    ]
    found = verdicts(rows, [])
    assert found[CONTRAST, "fwd"] == (pytest.approx(25), "met")
    assert found[CONTRAST, "fwd_bwd"] == (pytest.approx(9), "missed")
    # The CUDA graph might have been faster.
    assert found["plain23-h128-s4096", "fwd"] == (None, "not measured")
    assert found["plain23-h128-s4096", "fwd_bwd"] == (None, "not measured")
    assert found["paper-s256", "fwd"] == (None, "not measured")
    assert found["recurrence-h128", "fwd"] == (50, "met")
    rows[-1]["percent_of_floor"] = None
    assert verdicts(rows, [])["recurrence-h128", "fwd"] == (None, "not measured")


def test_correctness_is_a_target_of_each_precision() -> None:
    def correct(rows: list[Any], left_out: list[Any]) -> list[tuple[Any, str]]:
        return [
            (row["measured"], row["verdict"])
            for row in targets.judge(rows, left_out)
            if row["case"] == "all"
        ]

    assert correct([], []) == [(None, "not measured")] * 2
    right = [
        row_of(CONTRAST, "fwd", "dtwin-cuda", 1.0, rel_norm_err=3e-6),
        row_of(CONTRAST, "fwd", "dtwin-triton-bf16", 1.0, rel_err=4e-3),
        row_of(CONTRAST, "fwd", "torch-unbind", 1.0, rel_err=9e-6),
    ]
    assert correct(right, []) == [(3e-6, "met"), (4e-3, "met")]
    refused = suite.left_out(CONTRAST, "fwd", "dtwin-triton", "failed", refused=True)
    assert correct(right, [refused]) == [(3e-6, "missed"), (4e-3, "met")]
    peer = suite.left_out(CONTRAST, "fwd", "jax-vmap", "failed", refused=True)
    unable = suite.left_out(CONTRAST, "fwd", "dtwin-triton", "H = 400")
    assert correct(right, [peer, unable]) == [(3e-6, "met"), (4e-3, "met")]


def test_the_tables_of_made_up_rows() -> None:
    rows = [
        row_of(CONTRAST, "fwd", "dtwin-cuda", 0.01, ratio_to_best_peer=25.0, percent_of_floor=61.0),
        row_of(CONTRAST, "fwd", "torch-graph", 0.25, ratio_to_best_peer=1.0, bit_equal=False),
    ]
    left_out = [suite.left_out(CONTRAST, "fwd", "jax-vmap", "jax is not installed")]
    facts = {"driver": "580.1", "cuda": "13.0", "packages": {"torch": "2.13", "jax": None}}
    text = as_markdown(
        {
            "device": "NVIDIA H100",
            "machine": H100 | facts | {"time": "2026-11-23"},
            "ceilings": {"copy_bytes_s": 3e12, "sgemm_flops": 5.2e13},
            "rows": rows,
            "targets": targets.judge(rows, left_out),
            "left_out": left_out,
        }
    )
    assert "NVIDIA H100, 132 multiprocessors at most 1980 MHz; driver 580.1, CUDA 13.0" in text
    assert "copy 3.00 TB/s, float32 products 52.0 TFLOP/s" in text
    figure = "times the best torch form | >= 20 |"
    assert f"| {CONTRAST} | fwd | {figure} 25 | met |" in text
    assert (
        f"| {CONTRAST} | fwd_bwd | times the best torch form | >= 10 | - | not measured |" in text
    )
    assert (
        f"| {CONTRAST} | fwd | **dtwin-cuda** | 10.000 | 9.000 to 11.000 | 25.00 | 1000 | 5.0 | "
        "10.0 | 61.0 | 2.0e-06 | 1.0e-06 | yes |"
    ) in text
    assert "| torch-graph | 250.000 |" in text
    assert text.splitlines()[-1] == f"- {CONTRAST} fwd jax-vmap: jax is not installed"


def test_the_plan_has_the_targets_first_and_every_case() -> None:
    wanted = [(target.case, target.op) for target in targets.TARGETS]
    places = [cases.PLAN.index(pair) for pair in wanted]
    assert max(places) < len(cases.TARGET_CASES) * 2 + len(cases.RECURRENCE_CASES)
    assert {name for name, _ in cases.PLAN} == set(cases.CASES)
    assert len(set(cases.PLAN)) == len(cases.PLAN)
    timed = {op for name, op in cases.PLAN if name in cases.RECURRENCE_CASES}
    assert timed == {"fwd"}


def test_every_form_of_torch_is_an_implementation() -> None:
    assert {*targets.TORCH_FORMS, "dtwin-cuda"} <= set(IMPLEMENTATIONS)
    assert [impl for impl in IMPLEMENTATIONS if cases.is_ours(impl)] == list(IMPLEMENTATIONS)[:4]
