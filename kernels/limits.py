"""What the kernels can run, and in which configuration. Imports neither torch nor triton."""

from __future__ import annotations

from dataclasses import dataclass

ROWS = 16
"""Sequences of a block on the tensor cores: the least that they take."""

LEAST_SIZE = 32
"""Hidden units of the smallest kernel: one for each thread of a warp."""


@dataclass(frozen=True)
class Configuration:
    """How a kernel is compiled: sequences of a program, hidden units (a power of two), warps."""

    block: int
    size: int
    warps: int


# Warps of a program by the (padded) hidden size: with one sequence; with ROWS of them, or None
# where W_hh does not fit on the chip in that form. tests/test_triton_compile.py compiles every
# line for compute capability 9.0: none spills registers or takes more than 227 KiB of shared
# memory. So it is with Triton 3.7.1, which torch's CUDA builds ask for, and 3.9.0; the next size
# spills with one of them. With one sequence: the fewest warps with about 128 registers a thread,
# up to 8.
WARPS: dict[tuple[str, str], dict[int, tuple[int, int | None]]] = {
    ("rnn", "float32"): {32: (1, 4), 64: (2, 8), 128: (8, 8)},
    ("gru", "float32"): {32: (2, 8), 64: (8, 8), 128: (8, None)},
    ("lstm", "float32"): {32: (2, 8), 64: (8, None)},
    ("rnn", "bfloat16"): {32: (1, 4), 64: (1, 8), 128: (8, 8)},
    ("gru", "bfloat16"): {32: (1, 8), 64: (4, 8), 128: (8, None)},
    ("lstm", "bfloat16"): {32: (2, 16), 64: (4, 8), 128: (8, None)},
}


def why_not(cell: str, precision: str, n_hidden: int) -> str | None:
    """None when a problem can run, otherwise the reason why not and the way out.

    Any numbers of subjects, sequences, steps, inputs and outputs can.

    Args:
        cell: a key of ``dtwin_fast.cells.CELLS``.
        precision: a key of ``dtwin_fast.dispatch.PRECISIONS``.
        n_hidden: H.
    """
    sizes = WARPS.get((cell, precision))
    if sizes is None:
        return f"there is no Triton kernel for {cell} in {precision}; use backend='cpu'"
    if n_hidden <= max(sizes):
        return None
    return (
        f"the Triton kernels keep W_hh on the chip, which for {cell} in {precision} has room for "
        f"{max(sizes)} hidden units, not {n_hidden}; backend='cpu' takes any number"
    )


def configure(cell: str, precision: str, n_hidden: int, n_sequences: int) -> Configuration:
    """The configuration for a problem that :func:`why_not` lets pass."""
    size = max(LEAST_SIZE, 1 << (n_hidden - 1).bit_length())
    of_one, of_rows = WARPS[cell, precision][size]
    if n_sequences < ROWS or of_rows is None:
        return Configuration(1, size, of_one)
    return Configuration(ROWS, size, of_rows)
