"""This package's implementations: the compiled engine, as a numpy call and as a torch op."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..dispatch import rollout, rollout_vjp
from ..weights import WEIGHT_NAMES
from .cases import Case
from .peers.torch_calls import prepare_torch
from .problem import Arrays, Call, Prepare, Problem, gradient_names
from .threads import count_threads

PREFIX = "dtwin-"


def variants(case: Case, op: str) -> dict[str, Prepare]:
    """``dtwin-cpu``, ``dtwin-bf16``, and the torch op as training pays for it."""
    found: dict[str, Prepare] = {
        "dtwin-cpu": partial(_prepare, op=op, precision="float32"),
        "dtwin-bf16": partial(_prepare, op=op, precision="bfloat16"),
    }
    if op == "fwd_bwd":
        found["dtwin-torch"] = partial(prepare_torch, op=op, forward=_torch_op)
    return found


def _prepare(problem: Problem, *, op: str, precision: str) -> Call:
    options: dict[str, Any] = {
        "h0": problem.h0 if len(problem.h0) > 1 else problem.h0[0],
        "backend": "cpu",
        "precision": precision,
        "time_projection": problem.projection,
        "n_threads": count_threads(),
    }
    if op == "fwd":
        run = partial(rollout, problem.weights, problem.inputs, **options)
        return Call(run, lambda result: {"outputs": result.outputs})

    def arrays(found: Any) -> Arrays:
        h0 = found.h0 if isinstance(found.h0, tuple) else (found.h0,)
        parts = [getattr(found.weights, name) for name in WEIGHT_NAMES]
        names = gradient_names(problem.case)
        return dict(zip(names, (*parts, found.inputs, *h0), strict=True))

    # The gradients need the states: this rolls out once more inside.
    vjp = partial(rollout_vjp, problem.weights, problem.inputs, problem.d_outputs, **options)
    return Call(vjp, arrays)


def _torch_op(case: Case, weights: Any, inputs: Any, h0: Any, projection: Any) -> Any:
    from ..torch import rollout as op

    state = h0 if len(h0) > 1 else h0[0]
    return op(case.cell, weights, inputs, state, time_projection=projection).outputs
