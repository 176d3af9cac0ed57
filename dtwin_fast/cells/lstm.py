"""Long short-term memory, gates i, f, g, o (torch.nn.LSTM)."""

from __future__ import annotations

from typing import Any


def lstm(x: Any, h: Any, state: tuple[Any, ...]) -> tuple[Any, ...]:
    """Pre-activations x, h (..., 4H) -> new (h, c).

    c' = sigmoid(f) * c + sigmoid(i) * tanh(g); h' = sigmoid(o) * tanh(c').
    """
    _, c = state
    i, f, g, o = (x + h).chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c
