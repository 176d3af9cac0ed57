"""The figures that the engine has to reach, each worked out from the rows of one results file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .cases import CASES

Row = dict[str, Any]

OPPONENTS: dict[str, tuple[str, ...]] = {
    "best JAX": ("jax-vmap", "jax-map"),
    "JAX sharded": ("jax-shard",),
    "best JAX, states projected": ("jax-vmap-projected", "jax-map-projected"),
    "JAX sharded, states projected": ("jax-shard-projected",),
    "torch eager": ("torch-eager",),
    "best torch": ("torch-eager", "torch-unbind", "torch-compile"),
    "ONNX Runtime": ("ort-scan",),
    "float32": ("dtwin-cpu",),
}
"""Name in the tables -> implementations, of which the fastest counts."""


@dataclass(frozen=True)
class Target:
    """``impl`` is at least ``ratio`` times as fast as an opponent."""

    case: str
    op: str
    opponent: str
    ratio: float
    impl: str = "dtwin-cpu"

    def measured(self, rows: list[Row]) -> float | None:
        """The ratio in these rows, or None where one of the two was not timed."""
        return ratio(rows, self.case, self.op, self.impl, self.opponent)


# Against "best JAX", which leaves the cores to XLA; "JAX sharded" stands beside it in the tables.
TARGETS = (
    Target("paper-train", "fwd", "best JAX", 2.5),
    Target("paper-train", "fwd", "torch eager", 4.5),
    Target("paper-train", "fwd_bwd", "best JAX", 3),
    Target("paper-train", "fwd_bwd", "torch eager", 12),
    Target("paper-train", "fwd", "float32", 1.4, impl="dtwin-bf16"),
    Target("paper-train-grouped", "fwd", "best JAX", 1.8),
    Target("paper-train-grouped", "fwd_bwd", "best JAX", 2),
    Target("paper-train-grouped", "fwd_bwd", "torch eager", 30),
    Target("paper-rollout", "fwd", "best JAX", 3),
    Target("paper-rollout", "fwd", "torch eager", 6),
    Target("paper-rollout", "fwd_bwd", "best JAX", 3),
    Target("paper-rollout", "fwd_bwd", "torch eager", 100),
    Target("bold434-h128", "fwd", "best JAX", 3),
    Target("bold434-h128", "fwd", "torch eager", 6),
    Target("bold434-h128", "fwd_bwd", "best JAX", 2.5),
    Target("bold434-h128", "fwd_bwd", "torch eager", 60),
    Target("contrast434-h128", "fwd", "best JAX", 8),
    Target("contrast434-h128", "fwd", "best JAX, states projected", 3),
    Target("contrast434-h128", "fwd_bwd", "best JAX, states projected", 3),
)

MIN_PERCENT_SGEMM = 60.0
"""Of the forward pass where B >= 8."""
MIN_PERCENT_W_HH_READS = 75.0
"""Of the forward pass where B = 1."""


def ratio(rows: list[Row], case: str, op: str, impl: str, opponent: str) -> float | None:
    """Time per subject of the fastest opponent over that of ``impl``; None if one is missing."""
    each = {
        row["impl"]: row["median_s"] / row["S"]
        for row in rows
        if (row["case"], row["op"]) == (case, op)
    }
    others = [each[name] for name in OPPONENTS[opponent] if name in each]
    return min(others) / each[impl] if others and impl in each else None


def limit_shares(rows: list[Row]) -> list[tuple[str, str, float | None, float]]:
    """(case, field, percent, wanted percent) of each forward pass that has such a target.

    The percent is None where the pass or its limit was not measured.
    """
    ours = {row["case"]: row for row in rows if (row["op"], row["impl"]) == ("fwd", "dtwin-cpu")}
    found = []
    for name, case in CASES.items():
        if case.B >= 8:
            field, wanted = "percent_sgemm", MIN_PERCENT_SGEMM
        elif case.B == 1:
            field, wanted = "percent_w_hh_reads", MIN_PERCENT_W_HH_READS
        else:
            continue
        found.append((name, field, ours.get(name, {}).get(field), wanted))
    return found
