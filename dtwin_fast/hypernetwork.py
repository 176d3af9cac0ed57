"""The hypernetwork at inference, in numpy: edges -> Mish layers -> flat RNN weights.

The training twin is ``dtwin_fast.training.HyperNetwork`` (torch); both hold the same
layers and agree to 1e-5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from .spec import TwinSpec
from .weights import count_weights

Float32 = npt.NDArray[np.float32]

BLOCK_SUBJECTS = 32
"""Subjects per matrix product. Always this many, the last block padded: BLAS rounds
differently for other sizes, and a subject's weights must not depend on the company."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One affine layer, as torch.nn.Linear: weight (out, in), bias (out,), float32."""

    weight: Float32
    bias: Float32


def layer_sizes(spec: TwinSpec) -> list[tuple[int, int]]:
    """(in, out) of each layer: edges, hidden layers, generated weights."""
    widths = [spec.n_edges, *spec.hyper_hidden, count_weights(spec)]
    return list(pairwise(widths))


def count_parameters(spec: TwinSpec) -> int:
    """Parameters of the hypernetwork (54,785,623 for ``tcp446``, as in the paper)."""
    return sum(n_in * n_out + n_out for n_in, n_out in layer_sizes(spec))


def mish(u: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Mish (Misra 2019): u * tanh(softplus(u)), any shape, dtype kept.

    tanh(log(1 + e^u)) = (e^2u + 2 e^u) / (e^2u + 2 e^u + 2), which needs one exp; above
    u = 20 the factor is 1 to float64's last bit and e^2u might overflow.
    """
    e = np.exp(np.minimum(u, 20))
    n = e * (e + 2)
    out: npt.NDArray[Any] = u * (n / (n + 2))
    return out


@np.errstate(over="ignore", invalid="ignore")
def generate_weights(layers: Sequence[Layer], x: Float32) -> Float32:
    """Hypernetwork forward pass without dropout: x (S, E) float32 -> flat weights (S, P).

    A row of the result is the same to the bit whatever rows stand beside it. Numbers too
    large for float32 become infinite; the rollout reports their subject as diverged.
    """
    flat = np.empty((len(x), len(layers[-1].bias)), np.float32)
    padded = np.zeros((BLOCK_SUBJECTS, x.shape[1]), np.float32)
    for start in range(0, len(x), BLOCK_SUBJECTS):
        rows = x[start : start + BLOCK_SUBJECTS]
        padded[: len(rows)] = rows
        padded[len(rows) :] = 0
        h = padded
        for layer in layers[:-1]:
            h = mish(h @ layer.weight.T + layer.bias)
        last = layers[-1]
        flat[start : start + len(rows)] = (h @ last.weight.T + last.bias)[: len(rows)]
    return flat
