"""What this GPU can do at most: copies and products, measured; the floor of the steps, counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..cases import Case

COPY_BYTES = 2 << 30
GEMM_SIZE = 8192
REPEATS = 7
LANES = {"8.0": 64}
"""Float32 multiply-adds of a multiprocessor in one cycle where they are not MOST_LANES."""
MOST_LANES = 128


def measure(seconds: Callable[[Callable[[], Any]], float], device: str) -> dict[str, float]:
    """``copy_bytes_s``, bytes read plus bytes written, and ``sgemm_flops``, without TF32.

    Args:
        seconds: the clock.
    """
    return {
        "copy_bytes_s": 2 * COPY_BYTES / _shortest(seconds, _copy(device)),
        "sgemm_flops": 2 * GEMM_SIZE**3 / _shortest(seconds, _product(device)),
    }


def floor_s(case: Case, machine: dict[str, Any]) -> float | None:
    """Seconds that the steps' multiply-adds take on all lanes of all multiprocessors.

    Readout, projection and activations are not counted. None where the clock is not known.

    Args:
        machine: ``capability``, ``multiprocessors`` and ``sm_clock_max_mhz``.
    """
    if machine["sm_clock_max_mhz"] is None:
        return None
    cycles = case.n_gated * (case.H + case.I) / LANES.get(machine["capability"], MOST_LANES)
    rate_hz = machine["multiprocessors"] * machine["sm_clock_max_mhz"] * 1e6
    return case.S * case.B * case.T * cycles / float(rate_hz)


def _shortest(seconds: Callable[[Callable[[], Any]], float], run: Callable[[], Any]) -> float:
    run()
    return min(seconds(run) for _ in range(REPEATS))


def _copy(device: str) -> Callable[[], Any]:
    source = torch.randn(COPY_BYTES // 4, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def _product(device: str) -> Callable[[], Any]:
    a, b = (torch.randn(GEMM_SIZE, GEMM_SIZE, device=device) for _ in range(2))
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out)
