"""Elman cell with tanh, as torch.nn.RNN: h' = tanh(W_ih x + b_ih + W_hh h + b_hh)."""

from __future__ import annotations

from typing import Any


def rnn(x: Any, h: Any, state: tuple[Any, ...]) -> tuple[Any, ...]:
    """Pre-activations x, h (..., H) -> new (h,)."""
    return ((x + h).tanh(),)
