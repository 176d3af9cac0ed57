"""The two time loops, of any cell. A program owns a block of one subject's sequences, loads that
subject's W_hh once, and keeps it and the state on the chip for all T steps.

Sizes are never specialised on, so the configurations that can run are those of limits.py.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .product import load_matrix, product


@triton.jit
def load_tiles(address, stride, mask, N: tl.constexpr):
    """N tiles, one every ``stride`` elements."""
    tiles = ()
    for n in tl.static_range(N):
        tiles = tiles + (tl.load(address + n * stride, mask=mask, other=0.0),)
    return tiles


@triton.jit
def store_tiles(address, stride, tiles, mask, N: tl.constexpr):
    """The inverse of load_tiles."""
    for n in tl.static_range(N):
        tl.store(address + n * stride, tiles[n], mask=mask)


@triton.jit
def load_matrices(address, stride, n, N: tl.constexpr, SIZE: tl.constexpr):
    """N dense (n, n) matrices, one every ``stride`` elements."""
    matrices = ()
    for k in tl.static_range(N):
        matrices = matrices + (load_matrix(address + k * stride, n, SIZE),)
    return matrices


@triton.jit(do_not_specialize=["n_sequences", "n_steps", "n_hidden"])
def forward_loop(
    x,  # W_ih x_t + b_ih, by the three strides
    w,  # (S,G,H,H) W_hh of each gate, transposed
    b,  # (S,G*H) b_hh
    h0,  # (S,B,H)
    c0,
    states,  # (S,B,T,H) out
    cells,  # (S,B,T,H) out, where KEEP, for an LSTM
    kept,  # (S,B,T,n_kept,H) out, where KEEP
    c_final,  # (S,B,H) out, for an LSTM
    n_sequences: tl.int32,
    n_steps: tl.int32,
    n_hidden: tl.int32,
    x_subject: tl.int64,
    x_sequence: tl.int64,
    x_step: tl.int64,
    CELL: tl.constexpr,
    STATES: tl.constexpr,
    GATES: tl.constexpr,
    KEPT: tl.constexpr,
    KEEP: tl.constexpr,
    DOT: tl.constexpr,
    BLOCK: tl.constexpr,
    SIZE: tl.constexpr,
):
    n_blocks = tl.cdiv(n_sequences, BLOCK)
    subject = (tl.program_id(0) // n_blocks).to(tl.int64)
    sequence = (tl.program_id(0) % n_blocks) * BLOCK + tl.arange(0, BLOCK)
    j = tl.arange(0, SIZE)[None, :]
    mask = (sequence < n_sequences)[:, None] & (j < n_hidden)
    of_sequence = (subject * n_sequences + sequence)[:, None]

    w_hh = load_matrices(
        w + subject * GATES * n_hidden * n_hidden, n_hidden * n_hidden, n_hidden, GATES, SIZE
    )
    b_hh = load_tiles(b + subject * GATES * n_hidden + j, n_hidden, j < n_hidden, GATES)
    state = (tl.load(h0 + of_sequence * n_hidden + j, mask=mask, other=0.0),)
    if STATES == 2:
        state = state + (tl.load(c0 + of_sequence * n_hidden + j, mask=mask, other=0.0),)

    x += subject * x_subject + sequence.to(tl.int64)[:, None] * x_sequence + j
    states += of_sequence * n_steps * n_hidden + j
    cells += of_sequence * n_steps * n_hidden + j
    kept += of_sequence * n_steps * KEPT * n_hidden + j
    x_t = load_tiles(x, n_hidden, mask, GATES)
    for t in range(n_steps):
        # Asked for a step ahead, so that the wait for memory is hidden; the last step's twice.
        x += tl.where(t + 1 < n_steps, x_step, 0)
        x_next = load_tiles(x, n_hidden, mask, GATES)
        h = ()
        for g in tl.static_range(GATES):
            h = h + (product(state[0], w_hh[g], DOT) + b_hh[g],)
        state, of_step = CELL(x_t, h, state)
        tl.store(states, state[0], mask=mask)
        states += n_hidden
        if KEEP:
            store_tiles(kept, n_hidden, of_step, mask, KEPT)
            kept += KEPT * n_hidden
            if STATES == 2:
                tl.store(cells, state[1], mask=mask)
                cells += n_hidden
        x_t = x_next
    if STATES == 2:
        tl.store(c_final + of_sequence * n_hidden + j, state[1], mask=mask)
