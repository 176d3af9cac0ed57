"""The launchers: torch products over all steps around a kernel that walks them.

Tensors are float32 on one device: CUDA, or the CPU under ``TRITON_INTERPRET=1``. Work is put on
torch's current stream of that device and not waited for. Arguments are not validated: the
callers do that, and ask :func:`dtwin_fast.kernels.why_not` first.

The input projection is one product before the loop: inside it, W_ih would take registers that
W_hh needs, and every number of inputs would be another kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import dense
from .cells import CELLS
from .limits import Configuration, configure
from .loops import backward_loop, forward_loop

INTERPRETED = not isinstance(forward_loop, triton.JITFunction)


def rollout(
    cell: str,
    weights: Mapping[str, Tensor],
    inputs: Tensor,
    h0: tuple[Tensor, ...] | None,
    *,
    time_projection: Tensor | None,
    return_states: bool,
    bfloat16_weights: bool,
) -> tuple[Tensor, Tensor | None, tuple[Tensor, ...]]:
    """Roll S subjects' RNNs over their inputs; the same bits for the same arguments.

    Args:
        cell: a key of ``dtwin_fast.cells.CELLS``.
        weights: w_ih (S,G*H,I), w_hh (S,G*H,H), b_ih and b_hh (S,G*H), w_out (S,O,H),
            b_out (S,O), with any strides.
        inputs: (B,T,I) shared by all subjects, or (S,B,T,I).
        h0: (h,), or (h, c) for an LSTM, each (S,B,H); None = zeros.
        time_projection: (K,T) or (B,K,T), applied to the outputs along time.
        return_states: also return the hidden states.
        bfloat16_weights: round the weights to bfloat16 and keep w_hh so; compute in float32.

    Returns:
        Outputs (S,B,T,O) or (S,B,K,O); states (S,B,T,H) or None; the last state as h0.
    """
    weights = _rounded(weights, bfloat16_weights)
    n_subjects, _, n_hidden = weights["w_hh"].shape
    n_sequences, n_steps = inputs.shape[-3:-1]
    states = inputs.new_empty(n_subjects, n_sequences, n_steps, n_hidden)
    state = _initial_state(cell, weights, inputs, h0)
    c_final = _walk(cell, weights, inputs, state, states, None, None, bfloat16_weights)
    with dense.float32_products():
        outputs = dense.read_out(weights, states, time_projection)
    # A copy, so that the last state does not keep all of them in memory.
    h_final = (states[:, :, -1].clone(), *c_final)
    return outputs, states if return_states else None, h_final


def rollout_vjp(
    cell: str,
    weights: Mapping[str, Tensor],
    inputs: Tensor,
    d_outputs: Tensor,
    h0: tuple[Tensor, ...] | None,
    *,
    time_projection: Tensor | None,
    d_states: Tensor | None,
    d_final: tuple[Tensor, ...] | None,
    states: Tensor | None,
    bfloat16_weights: bool,
) -> tuple[dict[str, Tensor], Tensor, tuple[Tensor, ...]]:
    """Gradients of a loss with respect to what :func:`rollout` reads.

    Under ``bfloat16_weights`` they are those at the rounded weights.

    Args:
        d_outputs: (S,B,T,O), or (S,B,K,O) under a time projection.
        d_states: (S,B,T,H) gradients of the states; None = zeros.
        d_final: gradients of the last state, as h0; None = zeros.
        states: (S,B,T,H) of the same arguments, or None. They spare an rnn its second roll-out;
            a gru and an lstm roll out again for the gates that they keep.

    Returns:
        Gradients of the weights by name; of the inputs, (S,B,T,I), or (B,T,I) summed over
        subjects who share them; and of h0, there even when it was None.
    """
    weights = _rounded(weights, bfloat16_weights)
    spec = CELLS[cell]
    n_subjects, n_rows, n_hidden = weights["w_hh"].shape
    n_sequences, n_steps, n_inputs = inputs.shape[-3:]
    state = _initial_state(cell, weights, inputs, h0)

    if spec.keeps_state:
        if states is None:
            states = inputs.new_empty(n_subjects, n_sequences, n_steps, n_hidden)
            _walk(cell, weights, inputs, state, states, None, None, bfloat16_weights)
        kept = states.contiguous()
        series = [torch.cat((state[0][:, :, None], states), 2)]
    else:
        shape = (n_subjects, n_sequences, n_steps + 1, n_hidden)
        series = [part.new_empty(shape) for part in state]
        for part, first in zip(series, state, strict=True):
            part[:, :, 0] = first
        after = [part[:, :, 1:] for part in series]
        kept = inputs.new_empty(n_subjects, n_sequences, n_steps, spec.n_kept, n_hidden)
        _walk(cell, weights, inputs, state, after[0], after[-1], kept, bfloat16_weights)

    with dense.float32_products():
        d_total = dense.read_back(weights, d_outputs, time_projection)
        gradients = dense.readout_gradients(d_outputs, series[0][:, :, 1:], time_projection)
    if d_states is not None:
        d_total = d_total + d_states
    d_slots = inputs.new_empty(n_subjects, n_sequences, n_steps, spec.n_slots, n_hidden)
    # Copies, which the kernel writes over.
    d_state = tuple(
        torch.zeros_like(state[i])
        if d_final is None
        else d_final[i].clone(memory_format=torch.contiguous_format)
        for i in range(spec.n_states)
    )
    with _on(inputs):
        form = _configuration(cell, n_hidden, n_sequences, bfloat16_weights)
        if n_subjects:
            backward_loop[_grid(form, n_subjects, n_sequences)](
                _matrices(weights["w_hh"], form, bfloat16_weights),
                d_total.contiguous(),
                series[0],
                series[-1],
                kept,
                d_slots,
                d_state[0],
                d_state[-1],
                n_sequences,
                n_steps,
                n_hidden,
                16,
                CELL=spec.backward,
                STATES=spec.n_states,
                KEPT=spec.n_kept,
                SLOTS=spec.n_slots,
                HIDDEN_SLOTS=spec.hidden_slots,
                **_options(form, bfloat16_weights),
            )

    slots = d_slots.view(n_subjects, n_sequences * n_steps, spec.n_slots * n_hidden)
    d_x = slots[..., :n_rows]
    d_h = d_x
    if spec.hidden_slots != tuple(range(spec.n_gates)):
        d_h = torch.cat([slots[..., s * n_hidden :][..., :n_hidden] for s in spec.hidden_slots], 2)
    x = inputs.reshape(*inputs.shape[:-3], n_sequences * n_steps, n_inputs)
    with dense.float32_products():
        gradients |= {
            "w_ih": d_x.mT @ x,
            "w_hh": d_h.mT @ series[0][:, :, :-1].flatten(1, 2),
            "b_ih": d_x.sum(1),
            "b_hh": d_h.sum(1),
        }
        d_inputs = (d_x @ weights["w_ih"]).view(n_subjects, n_sequences, n_steps, n_inputs)
    return gradients, d_inputs.sum(0) if inputs.ndim == 3 else d_inputs, d_state


def _walk(
    cell: str,
    weights: Mapping[str, Tensor],
    inputs: Tensor,
    state: tuple[Tensor, ...],
    states: Tensor,
    cells: Tensor | None,
    kept: Tensor | None,
    bfloat16_weights: bool,
) -> tuple[Tensor, ...]:
    """Fill the states, and what backward takes where ``kept`` is given -> (c_final,) or ()."""
    spec = CELLS[cell]
    n_subjects, n_sequences, n_steps, n_hidden = states.shape
    with dense.float32_products():
        x = dense.project_inputs(weights, inputs)
    c_final = tuple(torch.empty_like(part) for part in state[1:])
    with _on(inputs):
        form = _configuration(cell, n_hidden, n_sequences, bfloat16_weights)
        if n_subjects:
            forward_loop[_grid(form, n_subjects, n_sequences)](
                x,
                _matrices(weights["w_hh"], form, bfloat16_weights, transposed=True),
                weights["b_hh"].contiguous(),
                state[0],
                state[-1],
                states,
                states if cells is None else cells,
                states if kept is None else kept,
                c_final[0] if c_final else states,
                n_sequences,
                n_steps,
                n_hidden,
                16,
                *x.stride()[:3],
                states.stride(1),
                CELL=spec.forward,
                STATES=spec.n_states,
                GATES=spec.n_gates,
                KEPT=spec.n_kept,
                KEEP=kept is not None,
                **_options(form, bfloat16_weights),
            )
    return c_final


def _rounded(weights: Mapping[str, Tensor], bfloat16_weights: bool) -> Mapping[str, Tensor]:
    if not bfloat16_weights:
        return weights
    return {name: tensor.bfloat16().float() for name, tensor in weights.items()}


def _initial_state(
    cell: str, weights: Mapping[str, Tensor], inputs: Tensor, h0: tuple[Tensor, ...] | None
) -> tuple[Tensor, ...]:
    """(h,) or (h, c), dense."""
    if h0 is not None:
        return tuple(part.contiguous() for part in h0)
    n_subjects, _, n_hidden = weights["w_hh"].shape
    zeros = inputs.new_zeros(n_subjects, inputs.shape[-3], n_hidden)
    return (zeros,) * CELLS[cell].n_states


def _matrices(
    w_hh: Tensor, form: Configuration, bfloat16_weights: bool, *, transposed: bool = False
) -> Tensor:
    """(S,G,SIZE,SIZE) as the loops take them: a program's threads lie along the sums, so the
    forward one takes the transposed.
    """
    n_subjects, n_rows, n_hidden = w_hh.shape
    gates = w_hh.reshape(n_subjects, n_rows // n_hidden, n_hidden, n_hidden)
    padded = gates.new_zeros(
        *gates.shape[:2], form.size, form.size, dtype=torch.bfloat16 if bfloat16_weights else None
    )
    padded[..., :n_hidden, :n_hidden] = gates.mT if transposed else gates
    if not bfloat16_weights or form.block > 1:
        return padded
    pairs: Tensor = padded.unflatten(2, (-1, 2)).mT.contiguous().view(torch.int32)
    return pairs.squeeze(-1)


def _configuration(
    cell: str, n_hidden: int, n_sequences: int, bfloat16_weights: bool
) -> Configuration:
    return configure(cell, "bfloat16" if bfloat16_weights else "float32", n_hidden, n_sequences)


def _grid(form: Configuration, n_subjects: int, n_sequences: int) -> tuple[int]:
    return (n_subjects * triton.cdiv(n_sequences, form.block),)


def _options(form: Configuration, bfloat16_weights: bool) -> dict[str, Any]:
    dot = None
    if form.block > 1:
        # The interpreter has no products of bfloat16; float32 holds the same numbers.
        dot = tl.bfloat16 if bfloat16_weights and not INTERPRETED else tl.float32
    return {
        "DOT": dot,
        "BLOCK": form.block,
        "SIZE": form.size,
        "num_warps": form.warps,
        "num_stages": 1,
        "enable_fp_fusion": True,
    }


def _on(tensor: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
