"""Peak memory of one call: how far the resident set grows above what stood before it.

Measured in a fresh process that runs the one implementation, since memory that an allocator has
kept from an earlier call hides what the next one needs. Linux resets its record of the peak on
a write to /proc/self/clear_refs. Arguments and compiled code stand before the call; results,
which the call must make, count.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .cases import Case

TIMEOUT_S = 900


def peak_bytes(case: Case, op: str, impl: str) -> int | None:
    """Bytes of one call of an implementation, or None where the process did not end well."""
    words = [json.dumps(asdict(case)), op, impl]
    command = [sys.executable, "-m", __name__, *words]
    try:
        ran = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return None
    return int(ran.stdout.split()[-1]) if ran.returncode == 0 else None


def growth(call: Callable[[], Any]) -> int:
    """Bytes by which one call raises this process's resident set at its peak."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)  # what the allocator keeps would hide what the call takes
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    call()
    return max(0, status("VmHWM") - before)


def available_bytes() -> int:
    """Memory that can be had without swapping."""
    return _field(Path("/proc/meminfo"), "MemAvailable")


def status(name: str) -> int:
    """Bytes of a field of this process, such as VmHWM: its largest resident set so far."""
    return _field(Path("/proc/self/status"), name)


def _field(path: Path, name: str) -> int:
    (line,) = (line for line in path.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Measure what the command line names, and print the bytes."""
    from . import ours
    from .peers import PEERS
    from .problem import draw

    case, (op, impl) = Case(**json.loads(sys.argv[1])), sys.argv[2:]
    prepare = next(
        found[impl]
        for module in (ours, *PEERS.values())
        if impl in (found := module.variants(case, op))
    )
    print(growth(prepare(draw(case)).run))


if __name__ == "__main__":
    main()
