"""The compiled engine on torch's CUDA tensors, with the functions of :mod:`dtwin_fast.kernels`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..cells import CELLS
from ..weights import WEIGHT_NAMES
from .cuda import launch


def rollout(
    cell: str,
    weights: Mapping[str, Tensor],
    inputs: Tensor,
    h0: tuple[Tensor, ...] | None,
    *,
    time_projection: Tensor | None,
    return_states: bool,
    bfloat16_weights: bool,
) -> tuple[Tensor, Tensor | None, tuple[Tensor, ...]]:
    """Put a rollout on torch's current stream of the tensors' device; nothing waits.

    Arguments and results are those of ``dtwin_fast.kernels.rollout``, float32. Weights are read
    in place where their inner axes are dense, and copied where not.
    """
    n_subjects, n_outputs, n_hidden = weights["w_out"].shape
    n_sequences, n_steps = inputs.shape[-3:-1]
    n_rows = n_steps if time_projection is None else time_projection.shape[-2]
    outputs = inputs.new_empty(n_subjects, n_sequences, n_rows, n_outputs)
    states = None
    if return_states:
        states = inputs.new_empty(n_subjects, n_sequences, n_steps, n_hidden)
    h_final = tuple(
        inputs.new_empty(n_subjects, n_sequences, n_hidden) for _ in range(CELLS[cell].n_states)
    )
    results = {
        "outputs": outputs,
        "states": states,
        **dict(zip(("h_final", "c_final"), h_final, strict=False)),
        "diverged": inputs.new_empty(n_subjects, dtype=torch.bool),
    }
    problem = _problem(weights, inputs, h0, time_projection)
    _launch(cell, problem | results, inputs.device, bfloat16_weights, vjp=False)
    return outputs, states, h_final


def rollout_vjp(
    cell: str,
    weights: Mapping[str, Tensor],
    inputs: Tensor,
    d_outputs: Tensor,
    h0: tuple[Tensor, ...] | None,
    *,
    time_projection: Tensor | None,
    d_states: Tensor | None,
    d_final: tuple[Tensor, ...] | None,
    states: Tensor | None,
    bfloat16_weights: bool,
) -> tuple[dict[str, Tensor], Tensor, tuple[Tensor, ...]]:
    """The gradients, likewise: ``dtwin_fast.kernels.rollout_vjp``."""
    n_subjects, _, n_hidden = weights["w_hh"].shape
    n_sequences = inputs.shape[-3]
    found = {name: torch.empty_like(_dense(weights[name])) for name in WEIGHT_NAMES}
    d_inputs = inputs.new_empty(n_subjects, *inputs.shape[-3:])
    d_h0 = tuple(
        inputs.new_empty(n_subjects, n_sequences, n_hidden) for _ in range(CELLS[cell].n_states)
    )
    arrays: dict[str, Tensor | None] = {
        **_problem(weights, inputs, h0, time_projection),
        "states": _optional(states),
        "d_outputs": _dense(d_outputs),
        "d_states": _optional(d_states),
        **_named(("d_h_final", "d_c_final"), d_final),
        **{f"d_{name}": tensor for name, tensor in found.items()},
        "d_inputs": d_inputs,
        **dict(zip(("d_h0", "d_c0"), d_h0, strict=False)),
    }
    _launch(cell, arrays, inputs.device, bfloat16_weights, vjp=True)
    return found, d_inputs.sum(0) if inputs.ndim == 3 else d_inputs, d_h0


def _launch(
    cell: str,
    arrays: Mapping[str, Tensor | None],
    device: torch.device,
    bfloat16_weights: bool,
    *,
    vjp: bool,
) -> None:
    if not len(arrays["w_hh"]):  # type: ignore[arg-type]
        return

    def allocate(n_bytes: int) -> Tensor:
        return torch.empty(n_bytes, dtype=torch.uint8, device=device)

    with torch.cuda.device(device):
        launch(
            cell,
            # An array that requires a gradient refuses to be handed on.
            {name: None if t is None else t.detach() for name, t in arrays.items()},
            bfloat16_weights=bfloat16_weights,
            vjp=vjp,
            device=torch.cuda.current_device(),
            stream=torch.cuda.current_stream().cuda_stream,
            allocate=allocate,
            ordered=True,
        )


def _problem(
    weights: Mapping[str, Tensor],
    inputs: Tensor,
    h0: tuple[Tensor, ...] | None,
    time_projection: Tensor | None,
) -> dict[str, Any]:
    projection = time_projection
    return {
        **{name: _laid_out(weights[name], 1) for name in WEIGHT_NAMES},
        "inputs": _laid_out(inputs, inputs.ndim - 2),
        **_named(("h0", "c0"), h0),
        "projection": None if projection is None else _laid_out(projection, projection.ndim - 2),
    }


def _named(names: tuple[str, ...], state: tuple[Tensor, ...] | None) -> dict[str, Tensor]:
    return dict(zip(names, map(_dense, state or ()), strict=False))


def _optional(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else _dense(tensor)


def _dense(tensor: Tensor) -> Tensor:
    return tensor.contiguous()


def _laid_out(tensor: Tensor, n_outer: int) -> Tensor:
    """The tensor, or a dense copy where the axes after the first ``n_outer`` are not dense."""
    if not tensor.numel() or tensor[(0,) * n_outer].is_contiguous():
        return tensor
    return tensor.contiguous()
