"""What the CUDA engine alone promises, on the emulated GPU; test_cuda.py runs this file, with the
emulator in DTWIN_LIBCUDA and DTWIN_LIBCUBLAS. Orders and limits of the emulated GPU are read at
each call (tests/cuda_emulator/driver.cpp).
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from gpu_kernels import cells, make_state, make_weights, normal, parts

import dtwin_fast as dt
from dtwin_fast import _core
from dtwin_fast.backends import cpu, cuda
from dtwin_fast.backends.interface import Problem
from dtwin_fast.cells import CELLS
from dtwin_fast.errors import BackendFailedError, BackendUnavailableError, DTwinInputError
from dtwin_fast.weights import WEIGHT_NAMES, RNNWeights

LIBRARY = os.environ["DTWIN_LIBCUDA"]
ORDERS = ["forward", "reverse", "random:1", "random:2"]


def load_driver() -> ModuleType:
    path = Path(__file__).with_name("cuda_emulator") / "driver.py"
    spec = importlib.util.spec_from_file_location("driver", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GPU = load_driver().EmulatedGpu(LIBRARY)


def same_bits(got: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    for ours, theirs in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(ours, theirs)


# --- bits --------------------------------------------------------------------------------------


@cells
@pytest.mark.parametrize("n_hidden", [5, 50, 128, 200, 333])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_order_of_threads_changes_no_bit(
    cell: str, n_hidden: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing barrier shows as bits that depend on which thread runs first."""
    weights = make_weights(cell, 2, 9, n_hidden)
    inputs, h0 = normal(2, 2, 5, 9), make_state(cell, 2, 2, n_hidden)
    d_outputs, projection = normal(2, 2, 3, 3), normal(3, 5)
    found = []
    for order in ORDERS:
        monkeypatch.setenv("DTWIN_EMULATED_ORDER", order)
        arguments = (h0, "cuda", precision, projection)
        forward = dt.rollout(weights, inputs, *arguments, return_states=True)
        backward = dt.rollout_vjp(weights, inputs, d_outputs, *arguments)
        found.append(parts(forward) + parts(backward))
    for other in found[1:]:
        same_bits(other, found[0])


@cells
@pytest.mark.parametrize("n_hidden", [17, 300])
def test_states_do_not_depend_on_their_company(cell: str, n_hidden: int) -> None:
    """The same bits for any grouping of subjects and sequences and any cut of T."""
    weights = make_weights(cell, 3, 4, n_hidden)
    inputs, h0 = normal(3, 3, 37, 4), make_state(cell, 3, 3, n_hidden)
    whole = dt.rollout(weights, inputs, h0, "cuda", return_states=True)
    assert whole.states is not None
    state = h0 if isinstance(h0, tuple) else (h0,)

    def plain(parts_of_state: list[np.ndarray]) -> Any:
        return tuple(parts_of_state) if cell == "lstm" else parts_of_state[0]

    for s in range(3):
        some = weights.select([s])
        alone = dt.rollout(
            some, inputs[[s]], plain([p[[s]] for p in state]), "cuda", return_states=True
        )
        np.testing.assert_array_equal(alone.states, whole.states[[s]])
        single = dt.rollout(
            some, inputs[[s], 1:2], plain([p[[s], 1:2] for p in state]), "cuda", return_states=True
        )
        np.testing.assert_array_equal(single.states, whole.states[[s], 1:2])
    first = dt.rollout(weights, inputs[:, :, :33], h0, "cuda", return_states=True)
    second = dt.rollout(weights, inputs[:, :, 33:], first.h_final, "cuda", return_states=True)
    np.testing.assert_array_equal(np.concatenate([first.states, second.states], 2), whole.states)


def test_more_sequences_than_a_block_takes() -> None:
    """Blocks of several sequences each, the last one with fewer: the bits of one at a time."""
    weights, inputs = make_weights("rnn", 2, 3, 20), normal(2, 1001, 3, 3)
    together = dt.rollout(weights, inputs, backend="cuda", return_states=True)
    assert together.states is not None
    for b in (0, 500, 1000):
        alone = dt.rollout(weights, inputs[:, b : b + 1], backend="cuda", return_states=True)
        np.testing.assert_array_equal(alone.states, together.states[:, b : b + 1])


def test_a_projection_of_many_rows(tolerances: ModuleType) -> None:
    """So many that the time loop cannot sum them up."""
    weights, inputs = make_weights("rnn", 1, 3, 100), normal(1, 2, 4, 3)
    projection = normal(300, 4)
    got, wanted = (
        dt.rollout(weights, inputs, None, backend, precision, projection)
        for backend, precision in (("cuda", "float32"), ("reference", "float64"))
    )
    tolerances.assert_close(got.outputs, wanted.outputs, "projected", "float32")


# --- diverged ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [("w_out", np.nan), ("b_out", np.inf), ("w_out", 3e38), ("b_ih", np.nan)],
    ids=["nan-readout", "infinite-bias", "overflow", "nan-state"],
)
@pytest.mark.parametrize("projected", [False, True])
def test_diverged(field: str, value: float, projected: bool) -> None:
    weights, inputs = make_weights("rnn", 3, 2, 5), np.ones((3, 1, 4, 2), np.float32)
    weights.w_hh[:] = weights.w_ih[:] = 0.5  # the states come near to 1, and five of them overflow
    getattr(weights, field)[1] = value
    h0 = np.full((3, 1, 5), 2, np.float32)
    projection = np.ones((2, 4), np.float32) if projected else None
    with np.errstate(all="ignore"):
        got = dt.rollout(weights, inputs, h0, "cuda", time_projection=projection)
        wanted = dt.rollout(weights, inputs, h0, "cpu", time_projection=projection)
    assert got.diverged.tolist() == wanted.diverged.tolist() == [False, True, False]


# --- limits of the device ----------------------------------------------------------------------


def test_every_size_up_to_512_runs_on_hopper() -> None:
    for cell in CELLS:
        for precision in ("float32", "bfloat16"):
            for n_hidden in (1, 2, 63, 64, 65, 129, 256, 257, 385, 400, 449, 500, 511, 512):
                for vjp in (False, True):
                    sizes = (7, 2, 100, 9, n_hidden)
                    assert cuda.why_not(cell, precision, 0, sizes, vjp=vjp) is None


def test_too_many_hidden_units(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, inputs = make_weights("rnn", 1, 2, 400), normal(1, 2, 2)
    monkeypatch.setenv("DTWIN_EMULATED_CAPABILITY", "9.0")
    with pytest.raises(BackendUnavailableError, match=r"H = 5000.*cluster.*bfloat16.*cpu"):
        dt.rollout(make_weights("rnn", 1, 2, 5000), inputs, backend="cuda")
    assert dt.rollout(make_weights("rnn", 1, 2, 5000), inputs).backend == "cpu"
    assert dt.rollout(weights, inputs).backend == "cuda"
    d_outputs = normal(1, 1, 2, 3)
    huge = make_weights("gru", 1, 2, 700)
    with pytest.raises(BackendUnavailableError, match="H = 700"):
        dt.rollout_vjp(huge, inputs, d_outputs, backend="cuda")
    assert dt.rollout_vjp(huge, inputs, d_outputs).backend == "cpu"


def test_little_memory_takes_fewer_subjects_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, inputs = make_weights("gru", 7, 3, 20), normal(2, 50, 3)
    d_outputs = normal(7, 2, 50, 3)
    whole = dt.rollout(weights, inputs, backend="cuda", return_states=True)
    gradients = dt.rollout_vjp(weights, inputs, d_outputs, backend="cuda")
    before = GPU.count("cuLaunchKernelEx")
    monkeypatch.setenv("DTWIN_EMULATED_MEMORY", str((32 << 20) + 200_000))
    pieces = dt.rollout(weights, inputs, backend="cuda", return_states=True)
    assert GPU.count("cuLaunchKernelEx") - before > 3
    np.testing.assert_array_equal(pieces.states, whole.states)
    same_bits(parts(dt.rollout_vjp(weights, inputs, d_outputs, backend="cuda")), parts(gradients))


def test_too_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, inputs = make_weights("rnn", 2, 3, 20), normal(2, 50, 3)
    assert dt.supports("cuda", "rnn") is None
    monkeypatch.setenv("DTWIN_EMULATED_MEMORY", "100000")
    with pytest.raises(DTwinInputError, match="no room for this problem") as e:
        dt.rollout(weights, inputs, backend="cuda")
    assert e.value.code == "too_large"
    with pytest.raises(DTwinInputError, match="no room for this problem"):
        dt.rollout_vjp(weights, inputs, normal(2, 2, 50, 3), backend="cuda")


def test_a_gpu_that_computes_wrongly_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    true = cpu.rollout

    def off(problem: Problem, **options: Any) -> Any:
        solution = true(problem, **options)
        solution.states[0, 0, 0, 0] += 1e-3
        return solution

    monkeypatch.setattr(cuda, "_checked", {})
    monkeypatch.setattr(cpu, "rollout", off)
    assert "gets a small rnn rollout wrong (states are off by 1.0e-03)" in str(
        dt.supports("cuda", "rnn")
    )
    with pytest.raises(BackendUnavailableError, match="gets a small rnn rollout wrong"):
        dt.rollout(make_weights("rnn", 1, 2, 5), normal(1, 4, 2), backend="cuda")


def test_a_check_that_could_not_be_made_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_checked", {})
    monkeypatch.setenv("DTWIN_EMULATED_MEMORY", "1000")
    assert "a small rollout fails on GPU 0" in str(dt.supports("cuda", "rnn"))
    weights, inputs = make_weights("rnn", 1, 2, 5), normal(1, 4, 2)
    assert dt.rollout(weights, inputs).backend == "cpu"
    monkeypatch.delenv("DTWIN_EMULATED_MEMORY")
    assert dt.rollout(weights, inputs).backend == "cuda"


def test_a_forked_child_checks_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot use its parent's GPU, which the check finds out."""
    assert dt.supports("cuda", "rnn") is None
    monkeypatch.setattr(os, "getpid", lambda: -1)
    monkeypatch.setenv("DTWIN_EMULATED_MEMORY", "1000")
    assert "a small rollout fails on GPU 0" in str(dt.supports("cuda", "rnn"))


# --- arrays that are on the device -------------------------------------------------------------


class Shape(ctypes.Structure):
    """DLTensor in a DLManagedTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
        ("manager", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


CODES = {"f": 2, "u": 1, "b": 6}


class DeviceArray:
    """An array in device memory that speaks DLPack; new memory is NaN."""

    def __init__(
        self,
        array: np.ndarray,
        *,
        device: tuple[int, int] = (2, 0),
        strides: tuple[int, ...] | None = None,
    ) -> None:
        self.array, self.device = array, device
        self.strides = None if strides is None else (ctypes.c_int64 * len(strides))(*strides)
        self.data = GPU.put(array) if array.size else ctypes.c_void_p()
        self.streams: list[int] = []

    def __dlpack__(self, *, stream: int) -> Any:
        self.streams.append(stream)
        array = self.array
        self.shape = (ctypes.c_int64 * array.ndim)(*array.shape)
        self.tensor = Shape(
            data=self.data, device_type=self.device[0], device_id=self.device[1], ndim=array.ndim,
            code=CODES[array.dtype.kind], bits=8 * array.itemsize, lanes=1,
            shape=self.shape, strides=self.strides,
        )  # fmt: skip
        make = ctypes.pythonapi.PyCapsule_New
        make.restype, make.argtypes = (
            ctypes.py_object,
            [ctypes.c_void_p, ctypes.c_char_p] * 1 + [ctypes.c_void_p],
        )
        return make(ctypes.addressof(self.tensor), b"dltensor", None)

    def numpy(self) -> np.ndarray:
        found = np.empty_like(self.array)
        size = ctypes.c_size_t(found.nbytes)
        GPU.check("cuMemcpyDtoHAsync_v2", ctypes.c_void_p(found.ctypes.data), self.data, size, None)
        return found


def empty(*shape: int, dtype: str = "float32") -> DeviceArray:
    array = np.full(shape, np.nan, np.float32) if dtype == "float32" else np.ones(shape, dtype)
    return DeviceArray(array)


def forward_arrays(weights: RNNWeights, inputs: np.ndarray, n_outputs: int = 3) -> dict[str, Any]:
    n_subjects, n_sequences, n_steps = len(weights.w_hh), *inputs.shape[-3:-1]
    n_hidden = weights.n_hidden
    return {
        **{name: DeviceArray(getattr(weights, name)) for name in WEIGHT_NAMES},
        "inputs": DeviceArray(inputs),
        "h0": None,
        "outputs": empty(n_subjects, n_sequences, n_steps, n_outputs),
        "states": empty(n_subjects, n_sequences, n_steps, n_hidden),
        "h_final": empty(n_subjects, n_sequences, n_hidden),
        "diverged": empty(n_subjects, dtype="bool"),
    }


def launch(arrays: dict[str, Any], *, stream: int = 0, vjp: bool = False) -> None:
    cuda.launch(
        "rnn", arrays, bfloat16_weights=False, vjp=vjp, device=0, stream=stream,
        allocate=lambda n: empty(n, dtype="uint8"),
    )  # fmt: skip


def test_a_launch_on_device_arrays_neither_waits_nor_allocates() -> None:
    weights, inputs = make_weights("rnn", 2, 3, 40), normal(2, 2, 6, 3)
    wanted = dt.rollout(weights, inputs, backend="cuda", return_states=True)
    arrays = forward_arrays(weights, inputs)
    options: dict[str, Any] = {
        "cell": "rnn", "bfloat16_weights": False, "vjp": False, "device": 0,
    }  # fmt: skip
    workspace = empty(_core.cuda_workspace(arrays=arrays, **options), dtype="uint8")
    calls = ("cuMemAlloc_v2", "cuMemFree_v2", "cuStreamSynchronize", "cuStreamCreate")
    before = [GPU.count(name) for name in calls]
    named = {**arrays, "workspace": workspace}
    _core.cuda_launch(arrays=named, stream=0, ordered=False, **options)
    assert [GPU.count(name) for name in calls] == before
    for name in ("outputs", "states", "h_final", "diverged"):
        np.testing.assert_array_equal(arrays[name].numpy(), getattr(wanted, name))


def test_gradients_of_device_arrays() -> None:
    weights, inputs = make_weights("rnn", 2, 3, 40), normal(2, 2, 6, 3)
    d_outputs = normal(2, 2, 6, 3)
    wanted = dt.rollout_vjp(weights, inputs, d_outputs, backend="cuda")
    arrays = forward_arrays(weights, inputs)
    for name in ("outputs", "states", "h_final", "diverged"):
        del arrays[name]
    results = {f"d_{name}": empty(*getattr(weights, name).shape) for name in WEIGHT_NAMES}
    results |= {"d_inputs": empty(*inputs.shape), "d_h0": empty(2, 2, 40)}
    launch({**arrays, "d_outputs": DeviceArray(d_outputs), **results}, vjp=True)
    for name in WEIGHT_NAMES:
        found = results[f"d_{name}"].numpy()
        np.testing.assert_array_equal(found, getattr(wanted.weights, name))
    np.testing.assert_array_equal(results["d_inputs"].numpy(), wanted.inputs)
    np.testing.assert_array_equal(results["d_h0"].numpy(), wanted.h0)


def test_weights_that_are_slices_of_a_flat_vector() -> None:
    weights, inputs = make_weights("rnn", 3, 3, 7), normal(1, 4, 3)
    wanted = dt.rollout(weights, inputs, backend="cuda")
    flat = weights.to_flat()
    arrays = forward_arrays(weights, inputs)
    whole, start = DeviceArray(flat), 0
    for name in WEIGHT_NAMES:
        part = getattr(weights, name)
        inner = np.empty(part.shape[1:], np.float32)
        strides = (flat.shape[1], *(s // 4 for s in inner.strides))
        arrays[name] = DeviceArray(part, strides=strides)
        arrays[name].data = ctypes.c_void_p((whole.data.value or 0) + 4 * start)
        start += inner.size
    launch(arrays)
    np.testing.assert_array_equal(arrays["outputs"].numpy(), wanted.outputs)


def test_producers_are_told_the_stream() -> None:
    stream = ctypes.c_void_p()
    GPU.check("cuStreamCreate", ctypes.byref(stream), 1)
    weights, inputs = make_weights("rnn", 1, 3, 7), normal(1, 4, 3)
    for number in (0, stream.value or 0):
        arrays = forward_arrays(weights, inputs)
        launch(arrays, stream=number)
        # -1: none, when only sizes are looked at; 1: DLPack's default stream.
        assert arrays["inputs"].streams == [-1, number or 1]


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("inputs", DeviceArray(normal(1, 4, 3), device=(1, 0)), "not on CUDA device 0"),
        ("inputs", DeviceArray(normal(1, 4, 3), device=(2, 1)), "not on CUDA device 0"),
        ("inputs", DeviceArray(np.ones((1, 4, 3))), "wanted float32"),
        ("inputs", DeviceArray(normal(1, 4, 4)), r"wanted shape \(1, 4, 3\)"),
        ("w_hh", DeviceArray(normal(1, 7, 7), strides=(49, 1, 7)), ".*not C-contiguous"),
        ("outputs", DeviceArray(normal(1, 1, 4, 3), strides=(24, 24, 6, 1)), ".*not C-contiguous"),
        ("diverged", DeviceArray(np.ones(1, np.uint8)), "wanted bool"),
        ("h_final", None, "missing"),
    ],
    ids=["cpu", "other-gpu", "float64", "shape", "transposed", "strided-result", "flags", "none"],
)
def test_device_arrays_that_do_not_fit(name: str, array: Any, message: str) -> None:
    arrays = forward_arrays(make_weights("rnn", 1, 3, 7), normal(1, 4, 3))
    with pytest.raises(ValueError, match=f"{name}: {message}"):
        launch({**arrays, name: array})


def test_results_that_overlap_are_refused() -> None:
    arrays = forward_arrays(make_weights("rnn", 1, 3, 7), normal(1, 4, 3))
    arrays["states"].data = arrays["inputs"].data
    with pytest.raises(ValueError, match="overlaps"):
        launch(arrays)


def test_a_failing_gpu_is_no_reason_to_go_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under "auto" too: only sizes without a kernel are."""
    weights, inputs = make_weights("rnn", 1, 3, 7), normal(1, 4, 3)
    assert dt.rollout(weights, inputs).backend == "cuda"

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("running on the GPU: an illegal memory access was encountered")

    monkeypatch.setattr(cuda.host_arrays, "core_rollout", fail)
    with pytest.raises(BackendFailedError, match="illegal memory access"):
        dt.rollout(weights, inputs)
