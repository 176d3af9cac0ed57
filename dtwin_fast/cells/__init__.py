"""The cells of the main RNN. A new cell is one file here and one line in CELLS.

A cell is the pointwise part only: the loop over time is written once, in
``reference.py``, and the matrix products belong to the loop. The functions use
tensor methods alone, so this package imports nothing but the interpreter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .gru import gru
from .lstm import lstm
from .rnn import rnn

Pointwise = Callable[[Any, Any, tuple[Any, ...]], tuple[Any, ...]]


@dataclass(frozen=True)
class Cell:
    """One recurrent cell.

    Attributes:
        n_gates: G, so that ``w_ih`` is (S, G*H, I).
        n_states: tensors carried from step to step; the first is the hidden state.
        pointwise: ``(x, h, state) -> state`` with x = W_ih x_t + b_ih and
            h = W_hh h_{t-1} + b_hh, both (..., G*H), and state tensors (..., H).
    """

    n_gates: int
    n_states: int
    pointwise: Pointwise


CELLS: dict[str, Cell] = {
    "rnn": Cell(1, 1, rnn),
    "gru": Cell(3, 1, gru),
    "lstm": Cell(4, 2, lstm),
}
