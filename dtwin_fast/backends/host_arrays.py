"""The compiled engine on numpy arrays: on the CPU, or copied to a GPU and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core import rollout as core_rollout
from .._core import rollout_vjp as core_rollout_vjp
from ..weights import WEIGHT_NAMES, FloatArray, RNNWeights
from .interface import Gradients, LossGradients, Problem, Solution, State

CPU = -1
"""The device number that stands for the processor."""


def rollout(
    problem: Problem, *, return_states: bool, n_threads: int, device: int = CPU
) -> Solution:
    """Solve the problem in the dtype of its arrays; nothing is copied that lies well."""
    weights = problem.weights
    dtype = weights.w_hh.dtype
    n_subjects, n_sequences, n_hidden = problem.state_shape
    outputs = np.empty(problem.output_shape, dtype)
    states = problem.out_states
    if return_states and states is None:
        states = np.empty((n_subjects, n_sequences, problem.n_steps, n_hidden), dtype)
    h_final = np.empty(problem.state_shape, dtype)
    c_final = np.empty(problem.state_shape, dtype) if weights.cell == "lstm" else None
    diverged = np.empty(n_subjects, np.bool_)
    core_rollout(
        **_arrays(problem),
        outputs=outputs,
        states=states,
        h_final=h_final,
        c_final=c_final,
        diverged=diverged,
        n_threads=n_threads,
        device=device,
    )
    return Solution(
        outputs, states, (h_final,) if c_final is None else (h_final, c_final), diverged
    )


def rollout_vjp(
    problem: Problem,
    loss: LossGradients,
    *,
    states: FloatArray | None,
    n_threads: int,
    device: int = CPU,
) -> Gradients:
    """Gradients in the dtype of the arrays.

    Inputs that all subjects share have their gradient written per subject, (S,B,T,I), and
    then summed over S.
    """
    weights = problem.weights
    dtype = weights.w_hh.dtype
    is_shared = problem.inputs.ndim == 3
    found: dict[str, Any] = {
        name: np.empty(getattr(weights, name).shape, dtype) for name in WEIGHT_NAMES
    }
    d_inputs = np.empty((weights.n_subjects, *problem.inputs.shape[-3:]), dtype)
    d_h0 = np.empty(problem.state_shape, dtype)
    d_c0 = np.empty(problem.state_shape, dtype) if weights.cell == "lstm" else None
    d_h_final, d_c_final = _parts(loss.h_final)
    core_rollout_vjp(
        **_arrays(problem),
        states=_optional(states),
        d_outputs=_laid_out(loss.outputs, 0),
        d_states=_optional(loss.states),
        d_h_final=d_h_final,
        d_c_final=d_c_final,
        **{f"d_{name}": array for name, array in found.items()},
        d_inputs=d_inputs,
        d_h0=d_h0,
        d_c0=d_c0,
        n_threads=n_threads,
        device=device,
    )
    if is_shared:
        # Infinite gradients of two subjects may cancel to NaN, which is what they should give.
        with np.errstate(invalid="ignore", over="ignore"):
            d_inputs = d_inputs.sum(0)
    return Gradients(
        RNNWeights(weights.cell, **found), d_inputs, (d_h0,) if d_c0 is None else (d_h0, d_c0)
    )


def _arrays(problem: Problem) -> dict[str, Any]:
    """What the engine reads, under its names, laid out as it wants them."""
    weights = problem.weights
    inputs, projection = problem.inputs, problem.time_projection
    h0, c0 = _parts(problem.h0)
    return {
        "cell": weights.cell,
        **{name: _laid_out(getattr(weights, name), 1) for name in WEIGHT_NAMES},
        "inputs": _laid_out(inputs, inputs.ndim - 2),
        "h0": h0,
        "c0": c0,
        "bfloat16_weights": problem.precision == "bfloat16",
        "projection": None if projection is None else _laid_out(projection, projection.ndim - 2),
    }


def _parts(state: State | None) -> tuple[FloatArray | None, FloatArray | None]:
    """h, and c for an LSTM."""
    h, c = (*(state or ()), None, None)[:2]
    return _optional(h), _optional(c)


def _optional(array: FloatArray | None) -> FloatArray | None:
    return None if array is None else _laid_out(array, 0)


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
