"""``python -m dtwin_fast.benchmarks.training_step``: one step of training, whole.

Hypernetwork with dropout, rollout, loss, gradients of all its weights, clipping and Adam at the
paper's sizes, with our rollout and with loops of torch in its place; everything else is the same
in all of them. Every implementation's gradients are compared with a float64 step first.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import write_atomic
from ..spec import PRESETS
from .cases import Case
from .machine import examine
from .report import as_table
from .threads import count_threads
from .timing import summarise, take_turns, time_once
from .verify import MAX_REL_ERR

if TYPE_CHECKING:
    from torch import Tensor

    from ..training.network import HyperNetwork

PRESET = "tcp434"
N_STEPS = 262
BATCHES = {"paper": (50, 1), "grouped": (12, 16)}
"""People in a batch and segments of each: the paper's, and those of the default settings."""
OURS = "dtwin-torch"
OPPONENTS = ("torch-eager", "torch-unbind")
NO_ROLLOUT = "no rollout"


@dataclass(frozen=True, eq=False)
class Batch:
    """Inputs of one step: edges (S,E), stimuli (S,B,T,I), presses and BOLD (S,B,T,O)."""

    x: Tensor
    inputs: Tensor
    target: Tensor


def main(argv: Sequence[str] | None = None) -> int:
    """Verify, time, print a table; 1 if results were wrong."""
    parser = argparse.ArgumentParser(
        prog="training_step", description="Time a whole step of training."
    )
    parser.add_argument(
        "--preset", choices=tuple(PRESETS), default=PRESET, help=f"sizes (default {PRESET})"
    )
    parser.add_argument(
        "--budget",
        type=float,
        default=120,
        metavar="SECONDS",
        help="for the timing of either batch, about (default 120)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to FILE")
    args = parser.parse_args(argv)
    rows = [
        row
        for name in BATCHES
        for row in run_batch(name, args.preset, args.budget, lambda t: print(t, file=sys.stderr))
    ]
    results = {"machine": examine(), "preset": args.preset, "rows": rows}
    if args.json is not None:
        write_atomic(args.json, json.dumps(results, indent=1).encode() + b"\n")
    print(as_markdown(rows))
    return int(any("reason" in row for row in rows))


def run_batch(
    name: str, preset: str, budget_s: float, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """A row for each implementation, with ``reason`` in place of times if it was wrong."""
    import torch

    torch.set_num_threads(count_threads())
    n_people, n_segments = BATCHES[name]
    batch = draw(preset, n_people, n_segments)
    say(f"{name}: float64 reference")
    network = make_network(preset)
    wanted = gradients(network, batch, "torch-unbind", torch.float64)
    rows: dict[str, dict[str, Any]] = {}
    for impl in (OURS, *OPPONENTS):
        say(f"{name}: verifying {impl}")
        error = worst(gradients(network, batch, impl, torch.float32), wanted)
        rows[impl] = {"rel_err": error}
        if not error <= MAX_REL_ERR["float32"]:
            rows[impl]["reason"] = "wrong gradients: not timed"
    del wanted
    # Without a rollout: what no engine can make faster.
    timed = {impl: impl for impl, row in rows.items() if "reason" not in row} | {NO_ROLLOUT: None}
    say(f"{name}: timing {', '.join(timed)}")
    calls: dict[str, Callable[[], Any]] = {
        label: partial(step, network, make_optimiser(network), batch, impl)
        for label, impl in timed.items()
    }
    first_s = {label: time_once(call)[0] for label, call in calls.items()}
    rows[NO_ROLLOUT] = {}
    times = take_turns(calls, first_s, budget_s)
    for impl, each in times.items():
        rows[impl] |= summarise(each)
    for row in rows.values():
        if "median_s" in row and "median_s" in rows[OURS]:
            row["over_ours"] = row["median_s"] / rows[OURS]["median_s"]
    where = {"batch": name, "S": n_people, "B": n_segments}
    return [where | {"impl": impl} | row for impl, row in rows.items()]


def draw(preset: str, n_people: int, n_segments: int) -> Batch:
    """Random people and targets, always the same."""
    import torch

    spec = PRESETS[preset]
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random)

    segments = n_people, n_segments, N_STEPS
    presses = torch.rand((*segments, spec.n_actions), generator=random) < 1 / 30
    target = torch.cat([presses.float(), normal(*segments, len(spec.bold_regions))], dim=-1)
    return Batch(normal(n_people, spec.n_edges), normal(*segments, spec.n_inputs), target)


def make_network(preset: str) -> HyperNetwork:
    """The hypernetwork, always the same."""
    import torch

    from ..training.device import seeded
    from ..training.network import HyperNetwork

    with seeded(0, torch.device("cpu")):
        return HyperNetwork(PRESETS[preset], "hyperfan")


def loss_of(network: HyperNetwork, batch: Batch, impl: str | None) -> Tensor:
    """Cross-entropy of presses and squared error of BOLD; without ``impl`` of the weights."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

    from ..torch import rollout
    from .peers.torch_eager import plain_loop, unbound

    spec = network.spec
    weights = network.weights(batch.x)
    if impl is None:
        return torch.stack([(part**2).mean() for part in weights.values()]).sum()
    if impl == OURS:
        outputs = rollout(spec.cell, weights, batch.inputs).outputs
    else:
        n_people, n_segments = batch.inputs.shape[:2]
        sizes = n_people, n_segments, N_STEPS, spec.n_inputs, spec.n_hidden, spec.n_outputs
        h0 = batch.inputs.new_zeros(n_people, n_segments, spec.n_hidden)
        forward = {"torch-eager": plain_loop, "torch-unbind": unbound}[impl]
        outputs = forward(Case(spec.cell, *sizes), weights, batch.inputs, (h0,), None)
    n = spec.n_actions
    action = binary_cross_entropy_with_logits(outputs[..., :n], batch.target[..., :n])
    return action + mse_loss(outputs[..., n:], batch.target[..., n:])


def gradients(network: HyperNetwork, batch: Batch, impl: str, dtype: Any) -> dict[str, Any]:
    """Gradients of all parameters in ``dtype``, without dropout, whose masks differ by dtype."""
    import torch

    network.to(dtype).eval()
    typed = Batch(*(part.to(dtype) for part in (batch.x, batch.inputs, batch.target)))
    loss_of(network, typed, impl).backward()
    found = {name: parameter.grad for name, parameter in network.named_parameters()}
    network.zero_grad(set_to_none=True)
    network.to(torch.float32).train()
    return found


def worst(found: dict[str, Any], wanted: dict[str, Any]) -> float:
    """Largest error of any gradient, in units of its largest element; NaN spoils it."""
    errors = [
        float((found[name].double() - each).abs().max() / each.abs().max())
        for name, each in wanted.items()
    ]
    return float(np.max(errors))


def make_optimiser(network: HyperNetwork) -> Any:
    """Adam at the paper's rate."""
    import torch

    return torch.optim.Adam(network.parameters(), lr=1e-6)


def step(network: HyperNetwork, optimiser: Any, batch: Batch, impl: str | None) -> None:
    """One step of training."""
    import torch

    loss = loss_of(network, batch, impl)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 0.05)
    optimiser.step()


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """The table, one line for each batch and implementation."""
    lines = []
    for row in rows:
        verified = f"{row['rel_err']:.1e}" if "rel_err" in row else ""
        times = [
            f"{row[name]:.{digits}f}" if name in row else row.get(instead, "")
            for name, digits, instead in (("median_s", 3, "reason"), ("over_ours", 2, ""))
        ]
        lines.append((row["batch"], str(row["S"]), str(row["B"]), row["impl"], *times, verified))
    names = ("batch", "people", "segments", "implementation", "median s", "x ours", "rel err")
    return as_table(names, lines)


if __name__ == "__main__":
    sys.exit(main())
