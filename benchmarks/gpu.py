"""``python benchmarks/gpu.py``: the engine beside its peers on a machine with an NVIDIA GPU.

Needs no installation: where no dtwin_fast with CUDA kernels can be imported, it is built with
CMake into build/gpu of the checkout. Every call is verified before it is timed. The file is
written anew after each case, so that a run which is cut off leaves what it has.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OUTER = ("benchmarks", "export", "kernels")
"""Folders that install into the package."""
EXIT_FAILED, EXIT_USAGE, EXIT_NO_GPU = 1, 2, 4

EXIT_CODES = """exit codes:
  0 done   1 wrong results, or the build failed   2 usage   4 there is no CUDA GPU"""

PROBE = """
import dtwin_fast.benchmarks.device
from dtwin_fast._core import build_info
raise SystemExit(0 if build_info()["cuda"] else 3)
"""
WITHOUT_CUDA = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the cases and return the exit code."""
    started = time.monotonic()
    parser = _parser()
    args = parser.parse_args(argv)
    if not args.json.parent.is_dir() or args.json.is_dir():
        parser.error(f"--json {args.json}: name a file in a folder that is there")
    reason = why_no_gpu()
    if reason is not None:
        print(f"gpu.py: there is no CUDA GPU: {reason}", file=sys.stderr)
        return EXIT_NO_GPU
    try:
        provide_engine()
    except RuntimeError as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        return EXIT_FAILED
    from dtwin_fast.benchmarks.device.cases import PLAN

    names = list(dict.fromkeys(name for name, _ in PLAN))
    wanted = names if args.cases == "all" else args.cases.split(",")
    if odd := [name for name in wanted if name not in names]:
        parser.error(f"--cases: {odd[0][:40]!r} is none of {', '.join(names)}")
    pairs = [(name, op) for name, op in PLAN if name in wanted]
    return _run(args.json, pairs, started, 60 * args.minutes)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpu.py",
        description="Time the GPU engine beside torch and JAX on an NVIDIA GPU.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--json", type=Path, required=True, metavar="FILE", help="write the results to FILE"
    )
    parser.add_argument(
        "--cases",
        default="all",
        metavar="NAME,...",
        help="all (default), or some of benchmarks/device/cases.py",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=7.0,
        metavar="N",
        help="stop before so many minutes, a build included (default 7)",
    )
    return parser


def why_no_gpu() -> str | None:
    """The reason why torch has no NVIDIA GPU here, or None."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    if torch.cuda.is_available():
        return None
    try:
        torch.cuda.init()
    except (AssertionError, RuntimeError) as error:
        return str(error).splitlines()[0]
    return f"torch {torch.__version__} sees none"


def provide_engine() -> None:
    """See to it that ``import dtwin_fast`` finds the engine, with CUDA kernels where nvcc is.

    Raises:
        RuntimeError: the build failed; the message has the end of its output.
    """
    if "dtwin_fast" in sys.modules:
        return  # whoever imported this module has it already
    # -P: not the package's sources in the current folder, which lack what is compiled.
    ran = subprocess.run([sys.executable, "-P", "-c", PROBE], capture_output=True, check=False)
    if ran.returncode == 0 or (ran.returncode == WITHOUT_CUDA and not _has_nvcc()):
        return
    _say("building the engine into build/gpu")
    import torch

    # For this GPU alone: that halves the time.
    capability = "{}{}".format(*torch.cuda.get_device_capability())
    site = build(ROOT / "build" / "gpu", f"-DDTWIN_CUDA_ARCHITECTURES={capability}")
    # An editable install's finder would go before the path.
    sys.meta_path[:] = [f for f in sys.meta_path if "dtwin_fast" not in type(f).__module__]
    sys.path.insert(0, str(site))


def build(folder: Path, *options: str) -> Path:
    """Build the compiled module with CMake; the folder to import the package from.

    Args:
        folder: for what CMake makes; what it has from before is used again.
        options: more for CMake's configuration.
    """
    if importlib.util.find_spec("pybind11") is None:
        raise RuntimeError("the engine cannot be built: pybind11 is not installed")
    import pybind11

    cmake, ninja = _program("cmake"), _program("ninja")
    if cmake is None:
        raise RuntimeError("the engine cannot be built: cmake is not installed")
    site = folder / "site"
    _call(
        *(cmake, "-S", ROOT, "-B", folder, "-DCMAKE_BUILD_TYPE=Release"),
        # scikit-build-core would set this, which makes CMake build the module for Python.
        *("-DSKBUILD=ON", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"),
        *(f"-DPython_EXECUTABLE={sys.executable}", "-DDTWIN_ORT=OFF"),
        *((f"-DCMAKE_MAKE_PROGRAM={ninja}", "-G", "Ninja") if ninja else ()),
        *options,
    )
    _call(cmake, "--build", folder, "--target", "_core", "--parallel", str(os.cpu_count() or 1))
    shutil.rmtree(site, ignore_errors=True)
    _call(cmake, "--install", folder, "--prefix", site)
    sources = [path for path in (ROOT / "dtwin_fast").iterdir() if path.suffix != ".so"]
    for path in (*sources, *(ROOT / name for name in OUTER)):
        (site / "dtwin_fast" / path.name).symlink_to(path)
    return site


def _call(*command: str | Path) -> None:
    ran = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        output = "\n".join((ran.stdout + ran.stderr).splitlines()[-30:])
        raise RuntimeError(f"the engine cannot be built: {command[0]} failed:\n{output}")


def _program(name: str) -> str | None:
    """On PATH or beside this Python, whose environment may not be activated."""
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    return shutil.which(name, path=os.pathsep.join(folders))


def _has_nvcc() -> bool:
    home = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"))
    return _program("nvcc") is not None or (home / "bin" / "nvcc").is_file()


def _run(file: Path, pairs: list[tuple[str, str]], started: float, seconds: float) -> int:
    """Time the pairs, write the file after each and print the tables."""
    import torch
    from dtwin_fast.benchmarks.device import ceilings, machine, targets, timing
    from dtwin_fast.benchmarks.device.implementations import IMPLEMENTATIONS
    from dtwin_fast.benchmarks.device.report import as_markdown
    from dtwin_fast.benchmarks.device.suite import TIME_UP, Setting, left_out, run_pairs

    from dtwin_fast.prediction_files import write_json

    torch.set_float32_matmul_precision("highest")  # no TF32
    seed = secrets.randbelow(2**31)
    _say(f"seed {seed}; measuring the ceilings")
    facts = machine.examine()
    measured = ceilings.measure(timing.event_seconds, "cuda")
    setting = Setting("cuda", seed, facts, measured, timing.Budget(seconds, started), _say)
    results: dict[str, Any] = {
        "device": facts["gpu"],
        "machine": facts,
        "ceilings": measured,
        "seed": seed,
        "rows": [],
        "targets": [],
        "left_out": [],
    }
    to_come = list(pairs)

    def done(rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
        to_come.pop(0)
        results["rows"] += rows
        results["left_out"] += others
        results["targets"] = targets.judge(results["rows"], results["left_out"])
        # As if the run ended here: it may be cut off.
        pending = [left_out(name, op, "all", TIME_UP) for name, op in to_come]
        write_json(file, results | {"left_out": results["left_out"] + pending})
        for row in rows:
            _say(f"{row['case']} {row['op']} {row['impl']}: {1e3 * row['median_s']:.3f} ms")
        for row in others:
            _say(f"{row['case']} {row['op']} without {row['impl']}: {row['reason']}")

    run_pairs(pairs, IMPLEMENTATIONS, setting, done)
    print(as_markdown(results))
    return EXIT_FAILED if any(row["refused"] for row in results["left_out"]) else 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
