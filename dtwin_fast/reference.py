"""The rollout in plain torch: what every engine is compared with, and what training uses.

Differentiable in all its tensors, on any device and in any float type. The input
projection is one product before the loop over T and the readout one after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from .cells import CELLS


class TorchRollout(NamedTuple):
    """Result of :func:`rollout`.

    Attributes:
        outputs: (S,B,T,O), or (S,B,K,O) under a time projection.
        states: (S,B,T,H), or None when not asked for.
        h_final: (S,B,H), or (h, c) of that shape for an LSTM.
    """

    outputs: Tensor
    states: Tensor | None
    h_final: Tensor | tuple[Tensor, ...]


def rollout(
    cell: str,
    weights: Mapping[str, Tensor],
    inputs: Tensor,
    h0: Tensor | tuple[Tensor, ...] | None = None,
    *,
    time_projection: Tensor | None = None,
    return_states: bool = False,
) -> TorchRollout:
    """Roll S subjects' RNNs over their inputs, as :func:`dtwin_fast.dispatch.rollout` does.

    Arguments are not validated. Equations: torch.nn.RNN, GRU and LSTM.

    Args:
        cell: a key of ``dtwin_fast.cells.CELLS``.
        weights: w_ih (S,G*H,I), w_hh (S,G*H,H), b_ih and b_hh (S,G*H), w_out (S,O,H),
            b_out (S,O), e.g. from ``dtwin_fast.weights.split_flat``.
        inputs: (B,T,I) shared by all subjects, or (S,B,T,I).
        h0: (S,B,H), or (h0, c0) for an LSTM; None = zeros.
        time_projection: (K,T) or (B,K,T), applied to the outputs along time.
        return_states: also return the hidden states.
    """
    spec = CELLS[cell]
    n_subjects, _, n_hidden = weights["w_hh"].shape
    n_sequences = inputs.shape[-3]

    state: tuple[Tensor, ...]
    if h0 is None:
        zeros = weights["w_hh"].new_zeros(n_subjects, n_sequences, n_hidden)
        state = (zeros,) * spec.n_states
    else:
        state = h0 if isinstance(h0, tuple) else (h0,)

    w_hh = weights["w_hh"].mT
    b_hh = weights["b_hh"].unsqueeze(1)
    steps = []
    # unbind, not indexing: the backward of x[t] would write T zero-filled copies of x.
    for x in _project_inputs(weights, inputs).unbind(0):
        state = spec.pointwise(x, torch.baddbmm(b_hh, state[0], w_hh), state)
        steps.append(state[0])
    states = torch.stack(steps, 2)

    # The readout is linear, so the projection is applied to H columns rather than O.
    read = states if time_projection is None else time_projection @ states
    outputs = read @ weights["w_out"].mT.unsqueeze(1)
    bias = weights["b_out"][:, None, None]
    if time_projection is not None:
        bias = time_projection.sum(-1, keepdim=True) * bias
    return TorchRollout(
        outputs + bias,
        states if return_states else None,
        state if spec.n_states > 1 else state[0],
    )


def _project_inputs(weights: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """(T,S,B,G*H): W_ih x + b_ih of all steps."""
    w_ih = weights["w_ih"]
    n_subjects, n_gates, n_inputs = w_ih.shape
    n_sequences, n_steps = inputs.shape[-3:-1]
    if inputs.ndim == 3:
        flat = inputs.transpose(0, 1).reshape(n_steps * n_sequences, n_inputs)
        x = flat @ w_ih.reshape(n_subjects * n_gates, n_inputs).mT
        x = x.view(n_steps, n_sequences, n_subjects, n_gates).transpose(1, 2)
    else:
        flat = inputs.transpose(1, 2).reshape(n_subjects, n_steps * n_sequences, n_inputs)
        x = (flat @ w_ih.mT).view(n_subjects, n_steps, n_sequences, n_gates).transpose(0, 1)
    return x + weights["b_ih"].unsqueeze(1)
