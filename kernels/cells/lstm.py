"""Long short-term memory, gates i, f, g, o, as torch.nn.LSTM:
c' = sigmoid(f) c + sigmoid(i) tanh(g); h' = sigmoid(o) tanh(c').
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..activations import sigmoid, tanh


@triton.jit
def forward(x: tl.tuple, h: tl.tuple, state: tl.tuple):
    """Pre-activations by gate and state (h, c) -> new state, and what backward takes."""
    i = sigmoid(x[0] + h[0])
    f = sigmoid(x[1] + h[1])
    g = tanh(x[2] + h[2])
    o = sigmoid(x[3] + h[3])
    c = f * state[1] + i * g
    return (o * tanh(c), c), (i, f, g, o)


@triton.jit
def backward(kept: tl.tuple, before: tl.tuple, after: tl.tuple, d_state: tl.tuple):
    """-> gradients of the pre-activations, and of the state before but for the way through h."""
    i, f, g, o = kept
    tanh_c = tanh(after[1])
    d_c = d_state[1] + d_state[0] * o * (1.0 - tanh_c * tanh_c)
    d_i = d_c * g * i * (1.0 - i)
    d_f = d_c * before[1] * f * (1.0 - f)
    d_g = d_c * i * (1.0 - g * g)
    d_o = d_state[0] * tanh_c * o * (1.0 - o)
    return (d_i, d_f, d_g, d_o), (tl.zeros_like(d_c), d_c * f)
