"""The rollout as a differentiable torch op on CPU and CUDA tensors, computed by the engine.

:func:`rollout` takes and returns what :func:`dtwin_fast.reference.rollout` does, so that
either can stand in for the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from types import ModuleType
from typing import Any

import numpy as np

import dtwin_fast.kernels as kernels

from . import dispatch
from .cells import CELLS
from .errors import BackendUnavailableError, DTwinInputError, MissingExtraError
from .threads import MAX_THREADS
from .weights import WEIGHT_NAMES, FloatArray, RNNWeights

try:
    import torch
    from torch import Tensor
    from torch.library import custom_op

    from . import reference
    from .backends import cuda_tensors
    from .reference import TorchRollout
    from .torch_arguments import (
        PRECISIONS,
        SlowBackendWarning,
        check_tensors,
        choose,
        is_bfloat16,
    )
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise MissingExtraError("torch", "torch", "dtwin_fast.torch") from error

__all__ = ["SlowBackendWarning", "TorchRollout", "rollout"]

N_WEIGHTS = len(WEIGHT_NAMES)

KEPT_STATES_BYTES = {"cpu": 256 << 20, "cuda": 4 << 30}
"""States up to this size wait for the backward pass; more are computed again."""

LAUNCHERS: dict[str, ModuleType] = {"cuda": cuda_tensors, "triton": kernels}
"""The backends with kernels for CUDA tensors."""


def rollout(
    cell: str,
    weights: Mapping[str, Tensor],
    inputs: Tensor,
    h0: Tensor | tuple[Tensor, ...] | None = None,
    *,
    time_projection: Tensor | None = None,
    return_states: bool = False,
    backend: str = "auto",
    precision: str | None = None,
) -> TorchRollout:
    """Roll S subjects' RNNs over their inputs: the op ``dtwin_fast::rollout``.

    All tensors are on one device, the CPU or a CUDA GPU, and have one dtype, float32 or float64,
    which is that of the result; their memory is read in place where the engine can walk it.

    On the CPU results have the bits of :func:`dtwin_fast.dispatch.rollout` with backend="cpu",
    on torch.get_num_threads() threads. On a GPU the work is put on torch's current stream and
    nothing waits for it; repeated calls have the same bits.

    Gradients go from outputs, states and h_final to weights, inputs and h0, once: there are
    no second derivatives and no gradient of ``time_projection``. Asking for one of these
    raises. Where a gradient may be asked for, the states are kept for it up to
    ``KEPT_STATES_BYTES``; more are computed again.

    Args:
        cell: a key of ``dtwin_fast.cells.CELLS``.
        weights: w_ih (S,G*H,I), w_hh (S,G*H,H), b_ih and b_hh (S,G*H), w_out (S,O,H),
            b_out (S,O), e.g. from ``dtwin_fast.weights.split_flat``.
        inputs: (B,T,I) shared by all subjects, or (S,B,T,I).
        h0: (S,B,H), or (h0, c0) for an LSTM; None = zeros.
        time_projection: (K,T) or (B,K,T), applied to the outputs along time.
        return_states: also return the hidden states.
        backend: "auto", or a name: "cpu" or "reference" for CPU tensors, "cuda", "triton" or
            "reference" for CUDA tensors. "auto" takes the first of these that can run this, and
            warns (:class:`SlowBackendWarning`) where on a GPU that is the torch loop of
            ``dtwin_fast.reference``.
        precision: "bfloat16" rounds the weights to it, keeps them so and computes in float32;
            gradients are those at the rounded weights. None = the tensors' dtype.

    Raises:
        DTwinInputError: what :func:`dtwin_fast.dispatch.rollout` refuses, weights that lack
            a name (code ``weights``), what is not a tensor of the one dtype (code ``dtype``),
            tensors on different devices (code ``device``), a time_projection that requires
            a gradient (code ``gradient``), or too little memory (code ``too_large``).
        BackendUnavailableError: a named backend that cannot run this, tensors on another kind
            of device; or, in the backward pass, one of the gradients that there are not.
        BackendFailedError: the GPU failed.
    """
    missing = [name for name in WEIGHT_NAMES if name not in weights]
    if missing:
        raise DTwinInputError(
            "weights",
            "these are not the weights of an RNN",
            field="weights",
            wanted=", ".join(WEIGHT_NAMES),
            got=", ".join(weights),
            fix="Give all six tensors by name",
        )
    state = [] if h0 is None else list(h0) if isinstance(h0, tuple) else [h0]
    named: dict[str, object] = {name: weights[name] for name in WEIGHT_NAMES}
    named |= {"inputs": inputs} | {f"h0[{i}]": part for i, part in enumerate(state)}
    if time_projection is not None:
        named["time_projection"] = time_projection
    check_tensors(named)
    if time_projection is not None and time_projection.requires_grad and torch.is_grad_enabled():
        raise DTwinInputError(
            "gradient",
            "there is no gradient of the time projection",
            field="time_projection",
            fix="Give time_projection.detach(), or use dtwin_fast.reference.rollout",
        )
    bfloat16_weights = is_bfloat16(precision, inputs.dtype)
    tensors = [weights[name] for name in WEIGHT_NAMES]
    needs_gradient = _needs_gradient(tensors, inputs, state)
    if inputs.device.type == "cuda":
        # On the CPU dispatch does it.
        dispatch.check_shapes(
            cell,
            [tuple(tensor.shape) for tensor in tensors],
            tuple(inputs.shape),
            [tuple(part.shape) for part in state],
            None if time_projection is None else tuple(time_projection.shape),
        )
    chosen = choose(backend, cell, tensors, inputs, bfloat16_weights, needs_gradient)
    if chosen == "reference" and inputs.device.type == "cuda":
        return _reference(
            cell, weights, inputs, h0, time_projection, return_states, bfloat16_weights
        )
    keep_states = return_states or (needs_gradient and _keeps_states(tensors, inputs))
    outputs, *last = _rollout(
        cell, tensors, inputs, state, time_projection, keep_states, chosen, bfloat16_weights
    )
    states = last.pop() if keep_states else None
    return TorchRollout(
        outputs,
        states if return_states else None,
        tuple(last) if len(last) > 1 else last[0],
    )


def _reference(
    cell: str,
    weights: Mapping[str, Tensor],
    inputs: Tensor,
    h0: Tensor | tuple[Tensor, ...] | None,
    time_projection: Tensor | None,
    return_states: bool,
    bfloat16_weights: bool,
) -> TorchRollout:
    if bfloat16_weights:
        # The rounding is a constant, so that gradients are those at the rounded weights.
        weights = {
            name: tensor + (tensor.bfloat16().float() - tensor).detach()
            for name, tensor in weights.items()
        }
    return reference.rollout(
        cell, weights, inputs, h0, time_projection=time_projection, return_states=return_states
    )


def _needs_gradient(weights: list[Tensor], inputs: Tensor, h0: list[Tensor]) -> bool:
    """Whether a backward pass may come."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in (*weights, inputs, *h0))


def _keeps_states(weights: list[Tensor], inputs: Tensor) -> bool:
    """Whether the states are few enough to be kept for a backward pass."""
    # The op checks the shapes, which may be any here.
    w_out = weights[WEIGHT_NAMES.index("w_out")]
    n_states = prod(w_out.shape[:1]) * prod(inputs.shape[-3:-1]) * prod(w_out.shape[-1:])
    return n_states * inputs.element_size() <= KEPT_STATES_BYTES[inputs.device.type]


@custom_op("dtwin_fast::rollout", mutates_args=(), device_types="cpu")
def _rollout(
    cell: str,
    weights: list[Tensor],
    inputs: Tensor,
    h0: list[Tensor],
    time_projection: Tensor | None,
    keep_states: bool,
    backend: str,
    bfloat16_weights: bool,
) -> list[Tensor]:
    """Outputs, h_final (for an LSTM h and c) and, when asked for, states."""
    result = dispatch.rollout(
        **_problem(cell, weights, inputs, h0, time_projection, backend, bfloat16_weights),
        return_states=keep_states,
    )
    found = [result.outputs, *_parts(result.h_final)]
    if result.states is not None:
        found.append(result.states)
    return [_tensor(array) for array in found]


@custom_op("dtwin_fast::rollout_vjp", mutates_args=(), device_types="cpu")
def _rollout_vjp(
    cell: str,
    weights: list[Tensor],
    inputs: Tensor,
    d_outputs: Tensor,
    h0: list[Tensor],
    time_projection: Tensor | None,
    d_states: Tensor | None,
    d_final: list[Tensor],
    states: Tensor | None,
    backend: str,
    bfloat16_weights: bool,
) -> list[Tensor]:
    """Gradients of the weights, the inputs and h0 (for an LSTM h0 and c0)."""
    result = dispatch.rollout_vjp(
        **_problem(cell, weights, inputs, h0, time_projection, backend, bfloat16_weights),
        d_outputs=_array(d_outputs),
        d_states=_optional(d_states),
        d_h_final=_state(d_final),
        states=_optional(states),
    )
    found = [getattr(result.weights, name) for name in WEIGHT_NAMES]
    return [_tensor(array) for array in (*found, result.inputs, *_parts(result.h0))]


@_rollout.register_kernel("cuda")
def _(
    cell: str,
    weights: list[Tensor],
    inputs: Tensor,
    h0: list[Tensor],
    time_projection: Tensor | None,
    keep_states: bool,
    backend: str,
    bfloat16_weights: bool,
) -> list[Tensor]:
    with _gpu_errors():
        outputs, states, last = LAUNCHERS[backend].rollout(
            cell,
            dict(zip(WEIGHT_NAMES, weights, strict=True)),
            inputs,
            tuple(h0) or None,
            time_projection=time_projection,
            return_states=keep_states,
            bfloat16_weights=bfloat16_weights,
        )
    return [outputs, *last] if states is None else [outputs, *last, states]


@_rollout_vjp.register_kernel("cuda")
def _(
    cell: str,
    weights: list[Tensor],
    inputs: Tensor,
    d_outputs: Tensor,
    h0: list[Tensor],
    time_projection: Tensor | None,
    d_states: Tensor | None,
    d_final: list[Tensor],
    states: Tensor | None,
    backend: str,
    bfloat16_weights: bool,
) -> list[Tensor]:
    with _gpu_errors():
        found, d_inputs, d_h0 = LAUNCHERS[backend].rollout_vjp(
            cell,
            dict(zip(WEIGHT_NAMES, weights, strict=True)),
            inputs,
            d_outputs,
            tuple(h0) or None,
            time_projection=time_projection,
            d_states=d_states,
            d_final=tuple(d_final) or None,
            states=states,
            bfloat16_weights=bfloat16_weights,
        )
    return [*(found[name] for name in WEIGHT_NAMES), d_inputs, *d_h0]


@contextmanager
def _gpu_errors() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DTwinInputError(
            "too_large",
            "the memory of the GPU has no room for this problem",
            field="inputs",
            fix="Roll out fewer subjects, sequences or steps at a time",
        ) from error


@_rollout.register_fake
def _(
    cell: str,
    weights: list[Tensor],
    inputs: Tensor,
    h0: list[Tensor],
    time_projection: Tensor | None,
    keep_states: bool,
    backend: str,
    bfloat16_weights: bool,
) -> list[Tensor]:
    n_subjects, n_outputs, n_hidden = weights[WEIGHT_NAMES.index("w_out")].shape
    n_sequences, n_steps = inputs.shape[-3:-1]
    n_rows = n_steps if time_projection is None else time_projection.shape[-2]
    shapes: list[tuple[int, ...]] = [(n_subjects, n_sequences, n_rows, n_outputs)]
    shapes += [(n_subjects, n_sequences, n_hidden)] * CELLS[cell].n_states
    shapes += [(n_subjects, n_sequences, n_steps, n_hidden)] * keep_states
    return [inputs.new_empty(shape) for shape in shapes]


@_rollout_vjp.register_fake
def _(
    cell: str,
    weights: list[Tensor],
    inputs: Tensor,
    d_outputs: Tensor,
    h0: list[Tensor],
    time_projection: Tensor | None,
    d_states: Tensor | None,
    d_final: list[Tensor],
    states: Tensor | None,
    backend: str,
    bfloat16_weights: bool,
) -> list[Tensor]:
    n_hidden = weights[WEIGHT_NAMES.index("w_hh")].shape[-1]
    state = (*d_outputs.shape[:2], n_hidden)
    shapes = [tensor.shape for tensor in (*weights, inputs)]
    shapes += [torch.Size(state)] * CELLS[cell].n_states
    return [inputs.new_empty(shape) for shape in shapes]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    ctx.cell, weights, x, h0, time_projection, ctx.keep_states, *ctx.how = inputs
    ctx.output_shape = output[0].shape
    states = output[-1] if ctx.keep_states else None
    ctx.save_for_backward(*weights, x, time_projection, states, *h0)
    # Gradients that nobody asked for arrive as None, not as zeros that would cost as much.
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, gradients: list[Tensor | None]) -> tuple[Any, ...]:
    *weights, inputs, projection, states = ctx.saved_tensors[: N_WEIGHTS + 3]
    h0 = list(ctx.saved_tensors[N_WEIGHTS + 3 :])
    d_outputs, *d_last = gradients
    d_states = d_last.pop() if ctx.keep_states else None
    if d_outputs is None and d_states is None and all(d is None for d in d_last):
        return None, [None] * N_WEIGHTS, None, [None] * len(h0), None, None, None, None
    if d_outputs is None:
        d_outputs = inputs.new_zeros(ctx.output_shape)
    d_final = []
    if any(d is not None for d in d_last):
        w_hh = weights[WEIGHT_NAMES.index("w_hh")]
        shape = (len(w_hh), inputs.shape[-3], w_hh.shape[-1])
        d_final = [inputs.new_zeros(shape) if d is None else d for d in d_last]
    found = _rollout_vjp(
        ctx.cell, weights, inputs, d_outputs, h0, projection, d_states, d_final, states, *ctx.how
    )
    d_weights, (d_inputs, *d_h0) = found[:N_WEIGHTS], found[N_WEIGHTS:]
    return None, d_weights, d_inputs, d_h0[: len(h0)], None, None, None, None


def _no_second_derivatives(ctx: Any, gradients: list[Tensor | None]) -> tuple[Any, ...]:
    raise BackendUnavailableError(
        "dtwin_fast.torch.rollout has no second derivatives. Use dtwin_fast.reference.rollout."
    )


_rollout.register_autograd(_backward, setup_context=_setup_context)
_rollout_vjp.register_autograd(_no_second_derivatives)


def _problem(
    cell: str,
    weights: list[Tensor],
    inputs: Tensor,
    h0: list[Tensor],
    time_projection: Tensor | None,
    backend: str,
    bfloat16_weights: bool,
) -> dict[str, Any]:
    """What both directions take, as arguments of dispatch."""
    return {
        "weights": RNNWeights(cell, *map(_array, weights)),
        "inputs": _array(inputs),
        "h0": _state(h0),
        "backend": backend,
        "precision": "bfloat16" if bfloat16_weights else PRECISIONS[inputs.dtype],
        "time_projection": _optional(time_projection),
        "n_threads": min(torch.get_num_threads(), MAX_THREADS),
    }


def _array(tensor: Tensor) -> FloatArray:
    # Forced past requires_grad alone: a dense CPU tensor shares its memory.
    array: FloatArray = tensor.numpy(force=True)
    return array


def _optional(tensor: Tensor | None) -> FloatArray | None:
    return None if tensor is None else _array(tensor)


def _tensor(array: FloatArray) -> Tensor:
    """In C order, as the fake implementations promise; copied only where it is not."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def _state(parts: list[Tensor]) -> FloatArray | tuple[FloatArray, ...] | None:
    if not parts:
        return None
    return _array(parts[0]) if len(parts) == 1 else tuple(map(_array, parts))


def _parts(state: FloatArray | tuple[FloatArray, ...]) -> tuple[FloatArray, ...]:
    return state if isinstance(state, tuple) else (state,)
