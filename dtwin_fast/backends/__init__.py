"""The backends by name. A new one is one module here and one line in BACKENDS."""

from __future__ import annotations

from . import cpu, cuda, reference, triton
from .interface import Backend, Gradients, LossGradients, Problem, Solution, State, Vjp

__all__ = [
    "BACKENDS",
    "VJPS",
    "Backend",
    "Gradients",
    "LossGradients",
    "Problem",
    "Solution",
    "State",
    "Vjp",
]

BACKENDS: dict[str, Backend] = {
    "cuda": cuda,
    "cpu": cpu,
    "triton": triton,
    "reference": reference,
}
"""In the order in which "auto" tries them."""

VJPS: dict[str, Vjp] = {
    "cuda": cuda.rollout_vjp,
    "cpu": cpu.rollout_vjp,
    "triton": triton.rollout_vjp,
    "reference": reference.rollout_vjp,
}
"""The backends with gradients, in the order in which "auto" tries them."""
