"""Elman cell with tanh, as torch.nn.RNN: h' = tanh(W_ih x + b_ih + W_hh h + b_hh)."""

from __future__ import annotations

import triton
import triton.language as tl

from ..activations import tanh


@triton.jit
def forward(x: tl.tuple, h: tl.tuple, state: tl.tuple):
    """Pre-activations by gate and state -> new state, and what backward takes."""
    new = tanh(x[0] + h[0])
    return (new,), (new,)


@triton.jit
def backward(kept: tl.tuple, before: tl.tuple, after: tl.tuple, d_state: tl.tuple):
    """-> gradients of the pre-activations, and of the state before but for the way through h."""
    d = d_state[0] * (1.0 - kept[0] * kept[0])
    return (d,), (tl.zeros_like(d),)
