"""``python -m dtwin_fast.benchmarks.interventions``: searches and maps at the paper's sizes.

Closed-loop searches and SmoothGrad, ours and in torch alone, on an untrained twin and random
people. Gradients of all edges are first compared with float64 autograd through the whole chain,
and SmoothGrad's maps with torch's: where one of them is wrong, nothing is timed. Torch runs on
fewer people; ratios are of the time per person and step, or per person and draw.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..connectome import Connectomes
from ..files import write_atomic
from ..hypernetwork import Layer
from ..interventions.constraints import Constraint
from ..interventions.effect import DOSES
from ..interventions.gradients import Simulator, in_fisher_z
from ..interventions.intervene import N_RANDOM
from ..interventions.search import N_STEPS, PRECISION, Found, search
from ..interventions.targets import Contrast, ReactionTime, find_target
from ..interventions.weight_space import (
    N_DRAWS,
    NOISE_SHARE,
    WeightDirection,
    WeightSpace,
    smooth_gradients,
)
from ..interventions.workbench import RANDOM_PEOPLE
from ..spec import PRESETS
from ..twin import Twin
from ..weights import spec_weight_shapes, split_flat
from . import ukb
from .cases import Case
from .machine import examine
from .report import as_number, as_table
from .threads import count_threads
from .timing import summarise, take_turns, time_once
from .training_step import make_network

if TYPE_CHECKING:
    from torch import Tensor

Float32 = npt.NDArray[np.float32]
Row = dict[str, Any]
Say = Callable[[str], None]

PRESET = "tcp446"
TARGETS = ("amygdala", "speed")
COHORT = 228
"""People for whom times are worked out, with all steps of the product's default."""
PEOPLE = 32
"""People of our timed searches: one block of the hypernetwork."""
STEPS = 3
"""Of the timed searches; the second is the first to be projected."""
TORCH_PEOPLE = 4
"""Of torch's timed searches, or as many more as fill a batch."""
BATCHES = (2, 4, 6, 8, 16)
"""People in a batch, of which torch gets what is best for it."""
PROBES = 2
"""Gradients of each batch by which that is found."""
SMOOTH_PEOPLE = 4
"""Of torch's timed SmoothGrad."""
BUDGET = 2.0
"""Largest L2 norm of a change, Fisher z."""
BUDGET_S = 60.0
"""For the timing of each group, about."""

N_VERIFIED = 2
"""People whose gradients and maps are compared."""
MAPS = 10
"""Maps of either kind, of independent draws, whose means are compared."""
MAX_GRADIENT_ERR = 1e-4
"""Relative to the largest element of a person's gradient."""
MIN_COSINE = 0.99
"""Of gradients by rounded weights with those by float64."""
MAX_CHANGE_ERR = 1e-3
"""Relative to the norm of the change that torch's loop finds."""
MAX_STANDARD_ERRORS = 2.0
MAX_SPREAD_RATIO = 1.5
"""Between the standard errors of our maps and of torch's."""

OURS, OURS_FLOAT32, TORCH = f"dtwin-{PRECISION}", "dtwin-float32", "torch-unbind"
TORCH_LOOP = "torch-eager"
"""The loop as it is usually written, which indexes a step's inputs: see peers/torch_eager.py."""
CONTROLS = "controls"
"""The dose curve of everyone and random directions of some, rollouts without gradients."""
PRECISIONS = {OURS: PRECISION, OURS_FLOAT32: "float32"}
_CONTRACTION = 0.6
"""Recurrent weights times this: the spectral radius of the untrained RNN falls from 1.4 to 0.8. No
two arithmetics agree on gradients through thousands of steps of a chaotic one."""


def main(argv: Sequence[str] | None = None) -> int:
    """Verify, time, print tables; 1 if results were wrong."""
    parser = argparse.ArgumentParser(prog="interventions", description="Time interventions.")
    parser.add_argument(
        "--preset", choices=tuple(PRESETS), default=PRESET, help=f"sizes (default {PRESET})"
    )
    parser.add_argument(
        "--people",
        type=int,
        default=PEOPLE,
        metavar="N",
        help=f"people of a timed search, 1 to {COHORT} (default {PEOPLE}); torch gets fewer",
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help=f"also search for {COHORT} people with {N_STEPS} steps, really",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to FILE")
    args = parser.parse_args(argv)
    if not 1 <= args.people <= COHORT:
        parser.error(f"--people: 1 to {COHORT}, not {args.people}")
    results = run(args.preset, args.people, args.full, lambda text: print(text, file=sys.stderr))
    if args.json is not None:
        write_atomic(args.json, json.dumps(results, indent=1).encode() + b"\n")
    print(as_markdown(results))
    return int(any("reason" in row for row in (*results["verified"], *results["rows"])))


def run(preset: str, n_people: int, full: bool, say: Say) -> dict[str, Any]:
    """All results; no times where the verification found something wrong."""
    import torch

    torch.set_num_threads(count_threads())
    say(f"drawing {COHORT} people")
    bench = Bench.draw(preset, say)
    verified = [row for target in TARGETS for row in verify_gradients(bench, target)]
    verified.append(verify_maps(bench))
    rows: list[Row] = []
    if not any("reason" in row for row in verified):
        rows += [row for target in TARGETS for row in time_search(bench, target, n_people)]
        rows += time_maps(bench)
        if not any("reason" in row for row in rows):
            rows += whole_cohort(rows)
            if full:
                rows += run_cohort(bench)
    where = {"machine": examine(), "preset": preset, "budget": BUDGET}
    return where | {"verified": verified, "rows": rows}


@dataclass(frozen=True, eq=False)
class Bench:
    """A twin, COHORT people in Fisher z, and a direction through the weights it makes of them."""

    twin: Twin
    people: Connectomes
    direction: WeightDirection
    say: Say

    @classmethod
    def draw(cls, preset: str, say: Say) -> Bench:
        """The same ones always."""
        r = draw_people(COHORT, PRESETS[preset].n_regions)
        twin = make_twin(preset, np.arctanh(r))
        people = in_fisher_z(twin.prepare(r))
        space = WeightSpace.of(twin.layers[-1], simulator(twin, TARGETS[0]).hidden(people))
        score = np.random.default_rng(2).standard_normal(COHORT)
        return cls(twin, people, space.direction(score), say)


def draw_people(n_people: int, n_regions: int) -> Float32:
    """(S,E) Pearson r of 500 volumes of 20 factors, alike between people, and noise."""
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((20, n_regions))
    upper = np.triu_indices(n_regions, 1)
    edges = np.empty((n_people, len(upper[0])), np.float32)
    for row in edges:
        own = shared + 0.5 * rng.standard_normal(shared.shape)
        noise = 4 * rng.standard_normal((500, n_regions))
        series = rng.standard_normal((500, 20)) @ own + noise
        row[:] = np.asarray(np.corrcoef(series.T))[upper]
    return edges


def make_twin(preset: str, z: Float32) -> Twin:
    """An untrained twin with hazards, which standardises edges by people of (S,E) Fisher z."""
    spec = replace(PRESETS[preset], head="hazard", standardize=True)
    *hidden, last = make_network(preset).numpy_layers()
    start = 0
    for name, shape in spec_weight_shapes(spec).items():
        stop = start + math.prod(shape)
        if name == "w_hh":
            last.weight[start:stop] *= _CONTRACTION
            last.bias[start:stop] *= _CONTRACTION
        start = stop
    layers: tuple[Layer, ...] = (*hidden, last)
    return replace(
        ukb.make_twin(spec), layers=layers, edge_mean=z.mean(axis=0), edge_sd=z.std(axis=0)
    )


def simulator(twin: Twin, target: str, impl: str = OURS_FLOAT32) -> Simulator:
    """Ours, on the CPU and all its cores."""
    return Simulator(
        twin,
        [find_target(target)],
        backend="cpu",
        precision=PRECISIONS[impl],
        n_threads=count_threads(),
    )


class TorchTwin:
    """A twin and one of its targets once more, in torch alone.

    Args:
        twin: the model.
        target: a key of ``dtwin_fast.interventions.TARGETS``: a contrast, or speed.
        dtype: of torch, for everything.
        loop: ``TORCH`` or ``TORCH_LOOP``.
    """

    def __init__(self, twin: Twin, target: str, dtype: Any, loop: str = TORCH) -> None:
        import torch

        def tensor(array: npt.NDArray[Any]) -> Tensor:
            return torch.as_tensor(array).to(dtype)

        self.spec, self.loop = twin.spec, loop
        self.layers = [(tensor(layer.weight), tensor(layer.bias)) for layer in twin.layers]
        self.mean, self.sd = tensor(twin.edge_mean), tensor(twin.edge_sd)
        found = find_target(target)
        tasks = found.tasks(twin)
        self.inputs = tensor(twin.encode(tasks))
        self._read: Callable[[Tensor], Tensor]
        if isinstance(found, Contrast):
            effect = twin.projections[found.task][twin.contrasts[found.task].index(found.contrast)]
            columns = [twin.spec.bold_regions.index(region) for region in found.regions]
            self._read = partial(self._contrast, tensor(effect), columns)
        elif isinstance(found, ReactionTime) and found.coefficients is None:
            windows = [_windows(twin, task) for task in tasks]
            parts = [(torch.as_tensor(w.steps), tensor(w.inside), tensor(w.rt_s)) for w in windows]
            self._read = partial(self._speed, parts)
        else:
            raise NotImplementedError(f"no chain of torch for {target}")

    def hidden(self, z: Tensor) -> Tensor:
        """(S,D) the hypernetwork's last hidden layer of (S,E) Fisher z."""
        from torch.nn.functional import mish

        h = (z - self.mean) / self.sd
        for weight, bias in self.layers[:-1]:
            h = mish(h @ weight.T + bias)
        return h

    def outputs(self, z: Tensor) -> Tensor:
        """(S,B,T,O) of the tasks that the target needs."""
        from ..reference import rollout
        from .peers.torch_eager import plain_loop

        weight, bias = self.layers[-1]
        weights = split_flat(self.hidden(z) @ weight.T + bias, self.spec)
        if self.loop == TORCH:
            return rollout(self.spec.cell, weights, self.inputs).outputs
        spec, (n_sequences, n_steps, n_inputs) = self.spec, self.inputs.shape
        case = Case(
            spec.cell, len(z), n_sequences, n_steps, n_inputs, spec.n_hidden, spec.n_outputs
        )
        h0 = z.new_zeros(len(z), n_sequences, spec.n_hidden)
        shared = self.inputs.expand(len(z), *self.inputs.shape)
        outputs: Tensor = plain_loop(case, weights, shared, (h0,), None)
        return outputs

    def gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(S,) the target and (S,E) its gradient."""
        import torch

        z = z.detach().requires_grad_()
        value = self._read(self.outputs(z))
        (gradient,) = torch.autograd.grad(value.sum(), z)
        return value.detach(), gradient

    def search(self, z: Tensor, sign: float, n_steps: int, batch: int) -> Tensor:
        """(S,E) changes by the steps of :func:`dtwin_fast.interventions.search.search`."""
        import torch

        found = []
        for part in z.split(batch):
            change = best = torch.zeros_like(part)
            start = merit = part.new_zeros(len(part))
            for step in range(n_steps):
                value, gradient = self.gradient(part + change)
                if step == 0:
                    start = value
                gain = sign * (value - start)
                best = torch.where((gain > merit)[:, None], change, best)
                merit = gain.maximum(merit)
                if step + 1 == n_steps:
                    break
                along = sign * gradient / gradient.norm(dim=1, keepdim=True)
                change = change + BUDGET / math.sqrt(step + 1) * along
                change = change * (BUDGET / change.norm(dim=1, keepdim=True)).clamp(max=1)
            found.append(best)
        return torch.cat(found)

    def maps(self, z: Tensor, direction: WeightDirection, random: Any, n_draws: int) -> Tensor:
        """(S,E) SmoothGrad of a direction's score, with noise on all edges of every draw."""
        import torch

        score = torch.as_tensor(direction.score).to(z)
        mean = torch.empty_like(z)
        for row, edges in enumerate(z):
            noise = torch.randn((n_draws, len(edges)), generator=random, dtype=z.dtype)
            sigma = NOISE_SHARE * edges.std(correction=0)
            noisy = (edges + sigma * noise).requires_grad_()
            z1 = self.hidden(noisy) @ score
            mean[row] = torch.autograd.grad(z1.sum(), noisy)[0].mean(dim=0)
        return mean

    def _contrast(self, effect: Tensor, columns: list[int], outputs: Tensor) -> Tensor:
        bold = outputs[:, 0, : len(effect), self.spec.n_actions :]
        return (effect @ bold)[:, columns].mean(dim=1)

    def _speed(self, windows: list[tuple[Tensor, Tensor, Tensor]], outputs: Tensor) -> Tensor:
        """Of all trials at once, which is what a loop over them should be."""
        import torch

        means = []
        for b, (steps, inside, rt_s) in enumerate(windows):
            actions = outputs[:, b, :, : self.spec.n_actions][:, steps]
            nothing = torch.zeros_like(actions[..., :1])
            share = torch.cat([actions, nothing], dim=3).softmax(dim=3)
            hazard = share[..., :-1].sum(dim=3) * inside
            reached = torch.where(inside > 0, share[..., -1], 1).cumprod(dim=2)
            reached = torch.cat([torch.ones_like(reached[..., :1]), reached[..., :-1]], dim=2)
            press = hazard * reached
            means.append(((press * rt_s).sum(dim=2) / press.sum(dim=2)).mean(dim=1))
        return -torch.stack(means).mean(dim=0)


@dataclass(frozen=True, eq=False)
class Windows:
    """Response windows of N trials, (N,L) each: steps, which of them are inside, their times."""

    steps: npt.NDArray[np.int64]
    inside: npt.NDArray[np.float64]
    rt_s: npt.NDArray[np.float64]


def _windows(twin: Twin, task: str) -> Windows:
    schedule, dt_s = twin.schedules[task], twin.spec.dt_s
    start, stop = schedule.response_windows(dt_s).astype(np.int64).T
    steps = start[:, None] + np.arange((stop - start).max())
    rt_s = (steps + 0.5) * dt_s - schedule.onset_s[:, None]
    inside = steps < stop[:, None]
    return Windows(np.minimum(steps, stop[:, None] - 1), inside.astype(np.float64), rt_s)


def verify_gradients(bench: Bench, target: str) -> list[Row]:
    """Of every implementation beside float64 autograd; ``reason`` where one is wrong."""
    import torch

    bench.say(f"{target}: float64 reference")
    few = bench.people.select(slice(N_VERIFIED))
    z = torch.as_tensor(few.edges)
    wanted = TorchTwin(bench.twin, target, torch.float64).gradient(z.double())[1].numpy()
    rows = []
    for impl in (OURS, OURS_FLOAT32, TORCH, TORCH_LOOP):
        bench.say(f"{target}: verifying {impl}")
        if impl in (TORCH, TORCH_LOOP):
            found = TorchTwin(bench.twin, target, torch.float32, impl).gradient(z)[1].numpy()
        else:
            found = simulator(bench.twin, target, impl).gradients(few)[1][0]
        row: Row = {"op": "gradient", "target": target, "impl": impl, "people": N_VERIFIED}
        row |= {"rel_err": worst(found, wanted), "cosine": least_cosine(found, wanted)}
        if PRECISIONS.get(impl) == "bfloat16":
            is_right = row["cosine"] >= MIN_COSINE
        else:
            is_right = row["rel_err"] <= MAX_GRADIENT_ERR
        if not is_right:
            row["reason"] = "wrong gradients: nothing is timed"
        rows.append(row)
    return rows


def verify_maps(bench: Bench) -> Row:
    """SmoothGrad beside torch's: means of independent maps, in their standard errors."""
    import torch

    bench.say("smoothgrad: verifying")
    few = bench.people.select(slice(N_VERIFIED))
    chain = TorchTwin(bench.twin, TARGETS[0], torch.float32)
    random = torch.Generator().manual_seed(3)
    rng = np.random.default_rng(3)
    calls: dict[str, Callable[[], Any]] = {
        OURS_FLOAT32: partial(smooth_gradients, bench.twin, few, bench.direction, rng),
        TORCH: partial(chain.maps, torch.as_tensor(few.edges), bench.direction, random, N_DRAWS),
    }
    maps = {
        impl: np.stack([np.asarray(call()) for _ in range(MAPS)]) for impl, call in calls.items()
    }
    ours, theirs = (np.asarray(each.mean(axis=0, dtype=np.float64)) for each in maps.values())
    # Of the whole map of a person: its edges move together, so single ones say little.
    variance = {
        impl: each.var(axis=0, ddof=1, dtype=np.float64).sum(axis=1) / MAPS
        for impl, each in maps.items()
    }
    off = np.linalg.norm(ours - theirs, axis=1)
    errors = float(np.max(off / np.sqrt(sum(variance.values()))))
    with np.errstate(divide="ignore"):  # no noise at all is infinitely less
        spread = np.sqrt(variance[OURS_FLOAT32] / variance[TORCH])
        ratio = float(np.max([spread, 1 / spread]))
    row: Row = {"op": "smoothgrad", "target": "z1", "impl": OURS_FLOAT32, "people": N_VERIFIED}
    row |= {"draws": MAPS * N_DRAWS, "standard_errors": errors, "spread_ratio": ratio}
    row |= {
        "rel_err": float(np.max(off / np.linalg.norm(theirs, axis=1))),
        "cosine": least_cosine(ours, theirs),
    }
    if not (errors <= MAX_STANDARD_ERRORS and ratio <= MAX_SPREAD_RATIO):
        row["reason"] = "wrong maps: nothing is timed"
    return row


def worst(found: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> float:
    """Largest error of a person's gradient, in units of its largest element; NaN spoils it."""
    errors = np.abs(found.astype(np.float64) - wanted).max(axis=1) / np.abs(wanted).max(axis=1)
    return float(np.max(errors))


def least_cosine(found: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> float:
    """Of people's gradients (S,E) with others."""
    one, other = found.astype(np.float64), wanted.astype(np.float64)
    sizes = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(np.min(np.einsum("se,se->s", one, other) / sizes))


def best_batch(chain: TorchTwin, z: Tensor) -> int:
    """People in a batch with which torch spends the least time on each."""
    times = {min(batch, len(z)): math.inf for batch in BATCHES}
    for _ in range(PROBES):
        for batch in times:
            seconds, _ = time_once(partial(chain.gradient, z[:batch]))
            times[batch] = min(times[batch], seconds / batch)
    return min(times, key=lambda batch: times[batch])


def time_search(bench: Bench, target: str, n_people: int) -> list[Row]:
    """Of a target: searches, ours and torch's, and what the controls of an effect cost."""
    import torch

    people = bench.people.select(slice(n_people))
    chain = TorchTwin(bench.twin, target, torch.float32)
    z = torch.as_tensor(people.edges)
    bench.say(f"{target}: a batch for torch")
    batch = best_batch(chain, z)
    n_torch = min(n_people, -(-TORCH_PEOPLE // batch) * batch)
    calls: dict[str, Callable[[], Any]] = {
        impl: searching(bench, target, impl, people, n_steps=STEPS) for impl in PRECISIONS
    }
    calls[TORCH] = partial(chain.search, z[:n_torch], sign_of(target), STEPS, batch)
    loop = TorchTwin(bench.twin, target, torch.float32, TORCH_LOOP)
    calls[TORCH_LOOP] = partial(loop.search, z[:n_torch], sign_of(target), STEPS, batch)
    control = simulator(bench.twin, target)
    hidden = control.hidden(people)
    bench.say(f"{target}: {', '.join(calls)} on {n_people} people, torch on {n_torch}")
    first = {label: time_once(call) for label, call in calls.items()}
    wanted = first[TORCH][1].numpy()
    rows: dict[str, Row] = {}
    for impl in calls:
        rows[impl] = {"op": "search", "target": target, "impl": impl}
        rows[impl] |= {"people": n_people if impl in PRECISIONS else n_torch, "steps": STEPS}
        if impl in PRECISIONS:
            found = first[impl][1].change[:n_torch]
            rows[impl]["cosine_of_change"] = least_cosine(found, wanted)
            off = np.linalg.norm(found - wanted, axis=1) / np.linalg.norm(wanted, axis=1)
            rows[impl]["error_of_change"] = float(np.max(off))
    rows[TORCH]["batch"] = rows[TORCH_LOOP]["batch"] = batch
    if not rows[OURS_FLOAT32]["error_of_change"] <= MAX_CHANGE_ERR:
        rows[OURS_FLOAT32]["reason"] = "another change than torch's loop: not timed"
        return list(rows.values())
    calls[CONTROLS] = partial(control.values, hidden)
    first[CONTROLS] = time_once(calls[CONTROLS])
    bench.say(f"{target}: timing")
    first_s = {label: each[0] for label, each in first.items()}
    rows[CONTROLS] = {"op": CONTROLS, "target": target, "impl": OURS_FLOAT32}
    rows[CONTROLS] |= {"people": n_people, "steps": 1}
    for label, each in take_turns(calls, first_s, BUDGET_S).items():
        rows[label] |= rates(each, rows[label]["people"] * rows[label]["steps"])
    for impl in (*PRECISIONS, TORCH, TORCH_LOOP):
        rows[impl]["over_ours"] = rows[OURS]["per_s"] / rows[impl]["per_s"]
        rows[impl]["cohort_s"] = COHORT * N_STEPS / rows[impl]["per_s"]
    n_rollouts = len(DOSES) * COHORT + N_RANDOM * min(RANDOM_PEOPLE, COHORT)
    rows[CONTROLS]["cohort_s"] = n_rollouts / rows[CONTROLS]["per_s"]
    return [row | {"computed": True} for row in rows.values()]


def searching(
    bench: Bench, target: str, impl: str, people: Connectomes, **options: Any
) -> Callable[[], Found]:
    """The product's search with all its steps, the L2 budget being its only constraint."""
    ours = simulator(bench.twin, target, impl)
    sign = sign_of(target)
    return partial(search, ours, people, Constraint(), BUDGET, sign, patience=None, **options)


def sign_of(target: str) -> float:
    """1 where the target is to rise, else -1."""
    return 1.0 if find_target(target).goal == "up" else -1.0


def time_maps(bench: Bench) -> list[Row]:
    """SmoothGrad of the whole cohort, and torch's of some of it."""
    import torch

    chain = TorchTwin(bench.twin, TARGETS[0], torch.float32)
    few = torch.as_tensor(bench.people.edges[:SMOOTH_PEOPLE])
    rng, random = np.random.default_rng(4), torch.Generator().manual_seed(4)
    calls: dict[str, Callable[[], Any]] = {
        OURS_FLOAT32: partial(smooth_gradients, bench.twin, bench.people, bench.direction, rng),
        TORCH: partial(chain.maps, few, bench.direction, random, N_DRAWS),
    }
    bench.say("smoothgrad: timing")
    first_s = {impl: time_once(call)[0] for impl, call in calls.items()}
    rows = {}
    n_people = {OURS_FLOAT32: COHORT, TORCH: SMOOTH_PEOPLE}
    for impl, each in take_turns(calls, first_s, BUDGET_S).items():
        row: Row = {"op": "smoothgrad", "target": "z1", "impl": impl, "people": n_people[impl]}
        row |= {"steps": N_DRAWS} | rates(each, n_people[impl] * N_DRAWS)
        row |= {"cohort_s": COHORT * N_DRAWS / row["per_s"], "computed": n_people[impl] < COHORT}
        rows[impl] = row
    for row in rows.values():
        row["over_ours"] = rows[OURS_FLOAT32]["per_s"] / row["per_s"]
    return list(rows.values())


def rates(times_s: Sequence[float], n_units: int) -> Row:
    """What a row says of a call that did so many steps or draws of a person."""
    times = summarise(times_s)
    return times | {"per_s": n_units / times["median_s"]}


def whole_cohort(rows: Sequence[Row]) -> list[Row]:
    """COHORT people with N_STEPS steps and all targets, worked out from the timed searches."""
    sums: dict[str, float] = {}
    for row in rows:
        if row["op"] == "search":
            sums[row["impl"]] = sums.get(row["impl"], 0.0) + row["cohort_s"]
    where = {"op": "search", "target": "all", "people": COHORT, "steps": N_STEPS}
    return [
        where | {"impl": impl, "cohort_s": s, "over_ours": s / sums[OURS], "computed": True}
        for impl, s in sums.items()
    ]


def run_cohort(bench: Bench) -> list[Row]:
    """COHORT people with N_STEPS steps, really; and what it takes to make changes valid."""
    rows: list[Row] = []
    for target in TARGETS:

        def tell(done: int, total: int, target: str = target) -> None:
            if done == total or done % (10 * PEOPLE) == 0:
                bench.say(f"{target}: {done} of {total} steps of a person")

        seconds, found = time_once(
            searching(bench, target, OURS, bench.people, n_steps=N_STEPS, progress=tell)
        )
        valid = Constraint(valid=True)
        valid_s, _ = time_once(partial(valid.make_valid, bench.people.edges, found.change))
        where = {"target": target, "impl": OURS, "people": COHORT, "computed": False}
        rows.append(where | {"op": "search", "steps": N_STEPS, "cohort_s": seconds})
        rows.append(where | {"op": "make valid", "steps": 1, "cohort_s": valid_s})
    for op in ("search", "make valid"):
        total = sum(row["cohort_s"] for row in rows if row["op"] == op)
        rows.append({**rows[0], "op": op, "target": "all", "cohort_s": total})
    return rows


def as_markdown(results: dict[str, Any]) -> str:
    """What was verified, and a line for each time."""
    verified, timed = [], []
    for row in results["verified"]:
        error = f"{row['rel_err']:.1e}"
        if "standard_errors" in row:
            error += f" ({row['standard_errors']:.2f} standard errors)"
        cells = (row["op"], row["target"], row["impl"], error, f"{row['cosine']:.6f}")
        verified.append((*cells, row.get("reason", "right")))
    for row in results["rows"]:
        timed.append(
            (
                *(row[name] for name in ("op", "target", "impl")),
                f"{row['people']} x {row['steps']}",
                f"{row['batch']}" if "batch" in row else "",
                row.get("reason") or as_number(row.get("median_s"), ".2f"),
                as_number(row.get("per_s"), ".2f"),
                as_number(row.get("over_ours"), ".2f"),
                as_number(row.get("cohort_s"), ".1f"),
                {True: "computed", False: "measured"}.get(row.get("computed"), ""),
            )
        )
    what = ("target", "implementation")
    tables = (
        as_table(("verified", *what, "rel err", "cosine", "verdict"), verified),
        as_table(
            ("timed", *what, "people x steps or draws", "batch", "median s", "of a person per s",
             "x ours", f"{COHORT} people s", "which is"),
            timed,
        ),
    )  # fmt: skip
    return "\n\n".join(table for table in tables if table)


if __name__ == "__main__":
    sys.exit(main())
