"""Rollouts that the binding must refuse, and sizes around 2^31 and 2^63.

tests/test_rollout.py has the table of bad arguments to dispatch, tests/test_c_api.py that of C.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dtwin_fast import _core
from dtwin_fast.dispatch import rollout, rollout_vjp
from dtwin_fast.errors import DTwinInputError
from dtwin_fast.weights import WEIGHT_NAMES, RNNWeights, weight_shapes

S, B, T, H, K = 2, 3, 6, 5, 2
N_INPUTS, N_OUTPUTS = 4, 7
Arguments = dict[str, Any]


def ones(*shape: int) -> np.ndarray:
    return np.full(shape, 0.125, np.float32)


def problem() -> Arguments:
    """What both functions of the engine read, for an LSTM, which has the most arrays."""
    shapes = weight_shapes("lstm", N_INPUTS, H, N_OUTPUTS)
    return {
        "cell": "lstm",
        **{name: ones(S, *shape) for name, shape in shapes.items()},
        "inputs": ones(S, B, T, N_INPUTS),
        "h0": ones(S, B, H),
        "c0": ones(S, B, H),
        "projection": ones(B, K, T),
        "bfloat16_weights": False,
        "n_threads": 2,
    }


def forward() -> Arguments:
    return problem() | {
        "outputs": ones(S, B, K, N_OUTPUTS),
        "states": ones(S, B, T, H),
        "h_final": ones(S, B, H),
        "c_final": ones(S, B, H),
        "diverged": np.ones(S, np.bool_),
    }


def loss() -> Arguments:
    """What the gradients read besides."""
    return {
        "states": ones(S, B, T, H),
        "d_outputs": ones(S, B, K, N_OUTPUTS),
        "d_states": ones(S, B, T, H),
        "d_h_final": ones(S, B, H),
        "d_c_final": ones(S, B, H),
    }


def backward() -> Arguments:
    weights = {
        f"d_{name}": ones(S, *shape)
        for name, shape in weight_shapes("lstm", N_INPUTS, H, N_OUTPUTS).items()
    }
    return (
        problem()
        | loss()
        | weights
        | {
            "d_inputs": ones(S, B, T, N_INPUTS),
            "d_h0": ones(S, B, H),
            "d_c0": ones(S, B, H),
        }
    )


CALLS: dict[str, tuple[Callable[..., None], Callable[[], Arguments]]] = {
    "forward": (_core.rollout, forward),
    "backward": (_core.rollout_vjp, backward),
}
calls = pytest.mark.parametrize(("call", "make"), CALLS.values(), ids=CALLS)


def results_of(arguments: Arguments) -> list[str]:
    # The states are a result of the one function and read by the other.
    read = {*problem(), *(loss() if "d_outputs" in arguments else ())}
    return [
        name
        for name, value in arguments.items()
        if isinstance(value, np.ndarray) and name not in read
    ]


def assert_refused(
    call: Callable[..., None], arguments: Arguments, error: type[Exception], match: str
) -> None:
    """Refused with these words, before a result is touched."""
    before = {name: arguments[name].copy() for name in results_of(arguments)}
    with pytest.raises(error, match=match):
        call(**arguments)
    for name, array in before.items():
        np.testing.assert_array_equal(arguments[name], array)


# --- the binding -------------------------------------------------------------------------------


@calls
def test_every_array_is_checked(call: Callable[..., None], make: Callable[[], Arguments]) -> None:
    """Rank, size, dtype, byte order, density and alignment of each; results must be writeable."""
    good = make()
    call(**good)
    for name, array in make().items():
        if not isinstance(array, np.ndarray):
            continue
        good = make()
        odd = np.dtype(np.uint8) if array.dtype == np.bool_ else np.dtype(np.float64)
        for changed in (array.astype(odd), array.astype(array.dtype.newbyteorder(">"))):
            if changed.dtype != array.dtype:
                assert_refused(call, good | {name: changed}, TypeError, "incompatible function")
        longer = np.concatenate([array, array[..., :1]], axis=-1)
        wrong = [longer, array[..., None], array[:0]]
        if name not in ("inputs", "projection"):  # these may be shared by subjects or sequences
            wrong.append(array[0, ...])
        for changed in wrong:
            assert_refused(call, good | {name: changed}, ValueError, "wanted")
        strided = np.repeat(array, 2, axis=-1)[..., ::2]
        assert_refused(call, good | {name: strided}, ValueError, "contiguous")
        if array.itemsize > 1:
            raw = np.zeros(array.nbytes + 1, np.uint8)
            shifted = raw[1:].view(array.dtype).reshape(array.shape)
            assert_refused(call, good | {name: shifted}, ValueError, "not aligned")
        if name in results_of(good):
            locked = array.copy()
            locked.flags.writeable = False
            assert_refused(call, good | {name: locked}, ValueError, f"{name}: read-only")


@calls
def test_results_that_overlap_are_refused(
    call: Callable[..., None], make: Callable[[], Arguments]
) -> None:
    """Each result with each other array, by one byte or element; side by side they are welcome."""
    good = make()
    call(**good)
    results = results_of(good)
    arrays = [name for name, value in good.items() if isinstance(value, np.ndarray)]
    for result in results:
        for other in arrays:
            if other == result or other == "diverged":
                continue
            first, second = good[other], good[result]
            shared = min(first.itemsize, second.itemsize)
            for common in (shared, 0):
                raw = np.zeros(first.nbytes + second.nbytes - common, np.uint8)
                pair = {
                    other: raw[: first.nbytes].view(first.dtype).reshape(first.shape),
                    result: raw[first.nbytes - common :].view(second.dtype).reshape(second.shape),
                }
                if common:
                    assert_refused(call, good | pair, ValueError, "overlaps")
                else:
                    call(**(good | pair))


@calls
def test_results_in_the_gaps_of_strided_weights_are_refused(
    call: Callable[..., None], make: Callable[[], Arguments]
) -> None:
    good = make()
    result = results_of(good)[0]
    n = good["b_out"][0].size
    flat = np.zeros((S, n + good[result].size), np.float32)
    pair = {"b_out": flat[:, :n], result: flat[0, n:].reshape(good[result].shape)}
    assert_refused(call, good | pair, ValueError, "overlaps")


EMPTY = {
    "steps": {
        "inputs": ones(S, B, 0, N_INPUTS),
        "projection": ones(B, K, 0),
        "states": ones(S, B, 0, H),
        "d_states": ones(S, B, 0, H),
        "d_inputs": ones(S, B, 0, N_INPUTS),
    },
    "projection-rows": {
        "projection": ones(B, 0, T),
        "outputs": ones(S, B, 0, N_OUTPUTS),
        "d_outputs": ones(S, B, 0, N_OUTPUTS),
    },
    "inputs": {
        "w_ih": ones(S, 4 * H, 0),
        "inputs": ones(S, B, T, 0),
        "d_w_ih": ones(S, 4 * H, 0),
        "d_inputs": ones(S, B, T, 0),
    },
    "outputs": {
        "w_out": ones(S, 0, H),
        "b_out": ones(S, 0),
        "outputs": ones(S, B, K, 0),
        "d_w_out": ones(S, 0, H),
        "d_b_out": ones(S, 0),
        "d_outputs": ones(S, B, K, 0),
    },
}


@calls
@pytest.mark.parametrize("changed", EMPTY.values(), ids=EMPTY)
def test_empty_axes_are_refused(
    call: Callable[..., None], make: Callable[[], Arguments], changed: Arguments
) -> None:
    good = make()
    here = {name: array for name, array in changed.items() if name in good}
    assert_refused(call, good | here, ValueError, "a size is negative, or zero")


@calls
def test_no_sequences_are_refused_and_no_subjects_are_none(
    call: Callable[..., None], make: Callable[[], Arguments]
) -> None:
    good = make()
    per_sequence = ("inputs", "h0", "c0", "outputs", "states", "h_final", "c_final", "d_outputs",
                    "d_states", "d_h_final", "d_c_final", "d_inputs", "d_h0", "d_c0")  # fmt: skip
    none = {name: good[name][:, :0] for name in per_sequence if name in good}
    none["projection"] = good["projection"][:0]
    assert_refused(call, good | none, ValueError, "a size is negative, or zero")
    arrays = (name for name in good if isinstance(good[name], np.ndarray) and name != "projection")
    call(**(good | {name: good[name][:0] for name in arrays}))


@calls
@pytest.mark.parametrize("n_threads", [-1, 1025, 2**31 - 1])
def test_numbers_of_threads_are_refused(
    call: Callable[..., None], make: Callable[[], Arguments], n_threads: int
) -> None:
    assert_refused(call, make() | {"n_threads": n_threads}, ValueError, "n_threads")
    with pytest.raises(TypeError):
        call(**(make() | {"n_threads": 2**31}))


# --- sizes -------------------------------------------------------------------------------------


def repeated(*shape: int) -> np.ndarray:
    """One number of 4 bytes, seen at every index."""
    return np.broadcast_to(np.float32(0.125), shape)


def repeated_weights(n_subjects: int, n_inputs: int, n_hidden: int, n_outputs: int) -> RNNWeights:
    shapes = weight_shapes("rnn", n_inputs, n_hidden, n_outputs)
    return RNNWeights("rnn", *(repeated(n_subjects, *shape) for shape in shapes.values()))


HUGE: dict[str, tuple[str, Arguments]] = {  # the array that would be too large
    "outputs": ("outputs", {"weights": (1, 1, 1, 2**20), "inputs": (1, 2**20, 2**22, 1)}),
    "projected": (
        "outputs",
        {
            "weights": (1, 1, 1, 2**20),
            "inputs": (1, 2**20, 1, 1),
            "time_projection": (2**20, 2**22, 1),
        },
    ),
    "h_final": ("h_final", {"weights": (1, 1, 2**22, 1), "inputs": (1, 2**40, 1, 1)}),
    "states": (
        "states",
        {
            "weights": (1, 1, 2**20, 1),
            "inputs": (1, 2**20, 2**22, 1),
            "time_projection": (1, 2**22),
        },
    ),
}


@pytest.fixture
def grown_bytes() -> Callable[[], int]:
    """How far the process's memory has been above that at the start of the test."""

    def peak() -> int:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert found
        return int(found[1]) * 1024

    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = peak()
    return lambda: peak() - before


@pytest.mark.parametrize(("field", "shapes"), HUGE.values(), ids=HUGE)
def test_results_beyond_the_address_space_take_no_memory(
    field: str, shapes: Arguments, grown_bytes: Callable[[], int]
) -> None:
    """More than 2^61 elements of 4 bytes, from arguments of a few."""
    arguments = {name: repeated(*shape) for name, shape in shapes.items() if name != "weights"}
    weights = repeated_weights(*shapes["weights"])
    with pytest.raises(DTwinInputError) as e:
        rollout(weights, return_states=True, **arguments)
    assert (e.value.code, e.value.field) == ("too_large", field)
    assert grown_bytes() < 2**24


def test_results_beyond_the_memory_take_none(grown_bytes: Callable[[], int]) -> None:
    """2^52 outputs could be addressed; the system says no, and nothing was copied before."""
    with pytest.raises(MemoryError):
        rollout(repeated_weights(1, 1, 1, 2**20), repeated(1, 2**20, 2**12, 1), backend="cpu")
    assert grown_bytes() < 2**24


def test_arrays_further_apart_than_2_to_31_elements(tmp_path: Path) -> None:
    """Views of a sparse file of 17 GB: the engine reads them in place, with their strides."""
    shapes = weight_shapes("lstm", N_INPUTS, H, N_OUTPUTS)
    compact = {name: np.random.default_rng(n).normal(size=(S, *shape)).astype(np.float32)
               for n, (name, shape) in enumerate(shapes.items())}  # fmt: skip
    inputs = np.random.default_rng(9).normal(size=(B, T, N_INPUTS)).astype(np.float32)
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(S * (2**31 + 2**20) * 4)
    rows = np.asarray(np.memmap(path, np.float32, "r+", shape=(S, 2**31 + 2**20)))
    far, at = {}, 2**30
    for name, array in compact.items():
        far[name] = rows[:, at : at + array[0].size].reshape(array.shape)
        far[name][...] = array
        assert np.may_share_memory(far[name], rows)  # a view, not a copy
        at += array[0].size
    # Its sequences are 2^30 elements apart, the last one 2^31 from the first.
    apart = np.lib.stride_tricks.as_strided(
        rows[0, 2**20 :], inputs.shape, (2**32, N_INPUTS * 4, 4)
    )
    apart[...] = inputs
    for engine, more in (
        (rollout, ()),
        (rollout_vjp, (np.ones((S, B, T, N_OUTPUTS), np.float32),)),
    ):
        wanted = engine(RNNWeights("lstm", **compact), inputs, *more, backend="cpu")
        found = engine(RNNWeights("lstm", **far), apart, *more, backend="cpu")
        if engine is rollout:
            np.testing.assert_array_equal(found.outputs, wanted.outputs)
        else:
            np.testing.assert_array_equal(found.inputs, wanted.inputs)
            for name in WEIGHT_NAMES:
                np.testing.assert_array_equal(
                    getattr(found.weights, name), getattr(wanted.weights, name)
                )


@pytest.fixture
def folded_memory() -> Iterator[Callable[[int], np.ndarray]]:
    """Make a float32 array of any size out of FOLD elements of memory: element i is i + FOLD."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    file = os.memfd_create("folded")
    os.ftruncate(file, FOLD * 4)
    mapped: list[tuple[int, int]] = []

    def map_at(address: int | None, size: int, protection: int, flags: int, fd: int) -> int:
        found = libc.mmap(address, size, protection, flags, fd, 0)
        assert found not in (None, ctypes.c_void_p(-1).value), os.strerror(ctypes.get_errno())
        return int(found)

    def make(n: int) -> np.ndarray:
        size = -(-n // FOLD) * FOLD * 4
        start = map_at(None, size, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1)
        mapped.append((start, size))
        for at in range(start, start + size, FOLD * 4):
            map_at(
                at, FOLD * 4, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | MAP_FIXED, file
            )
        return np.ctypeslib.as_array((ctypes.c_float * n).from_address(start))

    yield make
    for start, size in mapped:
        libc.munmap(start, size)
    os.close(file)


FOLD = 2**24
MAP_FIXED = 0x10  # of Linux; Python's mmap has no name for it


@pytest.mark.slow
def test_more_than_2_to_31_outputs(folded_memory: Callable[[int], np.ndarray]) -> None:
    """9 GB of outputs folded onto 64 MB: the steps written last can be compared."""
    n_outputs, last = 2**16, FOLD // 2**16
    n_steps = 2**15 + last
    rng = np.random.default_rng(0)
    shapes = weight_shapes("rnn", 1, 1, n_outputs)
    weights = RNNWeights(
        "rnn", *(rng.normal(size=(1, *shape)).astype(np.float32) for shape in shapes.values())
    )
    inputs = rng.normal(size=(1, n_steps, 1)).astype(np.float32)
    before = rollout(weights, inputs[:, :-last], backend="cpu", time_projection=ones(1, 2**15))
    wanted = rollout(weights, inputs[:, -last:], before.h_final, backend="cpu")
    outputs = folded_memory(n_steps * n_outputs).reshape(1, 1, n_steps, n_outputs)
    assert outputs.size > 2**31
    _core.rollout(
        cell="rnn",
        **{name: getattr(weights, name) for name in WEIGHT_NAMES},
        inputs=inputs,
        h0=None,
        c0=None,
        projection=None,
        outputs=outputs,
        states=None,
        h_final=np.empty((1, 1, 1), np.float32),
        c_final=None,
        diverged=np.empty(1, np.bool_),
        bfloat16_weights=False,
        n_threads=1,
    )
    np.testing.assert_array_equal(outputs[:, :, -last:], wanted.outputs)
