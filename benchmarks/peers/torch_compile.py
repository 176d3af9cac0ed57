"""``torch-compile``: the strongest eager loop under torch.compile, unrolled over all steps."""

from __future__ import annotations

from functools import partial

from ..cases import Case
from ..problem import Call, Prepare, Problem
from .torch_calls import prepare_torch
from .torch_eager import unbound

MAX_STEPS = 600
"""Compilation takes minutes for some hundred steps and grows faster than they do."""


def why_not(case: Case) -> str | None:
    """The reason why this cannot run, or None."""
    if case.T > MAX_STEPS:
        return f"torch.compile unrolls the loop, and {case.T} steps are more than {MAX_STEPS}"
    return None


def variants(case: Case, op: str) -> dict[str, Prepare]:
    """``torch-compile``."""
    return {"torch-compile": partial(_prepare, op=op)}


def _prepare(problem: Problem, *, op: str) -> Call:
    import torch

    # Past so many sizes of one function torch would quietly run it eagerly.
    torch.compiler.reset()
    forward = torch.compile(unbound, dynamic=False, fullgraph=True)
    call = prepare_torch(problem, op=op, forward=forward)
    call.run()  # compiles
    return call
