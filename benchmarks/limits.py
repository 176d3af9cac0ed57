"""What this machine can do at most, measured in the same run: sgemm, copy, reads of w_hh."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .threads import count_threads

SOURCE = Path(__file__).with_name("limits.cpp")
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-pthread")
GEMM_SIZE = 1536
COPY_BYTES = 256 * 2**20
REPEATS = 7
TIMEOUT_S = 60
MAX_REASON = 250


class Limits:
    """The limits at the number of threads in use, each measured when it is first asked for.

    Attributes:
        sgemm_flops: floating-point operations per second of a large float32 product, the
            better of numpy's and torch's BLAS.
        copy_bytes_s: bytes read plus bytes written per second by a large copy, the better of
            numpy's (one thread) and torch's.
    """

    def __init__(self) -> None:
        self.sgemm = {"numpy": _numpy_gemm(), "torch": _torch_gemm()}
        self.copy = {"numpy": _numpy_copy(), "torch": _torch_copy()}
        self.sgemm_flops = max(self.sgemm.values())
        self.copy_bytes_s = max(self.copy.values())
        self._reads: dict[int, float | str] = {}

    def read_bytes_s(self, n_bytes: int) -> float | None:
        """Bytes per second of all threads together, each reading its own block of this size.

        None where that could not be measured; :meth:`to_dict` has the reason.
        """
        if n_bytes not in self._reads:
            self._reads[n_bytes] = _read_bandwidth(n_bytes)
        found = self._reads[n_bytes]
        return found if isinstance(found, float) else None

    def to_dict(self) -> dict[str, Any]:
        """Plain form for JSON; block reads are by block size in bytes, or the reason why not."""
        return {
            "threads": count_threads(),
            "sgemm_flops": self.sgemm,
            "copy_bytes_s": self.copy,
            "block_read_bytes_s": {str(size): rate for size, rate in self._reads.items()},
        }


def _shortest(call: Callable[[], Any]) -> float:
    """Seconds of the fastest call: a limit is what the machine can do undisturbed."""
    call()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def _numpy_gemm() -> float:
    a = np.ones((GEMM_SIZE, GEMM_SIZE), np.float32)
    out = np.empty_like(a)
    return 2 * GEMM_SIZE**3 / _shortest(lambda: np.matmul(a, a, out=out))


def _torch_gemm() -> float:
    import torch

    torch.set_num_threads(count_threads())
    a = torch.ones(GEMM_SIZE, GEMM_SIZE)
    out = torch.empty_like(a)
    return 2 * GEMM_SIZE**3 / _shortest(lambda: torch.mm(a, a, out=out))


def _numpy_copy() -> float:
    source = np.ones(COPY_BYTES, np.uint8)
    target = np.empty_like(source)
    return 2 * COPY_BYTES / _shortest(lambda: np.copyto(target, source))


def _torch_copy() -> float:
    import torch

    source = torch.ones(COPY_BYTES // 4)
    target = torch.empty_like(source)
    return 2 * COPY_BYTES / _shortest(lambda: target.copy_(source))


def _read_bandwidth(n_bytes: int) -> float | str:
    """Bytes per second, or the reason why not."""
    try:
        # Several words where it is a wrapper and its compiler.
        compiler = shlex.split(os.environ.get("CXX", ""))
    except ValueError as error:
        return f"not measured: CXX: {error}"
    compiler = compiler or list(filter(shutil.which, COMPILERS))[:1]
    if not compiler:
        return f"not measured: no C++ compiler ({', '.join(COMPILERS)})"
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "limits")
        build = [*compiler, *FLAGS, str(SOURCE), "-o", str(program)]
        for command in (build, [str(program), str(n_bytes), str(count_threads())]):
            try:
                ran = subprocess.run(
                    command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                return f"not measured: {command[0]}: {error}"[:MAX_REASON]
            if ran.returncode != 0:
                return f"not measured: {command[0]} failed: {ran.stderr.strip()}"[:MAX_REASON]
    return float(ran.stdout)
