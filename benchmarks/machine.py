"""What ran where: the facts without which a time means nothing."""

from __future__ import annotations

import importlib.metadata
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..dispatch import isa
from ..provenance import package_version
from .threads import count_threads

PACKAGES = ("numpy", "torch", "jax", "jaxlib", "onnx", "onnxruntime")
FLAGS = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def examine() -> dict[str, Any]:
    """Processor, caches, instruction sets, versions, threads and time, as plain values."""
    processor = _processor()
    flags = (processor.get("flags") or processor.get("Features") or "").split()
    return {
        "processor": processor.get("model name", platform.machine()),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": count_threads(),
        "caches": _caches(),
        "processor_isa": [flag for flag in FLAGS if flag in flags],
        "engine_isa": isa("cpu"),
        "python": platform.python_version(),
        "dtwin_fast": package_version(),
        "packages": {package: _version(package) for package in PACKAGES},
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _processor() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return {}
    first = path.read_text().split("\n\n")[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _caches() -> dict[str, str]:
    """Level and type -> size, of the first core."""
    return {
        f"L{_read(index / 'level')} {_read(index / 'type')}": _read(index / "size")
        for index in sorted(CACHES.glob("index*"))
        if (index / "size").is_file()
    }


def _read(path: Path) -> str:
    return path.read_text().strip()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
