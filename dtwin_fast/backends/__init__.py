"""The backends by name. A new one is one module here and one line in BACKENDS."""

from __future__ import annotations

from . import cpu, reference, triton
from .interface import Backend, Gradients, LossGradients, Problem, Solution, State, Vjp

__all__ = [
    "BACKENDS",
    "NOT_BUILT",
    "VJPS",
    "Backend",
    "Gradients",
    "LossGradients",
    "Problem",
    "Solution",
    "State",
    "Vjp",
]

BACKENDS: dict[str, Backend] = {"cpu": cpu, "triton": triton, "reference": reference}
"""In the order in which "auto" tries them."""

VJPS: dict[str, Vjp] = {
    "cpu": cpu.rollout_vjp,
    "triton": triton.rollout_vjp,
    "reference": reference.rollout_vjp,
}
"""The backends with gradients, in the order in which "auto" tries them."""

NOT_BUILT: dict[str, str] = {
    "cuda": "this version has no CUDA kernels",
}
"""Names that are kept for backends that do not exist yet, and why they cannot run."""
