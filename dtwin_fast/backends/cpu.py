"""The compiled engine."""

from __future__ import annotations

import os

import numpy as np

from .._core import CELLS, build_info
from .._core import rollout as core_rollout
from ..errors import BackendUnavailableError
from ..weights import WEIGHT_NAMES, FloatArray
from .interface import Problem, Solution


def supports(cell: str, precision: str) -> str | None:
    """None when :func:`rollout` can run this, otherwise the reason why not."""
    if cell not in CELLS:
        return f"the engine has no {cell} cell, only {', '.join(CELLS)}"
    if precision == "bfloat16":
        return "the engine computes in float32 and float64 only"
    return None


def supports_vjp(cell: str, precision: str) -> str | None:
    """The reason why there are no gradients."""
    return "the engine has no backward pass"


def isa() -> str:
    """The instruction set of the engine's time loop: the widest, or the one DTWIN_ISA names.

    Raises:
        BackendUnavailableError: DTWIN_ISA names one that cannot run here.
    """
    build = build_info()
    if build["isa"] is None:
        raise BackendUnavailableError(
            f"DTWIN_ISA={os.environ.get('DTWIN_ISA')!r} names no instruction set that the engine "
            f"has and this processor runs. Unset it, or use one of {', '.join(build['isas'])}."
        )
    return str(build["isa"])


def rollout(problem: Problem, *, return_states: bool, n_threads: int) -> Solution:
    """Solve the problem in the dtype of its arrays; nothing is copied that lies well."""
    isa()
    weights = problem.weights
    dtype = weights.w_hh.dtype
    n_subjects, n_sequences, n_hidden = problem.state_shape
    is_shared = problem.inputs.ndim == 3
    h0 = None if problem.h0 is None else [_laid_out(array, 0) for array in problem.h0]
    projection = problem.time_projection

    outputs = np.empty(problem.output_shape, dtype)
    states = None
    if return_states:
        states = np.empty((n_subjects, n_sequences, problem.n_steps, n_hidden), dtype)
    h_final = np.empty(problem.state_shape, dtype)
    c_final = np.empty(problem.state_shape, dtype) if weights.cell == "lstm" else None
    diverged = np.empty(n_subjects, np.bool_)
    core_rollout(
        cell=weights.cell,
        **{name: _laid_out(getattr(weights, name), 1) for name in WEIGHT_NAMES},
        inputs=_laid_out(problem.inputs, 1 if is_shared else 2),
        h0=h0[0] if h0 else None,
        c0=h0[1] if h0 and c_final is not None else None,
        projection=None if projection is None else _laid_out(projection, projection.ndim - 2),
        outputs=outputs,
        states=states,
        h_final=h_final,
        c_final=c_final,
        diverged=diverged,
        n_threads=n_threads,
    )
    return Solution(
        outputs, states, (h_final,) if c_final is None else (h_final, c_final), diverged
    )


def _laid_out(array: FloatArray, n_outer: int) -> FloatArray:
    """The array, or a C-order copy where the engine could not walk it.

    The engine wants dense inner axes; its ``n_outer`` first axes may have any stride that is
    not negative, so slices of a flat weight vector and broadcast arrays pass uncopied.
    """
    outer = range(n_outer)
    if (
        array.size
        and array.flags.aligned
        and array[(0,) * n_outer].flags.c_contiguous
        and all(array.strides[axis] >= 0 for axis in outer)
        and all(array.strides[axis] % array.itemsize == 0 for axis in outer)
    ):
        return array
    return np.array(array, order="C")
