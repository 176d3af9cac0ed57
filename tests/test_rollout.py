"""rollout, rollout_vjp and supports: bits, layouts, states, projections, refusals."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from dtwin_fast import _core
from dtwin_fast.backends import BACKENDS, VJPS, host_arrays
from dtwin_fast.backends import cpu as cpu_backend
from dtwin_fast.backends import reference as reference_backend
from dtwin_fast.cells import CELLS
from dtwin_fast.dispatch import (
    RolloutGradients,
    RolloutResult,
    isa,
    rollout,
    rollout_vjp,
    supports,
)
from dtwin_fast.errors import BackendUnavailableError, DTwinInputError
from dtwin_fast.weights import WEIGHT_NAMES, RNNWeights, weight_shapes

cells = pytest.mark.parametrize("cell", CELLS)
# Those with every precision; tests/gpu_kernels.py has the others.
EXACT = [name for name in BACKENDS if supports(name, "rnn", "float64") is None]
backends = pytest.mark.parametrize("backend", EXACT)
vjps = pytest.mark.parametrize("backend", [name for name in VJPS if name in EXACT])


def make_weights(
    cell: str, n_subjects: int, n_inputs: int, n_hidden: int, n_outputs: int, dtype: str = "float32"
) -> RNNWeights:
    rng = np.random.default_rng([n_subjects, n_inputs, n_hidden, n_outputs])
    scale = 1 / np.sqrt(n_hidden)
    shapes = weight_shapes(cell, n_inputs, n_hidden, n_outputs)
    return RNNWeights(
        cell,
        **{
            name: rng.uniform(-scale, scale, (n_subjects, *shape)).astype(dtype)
            for name, shape in shapes.items()
        },
    )


def make_inputs(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(shape).normal(size=shape).astype(dtype)


def parts(result: RolloutResult) -> list[np.ndarray]:
    """All arrays of a result."""
    last = result.h_final if isinstance(result.h_final, tuple) else (result.h_final,)
    states = [] if result.states is None else [result.states]
    return [result.outputs, *states, *last, result.diverged]


def gradient_parts(result: RolloutGradients) -> list[np.ndarray]:
    """All arrays of a result, that of the inputs last."""
    h0 = result.h0 if isinstance(result.h0, tuple) else (result.h0,)
    return [*(getattr(result.weights, name) for name in WEIGHT_NAMES), *h0, result.inputs]


def assert_same_bits(got: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    for ours, theirs in zip(got, wanted, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def with_arrays(weights: RNNWeights, change: Any) -> RNNWeights:
    return RNNWeights(weights.cell, *(change(getattr(weights, name)) for name in WEIGHT_NAMES))


# --- the same bits (test_determinism.py has more) ----------------------------------------------


@cells
def test_bits_in_many_sequences_and_steps(cell: str) -> None:
    """More sequences and steps than the engine takes in one block."""
    weights = make_weights(cell, 2, 3, 20, 5)
    inputs = make_inputs(131, 150, 3)
    whole = rollout(weights, inputs, return_states=True)
    for b in (0, 47, 48, 130):
        alone = rollout(weights, inputs[b : b + 1], return_states=True)
        assert_same_bits(parts(alone)[:-1], [part[:, b : b + 1] for part in parts(whole)[:-1]])


@cells
def test_shared_inputs_equal_repeated_inputs(cell: str) -> None:
    weights = make_weights(cell, 4, 3, 10, 5)
    inputs = make_inputs(2, 30, 3)
    repeated = np.broadcast_to(inputs, (4, *inputs.shape))
    shared = rollout(weights, inputs, return_states=True)
    assert_same_bits(parts(rollout(weights, repeated, return_states=True)), parts(shared))
    assert_same_bits(parts(rollout(weights, repeated.copy(), return_states=True)), parts(shared))


@cells
def test_results_are_fully_written(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = make_weights(cell, 3, 4, 13, 7)
    inputs = make_inputs(5, 33, 4)
    wanted = parts(rollout(weights, inputs, return_states=True))

    def poisoned(shape: Any, dtype: Any = float) -> np.ndarray:
        return np.full(shape, True if dtype is np.bool_ else np.nan, dtype)

    monkeypatch.setattr(np, "empty", poisoned)
    assert_same_bits(parts(rollout(weights, inputs, return_states=True)), wanted)


@cells
@pytest.mark.parametrize("shared", [False, True], ids=["own-inputs", "shared-inputs"])
def test_vjp_is_fully_written(cell: str, shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = make_weights(cell, 3, 4, 13, 7)
    inputs = make_inputs(*(() if shared else (3,)), 5, 33, 4)
    d_outputs = make_inputs(3, 5, 33, 7)
    wanted = gradient_parts(rollout_vjp(weights, inputs, d_outputs, backend="cpu"))
    assert all(np.isfinite(part).all() for part in wanted)
    make_empty = np.empty

    def poisoned(shape: Any, dtype: Any = float) -> np.ndarray:
        array = make_empty(shape, dtype)
        array[...] = np.nan
        return array

    monkeypatch.setattr(np, "empty", poisoned)
    got = gradient_parts(rollout_vjp(weights, inputs, d_outputs, backend="cpu"))
    assert_same_bits(got, wanted)


# --- layouts and dtypes ------------------------------------------------------------------------


def misaligned(array: np.ndarray) -> np.ndarray:
    raw = np.zeros(array.nbytes + 1, np.uint8)
    view = raw[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def read_only(array: np.ndarray) -> np.ndarray:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


LAYOUTS = {
    "fortran": np.asfortranarray,
    "negative-strides": lambda a: np.flip(np.flip(a).copy()),
    "every-other": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "every-other-subject": lambda a: np.repeat(a, 2, axis=0)[::2],
    "misaligned": misaligned,
    "read-only": read_only,
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "float64": lambda a: a.astype(np.float64),
}


@backends
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layouts_do_not_matter(layout: Any, backend: str) -> None:
    weights = make_weights("lstm", 3, 4, 6, 5)
    inputs, projection = make_inputs(3, 2, 12, 4), make_inputs(2, 3, 12)
    h0 = (make_inputs(3, 2, 6), make_inputs(3, 2, 6))
    wanted = rollout(weights, inputs, h0, backend, time_projection=projection)
    got = rollout(
        with_arrays(weights, layout),
        layout(inputs),
        tuple(layout(part) for part in h0),
        backend,
        time_projection=layout(projection),
    )
    assert_same_bits(parts(got), parts(wanted))


@vjps
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layouts_do_not_matter_to_the_vjp(layout: Any, backend: str) -> None:
    weights = make_weights("lstm", 3, 4, 6, 5)
    inputs, projection = make_inputs(3, 2, 12, 4), make_inputs(2, 3, 12)
    d_outputs = make_inputs(3, 2, 3, 5)
    h0 = (make_inputs(3, 2, 6), make_inputs(3, 2, 6))
    wanted = rollout_vjp(weights, inputs, d_outputs, h0, backend, time_projection=projection)
    got = rollout_vjp(
        with_arrays(weights, layout),
        layout(inputs),
        layout(d_outputs),
        tuple(layout(part) for part in h0),
        backend,
        time_projection=layout(projection),
    )
    assert_same_bits(gradient_parts(got), gradient_parts(wanted))


def test_lists_and_float16_and_integers_are_converted() -> None:
    weights = make_weights("rnn", 2, 3, 6, 5)
    inputs = np.arange(24).reshape(2, 4, 3) % 3 - 1
    wanted = parts(rollout(weights, inputs.astype(np.float32)))
    for form in (inputs, inputs.astype(np.float16), inputs.tolist(), inputs.astype(np.int8)):
        assert_same_bits(parts(rollout(weights, form)), wanted)


def test_slices_of_flat_weights_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Generated weights (S,P) reach the engine as views."""
    shapes = weight_shapes("gru", 3, 6, 5)
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    flat = make_inputs(4, sum(sizes)) / 4
    pieces = np.split(flat, np.cumsum(sizes)[:-1], axis=1)
    views = [piece.reshape(4, *shape) for piece, shape in zip(pieces, shapes.values(), strict=True)]
    assert all(np.shares_memory(view, flat) for view in views)
    weights = RNNWeights("gru", *views)
    wanted = parts(rollout(with_arrays(weights, np.ascontiguousarray), make_inputs(2, 5, 3)))
    seen: dict[str, np.ndarray] = {}
    run = _core.rollout
    monkeypatch.setattr(
        host_arrays, "core_rollout", lambda **named: (seen.update(named), run(**named))[1]
    )
    assert_same_bits(parts(rollout(weights, make_inputs(2, 5, 3))), wanted)
    assert all(np.shares_memory(seen[name], flat) for name in WEIGHT_NAMES)


# --- time projection ---------------------------------------------------------------------------


@cells
@backends
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("per_sequence", [False, True], ids=["K,T", "B,K,T"])
def test_projection_equals_projected_outputs(
    cell: str, backend: str, precision: str, per_sequence: bool, tolerances: ModuleType
) -> None:
    weights = make_weights(cell, 2, 3, 21, 11, precision)
    inputs = make_inputs(3, 263, 3, dtype=precision)
    projection = make_inputs(*((3,) if per_sequence else ()), 5, 263) / np.sqrt(263)
    got = rollout(weights, inputs, None, backend, precision, projection, return_states=True)
    plain = rollout(weights, inputs, None, backend, precision, return_states=True)
    wanted = projection.astype(np.float64) @ plain.outputs
    assert got.outputs.shape == (2, 3, 5, 11)
    tolerances.assert_close(got.outputs, wanted, "projected", precision)
    assert_same_bits(parts(got)[1:], parts(plain)[1:])


@cells
@vjps
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("per_sequence", [False, True], ids=["K,T", "B,K,T"])
@pytest.mark.parametrize("n_steps", [1, 263])
def test_vjp_of_projected_outputs(
    cell: str,
    backend: str,
    precision: str,
    per_sequence: bool,
    n_steps: int,
    tolerances: ModuleType,
) -> None:
    weights = make_weights(cell, 2, 3, 21, 11, precision)
    inputs = make_inputs(3, n_steps, 3, dtype=precision)
    projection = make_inputs(*((3,) if per_sequence else ()), 4, n_steps, dtype=precision)
    d_outputs = make_inputs(2, 3, 4, 11, dtype=precision)
    got = rollout_vjp(weights, inputs, d_outputs, None, backend, precision, projection)
    back = projection.swapaxes(-1, -2).astype(np.float64) @ d_outputs
    wanted = rollout_vjp(weights, inputs, back, None, "reference", "float64")
    assert got.backend == backend
    for ours, theirs in zip(gradient_parts(got), gradient_parts(wanted), strict=True):
        assert ours.dtype == precision
        tolerances.assert_close(ours, theirs, "gradients", precision)


@cells
@vjps
def test_shared_inputs_vjp_is_summed_over_subjects(
    cell: str, backend: str, tolerances: ModuleType
) -> None:
    weights = make_weights(cell, 3, 2, 6, 4, "float64")
    inputs = make_inputs(2, 15, 2, dtype="float64")
    d_outputs = make_inputs(3, 2, 15, 4, dtype="float64")
    shared = rollout_vjp(weights, inputs, d_outputs, None, backend, "float64")
    own = rollout_vjp(weights, np.stack([inputs] * 3), d_outputs, None, backend, "float64")
    assert shared.backend == backend
    assert shared.inputs.shape == inputs.shape
    tolerances.assert_close(shared.inputs, own.inputs.sum(0), "gradients", "float64")
    h0 = shared.h0 if isinstance(shared.h0, tuple) else (shared.h0,)
    assert [part.shape for part in h0] == [(3, 2, 6)] * CELLS[cell].n_states


@cells
@vjps
@pytest.mark.parametrize("projected", [False, True], ids=["outputs", "projected"])
def test_vjp_over_more_sequences_than_a_block_takes(
    cell: str, backend: str, projected: bool, tolerances: ModuleType
) -> None:
    weights, inputs = make_weights(cell, 1, 3, 20, 5), make_inputs(131, 40, 3)
    projection = make_inputs(131, 4, 40) if projected else None
    d_outputs = make_inputs(1, 131, 4 if projected else 40, 5)
    arguments = (weights, inputs, d_outputs, None)
    got = rollout_vjp(*arguments, backend, "float32", projection)
    wanted = rollout_vjp(*arguments, "reference", "float64", projection)
    for ours, theirs in zip(gradient_parts(got), gradient_parts(wanted), strict=True):
        tolerances.assert_close(ours, theirs, "gradients", "float32")


# --- gradients of states, and states that are known --------------------------------------------


def make_loss(cell: str, state_shape: tuple[int, int, int], n_steps: int, dtype: str) -> Any:
    """Gradients of states and h_final, as arguments of rollout_vjp."""
    n_subjects, n_sequences, n_hidden = state_shape
    last = tuple(make_inputs(*state_shape, dtype=dtype) for _ in range(CELLS[cell].n_states))
    return {
        "d_states": make_inputs(n_subjects, n_sequences, n_steps, n_hidden, dtype=dtype),
        "d_h_final": last if len(last) > 1 else last[0],
    }


@cells
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("n_sequences", [1, 4, 50])
@pytest.mark.parametrize("projected", [False, True], ids=["outputs", "projected"])
def test_vjp_of_states_and_h_final(
    cell: str, precision: str, n_sequences: int, projected: bool, tolerances: ModuleType
) -> None:
    weights = make_weights(cell, 2, 3, 21, 5, precision)
    inputs = make_inputs(n_sequences, 70, 3, dtype=precision)
    projection = make_inputs(4, 70, dtype=precision) if projected else None
    d_outputs = make_inputs(2, n_sequences, 4 if projected else 70, 5, dtype=precision)
    loss = make_loss(cell, (2, n_sequences, 21), 70, precision)
    got, wanted = (
        rollout_vjp(weights, inputs, d_outputs, None, backend, in_precision, projection, **loss)
        for backend, in_precision in (("cpu", precision), ("reference", "float64"))
    )
    for ours, theirs in zip(gradient_parts(got), gradient_parts(wanted), strict=True):
        tolerances.assert_close(ours, theirs, "gradients", precision)


@cells
@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("n_sequences", [1, 4, 50])
def test_known_states_change_no_bit_of_the_gradients(
    cell: str, precision: str, n_sequences: int
) -> None:
    weights, inputs = make_weights(cell, 2, 3, 21, 5), make_inputs(n_sequences, 70, 3)
    d_outputs = make_inputs(2, n_sequences, 70, 5)
    loss = make_loss(cell, (2, n_sequences, 21), 70, "float32")
    states = rollout(weights, inputs, None, "cpu", precision, return_states=True).states
    arguments = (weights, inputs, d_outputs, None, "cpu", precision)
    with_states = rollout_vjp(*arguments, states=states, **loss)
    assert_same_bits(gradient_parts(with_states), gradient_parts(rollout_vjp(*arguments, **loss)))


@cells
def test_known_states_are_what_the_gradients_are_taken_at(cell: str) -> None:
    """Other states give other gradients, so they are read and not computed."""
    weights, inputs = make_weights(cell, 1, 3, 21, 5), make_inputs(2, 70, 3)
    d_outputs, states = make_inputs(1, 2, 70, 5), np.zeros((1, 2, 70, 21))
    arguments = (weights, inputs, d_outputs, None, "cpu")
    known = rollout_vjp(*arguments, states=states).weights.w_hh
    assert np.abs(known - rollout_vjp(*arguments).weights.w_hh).max() > 0.1


@pytest.mark.slow
@cells
def test_segments_change_no_bit_of_what_has_no_sum_over_them(
    cell: str, tolerances: ModuleType
) -> None:
    """Two blocks of seven sequences are cut into three segments, each of them alone is not."""
    weights = make_weights(cell, 1, 2, 32, 3)
    n_steps = {"rnn": 55_000, "gru": 27_000, "lstm": 24_000}[cell]
    inputs, d_outputs = make_inputs(14, n_steps, 2), make_inputs(1, 14, n_steps, 3)
    loss = make_loss(cell, (1, 14, 32), n_steps, "float32")
    projection = make_inputs(4, n_steps) / n_steps
    states = rollout(weights, inputs, backend="cpu", return_states=True).states

    def run(b: slice, *options: Any, **known: Any) -> list[np.ndarray]:
        last = loss["d_h_final"]
        part = {
            "d_states": loss["d_states"][:, b],
            "d_h_final": tuple(d[:, b] for d in last) if isinstance(last, tuple) else last[:, b],
        }
        d = d_outputs[:, b, :4] if options else d_outputs[:, b]
        arguments = (weights, inputs[b], d, None, "cpu", "float32", *options)
        return gradient_parts(rollout_vjp(*arguments, **part, **known))

    for options in ((), (projection,)):
        whole = run(slice(None), *options)
        assert_same_bits(run(slice(None), *options, states=states), whole)
        alone = [run(slice(b, b + 1), *options) for b in range(14)]
        n_weights = len(WEIGHT_NAMES)
        for n, part in enumerate(whole[:n_weights]):
            wanted = np.sum([own[n] for own in alone], axis=0, dtype=np.float64)
            tolerances.assert_close(part, wanted, "gradients", "float32")
        for n, part in enumerate(whole[n_weights:], start=n_weights):
            axis = 0 if part is whole[-1] else 1
            assert_same_bits([part], [np.concatenate([own[n] for own in alone], axis=axis)])


# --- divergence --------------------------------------------------------------------------------


@cells
@backends
@pytest.mark.parametrize("where", [*WEIGHT_NAMES, "inputs", "h0"])
@pytest.mark.parametrize("value", [np.nan, np.inf], ids=["nan", "inf"])
def test_one_bad_subject_changes_no_other(
    cell: str, backend: str, where: str, value: float
) -> None:
    weights = make_weights(cell, 3, 4, 9, 5)
    inputs = make_inputs(3, 4, 11, 4)
    h0 = [make_inputs(3, 4, 9) for _ in range(CELLS[cell].n_states)]

    def run() -> RolloutResult:
        state = tuple(h0) if len(h0) > 1 else h0[0]
        return rollout(weights, inputs, state, backend, return_states=True)

    healthy = run()
    assert not healthy.diverged.any()
    array = {"inputs": inputs, "h0": h0[0]}.get(where)
    array = getattr(weights, where) if array is None else array
    array[1].flat[0] = value
    hurt = run()
    # An infinite pre-activation is a gate at its bound, so all that follows may be finite.
    may_saturate = value == np.inf and where not in ("w_out", "b_out")
    if not may_saturate:
        assert hurt.diverged.tolist() == [False, True, False]
    others = [0, 2]
    assert_same_bits(
        [part[others] for part in parts(hurt)], [part[others] for part in parts(healthy)]
    )


@cells
@vjps
@pytest.mark.parametrize("where", [*WEIGHT_NAMES, "inputs", "h0", "d_outputs"])
@pytest.mark.parametrize("value", [np.nan, np.inf], ids=["nan", "inf"])
def test_one_bad_subject_changes_no_other_vjp(
    cell: str, backend: str, where: str, value: float
) -> None:
    weights = make_weights(cell, 3, 4, 9, 5)
    arrays = {"inputs": make_inputs(3, 4, 11, 4), "d_outputs": make_inputs(3, 4, 11, 5)}
    h0 = [make_inputs(3, 4, 9) for _ in range(CELLS[cell].n_states)]

    def run() -> list[np.ndarray]:
        state = tuple(h0) if len(h0) > 1 else h0[0]
        return gradient_parts(
            rollout_vjp(weights, h0=state, backend=backend, n_threads=1, **arrays)
        )

    healthy = run()
    assert all(np.isfinite(part).all() for part in healthy)
    changed = {**arrays, "h0": h0[0]}.get(where)
    changed = getattr(weights, where) if changed is None else changed
    changed[1].flat[0] = value
    hurt = run()
    # b_out changes no gradient; an infinite pre-activation is a gate at its bound.
    if value != np.inf and where != "b_out":
        assert not all(np.isfinite(part[1]).all() for part in hurt)
    others = [0, 2]
    assert_same_bits([part[others] for part in hurt], [part[others] for part in healthy])


@cells
@vjps
def test_a_bad_subject_poisons_shared_inputs_vjp(cell: str, backend: str) -> None:
    weights = make_weights(cell, 2, 3, 5, 4)
    weights.w_hh[1] = np.nan
    inputs, d_outputs = make_inputs(2, 6, 3), make_inputs(2, 2, 6, 4)
    got = rollout_vjp(weights, inputs, d_outputs, None, backend)
    assert np.isnan(got.inputs).all()
    assert np.isfinite(got.weights.w_hh[0]).all()
    assert np.isnan(got.weights.w_hh[1]).any()


@backends
@pytest.mark.parametrize("projected", [False, True], ids=["outputs", "projected"])
def test_overflowing_output_is_divergence(backend: str, projected: bool) -> None:
    weights = make_weights("rnn", 2, 2, 8, 3)
    weights.w_out[0] = 3e38
    weights.b_hh[0] = 5.0
    projection = np.ones((1, 6), np.float32) if projected else None
    got = rollout(weights, make_inputs(1, 6, 2), None, backend, time_projection=projection)
    assert got.diverged.tolist() == [True, False]


# --- threads -----------------------------------------------------------------------------------


def test_other_threads_run_during_a_rollout() -> None:
    weights = make_weights("rnn", 40, 4, 128, 4)
    inputs = make_inputs(4, 1000, 4)
    done = threading.Event()

    def work() -> None:
        rollout(weights, inputs, n_threads=1)
        done.set()

    thread = threading.Thread(target=work)
    ticks = 0
    thread.start()
    while not done.is_set():
        time.sleep(0.001)
        ticks += 1
    thread.join()
    # With the GIL held, this thread would run only before and after the call.
    assert ticks > 20


def test_concurrent_calls_equal_serial_calls() -> None:
    problems = [
        (make_weights(cell, 5, 3, 17, 6), make_inputs(3, 50 + n, 3))
        for n, cell in enumerate(list(CELLS) * 4)
    ]
    serial = [parts(rollout(w, x, n_threads=1)) for w, x in problems]
    with ThreadPoolExecutor(8) as pool:
        at_once = list(pool.map(lambda p: parts(rollout(p[0], p[1], n_threads=2)), problems))
    for got, wanted in zip(at_once, serial, strict=True):
        assert_same_bits(got, wanted)


# --- which backend -----------------------------------------------------------------------------


def test_auto_says_what_ran() -> None:
    weights, inputs = make_weights("rnn", 1, 2, 3, 2), make_inputs(1, 4, 2)
    assert rollout(weights, inputs).backend == "cpu"
    assert rollout(weights, inputs, precision="bfloat16").backend == "cpu"
    d_outputs = np.ones((1, 1, 4, 2))
    assert rollout_vjp(weights, inputs, d_outputs).backend == "cpu"
    assert rollout_vjp(weights, inputs, d_outputs, precision="bfloat16").backend == "cpu"


def test_cpu_says_what_it_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_backend, "CELLS", ("rnn", "lstm"))
    weights, inputs = make_weights("gru", 1, 2, 3, 2), make_inputs(1, 4, 2)
    assert supports("cpu", "rnn") is None
    assert "no gru cell, only rnn, lstm" in str(supports("cpu", "gru"))
    assert rollout(weights, inputs).backend == "reference"
    with pytest.raises(BackendUnavailableError, match="Use backend='reference'"):
        rollout(weights, inputs, backend="cpu")
    with pytest.raises(BackendUnavailableError, match="Use backend='reference'"):
        rollout_vjp(weights, inputs, np.ones((1, 1, 4, 2)), backend="cpu")


def test_without_torch_the_reference_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_backend, "find_spec", lambda name: None)
    weights, inputs = make_weights("rnn", 1, 2, 3, 2), make_inputs(1, 4, 2)
    assert "dtwin_fast[torch]" in str(supports("reference", "rnn"))
    assert rollout(weights, inputs).backend == "cpu"
    with pytest.raises(BackendUnavailableError, match=r"dtwin_fast\[torch\].*backend='cpu'"):
        rollout(weights, inputs, backend="reference")
    d_outputs = np.ones((1, 1, 4, 2))
    assert rollout_vjp(weights, inputs, d_outputs).backend == "cpu"
    with pytest.raises(BackendUnavailableError, match=r"dtwin_fast\[torch\]"):
        rollout_vjp(weights, inputs, d_outputs, backend="reference")


def test_dispatch_imports_no_torch() -> None:
    code = (
        "import sys, dtwin_fast.dispatch; "
        "print(sorted({'torch', 'scipy', 'pandas'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_build_info_has_what_doctor_prints() -> None:
    info = _core.build_info()
    assert info["isa"] in info["isas"]
    assert "-ffp-contract=off" in str(info["flags"])
    assert info["compiler"]
    assert int(info["hardware_threads"]) >= 0


def test_the_callers_grad_mode_does_not_matter() -> None:
    weights = make_weights("rnn", 2, 3, 5, 4)
    inputs, d_outputs = make_inputs(2, 6, 3), make_inputs(2, 2, 6, 4)
    wanted = rollout_vjp(weights, inputs, d_outputs, backend="reference").weights
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            found = rollout_vjp(weights, inputs, d_outputs, backend="reference").weights
        np.testing.assert_array_equal(found.w_hh, wanted.w_hh)


# --- bfloat16 ----------------------------------------------------------------------------------


def round_to_bfloat16(array: np.ndarray) -> np.ndarray:
    """To nearest, ties to even, by the integers."""
    bits = array.view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded & np.uint32(0xFFFF0000)).view(np.float32)


@cells
@backends
def test_bfloat16_is_float32_with_rounded_weights(
    cell: str, backend: str, tolerances: ModuleType
) -> None:
    weights, inputs = make_weights(cell, 2, 3, 14, 5), make_inputs(2, 25, 3)
    got = rollout(weights, inputs, backend=backend, precision="bfloat16")
    wanted = rollout(with_arrays(weights, round_to_bfloat16), inputs)
    assert got.outputs.dtype == np.float32
    tolerances.assert_close(got.outputs, wanted.outputs, "outputs", "bfloat16")
    assert np.abs(rollout(weights, inputs).outputs - got.outputs).max() > 1e-4


@cells
@pytest.mark.parametrize("n_sequences", [1, 5])
@pytest.mark.parametrize("n_hidden", [1, 15, 17, 63, 100])
def test_bfloat16_has_the_bits_of_float32_with_rounded_weights(
    cell: str, n_sequences: int, n_hidden: int
) -> None:
    """Widening is exact and the arithmetic is one, so nothing but the rounding differs."""
    weights = make_weights(cell, 2, 3, n_hidden, 35)
    rounded = with_arrays(weights, round_to_bfloat16)
    inputs, d_outputs = make_inputs(n_sequences, 7, 3), make_inputs(2, n_sequences, 7, 35)
    got = rollout(weights, inputs, backend="cpu", precision="bfloat16", return_states=True)
    assert_same_bits(parts(got), parts(rollout(rounded, inputs, backend="cpu", return_states=True)))
    arguments = (inputs, d_outputs, None, "cpu")
    assert_same_bits(
        gradient_parts(rollout_vjp(weights, *arguments, "bfloat16")),
        gradient_parts(rollout_vjp(rounded, *arguments, "float32")),
    )


def test_bfloat16_rounds_to_nearest_ties_to_even() -> None:
    """Readout weights times a state of one, for halfway cases and the ends of the range."""
    bits = [0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF, 0xBF808000, 0x00018000, 0x7F7FFFFF]
    wanted = [0x3F800000, 0x3F820000, 0x3F810000, 0x3F800000, 0xBF800000, 0x00020000, 0x7F800000]
    w_out = np.array(bits, np.uint32).view(np.float32).reshape(1, -1, 1)
    n = len(bits)
    zero = np.zeros((1, 1), np.float32)
    weights = RNNWeights(
        "rnn", np.full((1, 1, 1), 64.0), zero[..., None], zero, zero, w_out, np.zeros((1, n))
    )
    got = rollout(weights, np.ones((1, 1, 1)), backend="cpu", precision="bfloat16")
    np.testing.assert_array_equal(got.outputs.ravel().view(np.uint32), np.array(wanted, np.uint32))
    w_out[0, 0, 0] = np.nan
    got = rollout(weights, np.ones((1, 1, 1)), backend="cpu", precision="bfloat16")
    assert np.isnan(got.outputs[0, 0, 0, 0])
    assert got.diverged[0]


# --- sizes and refusals ------------------------------------------------------------------------


@cells
@vjps
def test_no_subjects_have_an_empty_vjp(cell: str, backend: str) -> None:
    weights = make_weights(cell, 1, 3, 4, 5).select(slice(0, 0))
    for inputs in (make_inputs(2, 6, 3), np.empty((0, 2, 6, 3))):
        gradients = rollout_vjp(weights, inputs, np.ones((0, 2, 6, 5)), backend=backend)
        np.testing.assert_array_equal(gradients.inputs, np.zeros(inputs.shape))
        assert gradients.weights.w_hh.shape == weights.w_hh.shape


@cells
@backends
def test_no_subjects_give_empty_results(cell: str, backend: str) -> None:
    weights = make_weights(cell, 1, 3, 4, 5).select(slice(0, 0))
    got = rollout(weights, make_inputs(2, 6, 3), backend=backend, return_states=True)
    assert got.outputs.shape == (0, 2, 6, 5)
    assert got.states is not None
    assert got.states.shape == (0, 2, 6, 4)
    assert got.diverged.shape == (0,)


def with_size(n_subjects: int = 2, **sizes: int) -> RNNWeights:
    shape = {"n_inputs": 3, "n_hidden": 4, "n_outputs": 5} | sizes
    shapes = weight_shapes("rnn", **shape)
    return RNNWeights("rnn", **{k: np.ones((n_subjects, *v), "f4") for k, v in shapes.items()})


GOOD: dict[str, Any] = {"weights": with_size(), "inputs": np.ones((2, 6, 3), np.float32)}
REFUSED: dict[str, tuple[str, str, dict[str, Any]]] = {  # code, field, changed arguments
    "weights-dict": ("weights", "weights", {"weights": {"w_ih": 1}}),
    "no-hidden": ("empty", "weights", {"weights": with_size(n_hidden=0)}),
    "no-inputs": ("empty", "weights", {"weights": with_size(n_inputs=0)}),
    "no-outputs": ("empty", "weights", {"weights": with_size(n_outputs=0)}),
    "inputs-rank-2": ("shape", "inputs", {"inputs": np.ones((6, 3))}),
    "inputs-rank-5": ("shape", "inputs", {"inputs": np.ones((1, 2, 2, 6, 3))}),
    "inputs-width": ("shape", "inputs", {"inputs": np.ones((2, 6, 4))}),
    "inputs-subjects": ("shape", "inputs", {"inputs": np.ones((3, 2, 6, 3))}),
    "no-sequences": ("empty", "inputs", {"inputs": np.ones((0, 6, 3))}),
    "no-steps": ("empty", "inputs", {"inputs": np.ones((2, 0, 3))}),
    "complex": ("dtype", "inputs", {"inputs": np.ones((2, 6, 3), complex)}),
    "boolean": ("dtype", "inputs", {"inputs": np.ones((2, 6, 3), bool)}),
    "text": ("dtype", "inputs", {"inputs": np.full((2, 6, 3), "1")}),
    "none": ("dtype", "inputs", {"inputs": None}),
    "long-double": ("dtype", "inputs", {"inputs": np.ones((2, 6, 3), np.longdouble)}),
    "masked": ("dtype", "inputs", {"inputs": np.ma.masked_less(np.ones((2, 6, 3)), 2)}),
    "ragged": ("dtype", "inputs", {"inputs": [[[1.0, 2.0], [3.0]]]}),
    "shared-nan": ("not_finite", "inputs", {"inputs": np.full((2, 6, 3), np.nan)}),
    "beyond-float32": ("not_finite", "inputs", {"inputs": np.full((2, 6, 3), 1e300)}),
    "h0-shape": ("shape", "h0", {"h0": np.ones((2, 2, 5))}),
    "h0-tuple": ("shape", "h0", {"h0": (np.ones((2, 2, 4)), np.ones((2, 2, 4)))}),
    "projection-rank": ("shape", "time_projection", {"time_projection": np.ones(6)}),
    "projection-steps": ("shape", "time_projection", {"time_projection": np.ones((2, 5))}),
    "projection-batch": ("shape", "time_projection", {"time_projection": np.ones((3, 1, 6))}),
    "projection-empty": ("empty", "time_projection", {"time_projection": np.ones((0, 6))}),
    "projection-nan": (
        "not_finite",
        "time_projection",
        {"time_projection": np.full((1, 6), np.nan)},
    ),
    "backend": ("backend", "backend", {"backend": "gpu"}),
    "precision": ("precision", "precision", {"precision": "float16"}),
    "no-threads": ("n_threads", "n_threads", {"n_threads": 0}),
    "negative-threads": ("n_threads", "n_threads", {"n_threads": -1}),
    "too-many-threads": ("n_threads", "n_threads", {"n_threads": 1025}),
    "fractional-threads": ("n_threads", "n_threads", {"n_threads": 1.5}),
    "boolean-threads": ("n_threads", "n_threads", {"n_threads": True}),
}


@pytest.mark.parametrize(("code", "field", "changed"), REFUSED.values(), ids=REFUSED)
def test_bad_arguments_are_refused(code: str, field: str, changed: dict[str, Any]) -> None:
    with pytest.raises(DTwinInputError) as e:
        rollout(**(GOOD | changed))
    assert (e.value.code, e.value.field) == (code, field)
    assert e.value.fix
    assert e.value.wanted
    if not isinstance(changed.get("weights"), dict):
        with pytest.raises(DTwinInputError):
            rollout_vjp(d_outputs=np.ones((2, 2, 6, 5)), **(GOOD | changed))


def test_lstm_wants_both_states() -> None:
    weights = make_weights("lstm", 1, 2, 3, 2)
    with pytest.raises(DTwinInputError, match=r"\(h, c\)"):
        rollout(weights, make_inputs(1, 4, 2), np.zeros((1, 1, 3)))
    with pytest.raises(DTwinInputError, match=r"h0\[1\]"):
        rollout(weights, make_inputs(1, 4, 2), (np.zeros((1, 1, 3)), np.zeros((1, 1, 4))))


def test_d_outputs_must_fit() -> None:
    with pytest.raises(DTwinInputError, match="d_outputs"):
        rollout_vjp(**GOOD, d_outputs=np.ones((2, 2, 6, 4)))


@vjps
@pytest.mark.parametrize("field", ["d_states", "d_h_final", "states"])
def test_gradients_of_states_must_fit(backend: str, field: str) -> None:
    for value in (np.ones((2, 2, 6, 5)), (np.ones((2, 2, 4)), np.ones((2, 2, 4)))):
        with pytest.raises(DTwinInputError) as e:
            rollout_vjp(**GOOD, d_outputs=np.ones((2, 2, 6, 5)), backend=backend, **{field: value})
        assert (e.value.code, e.value.field) == ("shape", field)


def test_results_beyond_the_address_space_are_refused() -> None:
    """The inputs take no memory, the results would take more than there is."""
    inputs = np.broadcast_to(np.float32(1), (2**29, 2**29, 1))
    with pytest.raises(DTwinInputError) as e:
        rollout(with_size(n_inputs=1), inputs)
    assert e.value.code == "too_large"


def test_gradients_beyond_the_address_space_are_refused() -> None:
    """Those of shared inputs, which are made per subject before they are summed."""
    n_subjects = 2**42
    weights = RNNWeights(
        "rnn",
        **{
            name: np.broadcast_to(np.float32(0), (n_subjects, *shape))
            for name, shape in weight_shapes("rnn", 2**10, 1, 1).items()
        },
    )
    with pytest.raises(DTwinInputError) as e:
        rollout_vjp(
            weights,
            np.ones((1, 2**10, 2**10), np.float32),
            np.broadcast_to(np.float32(0), (n_subjects, 1, 1, 1)),
            time_projection=np.ones((1, 2**10)),
        )
    assert (e.value.code, e.value.field) == ("too_large", "gradient of inputs")


def test_isa_names_what_ran() -> None:
    assert isa("cpu") == _core.build_info()["isa"]
    assert isa("reference")
    with pytest.raises(BackendUnavailableError, match="backend='cuda' cannot run"):
        isa("cuda")
    with pytest.raises(DTwinInputError):
        isa("gpu")


def test_unknown_names_are_refused() -> None:
    for arguments in (("gpu", "rnn"), ("cpu", "elman"), ("cpu", "rnn", "int8"), ("auto", "rnn")):
        with pytest.raises(DTwinInputError):
            supports(*arguments)


def test_the_engine_refuses_what_dispatch_would_not_send() -> None:
    """The binding checks on its own, so a caller of _core cannot reach past an array."""
    weights = with_size()
    good: dict[str, Any] = {
        "cell": "rnn",
        **{name: getattr(weights, name) for name in WEIGHT_NAMES},
        "inputs": GOOD["inputs"],
        "h0": None,
        "c0": None,
        "projection": None,
        "outputs": np.empty((2, 2, 6, 5), np.float32),
        "states": None,
        "h_final": np.empty((2, 2, 4), np.float32),
        "c_final": None,
        "diverged": np.empty(2, np.bool_),
        "bfloat16_weights": False,
        "n_threads": 1,
    }
    _core.rollout(**good)
    bad: list[tuple[str, Any]] = [
        ("cell", "elman"),
        ("cell", "lstm"),
        ("w_ih", np.ones((2, 4, 2), np.float32)),
        ("w_hh", np.ones((2, 4, 4), np.float32)[::-1]),
        ("b_out", np.ones((2, 10), np.float32)[:, ::2]),
        ("inputs", np.ones((2, 6, 6), np.float32)[..., ::2]),
        ("h0", np.ones((2, 2, 3), np.float32)),
        ("projection", np.ones((2, 5), np.float32)),
        ("outputs", np.empty((2, 2, 6, 4), np.float32)),
        ("outputs", read_only(good["outputs"])),
        ("states", np.empty((2, 2, 5, 4), np.float32)),
        ("diverged", np.empty(3, np.bool_)),
        ("h_final", misaligned(good["h_final"])),
        ("n_threads", -1),
    ]
    for name, value in bad:
        with pytest.raises(ValueError, match=r"."):
            _core.rollout(**(good | {name: value}))
    doubles = {key: a.astype(np.float64) for key, a in good.items() if isinstance(a, np.ndarray)}
    doubles["diverged"] = good["diverged"]
    _core.rollout(**(good | doubles))
    with pytest.raises(ValueError, match="bfloat16 with arrays that are not float32"):
        _core.rollout(**(good | doubles | {"bfloat16_weights": True}))
    with pytest.raises(TypeError):
        _core.rollout(**(good | {"inputs": np.ones((2, 6, 3), np.float64)}))


def test_the_engine_refuses_a_vjp_that_dispatch_would_not_send() -> None:
    weights = with_size()
    good: dict[str, Any] = {
        "cell": "rnn",
        **{name: getattr(weights, name) for name in WEIGHT_NAMES},
        "inputs": GOOD["inputs"],
        "h0": None,
        "c0": None,
        "projection": None,
        "states": None,
        "d_outputs": np.ones((2, 2, 6, 5), np.float32),
        "d_states": None,
        "d_h_final": None,
        "d_c_final": None,
        **{f"d_{name}": np.empty_like(getattr(weights, name)) for name in WEIGHT_NAMES},
        "d_inputs": np.empty((2, 2, 6, 3), np.float32),
        "d_h0": np.empty((2, 2, 4), np.float32),
        "d_c0": None,
        "bfloat16_weights": False,
        "n_threads": 1,
    }
    _core.rollout_vjp(**good)
    written = ("d_outputs", *(f"d_{name}" for name in WEIGHT_NAMES), "d_inputs", "d_h0")
    bad: list[tuple[str, Any]] = [
        ("cell", "lstm"),
        ("n_threads", -1),
        ("d_c0", np.empty((2, 2, 5), np.float32)),
        ("states", np.ones((2, 2, 5, 4), np.float32)),
        ("d_states", np.ones((2, 2, 6, 5), np.float32)),
        ("d_h_final", misaligned(np.ones((2, 2, 4), np.float32))),
        ("d_c_final", np.ones((2, 4), np.float32)),
        *((name, good[name][..., :-1].copy()) for name in written),
        *((name, np.repeat(good[name], 2, axis=-1)[..., ::2]) for name in written),
        *((name, misaligned(good[name])) for name in written),
        *((name, read_only(good[name])) for name in written[1:]),
    ]
    for name, value in bad:
        with pytest.raises(ValueError, match=r"."):
            _core.rollout_vjp(**(good | {name: value}))
    lstm = with_arrays(make_weights("lstm", 2, 3, 4, 5), np.asarray)
    arrays = {name: getattr(lstm, name) for name in WEIGHT_NAMES}
    arrays |= {f"d_{name}": np.empty_like(array) for name, array in arrays.items()}
    with pytest.raises(ValueError, match="NULL"):
        _core.rollout_vjp(**(good | {"cell": "lstm"} | arrays))
    for name in written:
        with pytest.raises(TypeError):
            _core.rollout_vjp(**(good | {name: good[name].astype(np.float64)}))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_states_are_written_where_they_are_wanted(backend: str) -> None:
    weights, inputs = make_weights("rnn", 3, 4, 5, 2), make_inputs(2, 7, 4)
    wanted = rollout(weights, inputs, backend=backend, return_states=True)
    assert wanted.states is not None
    memory = np.full_like(wanted.states, np.nan)
    found = rollout(weights, inputs, backend=backend, out_states=memory)
    assert found.states is memory
    np.testing.assert_array_equal(memory, wanted.states)
    np.testing.assert_array_equal(found.outputs, wanted.outputs)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda memory: memory[:, :, 1:],
        lambda memory: memory.astype(np.float64),
        lambda memory: np.asfortranarray(memory),
        lambda memory: memory.tolist(),
    ],
    ids=["shape", "dtype", "order", "no array"],
)
def test_memory_for_states_that_does_not_fit_is_refused(spoil: Callable[..., object]) -> None:
    weights, inputs = make_weights("rnn", 3, 4, 5, 2), make_inputs(2, 7, 4)
    states = rollout(weights, inputs, backend="cpu", return_states=True).states
    with pytest.raises(DTwinInputError) as caught:
        rollout(weights, inputs, backend="cpu", out_states=spoil(states))  # type: ignore[arg-type]
    assert caught.value.code == "shape"
    assert caught.value.field == "out_states"
