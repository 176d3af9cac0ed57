"""Gated recurrent unit, gates r, z, n, reset applied after the matrix product (torch.nn.GRU)."""

from __future__ import annotations

from typing import Any


def gru(x: Any, h: Any, state: tuple[Any, ...]) -> tuple[Any, ...]:
    """Pre-activations x, h (..., 3H) -> new (h,).

    r = sigmoid(x_r + h_r); z = sigmoid(x_z + h_z); n = tanh(x_n + r * h_n);
    h' = (1 - z) * n + z * h.
    """
    (previous,) = state
    x_r, x_z, x_n = x.chunk(3, -1)
    h_r, h_z, h_n = h.chunk(3, -1)
    r = (x_r + h_r).sigmoid()
    z = (x_z + h_z).sigmoid()
    n = (x_n + r * h_n).tanh()
    return (n + z * (previous - n),)
