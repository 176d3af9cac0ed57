"""The products before and after the time loops, over all steps at once, by torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock

import torch
from torch import Tensor

_precision_lock = Lock()


@contextmanager
def float32_products() -> Iterator[None]:
    """torch's CUDA products in full float32 where the process has allowed TF32.

    The setting is the process's: it is put back, threads that come here take turns, and a
    product that another thread starts elsewhere meanwhile is in full float32 too.
    """
    matmul = torch.backends.cuda.matmul
    with _precision_lock:
        before = matmul.fp32_precision
        if before != "tf32":
            yield
            return
        matmul.fp32_precision = "ieee"
        try:
            yield
        finally:
            matmul.fp32_precision = before


def project_inputs(weights: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """(S,B,T,G*H): W_ih x + b_ih of all steps, dense in its last axis."""
    w_ih, b_ih = weights["w_ih"], weights["b_ih"]
    n_subjects, n_gates, n_inputs = w_ih.shape
    n_sequences, n_steps = inputs.shape[-3:-1]
    if inputs.ndim == 3:
        flat = inputs.reshape(-1, n_inputs)
        x = torch.addmm(b_ih.reshape(-1), flat, w_ih.reshape(-1, n_inputs).mT)
        return x.view(n_sequences, n_steps, n_subjects, n_gates).permute(2, 0, 1, 3)
    flat = inputs.reshape(n_subjects, n_sequences * n_steps, n_inputs)
    x = torch.baddbmm(b_ih[:, None], flat, w_ih.mT)
    return x.view(n_subjects, n_sequences, n_steps, n_gates)


def read_out(weights: Mapping[str, Tensor], states: Tensor, projection: Tensor | None) -> Tensor:
    """(S,B,T,O), or (S,B,K,O): the projection is applied to the states, H columns and not O."""
    w_out, bias = weights["w_out"], weights["b_out"][:, None]
    if projection is None:
        outputs = torch.baddbmm(bias, states.flatten(1, 2), w_out.mT)
        return outputs.view(*states.shape[:3], w_out.shape[1])
    outputs = (projection @ states) @ w_out.mT[:, None]
    return outputs.add_(projection.sum(-1, keepdim=True) * bias[:, None])


def read_back(
    weights: Mapping[str, Tensor], d_outputs: Tensor, projection: Tensor | None
) -> Tensor:
    """(S,B,T,H): gradients of the states through the readout."""
    d_read = d_outputs @ weights["w_out"][:, None]
    return d_read if projection is None else projection.mT @ d_read


def readout_gradients(
    d_outputs: Tensor, states: Tensor, projection: Tensor | None
) -> dict[str, Tensor]:
    """Gradients of w_out and b_out."""
    read = states if projection is None else projection @ states
    d_bias = d_outputs
    if projection is not None:
        d_bias = d_outputs * projection.sum(-1, keepdim=True)
    return {
        "w_out": d_outputs.flatten(1, 2).mT @ read.flatten(1, 2),
        "b_out": d_bias.sum((1, 2)),
    }
