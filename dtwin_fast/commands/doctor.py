"""``dtwin doctor``: what was built, what this machine offers, which extras are there."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
from typing import Any

import numpy as np

from .._core import build_info
from ..backends import BACKENDS
from ..cells import CELLS
from ..dispatch import PRECISIONS, isa, supports
from ..errors import BackendUnavailableError
from ..ort import library_path
from ..provenance import package_version
from ..threads import usable_threads

EXTRAS: dict[str, tuple[str, ...]] = {
    "torch": ("torch",),
    "triton": ("triton",),
    "neuro": ("nibabel", "nilearn", "h5py"),
    "xarray": ("xarray",),
    "cli": ("tqdm",),
    "evaluate": ("pandas", "rich", "scikit-learn", "scipy"),
    "report": ("matplotlib", "nilearn", "jinja2"),
    "screen": ("pyarrow", "zarr", "threadpoolctl"),
    "ray": ("ray",),
    "serve": (
        *("starlette", "granian", "grpcio", "protobuf", "msgspec", "prometheus-client"),
        "jinja2",
    ),
    "onnx": ("onnx", "onnxruntime"),
    "onnx-gpu": ("onnx", "onnxruntime-gpu"),
}


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the report."""
    report = examine()
    print(json.dumps(report, indent=1) if args.json else _as_text(report))
    return 0


def examine() -> dict[str, Any]:
    """The report as plain values."""
    build = build_info()
    return {
        "dtwin_fast": package_version(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "numpy": np.__version__,
        "engine": {
            "isa": isa("cpu"),
            "compiler": build["compiler"],
            "flags": build["flags"],
            "threads": usable_threads(),
        },
        "gpu": _gpu(build),
        "onnx_op_library": _op_library(),
        "backends": {name: _backend(name) for name in BACKENDS},
        "extras": {
            extra: {package: _version(package) for package in packages}
            for extra, packages in EXTRAS.items()
        },
    }


def _op_library() -> str | None:
    try:
        return str(library_path())
    except BackendUnavailableError:
        return None


def _backend(name: str) -> dict[str, list[str] | str]:
    reasons = {
        f"{cell} {precision}": supports(name, cell, precision)
        for cell in CELLS
        for precision in PRECISIONS
    }
    runs = [what for what, reason in reasons.items() if reason is None]
    if not runs:
        return {"unavailable": "; ".join(sorted({str(reason) for reason in reasons.values()}))}
    return {"runs": runs}


def _gpu(build: dict[str, Any]) -> str:
    kernels = "no CUDA kernels were built"
    if build["cuda"]:
        named = ", ".join(build["cuda_architectures"].split())
        kernels = f"kernels built with CUDA {build['cuda']} for {named}"
    reason = supports("cuda", "rnn")
    return f"{kernels}; {isa('cuda') if reason is None else reason}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _as_text(report: dict[str, Any]) -> str:
    engine = report["engine"]
    lines = [
        f"dtwin_fast {report['dtwin_fast']}   Python {report['python']}   "
        f"numpy {report['numpy']}   {report['machine']}",
        f"engine     {engine['isa']}, {engine['threads']} threads, {engine['compiler']}, "
        f"{engine['flags']}",
        f"gpu        {report['gpu']}",
        f"onnx op    {report['onnx_op_library'] or 'not built: make onnxruntime-header'}",
    ]
    for name, state in report["backends"].items():
        text = ", ".join(state["runs"]) if "runs" in state else f"no: {state['unavailable']}"
        lines.append(f"{'backend':<10} {name}: {text}")
    for extra, packages in report["extras"].items():
        parts = [f"{package} {version or 'missing'}" for package, version in packages.items()]
        missing = None in packages.values()
        way_out = f"  ->  pip install 'dtwin_fast[{extra}]'" if missing else ""
        lines.append(f"{'extra':<10} {extra}: {', '.join(parts)}{way_out}")
    return "\n".join(lines)
