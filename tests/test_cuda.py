"""The cuda backend: what it says where it cannot run; its kernels on the emulated GPU, and on a
real one where there is one; what the compiler made of them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dtwin_fast import _core
from dtwin_fast.cells import CELLS
from dtwin_fast.dispatch import rollout, supports
from dtwin_fast.errors import BackendUnavailableError
from dtwin_fast.weights import RNNWeights, weight_shapes

ROOT = Path(__file__).resolve().parents[1]
MAX_SHARED = 227 << 10  # bytes of shared memory of a block on compute capability 9.0

built = pytest.mark.skipif(
    not _core.build_info()["cuda"], reason="no CUDA compiler built the kernels here"
)
on_gpu = pytest.mark.skipif(
    os.environ["DTWIN_TEST_GPU"] == "0", reason="torch sees no CUDA device to run the kernels on"
)


def emulated(library: Path, **environment: str) -> dict[str, str]:
    return {"DTWIN_LIBCUDA": str(library), "DTWIN_LIBCUBLAS": str(library), **environment}


@built
@pytest.mark.parametrize("cell", CELLS)
def test_kernels_on_the_emulated_gpu(
    cell: str, cuda_emulator: Path, run_kernel_tests: Callable[..., None]
) -> None:
    run_kernel_tests(["gpu_kernels.py"], "cuda", "-k", cell, **emulated(cuda_emulator))


@built
def test_engine_on_the_emulated_gpu(
    cuda_emulator: Path, run_kernel_tests: Callable[..., None]
) -> None:
    run_kernel_tests(["cuda_kernels.py"], "cuda", **emulated(cuda_emulator))


@built
@pytest.mark.parametrize("cell", CELLS)
def test_a_gpu_without_clusters(
    cell: str, cuda_emulator: Path, run_kernel_tests: Callable[..., None]
) -> None:
    """Compute capability 8.0: small sizes, in registers and shared memory."""
    environment = emulated(cuda_emulator, DTWIN_EMULATED_CAPABILITY="8.0")
    small = f"{cell} and not 257 and not 400 and not 129"
    run_kernel_tests(["gpu_kernels.py"], "cuda", "-k", small, **environment)


@on_gpu
@built
def test_kernels_on_a_gpu(run_kernel_tests: Callable[..., None]) -> None:
    run_kernel_tests(["gpu_kernels.py", "cuda_tensors.py"], "cuda")


# --- where it cannot run -----------------------------------------------------------------------


def make_problem() -> tuple[RNNWeights, np.ndarray]:
    shapes = weight_shapes("rnn", 2, 4, 3).values()
    weights = RNNWeights("rnn", *(np.ones((1, *shape), np.float32) for shape in shapes))
    return weights, np.ones((1, 5, 2), np.float32)


def reason(**environment: str) -> str:
    """What supports() says in a process with this environment."""
    program = "import dtwin_fast as dt; print(dt.supports('cuda', 'rnn'))"
    ran = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        cwd=ROOT,
        check=True,
    )
    return ran.stdout.strip()


def test_float64_is_refused() -> None:
    assert "there is no float64 on the GPU" in str(supports("cuda", "rnn", "float64"))
    weights, inputs = make_problem()
    with pytest.raises(BackendUnavailableError, match=r"no float64.*Use backend='cpu'"):
        rollout(weights, inputs, backend="cuda", precision="float64")


@built
def test_without_a_driver_it_says_so() -> None:
    assert "Use a machine with an NVIDIA GPU" in reason(DTWIN_LIBCUDA="libnothing.so.1")


@built
def test_without_cublas_it_names_the_package(cuda_emulator: Path) -> None:
    said = reason(DTWIN_LIBCUDA=str(cuda_emulator), DTWIN_LIBCUBLAS="libnothing.so.1")
    assert "pip install nvidia-cublas" in said


@built
@pytest.mark.parametrize(
    ("knob", "value", "message"),
    [
        ("DEVICES", "0", "the NVIDIA driver finds no GPU"),
        ("DRIVER", "11080", "the NVIDIA driver is too old: it is for CUDA 11.8"),
        ("CAPABILITY", "7.5", "compute capability 7.5, and the kernels need 8.0"),
    ],
)
def test_what_is_missing(knob: str, value: str, message: str, cuda_emulator: Path) -> None:
    said = reason(**emulated(cuda_emulator, **{f"DTWIN_EMULATED_{knob}": value}))
    assert message in said


def test_the_package_imports_without_a_gpu() -> None:
    """And a build without a CUDA compiler says that it is one."""
    info = _core.build_info()
    if info["cuda"]:
        assert re.fullmatch(r"\d+\.\d+\.\d+", info["cuda"])
        assert "90" in info["cuda_architectures"].split()
    else:
        assert "no CUDA compiler" in str(supports("cuda", "rnn"))


def test_a_build_without_a_cuda_compiler(tmp_path: Path) -> None:
    """csrc/cuda/absent.cpp has every function of dtwin_cuda.h, and says what to do."""
    program = tmp_path / "program.cpp"
    program.write_text(
        """
        #include <cstdio>
        #include "dtwin_cuda.h"
        int main() {
            size_t bytes = 1;
            dtwin_rollout_params p{};
            dtwin_rollout_vjp_params g{};
            const int statuses[] = {
                dtwin_cuda_fits(&p, 0, 1), dtwin_cuda_workspace(&p, 0, &bytes),
                dtwin_cuda_workspace_vjp(&g, 0, &bytes), dtwin_cuda_rollout(&p, 0, 0, 0, 0),
                dtwin_cuda_rollout_vjp(&g, 0, 0, 0, 0), dtwin_cuda_rollout_host(&p, 0),
                dtwin_cuda_rollout_vjp_host(&g, 0)};
            for (int status : statuses) std::printf("%d ", status);
            std::printf("%s|%s|%d", dtwin_cuda_why_not(0), dtwin_cuda_message(),
                        dtwin_cuda_capability(0) == nullptr);
        }
        """
    )
    sources = [str(program), str(ROOT / "csrc/cuda/absent.cpp")]
    built_program = tmp_path / "program"
    subprocess.run(
        ["c++", "-std=c++17", f"-I{ROOT / 'csrc'}", *sources, "-o", str(built_program)], check=True
    )
    said = subprocess.run([str(built_program)], capture_output=True, text=True, check=True).stdout
    assert said.startswith("14 " * 7)
    assert said.count("Install the CUDA toolkit 12.1 or newer and build again") == 2
    assert said.endswith("|1")


# --- what the compiler made --------------------------------------------------------------------


def kernel_lines() -> list[list[str]]:
    """direction, cell, weights, columns, units, lanes, fours, threads, blocks of each kernel."""
    text = (ROOT / "csrc/cuda/kernels.def").read_text()
    return [line.split(", ") for line in re.findall(r"^KERNEL\((.*)\)$", text, re.M)]


def kernel_name(line: list[str]) -> str:
    return "dtwin_" + "_".join(line[:4])


@pytest.fixture(scope="module")
def plans(build_program: Callable[[str], Path], cuda_emulator: Path) -> list[list[str]]:
    """direction, cell, weights, H, kernel, cluster, units, threads, shared memory; of every H."""
    program = build_program("cuda_plans")
    found = []
    for capability in ("8.0", "8.6", "9.0", "12.0"):
        ran = subprocess.run(
            [str(program), *map(str, range(1, 513))],
            capture_output=True,
            text=True,
            check=True,
            env={
                **os.environ,
                **emulated(cuda_emulator, DTWIN_EMULATED_CAPABILITY=capability),
            },
        )
        assert "other" not in ran.stdout
        found += [[*line.split(), capability] for line in ran.stdout.splitlines()]
    return found


@built
def test_every_size_has_a_plan_within_the_limits(plans: list[list[str]]) -> None:
    lines = {kernel_name(line): line for line in kernel_lines()}
    for plan in plans:
        n_hidden, kernel, capability = int(plan[3]), plan[4], plan[-1]
        if kernel == "none":
            assert capability != "9.0"
            continue
        cluster, units, threads, shared = map(int, plan[5:9])
        n_units, lanes, most_threads = (int(lines[kernel][i]) for i in (4, 5, 7))
        assert (cluster - 1) * units < n_hidden <= cluster * units
        assert units <= threads // lanes * n_units
        assert threads <= most_threads
        assert threads % 32 == 0
        assert shared <= MAX_SHARED
        assert cluster == 1 or capability in ("9.0", "12.0")


@built
def test_every_kernel_is_used(plans: list[list[str]]) -> None:
    assert {plan[4] for plan in plans} - {"none"} == {kernel_name(line) for line in kernel_lines()}


@built
def test_no_kernel_spills(build_folder: Path, build_program: Callable[[str], Path]) -> None:
    """The build fails on a spill; its logs say how many registers each kernel takes."""
    build_program("cuda_plans")
    logs = "".join(path.read_text() for path in (build_folder / "cuda").glob("*.log"))
    found: dict[tuple[str, str], int] = {}
    pattern = r"entry function '(\w+)' for 'sm_(\d+)'(.*?)Used (\d+) registers"
    for name, architecture, between, registers in re.findall(pattern, logs, re.S):
        assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in between
        found[name, architecture] = int(registers)
    architectures = {architecture for _, architecture in found}
    assert "90" in architectures
    for line in kernel_lines():
        threads, blocks = int(line[7]), int(line[8])
        for architecture in architectures:
            # Registers are given to four warps at a time, eight for each thread.
            warps = -(-threads * blocks // 128) * 4
            assert found[kernel_name(line), architecture] <= min(255, 65536 // (32 * warps))
