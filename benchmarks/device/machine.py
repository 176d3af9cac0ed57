"""The GPU and what drives it. Settings are only read."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from typing import Any

import torch

PACKAGES = ("numpy", "torch", "triton", "jax", "jaxlib")
QUERIES = {
    "driver": "driver_version",
    "sm_clock_max_mhz": "clocks.max.sm",
    "sm_clock_mhz": "clocks.sm",
    "memory_clock_mhz": "clocks.mem",
}
TIMEOUT_S = 20


def examine() -> dict[str, Any]:
    """GPU, driver, clocks and versions; what nvidia-smi does not say is None."""
    found = torch.cuda.get_device_properties(0)
    return {
        "gpu": found.name,
        "capability": f"{found.major}.{found.minor}",
        "multiprocessors": found.multi_processor_count,
        "memory_bytes": found.total_memory,
        "l2_bytes": found.L2_cache_size,
        "cuda": torch.version.cuda,
        **ask_driver(str(found.uuid)),
        "python": platform.python_version(),
        "dtwin_fast": version("dtwin_fast"),
        "packages": {package: version(package) for package in PACKAGES},
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def ask_driver(uuid: str) -> dict[str, str | float | None]:
    """Driver version and clocks, from nvidia-smi."""
    unknown: dict[str, str | float | None] = dict.fromkeys(QUERIES)
    program = shutil.which("nvidia-smi")
    if program is None:
        return unknown
    fields = ",".join(QUERIES.values())
    command = [
        program,
        f"--id=GPU-{uuid}",
        f"--query-gpu={fields}",
        "--format=csv,noheader,nounits",
    ]
    try:
        ran = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return unknown
    values = [value.strip() for value in ran.stdout.split(",")]
    if ran.returncode != 0 or len(values) != len(QUERIES):
        return unknown
    return {
        name: value if name == "driver" else _number(value)
        for name, value in zip(QUERIES, values, strict=True)
    }


def version(package: str) -> str | None:
    """Of an installed package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _number(text: str) -> float | None:
    """nvidia-smi writes [N/A] where it cannot say."""
    try:
        return float(text)
    except ValueError:
        return None
