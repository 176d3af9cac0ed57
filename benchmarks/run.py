"""Time the compiled rollout beside its peers: python benchmarks/run.py [--cases A,B] [--json FILE].

Outputs are compared with a float64 reference first, and nothing that fails is timed. The
implementations take turns (A B A B), the figures are medians, and what counts is their
ratio: absolute times depend on the machine and its neighbours.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dtwin_fast import RNNWeights, rollout, rollout_vjp
from dtwin_fast.dispatch import isa
from dtwin_fast.provenance import package_version
from dtwin_fast.weights import WEIGHT_NAMES, weight_shapes

MAX_REL_ERR = 1e-5
"""Of float32 results against float64, relative to the largest element of each array."""


@dataclass(frozen=True)
class Case:
    """Sizes of one rollout; letters as in dtwin_fast.spec."""

    cell: str
    S: int
    B: int
    T: int
    I: int  # noqa: E741
    H: int
    O: int  # noqa: E741

    @property
    def flop(self) -> float:
        """Multiplications and additions of the matrix products."""
        gates = weight_shapes(self.cell, self.I, self.H, self.O)["w_hh"][0]
        per_step = 2 * (gates * (self.I + self.H) + self.O * self.H)
        return float(self.S * self.B * self.T * per_step)


CASES: dict[str, Case] = {
    "small": Case("rnn", 256, 1, 500, 16, 64, 434),
    "medium": Case("rnn", 256, 1, 500, 16, 128, 434),
    "paper-train": Case("rnn", 50, 1, 262, 9, 400, 23),
    "paper-rollout": Case("rnn", 32, 1, 2460, 9, 400, 23),
    "grouped": Case("rnn", 8, 20, 262, 9, 400, 23),
    "gru": Case("gru", 64, 1, 262, 9, 128, 23),
    "lstm": Case("lstm", 64, 1, 262, 9, 128, 23),
}


def make(case: Case, dtype: type = np.float32) -> tuple[RNNWeights, np.ndarray]:
    """Random stable weights and inputs, the same for every dtype."""
    rng = np.random.default_rng(0)
    scale = 0.8 / np.sqrt(case.H)
    shapes = weight_shapes(case.cell, case.I, case.H, case.O).values()
    arrays = [(scale * rng.standard_normal((case.S, *shape))).astype(dtype) for shape in shapes]
    inputs = rng.standard_normal((case.S, case.B, case.T, case.I)).astype(dtype)
    return RNNWeights(case.cell, *arrays), inputs


Call = Callable[[], dict[str, np.ndarray]]


def calls(case: Case, op: str, dtype: type, precision: str) -> dict[str, Call]:
    """Name -> a call that returns what is compared: outputs, or gradients."""
    weights, inputs = make(case, dtype)
    d_outputs = np.ones((case.S, case.B, case.T, case.O), dtype) / (case.T * case.O)

    def forward(backend: str) -> dict[str, np.ndarray]:
        result = rollout(weights, inputs, backend=backend, precision=precision)
        return {"outputs": result.outputs}

    def forward_backward(backend: str) -> dict[str, np.ndarray]:
        # The gradients need the states, so this includes a forward pass.
        found = rollout_vjp(weights, inputs, d_outputs, backend=backend, precision=precision)
        return {name: getattr(found.weights, name) for name in WEIGHT_NAMES}

    run = {"fwd": forward, "fwd_bwd": forward_backward}[op]
    return {"dtwin-cpu": lambda: run("cpu"), "torch": lambda: run("reference")}


def run_case(name: str, case: Case, op: str, repeats: int) -> list[dict[str, Any]]:
    """Verify, then time; one row per implementation."""
    timed = calls(case, op, np.float32, "float32")
    wanted = calls(case, op, np.float64, "float64")["torch"]()
    errors = {
        impl: max(
            float(np.abs(found - wanted[key]).max() / np.abs(wanted[key]).max())
            for key, found in call().items()
        )
        for impl, call in timed.items()
    }
    for impl, error in errors.items():
        if not error <= MAX_REL_ERR:
            raise SystemExit(f"{name} {op}: {impl} is off by {error:.2e}; not timed")
    times: dict[str, list[float]] = {impl: [] for impl in timed}
    for _ in range(repeats):
        for impl, call in timed.items():
            start = time.perf_counter()
            call()
            times[impl].append(time.perf_counter() - start)
    median = {impl: statistics.median(values) for impl, values in times.items()}
    # The backward pass has two products for each of the forward's.
    flop = case.flop * {"fwd": 1, "fwd_bwd": 3}[op]
    return [
        {
            "case": name,
            "op": op,
            "impl": impl,
            "median_s": median[impl],
            "rel_err": errors[impl],
            "gflops": flop / median[impl] / 1e9,
            "ratio_to_best_peer": median["torch"] / median[impl],
        }
        for impl in timed
    ]


def main() -> None:
    """Run the chosen cases, print a table, write JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", default="all", help=f"all, or some of {','.join(CASES)}")
    parser.add_argument("--repeats", type=int, default=5, help="default 5")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    names = list(CASES) if args.cases == "all" else args.cases.split(",")
    if unknown := set(names) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    rows = []
    print(f"{'case':<14} {'op':<8} {'impl':<10} {'median s':>9} {'GFLOP/s':>8} ratio  rel err")
    for name, op in itertools.product(names, ("fwd", "fwd_bwd")):
        for row in run_case(name, CASES[name], op, args.repeats):
            rows.append(row)
            print(
                f"{name:<14} {op:<8} {row['impl']:<10} {row['median_s']:9.4f} "
                f"{row['gflops']:8.1f} {row['ratio_to_best_peer']:5.2f} {row['rel_err']:8.1e}",
                flush=True,
            )
    if args.json:
        facts = {
            "machine": platform.machine(),
            "threads": len(os.sched_getaffinity(0)),
            "isa": isa("cpu"),
            "dtwin_fast": package_version(),
            "torch": torch.__version__,
        }
        args.json.write_text(json.dumps({"facts": facts, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
