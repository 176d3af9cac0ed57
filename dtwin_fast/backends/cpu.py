"""The compiled engine on the CPU."""

from __future__ import annotations

import os

from .._core import CELLS, build_info
from ..errors import BackendUnavailableError
from ..weights import FloatArray
from . import host_arrays
from .interface import Gradients, LossGradients, Problem, Solution

BUILD = build_info()
"""What the engine was built for, and the instruction set it chose for this process."""


def supports(cell: str, precision: str) -> str | None:
    """None when :func:`rollout` can run this, otherwise the reason why not."""
    if cell not in CELLS:
        return f"the engine has no {cell} cell, only {', '.join(CELLS)}"
    return None


supports_vjp = supports


def isa() -> str:
    """The instruction set of the engine's time loop: the widest, or the one DTWIN_ISA names.

    Raises:
        BackendUnavailableError: DTWIN_ISA names one that cannot run here.
    """
    if BUILD["isa"] is None:
        raise BackendUnavailableError(
            f"DTWIN_ISA={os.environ.get('DTWIN_ISA')!r} names no instruction set that the engine "
            f"has and this processor runs. Unset it, or use one of {', '.join(BUILD['isas'])}."
        )
    return str(BUILD["isa"])


def rollout(problem: Problem, *, return_states: bool, n_threads: int) -> Solution:
    """Solve the problem in the dtype of its arrays; nothing is copied that lies well."""
    isa()
    return host_arrays.rollout(problem, return_states=return_states, n_threads=n_threads)


def rollout_vjp(
    problem: Problem, loss: LossGradients, *, states: FloatArray | None, n_threads: int
) -> Gradients:
    """Gradients in the dtype of the arrays.

    Inputs that all subjects share have their gradient written per subject, (S,B,T,I), and
    then summed over S.
    """
    isa()
    return host_arrays.rollout_vjp(problem, loss, states=states, n_threads=n_threads)
