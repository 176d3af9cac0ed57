"""Fixtures shared by the tests."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from dtwin_fast._core import build_info
from dtwin_fast.spec import PRESETS
from dtwin_fast.tasks import TASKS
from dtwin_fast.twin import Twin

ROOT = Path(__file__).resolve().parents[1]

# The tests are of the CPU: "auto" must not find a GPU. Those of a GPU run in processes of their
# own, in the environment as it was.
os.environ.setdefault("DTWIN_TEST_GPU", str(int(torch.cuda.is_available())))
if "DTWIN_TEST_BACKEND" not in os.environ:
    os.environ.setdefault("DTWIN_TEST_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


def load(path: Path) -> ModuleType:
    """A module beside the tests, which are no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    """The tests' products are tiny: torch's threads would spend the time waiting for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the repository; tests are skipped where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real data are not beside the repository ({folder.name} is absent)")
    return folder


@pytest.fixture(scope="session")
def tolerances() -> ModuleType:
    """tests/tolerances.py: the one table of tolerances."""
    return load(ROOT / "tests" / "tolerances.py")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``native_isa``: every instruction set on which a program of build_program can run."""
    if "native_isa" in metafunc.fixturenames:
        emulated = "DTWIN_EMULATOR" in os.environ
        metafunc.parametrize("native_isa", ["baseline"] if emulated else build_info()["isas"])


def command(name: str) -> str:
    """A build tool from this Python's environment or PATH; building from source needed it."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which(name, path=path)
    assert found, f"{name} is not on PATH; the engine cannot be built from source without it"
    return found


def run(*arguments: str | Path, **environment: str) -> str:
    ran = subprocess.run(
        arguments, capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="session")
def configure(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Configure a new build folder of CMake, with options."""

    def configured(*options: str) -> Path:
        folder = tmp_path_factory.mktemp("programs")
        run(command("cmake"), "-S", ROOT, "-B", folder, *options)
        return folder

    return configured


@pytest.fixture(scope="session")
def build_folder(configure: Callable[..., Path]) -> Path:
    """A build folder of CMake, configured.

    ``make asan``, ``tsan`` and ``aarch64`` put options of CMake into DTWIN_CMAKE_OPTIONS.
    """
    return configure(*os.environ.get("DTWIN_CMAKE_OPTIONS", "").split())


@pytest.fixture(scope="session")
def build_in() -> Callable[[Path, str], Path]:
    """Build a program or library by its CMake target in a configured folder."""

    def build(folder: Path, target: str) -> Path:
        jobs = str(os.cpu_count() or 1)
        run(command("cmake"), "--build", folder, "--target", target, "--parallel", jobs)
        return folder / target

    return build


@pytest.fixture(scope="session")
def build_program(build_folder: Path, build_in: Callable[..., Path]) -> Callable[[str], Path]:
    """Build a program of tests/cpp by its CMake target, with the engine's C library."""
    return partial(build_in, build_folder)


@pytest.fixture(scope="session")
def tool() -> Callable[..., str]:
    """Run a build tool of this Python's environment or PATH; returns what it prints."""

    def ran(name: str, *arguments: str | Path, **environment: str) -> str:
        return run(command(name), *arguments, **environment)

    return ran


@pytest.fixture(scope="session")
def cuda_emulator(build_folder: Path, build_program: Callable[[str], Path]) -> Path:
    """The library of tests/cuda_emulator, for DTWIN_LIBCUDA and DTWIN_LIBCUBLAS."""
    if "DTWIN_SANITIZE" in os.environ.get("DTWIN_CMAKE_OPTIONS", ""):
        pytest.skip("sanitizers do not follow the emulated GPU's fibers")
    if "DTWIN_EMULATOR" in os.environ:
        pytest.skip("Python cannot load a library for another processor")
    if "cuda_emulator" not in run(command("cmake"), "--build", build_folder, "--target", "help"):
        pytest.skip("no CUDA compiler with cuda.h is here")
    return build_program("cuda_emulator").with_name("libcuda_emulator.so")


@pytest.fixture(scope="session")
def ort_library(build_folder: Path, build_program: Callable[[str], Path]) -> Path:
    """libdtwin_ort, for DTWIN_ORT_LIBRARY."""
    if "DTWIN_SANITIZE" in os.environ.get("DTWIN_CMAKE_OPTIONS", ""):
        pytest.skip("onnxruntime itself is not sanitized")
    if "DTWIN_EMULATOR" in os.environ:
        pytest.skip("Python cannot load a library for another processor")
    if "dtwin_ort" not in run(command("cmake"), "--build", build_folder, "--target", "help"):
        pytest.skip("no C header of ONNX Runtime is here (make onnxruntime-header)")
    return build_program("dtwin_ort").with_name("libdtwin_ort.so")


@pytest.fixture(scope="session")
def emulator_driver() -> ModuleType:
    """tests/cuda_emulator/driver.py: the emulated GPU from Python."""
    return load(ROOT / "tests" / "cuda_emulator" / "driver.py")


@pytest.fixture(scope="session")
def run_kernel_tests() -> Callable[..., None]:
    """Run files of tests in a process of their own, on a backend for GPUs."""

    def run_files(files: list[str], backend: str, *options: str, **environment: str) -> None:
        own = {**os.environ, "DTWIN_TEST_BACKEND": backend, "PYTHONPATH": str(ROOT / "tests")}
        visible = own.pop("DTWIN_TEST_DEVICES")
        own.pop("CUDA_VISIBLE_DEVICES")
        if visible:
            own["CUDA_VISIBLE_DEVICES"] = visible
        own.pop("TRITON_INTERPRET", None)
        ran = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
                *(str(ROOT / "tests" / file) for file in files),
                *options,
            ],
            capture_output=True,
            text=True,
            env=own | environment,
            cwd=ROOT,
            timeout=600,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert "skipped" not in ran.stdout

    return run_files


@pytest.fixture(scope="session")
def run_program() -> Callable[..., str]:
    """Run a program of build_program, through DTWIN_EMULATOR where that is set."""
    return partial(run, *os.environ.get("DTWIN_EMULATOR", "").split())


@pytest.fixture(scope="session")
def tiny_twin() -> Twin:
    """An untrained twin of preset ``tiny`` with both tasks; regions ``region_00`` to ``_15``.

    Its constants are drawn too, so that a mean, an SD or a projection left out of a
    computation changes the result.
    """
    torch = pytest.importorskip("torch")
    pytest.importorskip("nilearn")
    from dtwin_fast.tasks.design import contrast_projection
    from dtwin_fast.training import HyperNetwork

    spec = PRESETS["tiny"]
    rng = np.random.default_rng(20260728)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(20260728)
        layers = HyperNetwork(spec).numpy_layers()
    schedules = {name: task.make_schedule(0) for name, task in TASKS.items()}
    return Twin(
        spec=spec,
        regions=tuple(f"region_{i:02d}" for i in range(spec.n_regions)),
        layers=layers,
        edge_mean=rng.uniform(-0.3, 0.5, spec.n_edges).astype(np.float32),
        edge_sd=rng.uniform(0.1, 0.3, spec.n_edges).astype(np.float32),
        bold_sd=rng.uniform(0.5, 2, len(spec.bold_regions)).astype(np.float32),
        schedules=schedules,
        projections={
            name: contrast_projection(
                schedule, TASKS[name].contrasts, tr_s=spec.tr_s, dt_s=spec.dt_s
            )
            for name, schedule in schedules.items()
        },
        contrasts={name: tuple(TASKS[name].contrasts) for name in schedules},
        training={"seed": 7, "people": 0},
    )
