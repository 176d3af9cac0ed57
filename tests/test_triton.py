"""The triton backend: what it says where it cannot run; tests/triton_kernels.py where it can."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from dtwin_fast.kernels import limits
from triton.runtime.errors import OutOfResources

from dtwin_fast import kernels
from dtwin_fast.backends import triton as backend
from dtwin_fast.cells import CELLS
from dtwin_fast.dispatch import rollout, rollout_vjp, supports
from dtwin_fast.errors import BackendUnavailableError, DTwinInputError
from dtwin_fast.weights import RNNWeights, weight_shapes

TESTS = Path(__file__).parent
KERNEL_TESTS = [TESTS / "gpu_kernels.py", TESTS / "triton_kernels.py"]

on_cuda = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="torch sees no CUDA device to run the kernels on"
)


@pytest.mark.parametrize("where", ["interpreter", pytest.param("cuda", marks=on_cuda)])
@pytest.mark.parametrize("cell", CELLS)
def test_kernels(cell: str, where: str) -> None:
    """The interpreter is chosen before triton is imported, so these tests are another process."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"DTWIN_TEST_BACKEND": "triton", "PYTHONPATH": str(TESTS)}
    if where == "interpreter":
        environment["TRITON_INTERPRET"] = "1"
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *(*map(str, KERNEL_TESTS), "-k", cell),
        ],
        capture_output=True,
        text=True,
        env=environment,
        cwd=TESTS.parent,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "skipped" not in ran.stdout


# --- what it says where it cannot run ----------------------------------------------------------


@pytest.fixture
def no_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


@pytest.fixture
def a_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """torch says that there is a device; tensors stay where they are."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor)
    return


def make_problem(n_hidden: int = 4) -> tuple[RNNWeights, np.ndarray]:
    shapes = weight_shapes("rnn", 2, n_hidden, 3).values()
    weights = RNNWeights("rnn", *(np.ones((1, *shape), np.float32) for shape in shapes))
    return weights, np.ones((1, 5, 2), np.float32)


@pytest.mark.parametrize("missing", ["torch", "triton"])
def test_a_missing_package_names_the_extra(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "find_spec", lambda name: None if name == missing else object())
    reason = str(supports("triton", "rnn"))
    assert reason == f"{missing} not installed (pip install 'dtwin_fast[triton]')"


@pytest.mark.usefixtures("no_interpreter")
def test_without_a_device_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "sees no CUDA device" in str(supports("triton", "rnn"))
    weights, inputs = make_problem()
    with pytest.raises(BackendUnavailableError, match=r"sees no CUDA device.*backend='cpu'"):
        rollout(weights, inputs, backend="triton")
    with pytest.raises(BackendUnavailableError, match=r"sees no CUDA device.*backend='cpu'"):
        rollout_vjp(weights, inputs, np.ones((1, 1, 5, 3)), backend="triton")


@pytest.mark.usefixtures("no_interpreter", "a_device")
@pytest.mark.parametrize("cell", CELLS)
def test_float64_is_refused(cell: str) -> None:
    assert f"no Triton kernel for {cell} in float64" in str(supports("triton", cell, "float64"))


@pytest.mark.usefixtures("no_interpreter", "a_device")
def test_too_many_hidden_units_are_refused() -> None:
    """Only the call knows how many there are."""
    assert supports("triton", "rnn") is None
    weights, inputs = make_problem(129)
    with pytest.raises(BackendUnavailableError, match="128 hidden units, not 129; backend='cpu'"):
        rollout(weights, inputs, backend="triton")


@pytest.mark.usefixtures("no_interpreter", "a_device")
def test_too_little_memory_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(kernels, "rollout", fail, raising=False)
    monkeypatch.setattr(kernels, "rollout_vjp", fail, raising=False)
    weights, inputs = make_problem()
    with pytest.raises(DTwinInputError, match="fewer subjects or sequences at a time") as e:
        rollout(weights, inputs, backend="triton")
    assert (e.value.code, e.value.got) == ("too_large", "(S,B,T,H) = (1, 1, 5, 4)")
    with pytest.raises(DTwinInputError, match="fewer subjects or sequences at a time"):
        rollout_vjp(weights, inputs, np.ones((1, 1, 5, 3)), backend="triton")


@pytest.mark.usefixtures("no_interpreter", "a_device")
def test_too_small_a_device_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OutOfResources(147456, 101376, "shared memory")

    monkeypatch.setattr(kernels, "rollout", fail, raising=False)
    weights, inputs = make_problem()
    with pytest.raises(BackendUnavailableError, match=r"shared memory.*Use backend='cpu'"):
        rollout(weights, inputs, backend="triton")


# --- limits ------------------------------------------------------------------------------------


def test_why_not_agrees_with_the_configurations() -> None:
    for (cell, precision), sizes in limits.WARPS.items():
        assert kernels.why_not(cell, precision, 1) is None
        assert kernels.why_not(cell, precision, max(sizes)) is None
        reason = str(kernels.why_not(cell, precision, max(sizes) + 1))
        assert f"{max(sizes)} hidden units, not {max(sizes) + 1}" in reason
    assert "no Triton kernel for elman in float32" in str(kernels.why_not("elman", "float32", 1))


def test_every_hidden_size_has_a_configuration() -> None:
    for (cell, precision), sizes in limits.WARPS.items():
        for n_hidden in range(1, max(sizes) + 1):
            for n_sequences in (1, limits.ROWS - 1, limits.ROWS, 1000):
                found = limits.configure(cell, precision, n_hidden, n_sequences)
                assert n_hidden <= found.size < max(2 * n_hidden, limits.LEAST_SIZE + 1)
                assert found.block in (1, limits.ROWS)
                assert found.block == 1 or n_sequences >= limits.ROWS
