"""The sizes that are timed. A new case is one line in CASES; letters as in dtwin_fast.spec."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..cells import CELLS

OPS = ("fwd", "fwd_bwd")
"""Outputs; and gradients of all weights, the inputs and h0, which need the outputs' states."""


@dataclass(frozen=True)
class Case:
    """Sizes of one rollout.

    Attributes:
        cell: a key of ``dtwin_fast.cells.CELLS``.
        S, B, T, I, H, O: sizes.
        K: rows of a time projection; 0 = none, and the outputs are (S,B,T,O).
    """

    cell: str
    S: int
    B: int
    T: int
    I: int  # noqa: E741
    H: int
    O: int  # noqa: E741
    K: int = 0

    @property
    def n_gated(self) -> int:
        """G*H, the rows of w_hh."""
        return CELLS[self.cell].n_gates * self.H

    def flop(self, op: str) -> float:
        """Multiplications and additions of the matrix products that the result needs.

        The backward pass has two products for each of the forward's. Work that an
        implementation does beyond that (BOLD that is then projected, a second rollout for
        the gradients) does not count in its favour.
        """
        steps = self.T * self.n_gated * (self.I + self.H)
        read = self.K * self.H * (self.T + self.O) if self.K else self.T * self.O * self.H
        return 2.0 * self.S * self.B * (steps + read) * (1 if op == "fwd" else 3)

    def n_bytes(self, op: str) -> int:
        """Bytes of the float32 arguments and results, each once."""
        weights = self.n_gated * (self.I + self.H + 2) + self.O * (self.H + 1)
        inputs = self.B * (self.T * self.I + CELLS[self.cell].n_states * self.H)
        outputs = self.B * (self.K or self.T) * self.O
        # The gradients' shapes are those of the arguments.
        return 4 * self.S * ((weights + inputs) * (1 if op == "fwd" else 2) + outputs)

    def w_hh_bytes(self) -> int:
        """Bytes of one subject's float32 w_hh."""
        return 4 * self.n_gated * self.H


_BOLD = Case("rnn", 256, 1, 500, 16, 128, 434)

CASES: dict[str, Case] = {
    "paper-train": Case("rnn", 50, 1, 262, 9, 400, 23),
    "paper-train-grouped": Case("rnn", 8, 20, 262, 9, 400, 23),
    "paper-rollout": Case("rnn", 32, 1, 2460, 9, 400, 23),
    "bold434-h64": replace(_BOLD, H=64),
    "bold434-h128": _BOLD,
    "contrast434-h128": replace(_BOLD, K=4),
    "gru-h128": replace(_BOLD, cell="gru"),
    "lstm-h128": replace(_BOLD, cell="lstm"),
}
