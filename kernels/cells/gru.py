"""Gated recurrent unit, gates r, z, n, reset applied after the matrix product, as torch.nn.GRU:
r = sigmoid(x_r + h_r); z = sigmoid(x_z + h_z); n = tanh(x_n + r h_n); h' = n + z (h - n).
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..activations import sigmoid, tanh


@triton.jit
def forward(x: tl.tuple, h: tl.tuple, state: tl.tuple):
    """Pre-activations by gate and state -> new state, and what backward takes."""
    r = sigmoid(x[0] + h[0])
    z = sigmoid(x[1] + h[1])
    n = tanh(x[2] + r * h[2])
    return (n + z * (state[0] - n),), (r, z, n, h[2])


@triton.jit
def backward(kept: tl.tuple, before: tl.tuple, after: tl.tuple, d_state: tl.tuple):
    """-> gradients of x_r, x_z, x_n and h_n (those of h_r and h_z are the first two again), and
    of the state before but for the way through h.
    """
    r, z, n, h_n = kept
    d_n = d_state[0] * (1.0 - z) * (1.0 - n * n)
    d_r = d_n * h_n * r * (1.0 - r)
    d_z = d_state[0] * (before[0] - n) * z * (1.0 - z)
    return (d_r, d_z, d_n, d_n * r), (d_state[0] * z,)
