"""The cells' pointwise functions; a new cell is one file here and one line in CELLS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import gru, lstm, rnn


@dataclass(frozen=True)
class Cell:
    """What the time loops need to know of a cell.

    Attributes:
        forward: ``(x, h, state) -> (state, kept)``; tuples of tiles (sequences, hidden), x and
            h = W_hh h_{t-1} + b_hh by gate.
        backward: ``(kept, before, after, d_state) -> (slots, d_state)``.
        n_states: tiles of a state; the first is the hidden state.
        n_kept: tiles that forward keeps of a step for backward.
        keeps_state: what it keeps is the hidden state after the step, and nothing else.
        hidden_slots: by gate, which of backward's slots is the gradient of h; the first slots
            are those of x.
    """

    forward: Any
    backward: Any
    n_states: int
    n_kept: int
    keeps_state: bool
    hidden_slots: tuple[int, ...]

    @property
    def n_gates(self) -> int:
        """G."""
        return len(self.hidden_slots)

    @property
    def n_slots(self) -> int:
        """Tiles that backward leaves of a step."""
        return max(self.hidden_slots) + 1


CELLS: dict[str, Cell] = {
    "rnn": Cell(rnn.forward, rnn.backward, 1, 1, True, (0,)),
    "gru": Cell(gru.forward, gru.backward, 1, 4, False, (0, 1, 3)),
    "lstm": Cell(lstm.forward, lstm.backward, 2, 4, False, (0, 1, 2, 3)),
}
