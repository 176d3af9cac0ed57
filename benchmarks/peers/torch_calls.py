"""A rollout written in torch as a call that can be timed; the peers and our op share it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..problem import Call, Problem, gradient_names
from ..threads import count_threads

Forward = Callable[..., Any]
"""``(case, weights by name, inputs, h0 parts, projection or None) -> outputs`` on tensors."""


def prepare_torch(problem: Problem, *, op: str, forward: Forward) -> Call:
    """The forward pass without autograd, or a forward pass and ``torch.autograd.grad``."""
    import torch

    torch.set_num_threads(count_threads())
    arrays = (*problem.weight_arrays.values(), problem.inputs, *problem.h0)
    leaves = [torch.from_numpy(array).requires_grad_(op == "fwd_bwd") for array in arrays]
    n_weights = len(problem.weight_arrays)
    weights = dict(zip(problem.weight_arrays, leaves, strict=False))
    inputs, h0 = leaves[n_weights], tuple(leaves[n_weights + 1 :])
    projection = None if problem.projection is None else torch.from_numpy(problem.projection)
    d_outputs = torch.from_numpy(problem.d_outputs)

    def run_forward() -> Any:
        with torch.no_grad():
            return forward(problem.case, weights, inputs, h0, projection)

    def run_both() -> Any:
        outputs = forward(problem.case, weights, inputs, h0, projection)
        return torch.autograd.grad(outputs, leaves, d_outputs)

    if op == "fwd":
        return Call(run_forward, lambda outputs: {"outputs": outputs.numpy()})
    names = gradient_names(problem.case)
    return Call(run_both, lambda found: {n: g.numpy() for n, g in zip(names, found, strict=True)})
