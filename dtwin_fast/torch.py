"""The rollout as a differentiable torch op on CPU tensors, computed by the compiled engine.

:func:`rollout` takes and returns what :func:`dtwin_fast.reference.rollout` does, so that
either can stand in for the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from . import dispatch
from .cells import CELLS
from .errors import BackendUnavailableError, DTwinInputError, MissingExtraError
from .weights import WEIGHT_NAMES, FloatArray, RNNWeights

try:
    import torch
    from torch import Tensor
    from torch.library import custom_op

    from .reference import TorchRollout
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise MissingExtraError("torch", "torch", "dtwin_fast.torch") from error

__all__ = ["TorchRollout", "rollout"]

PRECISIONS = {torch.float32: "float32", torch.float64: "float64"}
N_WEIGHTS = len(WEIGHT_NAMES)


def rollout(
    cell: str,
    weights: Mapping[str, Tensor],
    inputs: Tensor,
    h0: Tensor | tuple[Tensor, ...] | None = None,
    *,
    time_projection: Tensor | None = None,
    return_states: bool = False,
) -> TorchRollout:
    """Roll S subjects' RNNs over their inputs: the op ``dtwin_fast::rollout``.

    All tensors are on the CPU and have one dtype, float32 or float64, which is that of the
    result; their memory is read in place where the engine can walk it. Results have the bits
    of :func:`dtwin_fast.dispatch.rollout` with backend="auto", on torch.get_num_threads()
    threads.

    Gradients go from outputs, states and h_final to weights, inputs and h0, once: there are
    no second derivatives, no gradient of ``time_projection``, and none from an LSTM's last
    cell state. Asking for one of these raises. Gradients of states and h_final cost as much
    as H further outputs.

    Args:
        cell: a key of ``dtwin_fast.cells.CELLS``.
        weights: w_ih (S,G*H,I), w_hh (S,G*H,H), b_ih and b_hh (S,G*H), w_out (S,O,H),
            b_out (S,O), e.g. from ``dtwin_fast.weights.split_flat``.
        inputs: (B,T,I) shared by all subjects, or (S,B,T,I).
        h0: (S,B,H), or (h0, c0) for an LSTM; None = zeros.
        time_projection: (K,T) or (B,K,T), applied to the outputs along time.
        return_states: also return the hidden states.

    Raises:
        DTwinInputError: what :func:`dtwin_fast.dispatch.rollout` refuses, weights that lack
            a name (code ``weights``), what is not a tensor of the one dtype (code ``dtype``),
            or a time_projection that requires a gradient (code ``gradient``).
        BackendUnavailableError: a tensor on another device; or, in the backward pass, one of
            the gradients that there are not.
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
    _check_tensors(named)
    if time_projection is not None and time_projection.requires_grad and torch.is_grad_enabled():
        raise DTwinInputError(
            "gradient",
            "there is no gradient of the time projection",
            field="time_projection",
            fix="Give time_projection.detach(), or use dtwin_fast.reference.rollout",
        )
    outputs, *last = _rollout(
        cell,
        [weights[name] for name in WEIGHT_NAMES],
        inputs,
        state,
        time_projection,
        return_states,
    )
    states = last.pop() if return_states else None
    return TorchRollout(outputs, states, tuple(last) if len(last) > 1 else last[0])


@custom_op("dtwin_fast::rollout", mutates_args=(), device_types="cpu")
def _rollout(
    cell: str,
    weights: list[Tensor],
    inputs: Tensor,
    h0: list[Tensor],
    time_projection: Tensor | None,
    return_states: bool,
) -> list[Tensor]:
    """Outputs, h_final (for an LSTM h and c) and, when asked for, states."""
    result = dispatch.rollout(
        **_problem(cell, weights, inputs, h0, time_projection), return_states=return_states
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
) -> list[Tensor]:
    """Gradients of the weights, the inputs and h0 (for an LSTM h0 and c0)."""
    result = dispatch.rollout_vjp(
        **_problem(cell, weights, inputs, h0, time_projection), d_outputs=_array(d_outputs)
    )
    found = [getattr(result.weights, name) for name in WEIGHT_NAMES]
    return [_tensor(array) for array in (*found, result.inputs, *_parts(result.h0))]


@_rollout.register_fake
def _(
    cell: str,
    weights: list[Tensor],
    inputs: Tensor,
    h0: list[Tensor],
    time_projection: Tensor | None,
    return_states: bool,
) -> list[Tensor]:
    n_subjects, n_outputs, n_hidden = weights[WEIGHT_NAMES.index("w_out")].shape
    n_sequences, n_steps = inputs.shape[-3:-1]
    n_rows = n_steps if time_projection is None else time_projection.shape[-2]
    shapes: list[tuple[int, ...]] = [(n_subjects, n_sequences, n_rows, n_outputs)]
    shapes += [(n_subjects, n_sequences, n_hidden)] * CELLS[cell].n_states
    shapes += [(n_subjects, n_sequences, n_steps, n_hidden)] * return_states
    return [inputs.new_empty(shape) for shape in shapes]


@_rollout_vjp.register_fake
def _(
    cell: str,
    weights: list[Tensor],
    inputs: Tensor,
    d_outputs: Tensor,
    h0: list[Tensor],
    time_projection: Tensor | None,
) -> list[Tensor]:
    n_hidden = weights[WEIGHT_NAMES.index("w_hh")].shape[-1]
    state = (*d_outputs.shape[:2], n_hidden)
    shapes = [tensor.shape for tensor in (*weights, inputs)]
    shapes += [torch.Size(state)] * CELLS[cell].n_states
    return [inputs.new_empty(shape) for shape in shapes]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    ctx.cell, weights, x, h0, time_projection, ctx.return_states = inputs
    ctx.save_for_backward(*weights, x, time_projection, *h0)
    # Gradients that nobody asked for arrive as None, not as zeros that would cost as much.
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, gradients: list[Tensor | None]) -> tuple[Any, ...]:
    d_outputs, d_h, *rest = gradients
    d_states = rest.pop() if ctx.return_states else None
    if any(d_c is not None for d_c in rest):
        raise BackendUnavailableError(
            "dtwin_fast.torch.rollout has no gradient from an LSTM's last cell state. Use "
            "dtwin_fast.reference.rollout, or h_final[1].detach()."
        )
    *weights, inputs, projection = ctx.saved_tensors[: N_WEIGHTS + 2]
    h0 = list(ctx.saved_tensors[N_WEIGHTS + 2 :])
    n_outputs = weights[-1].shape[-1]
    if d_outputs is None and d_h is None and d_states is None:
        return None, [None] * N_WEIGHTS, None, [None] * len(h0), None, None
    if d_h is not None or d_states is not None:
        weights, d_outputs = _widen(weights, inputs, projection, d_outputs, d_h, d_states)
        projection = None
    found = _rollout_vjp(ctx.cell, weights, inputs, d_outputs, h0, projection)
    *d_weights, d_w_out, d_b_out = found[:N_WEIGHTS]
    d_weights += [d_w_out[:, :n_outputs], d_b_out[:, :n_outputs]]
    return None, d_weights, found[N_WEIGHTS], found[N_WEIGHTS + 1 :][: len(h0)], None, None


def _widen(
    weights: list[Tensor],
    inputs: Tensor,
    projection: Tensor | None,
    d_outputs: Tensor | None,
    d_h: Tensor | None,
    d_states: Tensor | None,
) -> tuple[list[Tensor], Tensor]:
    """Weights whose readout also hands out the states, and the gradient of those outputs."""
    *recurrent, w_out, b_out = weights
    n_subjects, n_outputs, n_hidden = w_out.shape
    series = (n_subjects, *inputs.shape[-3:-1])
    if d_outputs is None:
        d_outputs = w_out.new_zeros(*series, n_outputs)
    elif projection is not None:
        d_outputs = projection.mT @ d_outputs
    if d_states is None:
        d_states = w_out.new_zeros(*series, n_hidden)
    if d_h is not None:
        early, late = d_states[:, :, :-1], d_states[:, :, -1:]
        d_states = torch.cat([early, late + d_h.unsqueeze(2)], 2)
    identity = torch.eye(n_hidden, dtype=w_out.dtype).expand(n_subjects, -1, -1)
    wide = [
        torch.cat([w_out, identity], 1),
        torch.cat([b_out, b_out.new_zeros(n_subjects, n_hidden)], 1),
    ]
    return [*recurrent, *wide], torch.cat([d_outputs, d_states], -1)


def _no_second_derivatives(ctx: Any, gradients: list[Tensor | None]) -> tuple[Any, ...]:
    raise BackendUnavailableError(
        "dtwin_fast.torch.rollout has no second derivatives. Use dtwin_fast.reference.rollout."
    )


_rollout.register_autograd(_backward, setup_context=_setup_context)
_rollout_vjp.register_autograd(_no_second_derivatives)


def _check_tensors(named: Mapping[str, object]) -> None:
    """Refuse what is not a dense CPU tensor of the one dtype: nothing is cast or moved."""
    dtypes = [value.dtype for value in named.values() if isinstance(value, Tensor)]
    wanted = dtypes[0] if dtypes and dtypes[0] in PRECISIONS else torch.float32
    for field, value in named.items():
        got = type(value).__name__
        if isinstance(value, Tensor):
            if value.device.type != "cpu":
                raise BackendUnavailableError(
                    f"dtwin_fast.torch.rollout runs on CPU tensors, and {field} is on "
                    f"{value.device}. Use dtwin_fast.reference.rollout, which runs on any device."
                )
            if value.dtype == wanted and value.layout == torch.strided:
                continue
            got = f"{value.dtype}, {value.layout}"
        raise DTwinInputError(
            "dtype",
            "all arguments are dense tensors of one dtype, float32 or float64",
            field=field,
            wanted=str(wanted),
            got=got,
            fix=f"Convert it to a dense tensor of {wanted}",
        )


def _problem(
    cell: str,
    weights: list[Tensor],
    inputs: Tensor,
    h0: list[Tensor],
    time_projection: Tensor | None,
) -> dict[str, Any]:
    """What both directions take, as arguments of dispatch."""
    return {
        "weights": RNNWeights(cell, *map(_array, weights)),
        "inputs": _array(inputs),
        "h0": _state(h0),
        "precision": PRECISIONS[inputs.dtype],
        "time_projection": None if time_projection is None else _array(time_projection),
        "n_threads": min(torch.get_num_threads(), dispatch.MAX_THREADS),
    }


def _array(tensor: Tensor) -> FloatArray:
    # Forced past requires_grad alone: a dense CPU tensor shares its memory.
    array: FloatArray = tensor.numpy(force=True)
    return array


def _tensor(array: FloatArray) -> Tensor:
    """In C order, as the fake implementations promise; copied only where it is not."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def _state(h0: list[Tensor]) -> FloatArray | tuple[FloatArray, ...] | None:
    if not h0:
        return None
    return _array(h0[0]) if len(h0) == 1 else tuple(map(_array, h0))


def _parts(state: FloatArray | tuple[FloatArray, ...]) -> tuple[FloatArray, ...]:
    return state if isinstance(state, tuple) else (state,)
