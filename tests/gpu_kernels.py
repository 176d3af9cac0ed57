"""A GPU backend against the float64 reference, in a process of its own.

DTWIN_TEST_BACKEND names the backend. test_triton.py runs this file under Triton's interpreter,
test_cuda.py on the emulated GPU, and both as it is where there is a CUDA device.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import dtwin_fast as dt
from dtwin_fast.cells import CELLS
from dtwin_fast.weights import WEIGHT_NAMES, RNNWeights, weight_shapes

BACKEND = os.environ["DTWIN_TEST_BACKEND"]

cells = pytest.mark.parametrize("cell", CELLS)

# S, B, T, I, H: every padded size, blocks that are full, short and of one, one of everything.
SIZES = [(1, 1, 1, 1, 1), (2, 3, 7, 9, 5), (1, 16, 7, 1, 17), (3, 17, 2, 9, 33)]
if BACKEND == "cuda":
    # One block and clusters of 2 to 16 of them, whole and with a last block that is not full.
    SIZES += [(2, 2, 5, 9, 64), (1, 3, 4, 5, 129), (2, 1, 3, 9, 257), (1, 2, 3, 9, 400)]
sizes = pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """torch fills what it allocates with NaN."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng().normal(size=shape).astype(np.float32)


def make_weights(cell: str, n_subjects: int, n_inputs: int, n_hidden: int) -> RNNWeights:
    """Weights within 1 / sqrt(H), as torch draws them, and three outputs."""
    rng = np.random.default_rng()
    arrays = (
        rng.uniform(-1, 1, (n_subjects, *shape)).astype(np.float32) / np.float32(n_hidden**0.5)
        for shape in weight_shapes(cell, n_inputs, n_hidden, 3).values()
    )
    return RNNWeights(cell, *arrays)


def make_state(cell: str, *shape: int) -> Any:
    parts = tuple(normal(*shape) for _ in range(CELLS[cell].n_states))
    return parts if len(parts) > 1 else parts[0]


def parts(result: Any) -> list[np.ndarray]:
    """All float arrays of a RolloutResult or of RolloutGradients."""
    if isinstance(result, dt.RolloutResult):
        arrays = [result.outputs, result.states, result.h_final]
    else:
        weights = [getattr(result.weights, name) for name in WEIGHT_NAMES]
        arrays = [*weights, result.inputs, result.h0]
    return [part for array in arrays for part in (array if isinstance(array, tuple) else [array])]


def assert_close(got: Any, wanted: Any, tolerances: ModuleType) -> None:
    names = ["outputs", "states", *["states"] * 2] if isinstance(got, dt.RolloutResult) else []
    for i, (ours, theirs) in enumerate(zip(parts(got), parts(wanted), strict=True)):
        assert ours.dtype == np.float32
        tolerances.assert_close(ours, theirs, names[i] if names else "gradients", "float32")


def rounded(weights: RNNWeights) -> RNNWeights:
    arrays = (torch.from_numpy(getattr(weights, name)).bfloat16() for name in WEIGHT_NAMES)
    return RNNWeights(weights.cell, *(array.float().numpy() for array in arrays))


@cells
@sizes
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_rollout_and_gradients(
    cell: str, size: tuple[int, ...], precision: str, tolerances: ModuleType
) -> None:
    """Own inputs, a state before, gradients of all that comes out."""
    n_subjects, n_sequences, n_steps, n_inputs, n_hidden = size
    weights = make_weights(cell, n_subjects, n_inputs, n_hidden)
    inputs = normal(n_subjects, n_sequences, n_steps, n_inputs)
    h0 = make_state(cell, n_subjects, n_sequences, n_hidden)
    exact = rounded(weights) if precision == "bfloat16" else weights
    got = dt.rollout(weights, inputs, h0, BACKEND, precision, return_states=True)
    wanted = dt.rollout(exact, inputs, h0, "reference", "float64", return_states=True)
    assert got.backend == BACKEND
    assert not got.diverged.any()
    assert_close(got, wanted, tolerances)

    loss: dict[str, Any] = {
        "d_outputs": normal(*wanted.outputs.shape),
        "d_states": normal(*wanted.outputs.shape[:3], n_hidden),
        "d_h_final": make_state(cell, n_subjects, n_sequences, n_hidden),
    }
    gradients = dt.rollout_vjp(weights, inputs, h0=h0, backend=BACKEND, precision=precision, **loss)
    assert gradients.backend == BACKEND
    true = dt.rollout_vjp(exact, inputs, h0=h0, backend="reference", precision="float64", **loss)
    assert_close(gradients, true, tolerances)

    known = dt.rollout_vjp(
        weights, inputs, h0=h0, backend=BACKEND, precision=precision, states=got.states, **loss
    )
    for ours, theirs in zip(parts(known), parts(gradients), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@cells
@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5)], ids=["K,T", "B,K,T"])
def test_shared_inputs_and_a_projection(
    cell: str, shape: tuple[int, ...], tolerances: ModuleType
) -> None:
    weights, inputs = make_weights(cell, 2, 2, 5), normal(3, 5, 2)
    projection, d_outputs = normal(*shape), normal(2, 3, 4, 3)
    got, wanted = (
        dt.rollout(weights, inputs, None, backend, precision, projection, return_states=True)
        for backend, precision in ((BACKEND, "float32"), ("reference", "float64"))
    )
    assert got.outputs.shape == (2, 3, 4, 3)
    assert_close(got, wanted, tolerances)
    gradients, true = (
        dt.rollout_vjp(weights, inputs, d_outputs, None, backend, precision, projection)
        for backend, precision in ((BACKEND, "float32"), ("reference", "float64"))
    )
    assert gradients.inputs.shape == inputs.shape
    assert_close(gradients, true, tolerances)


@cells
@pytest.mark.parametrize("n_sequences", [2, 16])
def test_a_state_passed_on_goes_on(cell: str, n_sequences: int, tolerances: ModuleType) -> None:
    """To rounding: torch's products of all steps depend on how many there are."""
    weights, inputs = make_weights(cell, 1, 3, 5), normal(1, n_sequences, 7, 3)
    whole = dt.rollout(weights, inputs, backend=BACKEND, return_states=True)
    first = dt.rollout(weights, inputs[:, :, :4], backend=BACKEND, return_states=True)
    second = dt.rollout(
        weights, inputs[:, :, 4:], first.h_final, backend=BACKEND, return_states=True
    )
    assert first.states is not None
    assert second.states is not None
    states = np.concatenate([first.states, second.states], 2)
    tolerances.assert_close(states, whole.states, "states", "float32")
    for ours, theirs in zip(parts(second)[2:], parts(whole)[2:], strict=True):
        tolerances.assert_close(ours, theirs, "states", "float32")


@cells
@pytest.mark.parametrize("field", ["w_hh", "inputs", "h0"])
@pytest.mark.filterwarnings("ignore:invalid value")  # numpy, of the interpreter's own NaN
def test_nan_stays_with_its_subject(cell: str, field: str) -> None:
    weights, inputs = make_weights(cell, 3, 2, 5), normal(3, 1, 3, 2)
    h0, d_outputs = make_state(cell, 3, 1, 5), normal(3, 1, 3, 3)
    before = dt.rollout(weights, inputs, h0, BACKEND, return_states=True)
    gradients = dt.rollout_vjp(weights, inputs, d_outputs, h0, BACKEND)
    spoilt = {"w_hh": weights.w_hh, "inputs": inputs, "h0": h0[0] if cell == "lstm" else h0}[field]
    spoilt[1].flat[0] = np.nan
    after = dt.rollout(weights, inputs, h0, BACKEND, return_states=True)
    gradients_after = dt.rollout_vjp(weights, inputs, d_outputs, h0, BACKEND)
    assert after.diverged.tolist() == [False, True, False]
    pairs = [*zip(parts(after), parts(before), strict=True)]
    pairs += zip(parts(gradients_after), parts(gradients), strict=True)
    for ours, theirs in pairs:
        np.testing.assert_array_equal(ours[::2], theirs[::2])


@cells
def test_no_subjects(cell: str) -> None:
    weights = make_weights(cell, 0, 2, 5)
    result = dt.rollout(weights, normal(3, 7, 2), backend=BACKEND, return_states=True)
    assert result.outputs.shape == (0, 3, 7, 3)
    gradients = dt.rollout_vjp(weights, normal(3, 7, 2), normal(0, 3, 7, 3), backend=BACKEND)
    assert gradients.weights.w_hh.shape == weights.w_hh.shape
    np.testing.assert_array_equal(gradients.inputs, np.zeros((3, 7, 2)))


@cells
def test_supports(cell: str) -> None:
    assert dt.supports(BACKEND, cell) is None
    assert dt.supports(BACKEND, cell, "bfloat16") is None
    assert "float64" in str(dt.supports(BACKEND, cell, "float64"))
    assert dt.dispatch.isa(BACKEND).split()[0] in ("cuda", "interpreter")
