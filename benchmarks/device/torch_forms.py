"""Rollouts in torch: the engine's op on each backend, and the reference loop in three forms.

``torch-unbind`` is ``dtwin_fast.reference`` as it is, ``torch-graph`` replays a CUDA graph of it,
and ``torch-compile`` is the loop under torch.compile, unrolled over all steps.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ...errors import BackendUnavailableError
from ..cases import Case
from ..peers.torch_calls import Forward
from ..peers.torch_eager import unbound
from .problem import Call, Prepare, Problem

COMPILE_S, ALL_COMPILES_S = 25.0, 75.0
"""torch.compile may take so long for a case, and in all; some hundred steps take it minutes."""


def engine(backend: str, precision: str | None) -> Prepare:
    """The differentiable op of ``dtwin_fast.torch`` on a named backend."""
    options: dict[str, Any] = {"backend": backend, "precision": precision}

    def forward(case: Case, weights: Any, inputs: Any, h0: Any, projection: Any) -> Any:
        from ...torch import rollout

        state = h0 if len(h0) > 1 else h0[0]
        return rollout(
            case.cell, weights, inputs, state, time_projection=projection, **options
        ).outputs

    return lambda problems, op: [torch_call(problem, op, forward) for problem in problems]


def eager(problems: list[Problem], op: str) -> list[Call]:
    """``torch-unbind``."""
    return [torch_call(problem, op, unbound) for problem in problems]


def graphed(problems: list[Problem], op: str) -> list[Call]:
    """``torch-graph``: one graph of everything that ``torch-unbind`` launches."""
    return [_capture(torch_call(problem, op, unbound)) for problem in problems]


class Compiled:
    """``torch-compile``. After one that took too long, only cases of half its steps are tried."""

    def __init__(self) -> None:
        self._too_many_steps: float = float("inf")
        self._left_s = ALL_COMPILES_S

    def __call__(self, problems: list[Problem], op: str) -> list[Call]:
        n_steps = problems[0].case.T
        if n_steps >= self._too_many_steps:
            reason = f"not tried: {n_steps} unrolled steps compile no faster than those before"
            raise BackendUnavailableError(reason)
        limit_s = min(COMPILE_S, self._left_s)
        if limit_s <= 0:
            raise BackendUnavailableError(f"not tried: {ALL_COMPILES_S:.0f} s went into compiling")
        # Past so many sizes of one function torch would quietly run it eagerly.
        torch.compiler.reset()
        forward = torch.compile(unbound, dynamic=False, fullgraph=True)
        calls = [torch_call(problem, op, forward) for problem in problems]
        start = time.monotonic()
        try:
            with time_limit(limit_s):
                calls[0].run()
        except OutOfTime:
            self._too_many_steps = n_steps / 2
            reason = f"torch.compile took more than {limit_s:.0f} s for {n_steps} unrolled steps"
            raise BackendUnavailableError(reason) from None
        finally:
            self._left_s -= time.monotonic() - start
        return calls


def torch_call(problem: Problem, op: str, forward: Forward) -> Call:
    """The forward pass without autograd, or a forward pass and ``torch.autograd.grad``."""
    names = list(problem.leaves)
    leaves = [tensor.detach().requires_grad_(op == "fwd_bwd") for tensor in problem.leaves.values()]
    n_weights = len(problem.weights)
    weights = dict(zip(problem.weights, leaves, strict=False))
    arguments = (weights, leaves[n_weights], tuple(leaves[n_weights + 1 :]), problem.projection)

    def run_forward() -> Any:
        with torch.no_grad():
            return forward(problem.case, *arguments)

    def run_both() -> Any:
        outputs = forward(problem.case, *arguments)
        return torch.autograd.grad(outputs, leaves, problem.d_outputs)

    if op == "fwd":
        return Call(run_forward, lambda outputs: {"outputs": outputs})
    return Call(run_both, lambda found: dict(zip(names, found, strict=True)))


def _capture(call: Call) -> Call:
    """The call as a graph; its result lies in the same memory after each replay."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call.run()  # loads libraries and kernels, which a capture cannot
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call.run()

    def run() -> Any:
        graph.replay()
        return result

    return Call(run, call.tensors)


class OutOfTime(BaseException):
    """Not an Exception, which a compiler in between would wrap or swallow."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in the body, in the main thread, when it takes longer."""

    def stop(signum: int, frame: object) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
