"""The two time loops, of any cell. A program owns a block of one subject's sequences, loads that
subject's W_hh once, and keeps it and the state on the chip for all T steps.

Triton is told to specialise on no argument but the constexprs, so what can be compiled are the
configurations of limits.py and nothing else.
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
def load_matrices(address, N: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """N dense matrices that follow each other."""
    matrices = ()
    for k in tl.static_range(N):
        matrices = matrices + (load_matrix(address + k * ROWS * COLUMNS, ROWS, COLUMNS),)
    return matrices


@triton.jit(do_not_specialize=range(17))
def forward_loop(
    x,  # W_ih x_t + b_ih, by the three strides
    w,  # (S,G,SIZE,SIZE) W_hh of each gate, transposed and padded; see product()
    b,  # (S,G*H) b_hh
    h0,  # (S,B,H)
    c0,
    states,  # (S,B,T,H) out, dense but for the stride of the sequences
    cells,  # (S,B,T,H) out with the same strides, where KEEP, for an LSTM
    kept,  # (S,B,T,n_kept,H) out, where KEEP
    c_final,  # (S,B,H) out, for an LSTM
    n_sequences: tl.int32,
    n_steps: tl.int32,
    n_hidden: tl.int32,
    half: tl.int32,  # 16, for product()
    x_subject: tl.int64,
    x_sequence: tl.int64,
    x_step: tl.int64,
    states_sequence: tl.int64,
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

    ROWS: tl.constexpr = SIZE // 2 if w.dtype.element_ty == tl.int32 else SIZE
    w_hh = load_matrices(w + subject * GATES * ROWS * SIZE, GATES, ROWS, SIZE)
    b_hh = load_tiles(b + subject * GATES * n_hidden + j, n_hidden, j < n_hidden, GATES)
    state = (tl.load(h0 + of_sequence * n_hidden + j, mask=mask, other=0.0),)
    if STATES == 2:
        state = state + (tl.load(c0 + of_sequence * n_hidden + j, mask=mask, other=0.0),)

    # Addresses of rows walk over the steps: those of tiles would take registers of each element.
    x += subject * x_subject + sequence.to(tl.int64)[:, None] * x_sequence
    states += of_sequence * states_sequence
    cells += of_sequence * states_sequence
    kept += of_sequence * n_steps * KEPT * n_hidden
    x_t = load_tiles(x + j, n_hidden, mask, GATES)
    for t in range(n_steps):
        half = 32 - half
        # Asked for a step ahead, so that the wait for memory is hidden; the last step's twice.
        x += tl.where(t + 1 < n_steps, x_step, 0)
        x_next = load_tiles(x + j, n_hidden, mask, GATES)
        h = ()
        for g in tl.static_range(GATES):
            h = h + (product(state[0], w_hh[g], half, DOT) + b_hh[g],)
        state, of_step = CELL(x_t, h, state)
        tl.store(states + j, state[0], mask=mask)
        states += n_hidden
        if KEEP:
            store_tiles(kept + j, n_hidden, of_step, mask, KEPT)
            kept += KEPT * n_hidden
            if STATES == 2:
                tl.store(cells + j, state[1], mask=mask)
                cells += n_hidden
        x_t = x_next
    if STATES == 2:
        tl.store(c_final + of_sequence * n_hidden + j, state[1], mask=mask)


@triton.jit(do_not_specialize=range(12))
def backward_loop(
    w,  # (S,G,SIZE,SIZE) W_hh of each gate, padded; see product()
    d_states,  # (S,B,T,H), the way through the next state left out
    states,  # (S,B,T+1,H), h0 first
    cells,  # (S,B,T+1,H), c0 first, for an LSTM
    kept,  # (S,B,T,n_kept,H)
    d_slots,  # (S,B,T,n_slots,H) out
    d_h,  # (S,B,H) gradient of the last state, replaced by that of h0
    d_c,
    n_sequences: tl.int32,
    n_steps: tl.int32,
    n_hidden: tl.int32,
    half: tl.int32,  # 16, for product()
    CELL: tl.constexpr,
    STATES: tl.constexpr,
    KEPT: tl.constexpr,
    SLOTS: tl.constexpr,
    HIDDEN_SLOTS: tl.constexpr,
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

    GATES: tl.constexpr = len(HIDDEN_SLOTS)
    ROWS: tl.constexpr = SIZE // 2 if w.dtype.element_ty == tl.int32 else SIZE
    w_hh = load_matrices(w + subject * GATES * ROWS * SIZE, GATES, ROWS, SIZE)
    d_h += of_sequence * n_hidden + j
    d_c += of_sequence * n_hidden + j
    d_state = (tl.load(d_h, mask=mask, other=0.0),)
    if STATES == 2:
        d_state = d_state + (tl.load(d_c, mask=mask, other=0.0),)

    # Rows of the last step.
    last = of_sequence * n_steps + n_steps - 1
    d_states += last * n_hidden
    states += (last + of_sequence) * n_hidden
    cells += (last + of_sequence) * n_hidden
    kept += last * KEPT * n_hidden
    d_slots += last * SLOTS * n_hidden
    after = (tl.load(states + n_hidden + j, mask=mask, other=0.0),)
    if STATES == 2:
        after = after + (tl.load(cells + n_hidden + j, mask=mask, other=0.0),)
    from_readout = tl.load(d_states + j, mask=mask, other=0.0)
    of_step = load_tiles(kept + j, n_hidden, mask, KEPT)
    before = (tl.load(states + j, mask=mask, other=0.0),)
    if STATES == 2:
        before = before + (tl.load(cells + j, mask=mask, other=0.0),)
    for t in range(n_steps):
        half = 32 - half
        # Asked for a step ahead, as in forward_loop.
        back = tl.where(t + 1 < n_steps, n_hidden, 0)
        d_states -= back
        states -= back
        cells -= back
        kept -= back * KEPT
        readout_next = tl.load(d_states + j, mask=mask, other=0.0)
        kept_next = load_tiles(kept + j, n_hidden, mask, KEPT)
        before_next = (tl.load(states + j, mask=mask, other=0.0),)
        if STATES == 2:
            before_next = before_next + (tl.load(cells + j, mask=mask, other=0.0),)

        d_total = (d_state[0] + from_readout,) + d_state[1:]
        d, d_before = CELL(of_step, before, after, d_total)
        store_tiles(d_slots + j, n_hidden, d, mask, SLOTS)
        d_slots -= SLOTS * n_hidden
        d_hidden = d_before[0]
        for g in tl.static_range(GATES):
            d_hidden += product(d[HIDDEN_SLOTS[g]], w_hh[g], half, DOT)
        d_state = (d_hidden,) + d_before[1:]
        after = before
        from_readout, of_step, before = readout_next, kept_next, before_next
    tl.store(d_h, d_state[0], mask=mask)
    if STATES == 2:
        tl.store(d_c, d_state[1], mask=mask)
