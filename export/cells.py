"""The pointwise part of each cell as ONNX nodes, forwards and backwards.

The states of a cell are named (h,) or, of lstm, (h, c); x and h are W_ih x_t + b_ih and
W_hh h_{t-1} + b_hh, their last axis G*H in torch's gate order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .nodes import Nodes


@dataclass(frozen=True)
class CellNodes:
    """One cell.

    Attributes:
        forward: (nodes, x, h, states) -> next states.
        gates: (nodes, x, h, previous states, states) -> what ``backward`` takes of a step; it
            is computed for all steps at once.
        backward: (nodes, gates of a step, d_states) -> gradients of x, of h, and those of the
            previous states that do not pass through h.
    """

    forward: Callable[[Nodes, str, str, list[str]], list[str]]
    gates: Callable[[Nodes, str, str, list[str], list[str]], list[str]]
    backward: Callable[[Nodes, list[str], list[str]], tuple[str, str, list[str | None]]]


def _rnn(g: Nodes, x: str, h: str, states: list[str]) -> list[str]:
    return [g("Tanh", g("Add", x, h))]


def _rnn_gates(g: Nodes, x: str, h: str, previous: list[str], states: list[str]) -> list[str]:
    return [_tanh_slope(g, states[0])]


def _rnn_back(g: Nodes, gates: list[str], d_states: list[str]) -> tuple[str, str, list[str | None]]:
    d_u = g("Mul", d_states[0], gates[0])
    return d_u, d_u, [None]


def _gru(g: Nodes, x: str, h: str, states: list[str]) -> list[str]:
    _, z, n, _ = _gru_units(g, x, h)
    return [g("Add", n, g("Mul", z, g("Sub", states[0], n)))]


def _gru_units(g: Nodes, x: str, h: str) -> tuple[str, str, str, str]:
    """r, z, n and what r is multiplied with."""
    (x_r, x_z, x_n), (h_r, h_z, h_n) = g.split(x, 3), g.split(h, 3)
    r, z = g("Sigmoid", g("Add", x_r, h_r)), g("Sigmoid", g("Add", x_z, h_z))
    return r, z, g("Tanh", g("Add", x_n, g("Mul", r, h_n))), h_n


def _gru_gates(g: Nodes, x: str, h: str, previous: list[str], states: list[str]) -> list[str]:
    r, z, n, h_n = _gru_units(g, x, h)
    # h' = n + z (h - n): the gradient of u_n is d_h' by_n, and so on.
    by_n = g("Mul", g("Sub", _one(g), z), _tanh_slope(g, n))
    by_r = g("Mul", g("Mul", by_n, h_n), _sigmoid_slope(g, r))
    by_z = g("Mul", g("Sub", previous[0], n), _sigmoid_slope(g, z))
    return [by_r, by_z, by_n, g("Mul", by_n, r), z]


def _gru_back(g: Nodes, gates: list[str], d_states: list[str]) -> tuple[str, str, list[str | None]]:
    d_r, d_z, d_n, d_h_n, kept = (g("Mul", d_states[0], gate) for gate in gates)
    d_x = g("Concat", d_r, d_z, d_n, axis=-1)
    return d_x, g("Concat", d_r, d_z, d_h_n, axis=-1), [kept]


def _lstm(g: Nodes, x: str, h: str, states: list[str]) -> list[str]:
    i, f, n, o = _lstm_units(g, x, h)
    c = g("Add", g("Mul", f, states[1]), g("Mul", i, n))
    return [g("Mul", o, g("Tanh", c)), c]


def _lstm_units(g: Nodes, x: str, h: str) -> tuple[str, str, str, str]:
    i, f, n, o = g.split(g("Add", x, h), 4)
    return g("Sigmoid", i), g("Sigmoid", f), g("Tanh", n), g("Sigmoid", o)


def _lstm_gates(g: Nodes, x: str, h: str, previous: list[str], states: list[str]) -> list[str]:
    i, f, n, o = _lstm_units(g, x, h)
    squashed = g("Tanh", states[1])
    by_i = g("Mul", n, _sigmoid_slope(g, i))
    by_f = g("Mul", previous[1], _sigmoid_slope(g, f))
    by_n = g("Mul", i, _tanh_slope(g, n))
    by_o = g("Mul", squashed, _sigmoid_slope(g, o))
    return [by_i, by_f, by_n, by_o, g("Mul", o, _tanh_slope(g, squashed)), f]


def _lstm_back(
    g: Nodes, gates: list[str], d_states: list[str]
) -> tuple[str, str, list[str | None]]:
    by_i, by_f, by_n, by_o, by_c, f = gates
    d_h, d_later = d_states
    d_c = g("Add", d_later, g("Mul", d_h, by_c))
    parts = [*(g("Mul", d_c, gate) for gate in (by_i, by_f, by_n)), g("Mul", d_h, by_o)]
    d_u = g("Concat", *parts, axis=-1)
    return d_u, d_u, [None, g("Mul", d_c, f)]


def _one(g: Nodes) -> str:
    return g.constant(1, "float32")


def _tanh_slope(g: Nodes, y: str) -> str:
    return g("Sub", _one(g), g("Mul", y, y))


def _sigmoid_slope(g: Nodes, y: str) -> str:
    return g("Mul", y, g("Sub", _one(g), y))


CELL_NODES: dict[str, CellNodes] = {
    "rnn": CellNodes(_rnn, _rnn_gates, _rnn_back),
    "gru": CellNodes(_gru, _gru_gates, _gru_back),
    "lstm": CellNodes(_lstm, _lstm_gates, _lstm_back),
}
"""One for each of ``dtwin_fast.cells.CELLS``."""
