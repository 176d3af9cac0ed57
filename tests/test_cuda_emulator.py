"""The emulated GPU of tests/cuda_emulator: that it computes, refuses and fails as it says."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

ORDERS = ("forward", "reverse", "random:0", "random:7", "random:20260728")
INVALID_VALUE, OUT_OF_MEMORY, NO_DEVICE, INVALID_CONTEXT = 1, 2, 100, 201
INVALID_HANDLE, NOT_FOUND, INVALID_CLUSTER_SIZE = 400, 500, 912
HOST, DEVICE = 1, 2  # CUmemorytype


@pytest.fixture
def gpu(cuda_emulator: Path, emulator_driver: ModuleType) -> Iterator[Any]:
    gpu = emulator_driver.EmulatedGpu(str(cuda_emulator))
    yield gpu
    gpu.close()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng()


def integers(rng: np.random.Generator, *shape: int) -> npt.NDArray[np.float32]:
    """Random numbers whose products and sums float32 holds exactly."""
    return rng.integers(-9, 10, shape).astype(np.float32)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("capability", ["7.5", "9.0"])
@pytest.mark.parametrize("threads", [32, 96, 256])
def test_a_product_is_the_same_in_every_order(
    gpu: Any,
    emulator_driver: ModuleType,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    order: str,
    capability: str,
    threads: int,
) -> None:
    monkeypatch.setenv("DTWIN_EMULATED_ORDER", order)
    monkeypatch.setenv("DTWIN_EMULATED_CAPABILITY", capability)
    groups, rows, columns = 3, 37, 131
    matrix, vector = integers(rng, groups, rows, columns), integers(rng, groups, columns)
    result = gpu.allocate(4 * groups * rows)
    params = emulator_driver.Product(
        matrix=gpu.put(matrix), vector=gpu.put(vector), result=result, rows=rows, columns=columns
    )
    before = [gpu.count(name) for name in ("cuMemAlloc_v2", "cuStreamSynchronize")]
    configuration = emulator_driver.configure((2, groups), threads, shared_bytes=4 * columns)
    launches = gpu.count("cuLaunchKernelEx")
    assert gpu.launch(gpu.function("selftest_product"), params, configuration) == 0
    assert gpu.count("cuLaunchKernelEx") == launches + 1
    assert [gpu.count(name) for name in ("cuMemAlloc_v2", "cuStreamSynchronize")] == before
    np.testing.assert_array_equal(
        gpu.get(result, (groups, rows)), np.einsum("grc,gc->gr", matrix, vector)
    )


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("cluster", [0, 1, 2, 3, 8, 16])
def test_blocks_of_a_cluster_exchange(
    gpu: Any,
    emulator_driver: ModuleType,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    order: str,
    cluster: int,
) -> None:
    monkeypatch.setenv("DTWIN_EMULATED_ORDER", order)
    blocks, threads = max(cluster, 1), 64
    numbers = rng.normal(size=(3, blocks * threads)).astype(np.float32)
    result = gpu.allocate(numbers.nbytes)
    kernel = gpu.function("selftest_exchange")
    gpu.check("cuFuncSetAttribute", kernel, emulator_driver.NON_PORTABLE_CLUSTER, 1)
    params = emulator_driver.Arrays(source=gpu.put(numbers), result=result, n=5, choice=blocks)
    configuration = emulator_driver.configure(
        (3 * blocks,), threads, cluster, shared_bytes=8 * blocks * threads + 16
    )
    assert gpu.launch(kernel, params, configuration) == 0
    np.testing.assert_array_equal(gpu.get(result, numbers.shape), np.roll(numbers, -5, 1))


def test_functions_of_one_number(
    gpu: Any, emulator_driver: ModuleType, rng: np.random.Generator, tolerances: ModuleType
) -> None:
    numbers = rng.normal(0, 2, 32).astype(np.float32)
    numbers[:5] = 2e38, -2e38, np.inf, 0, np.nan
    result = gpu.allocate(4 * 6 * 32)
    params = emulator_driver.Arrays(source=gpu.put(numbers), result=result)
    configuration = emulator_driver.configure((1,), 32, shared_bytes=128)
    assert gpu.launch(gpu.function("selftest_functions"), params, configuration) == 0
    exp, reciprocal, opposite, unwritten, low, high = gpu.get(result, (32, 6)).T
    with np.errstate(over="ignore", divide="ignore"):
        wanted = np.exp2(numbers.astype(np.float64)).astype(np.float32), 1 / numbers
    tolerance = tolerances.TOLERANCES["activation"]["float32"]
    np.testing.assert_allclose(exp, wanted[0], rtol=tolerance)
    np.testing.assert_array_equal(reciprocal[2:], wanted[1][2:])
    np.testing.assert_array_equal(reciprocal[:2], 0)  # a GPU's __fdividef
    np.testing.assert_array_equal(opposite, -numbers)
    assert np.isnan(unwritten).all()
    bits = numbers.view(np.uint32)
    np.testing.assert_array_equal(low, (bits << np.uint32(16)).view(np.float32))
    np.testing.assert_array_equal(high, (bits & np.uint32(0xFFFF0000)).view(np.float32))


def neighbours(gpu: Any, emulator_driver: ModuleType, barrier: bool) -> npt.NDArray[np.float32]:
    result = gpu.allocate(4 * 256)
    numbers = np.arange(1, 257, dtype=np.float32)
    params = emulator_driver.Arrays(source=gpu.put(numbers), result=result, choice=barrier)
    configuration = emulator_driver.configure((1,), 256, shared_bytes=1024)
    assert gpu.launch(gpu.function("selftest_neighbour"), params, configuration) == 0
    got: npt.NDArray[np.float32] = gpu.get(result, 256)
    return got


def test_a_missing_barrier_shows(
    gpu: Any, emulator_driver: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = np.roll(np.arange(1, 257, dtype=np.float32), -128)
    without = []
    for order in ORDERS:
        monkeypatch.setenv("DTWIN_EMULATED_ORDER", order)
        np.testing.assert_array_equal(neighbours(gpu, emulator_driver, True), wanted)
        without.append(neighbours(gpu, emulator_driver, False))
        np.testing.assert_array_equal(neighbours(gpu, emulator_driver, False), without[-1])
    assert not any((numbers == wanted).all() for numbers in without)
    assert len({numbers.tobytes() for numbers in without}) > 2


def test_a_number_that_is_read_before_it_is_received_shows(
    gpu: Any, emulator_driver: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, numbers = gpu.allocate(4 * 64), gpu.put(np.array([3, 4], np.float32))
    configuration = emulator_driver.configure((2,), 32, 2, shared_bytes=16)
    kernel = gpu.function("selftest_hasty")
    got = []
    for order in ORDERS:
        monkeypatch.setenv("DTWIN_EMULATED_ORDER", order)
        for choice in (1, 0):
            params = emulator_driver.Arrays(source=numbers, result=result, choice=choice)
            assert gpu.launch(kernel, params, configuration) == 0
            got.append(gpu.get(result, (2, 32)))
    wanted = np.repeat(np.array([4, 3], np.float32), 32).reshape(2, 32)
    np.testing.assert_array_equal(got[::2], np.broadcast_to(wanted, (len(ORDERS), 2, 32)))
    assert all(np.isnan(numbers).any() for numbers in got[1:4:2])  # forward and reverse


BROKEN = {
    "behind": ("0 64 64 1", "wrote behind its shared memory: byte 256 of 256"),
    "far_behind": ("0 127 64 1", "wrote behind its shared memory: byte 508 of 256"),
    "before": ("1 0 64 1", "wrote 4 bytes before its shared memory"),
    "early_end": (
        "2 0 64 1",
        "wait for others for ever: 63 at block_barrier (first: block 0, 0, thread 1), "
        "1 at their end (first: block 0, 0, thread 0)",
    ),
    "two_barriers": (
        "3 0 64 1",
        "32 at block_barrier (first: block 0, 0, thread 32), "
        "32 at cluster_barrier (first: block 0, 0, thread 0)",
    ),
    "half_a_warp": ("4 0 64 1", "32 in shuffle_xor (first: block 0, 0, thread 0), 32 at their"),
    "two_masks": ("5 0 64 1", "shuffle_xor with masks 1 and 2 in one warp"),
    "expects_twice": ("6 0 64 1", "expect() twice for one delivery"),
    "closed_mailbox": ("7 0 64 1", "the mailbox is not open"),
    "two_deliveries_late": ("8 0 64 1", "thread 0: waits for delivery 0 when 2 are there"),
    "behind_global": ("9 100 64 1", "wrote behind device memory: byte 400 of 400"),
    "before_global": ("10 0 64 1", "wrote 4 bytes before 400 bytes of device memory"),
    "no_such_block": ("11 2 64 2", "block 2 of a cluster of 2"),
    "not_shared": ("12 0 64 2", "thread 0: not an aligned place in its shared memory"),
    "before_it_began": ("13 0 64 2", "sent to block 1 of the cluster before it began"),
    "after_its_end": ("14 0 64 2", "which has ended"),
    "no_delivery": ("15 0 64 2", "128 in receive (first: block 0, 0, thread 0)"),
    "huge_delivery": ("16 0 64 2", "a mailbox counts at most 1048575 bytes"),
}


def test_the_kernels_are_those_of_a_gpu(cuda_emulator: Path, tmp_path: Path) -> None:
    """selftest.cu uses the primitives as they are: the CUDA compiler takes it too."""
    root = Path(__file__).resolve().parents[1]
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("nvcc is not on PATH")
    for architecture in ("75", "90"):
        subprocess.run(
            [
                nvcc,
                "-std=c++17",
                f"-I{root / 'csrc/cuda/device'}",
                f"-gencode=arch=compute_{architecture},code=sm_{architecture}",
                "-cubin",
                "-o",
                tmp_path / "selftest.cubin",
                root / "tests/cuda_emulator/selftest.cu",
            ],
            check=True,
        )


def launch_apart(library: Path, arguments: str, kernel: str, **knobs: str) -> tuple[int, str, str]:
    program = Path(__file__).parent / "cuda_emulator" / "driver.py"
    ran = subprocess.run(
        [sys.executable, program, library, *arguments.split(), kernel],
        capture_output=True,
        text=True,
        env={**os.environ, **knobs},
    )
    return ran.returncode, ran.stdout, ran.stderr


@pytest.mark.parametrize("name", BROKEN)
def test_broken_kernels_end_the_process(cuda_emulator: Path, name: str) -> None:
    arguments, wanted = BROKEN[name]
    status, _, text = launch_apart(cuda_emulator, arguments, "selftest_broken")
    assert status == -signal.SIGABRT, text
    assert text.startswith("emulated GPU: kernel selftest_broken: ")
    assert wanted in text


def test_a_kernel_that_breaks_no_rule_ends_well(cuda_emulator: Path) -> None:
    assert launch_apart(cuda_emulator, "99 0 64 2", "selftest_broken") == (
        0,
        "launched with status 0\n",
        "",
    )


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("DTWIN_EMULATED_ORDER", "random"),
        ("DTWIN_EMULATED_ORDER", "random:x"),
        ("DTWIN_EMULATED_ORDER", "sideways"),
        ("DTWIN_EMULATED_CAPABILITY", "9"),
        ("DTWIN_EMULATED_MEMORY", "1G"),
        ("DTWIN_EMULATED_DEVICES", "-1"),
    ],
)
def test_unknown_values_of_knobs_end_the_process(
    cuda_emulator: Path, knob: str, value: str
) -> None:
    status, _, text = launch_apart(cuda_emulator, "99 0 64 1", "selftest_broken", **{knob: value})
    assert status == -signal.SIGABRT
    assert f'{knob} is "{value}"' in text


def test_the_host_cannot_read_device_memory(cuda_emulator: Path) -> None:
    lines = (
        f"import ctypes, sys; sys.path.insert(0, {str(Path(__file__).parent / 'cuda_emulator')!r})",
        "from driver import EmulatedGpu",
        f"data = EmulatedGpu({str(cuda_emulator)!r}).allocate(8)",
        "ctypes.string_at(data, 1)",
    )
    ran = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True)
    assert ran.returncode == -signal.SIGSEGV


LAUNCHES = {  # grid, threads, cluster, shared bytes, capability -> status
    "fits": ((4, 2), 256, 2, 48 << 10, "9.0", 0),
    "no_threads": ((4, 2), 0, 0, 0, "9.0", INVALID_VALUE),
    "part_of_a_warp": ((4, 2), 48, 0, 0, "9.0", INVALID_VALUE),
    "launch_bound": ((4, 2), 288, 0, 0, "9.0", INVALID_VALUE),
    "no_blocks": ((4, 0), 64, 0, 0, "9.0", INVALID_VALUE),
    "wide_grid": ((1 << 31, 1), 64, 0, 0, "9.0", INVALID_VALUE),
    "high_grid": ((1, 65536), 64, 0, 0, "9.0", INVALID_VALUE),
    "deep_grid": ((1, 1, 65536), 64, 0, 0, "9.0", INVALID_VALUE),
    "shared_memory": ((4, 2), 64, 0, (48 << 10) + 1, "9.0", INVALID_VALUE),
    "part_of_a_cluster": ((4, 2), 64, 3, 0, "9.0", INVALID_VALUE),
    "wide_cluster": ((16, 2), 64, 16, 0, "9.0", INVALID_CLUSTER_SIZE),
    "old_gpu": ((4, 2), 64, 2, 0, "8.9", INVALID_CLUSTER_SIZE),
    "cluster_of_one_on_an_old_gpu": ((4, 2), 64, 1, 0, "8.9", INVALID_CLUSTER_SIZE),
}


@pytest.mark.parametrize("name", LAUNCHES)
def test_refused_launches(
    gpu: Any, emulator_driver: ModuleType, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    grid, threads, cluster, shared, capability, wanted = LAUNCHES[name]
    monkeypatch.setenv("DTWIN_EMULATED_CAPABILITY", capability)
    params = emulator_driver.Arrays(choice=99)
    configuration = emulator_driver.configure(grid, threads, cluster, shared)
    kernel = gpu.function("selftest_broken")
    assert gpu.launch(kernel, params, configuration) == wanted
    clusters = ctypes.c_int(-1)
    query = "cuOccupancyMaxActiveClusters"
    assert gpu.call(query, ctypes.byref(clusters), kernel, ctypes.byref(configuration)) == wanted
    # 227 + 1 KiB hold 4 blocks of 48 + 1; 132 of those make 264 pairs.
    assert clusters.value == (-1 if wanted else 264)


def test_attributes_of_functions_raise_the_limits(
    gpu: Any, emulator_driver: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = gpu.function("selftest_broken")
    params = emulator_driver.Arrays(choice=99)
    shared, wide = emulator_driver.MAX_DYNAMIC_SHARED, emulator_driver.NON_PORTABLE_CLUSTER
    assert gpu.call("cuFuncSetAttribute", kernel, shared, 232449) == INVALID_VALUE
    gpu.check("cuFuncSetAttribute", kernel, shared, 232448)
    gpu.check("cuFuncSetAttribute", kernel, wide, 1)
    largest = emulator_driver.configure((16,), 64, 16, 232448)
    assert gpu.launch(kernel, params, largest) == 0
    beyond = emulator_driver.configure((17,), 64, 17)
    assert gpu.launch(kernel, params, beyond) == INVALID_CLUSTER_SIZE
    beyond = emulator_driver.configure((16,), 64, 16, 232449)
    assert gpu.launch(kernel, params, beyond) == INVALID_VALUE
    monkeypatch.setenv("DTWIN_EMULATED_CAPABILITY", "8.9")
    assert gpu.call("cuFuncSetAttribute", kernel, shared, (99 << 10) + 1) == INVALID_VALUE
    assert gpu.call("cuFuncSetAttribute", kernel, 0, 1) == INVALID_VALUE


def test_contexts_and_handles(gpu: Any, emulator_driver: ModuleType) -> None:
    kernel = gpu.function("selftest_broken")
    params, configuration = emulator_driver.Arrays(choice=99), emulator_driver.configure((1,), 32)
    with ThreadPoolExecutor(1) as other:  # a thread whose current context nobody set
        assert other.submit(gpu.launch, kernel, params, configuration).result() == INVALID_CONTEXT
    handle = ctypes.c_void_p()
    missing = gpu.call("cuModuleGetFunction", ctypes.byref(handle), gpu.module, b"no_such_kernel")
    assert missing == NOT_FOUND
    stream = ctypes.c_void_p()
    gpu.check("cuStreamCreate", ctypes.byref(stream), 1)
    configuration.stream = stream
    assert gpu.launch(kernel, params, configuration) == 0
    gpu.check("cuStreamQuery", stream)
    gpu.check("cuStreamDestroy_v2", stream)
    assert gpu.launch(kernel, params, configuration) == INVALID_HANDLE
    text = ctypes.c_char_p()
    gpu.check("cuGetErrorName", INVALID_HANDLE, ctypes.byref(text))
    assert text.value == b"CUDA_ERROR_INVALID_HANDLE"
    gpu.check("cuGetErrorString", INVALID_HANDLE, ctypes.byref(text))
    assert text.value == b"invalid resource handle"
    assert gpu.call("cuGetErrorName", 12345, ctypes.byref(text)) == INVALID_VALUE


def test_knobs_of_the_device(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def attributes() -> list[int]:
        value = ctypes.c_int()
        numbers = []
        for attribute in (75, 76, 16, 97, 81):  # capability, multiprocessors, shared memory
            gpu.check("cuDeviceGetAttribute", ctypes.byref(value), attribute, 0)
            numbers.append(value.value)
        return numbers

    def number(function: str) -> int:
        value = ctypes.c_int()
        gpu.check(function, ctypes.byref(value))
        return value.value

    assert attributes() == [9, 0, 132, 232448, 233472]
    assert (number("cuDriverGetVersion"), number("cuDeviceGetCount")) == (13000, 1)
    monkeypatch.setenv("DTWIN_EMULATED_CAPABILITY", "7.5")
    monkeypatch.setenv("DTWIN_EMULATED_SMS", "5")
    monkeypatch.setenv("DTWIN_EMULATED_DRIVER", "11040")
    monkeypatch.setenv("DTWIN_EMULATED_DEVICES", "2")
    assert attributes() == [7, 5, 5, 65536, 65536]
    assert (number("cuDriverGetVersion"), number("cuDeviceGetCount")) == (11040, 2)
    assert gpu.call("cuDeviceGetAttribute", ctypes.byref(ctypes.c_int()), 1, 0) == INVALID_VALUE
    name = ctypes.create_string_buffer(64)
    gpu.check("cuDeviceGetName", name, 64, 1)
    assert name.value == b"emulated GPU"
    monkeypatch.setenv("DTWIN_EMULATED_DEVICES", "0")
    assert gpu.call("cuInit", 0) == NO_DEVICE


def test_memory(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def free_and_total() -> tuple[int, int]:
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        gpu.check("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    used = free_and_total()[1] - free_and_total()[0]
    monkeypatch.setenv("DTWIN_EMULATED_MEMORY", str(used + 1000))
    data = gpu.allocate(600)
    assert np.isnan(gpu.get(data, 150)).all()
    assert free_and_total() == (400, used + 1000)
    more = ctypes.c_void_p()
    for n_bytes, wanted in ((401, OUT_OF_MEMORY), (2**63, OUT_OF_MEMORY), (0, INVALID_VALUE)):
        got = gpu.call("cuMemAlloc_v2", ctypes.byref(more), ctypes.c_size_t(n_bytes))
        assert got == wanted
    inside = ctypes.c_void_p(data.value + 256)
    assert gpu.call("cuMemFree_v2", inside) == INVALID_VALUE
    gpu.check("cuMemFree_v2", data)
    assert gpu.call("cuMemFree_v2", data) == INVALID_VALUE
    assert free_and_total() == (1000, used + 1000)


def test_copies_and_fills(gpu: Any, rng: np.random.Generator) -> None:
    numbers = rng.normal(size=10).astype(np.float32)
    first, second = gpu.put(numbers), gpu.allocate(40)
    size = ctypes.c_size_t(40)
    gpu.check("cuMemcpyDtoDAsync_v2", second, first, size, None)
    np.testing.assert_array_equal(gpu.get(second, 10), numbers)
    word = np.float32(2.5).view(np.uint32).item()
    gpu.check("cuMemsetD32Async", second, word, ctypes.c_size_t(9), None)
    np.testing.assert_array_equal(gpu.get(second, 10), [*[2.5] * 9, numbers[9]])
    gpu.check("cuMemsetD8Async", second, 0, ctypes.c_size_t(38), None)
    np.testing.assert_array_equal(gpu.get(second, 10)[:9], 0)
    gpu.check("cuMemcpyDtoDAsync_v2", second, first, size, None)
    two, pitch = ctypes.c_size_t(2), ctypes.c_size_t(20)
    gpu.check("cuMemsetD2D32Async", second, pitch, word, two, two, None)
    wanted = numbers.reshape(2, 5).copy()
    wanted[:, :2] = 2.5
    np.testing.assert_array_equal(gpu.get(second, (2, 5)), wanted)
    # Outside an allocation, or host and device memory taken for each other.
    host, one_more = ctypes.c_void_p(numbers.ctypes.data), ctypes.c_size_t(44)
    for function, *arguments in (
        ("cuMemcpyDtoDAsync_v2", second, first, one_more, None),
        ("cuMemcpyDtoHAsync_v2", host, host, size, None),
        ("cuMemcpyDtoHAsync_v2", second, first, size, None),
        ("cuMemcpyHtoDAsync_v2", second, first, size, None),
        ("cuMemcpyHtoDAsync_v2", host, host, size, None),
        ("cuMemsetD8Async", second, 0, one_more, None),
        ("cuMemsetD32Async", ctypes.c_void_p(second.value + 2), 0, two, None),
        ("cuMemsetD32Async", second, 0, ctypes.c_size_t(11), None),
        ("cuMemsetD2D32Async", second, ctypes.c_size_t(36), 0, two, two, None),
    ):
        assert gpu.call(function, *arguments) == INVALID_VALUE, function


def side(name: str) -> Iterator[tuple[str, Any]]:
    """The fields of CUDA_MEMCPY2D for a copy's source or target."""
    for field in ("x", "y", "type", "host", "device", "array", "pitch"):
        pointer = field in ("host", "device", "array")
        kind = ctypes.c_void_p if pointer else ctypes.c_size_t
        yield f"{name}_{field}", ctypes.c_uint if field == "type" else kind


class Rows(ctypes.Structure):
    """CUDA_MEMCPY2D."""

    _fields_ = (
        *side("source"),
        *side("target"),
        ("width", ctypes.c_size_t),
        ("height", ctypes.c_size_t),
    )


def test_copies_of_rows(gpu: Any, rng: np.random.Generator) -> None:
    numbers = rng.normal(size=(5, 7)).astype(np.float32)
    data = gpu.allocate(4 * 3 * 6)
    rows = Rows(
        source_x=4,
        source_y=1,
        source_type=HOST,
        source_host=numbers.ctypes.data,
        source_pitch=28,
        target_x=8,
        target_y=0,
        target_type=DEVICE,
        target_device=data,
        target_pitch=24,
        width=16,
        height=3,
    )
    gpu.check("cuMemcpy2DAsync_v2", ctypes.byref(rows), None)
    got = gpu.get(data, (3, 6))
    np.testing.assert_array_equal(got[:, 2:], numbers[1:4, 1:5])
    assert np.isnan(got[:, :2]).all()
    for name, value in (
        ("height", 4),
        ("width", 20),
        ("target_pitch", 16),
        ("target_y", 1),
        ("source_host", data.value),
        ("target_type", HOST),
    ):
        refused = Rows.from_buffer_copy(rows)
        setattr(refused, name, value)
        if name == "target_type":
            refused.target_host = data
        assert gpu.call("cuMemcpy2DAsync_v2", ctypes.byref(refused), None) == INVALID_VALUE, name


def test_two_devices_keep_their_memory_apart(
    gpu: Any, emulator_driver: ModuleType, cuda_emulator: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = gpu.put(np.ones(4, np.float32))
    monkeypatch.setenv("DTWIN_EMULATED_DEVICES", "2")
    second = emulator_driver.EmulatedGpu(str(cuda_emulator), device=1)
    assert second.call("cuMemsetD8Async", data, 0, ctypes.c_size_t(16), None) == INVALID_VALUE
    second.close()
    np.testing.assert_array_equal(gpu.get(data, 4), 1)


@pytest.fixture
def multiply(gpu: Any) -> Iterator[Callable[..., int]]:
    """cublasSgemmStridedBatched with the handle, and the types that ctypes does not guess."""
    handle = ctypes.c_void_p()
    gpu.check("cublasCreate_v2", ctypes.byref(handle))
    gpu.check("cublasSetStream_v2", handle, None)
    gpu.check("cublasSetMathMode", handle, 2)

    def call(
        transposed: tuple[bool, bool],
        sizes: tuple[int, int, int],
        scales: tuple[float, float],
        operands: list[tuple[ctypes.c_void_p, int, int]],
        batches: int,
    ) -> int:
        alpha, beta = (ctypes.byref(ctypes.c_float(scale)) for scale in scales)
        a, b, c = ((data, leading, ctypes.c_longlong(stride)) for data, leading, stride in operands)
        status: int = gpu.call(
            "cublasSgemmStridedBatched",
            handle,
            *map(int, transposed),
            *sizes,
            alpha,
            *a,
            *b,
            beta,
            *c,
            batches,
        )
        return status

    yield call
    gpu.check("cublasDestroy_v2", handle)


@pytest.mark.parametrize("transposed", [(a, b) for a in (False, True) for b in (False, True)])
@pytest.mark.parametrize("scales", [(1, 0), (-2, 1), (1, 0.5), (0, 2)])
@pytest.mark.parametrize("one_b", [False, True])
def test_batched_products(
    gpu: Any,
    multiply: Callable[..., int],
    rng: np.random.Generator,
    transposed: tuple[bool, bool],
    scales: tuple[float, float],
    one_b: bool,
) -> None:
    """Column-major matrices are row-major transposes; rows of NaN lie between the columns."""
    batches, m, n, k, more = 3, 7, 5, 11, 2

    def padded(batch: int, rows: int, columns: int) -> npt.NDArray[np.float32]:
        array = np.full((batch, columns, rows + more), np.nan, np.float32)
        array[:, :, :rows] = integers(rng, batch, columns, rows)
        return array

    a = padded(batches, *((k, m) if transposed[0] else (m, k)))
    b = padded(1 if one_b else batches, *((n, k) if transposed[1] else (k, n)))
    c = padded(batches, m, n)
    if scales[1] == 0:
        c[:] = np.nan
    arrays = [gpu.put(array) for array in (a, b, c)]
    strides = [array[0].size for array in (a, b, c)]
    strides[1] *= not one_b
    operands = [
        (data, array.shape[2], stride)
        for data, array, stride in zip(arrays, (a, b, c), strides, strict=True)
    ]
    assert multiply(transposed, (m, n, k), scales, operands, batches) == 0
    left, right = a[:, :, :-more].mT, b[:, :, :-more].mT
    left, right = left.mT if transposed[0] else left, right.mT if transposed[1] else right
    wanted = c.copy()
    kept = scales[1] * c[:, :, :m].mT if scales[1] else 0
    wanted[:, :, :m] = (scales[0] * (left @ right) + kept).mT
    np.testing.assert_array_equal(gpu.get(arrays[2], c.shape), wanted)


def test_refused_products(gpu: Any, multiply: Callable[..., int]) -> None:
    data = gpu.put(np.ones(100, np.float32))
    for sizes, leading, batches in (
        ((4, 3, 2), (3, 2, 4), 1),
        ((4, 3, 2), (4, 1, 4), 1),
        ((4, 3, 2), (4, 2, 3), 1),
        ((-1, 3, 2), (4, 2, 4), 1),
        ((4, 3, 2), (4, 2, 4), -1),
    ):
        operands = [(data, number, 0) for number in leading]
        assert multiply((False, False), sizes, (1, 0), operands, batches) == 7
    nothing = [(ctypes.c_void_p(), 1, 0)] * 3
    assert multiply((False, False), (0, 0, 0), (1, 0), nothing, 1) == 0
