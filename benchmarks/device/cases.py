"""What is timed on a GPU, and in which order. Imports no torch."""

from __future__ import annotations

from .. import ours
from ..cases import CASES as SMALL_CASES
from ..cases import OPS, Case

TARGET_CASES: dict[str, Case] = {
    "contrast434-h128-s4096": Case("rnn", 4096, 1, 500, 16, 128, 434, K=4),
    "plain23-h128-s4096": Case("rnn", 4096, 1, 500, 16, 128, 23),
    "paper-s256": Case("rnn", 256, 1, 262, 9, 400, 23),
}

RECURRENCE_CASES: dict[str, Case] = {
    "recurrence-h128": Case("rnn", 4096, 1, 500, 16, 128, 1, K=1),
    "recurrence-h400": Case("rnn", 256, 1, 262, 9, 400, 1, K=1),
}
"""One output, projected onto one row, so that a readout does not blur the steps' share of the
floor. Peers are not timed here."""

_SWEEP_H = {f"h{H}": Case("rnn", 1024, 1, 200, 16, H, 23) for H in (64, 128, 256, 400, 512)}
# B = 1 is h128.
_SWEEP_B = {f"b{B}": Case("rnn", 1024, B, 200, 16, 128, 23) for B in (4, 16, 64)}
# Projected: the outputs of so many subjects would take the memory.
_SWEEP_S = {f"s{S}": Case("rnn", S, 1, 200, 16, 128, 23, K=4) for S in (4096, 16384, 65536)}
SWEEPS = _SWEEP_H | _SWEEP_B | _SWEEP_S

CASES: dict[str, Case] = TARGET_CASES | RECURRENCE_CASES | SMALL_CASES | SWEEPS

PLAN: tuple[tuple[str, str], ...] = (
    *((name, "fwd") for name in TARGET_CASES),
    *((name, "fwd") for name in RECURRENCE_CASES),
    *((name, "fwd_bwd") for name in TARGET_CASES),
    *((name, "fwd") for name in SWEEPS),
    *((name, op) for name in SMALL_CASES for op in OPS),
    *((name, "fwd_bwd") for name in SWEEPS),
)
"""(case, op), what the targets ask for first: the time may not suffice for all."""


def is_ours(impl: str) -> bool:
    """Whether an implementation is the engine, not a peer."""
    return impl.startswith(ours.PREFIX)


def precision_of(impl: str) -> str:
    """The precision of an implementation's weights."""
    return "bfloat16" if impl.endswith("bf16") else "float32"
