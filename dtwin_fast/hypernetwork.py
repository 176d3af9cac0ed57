"""The hypernetwork at inference, in numpy: edges -> Mish layers -> flat RNN weights, and back.

The training twin is ``dtwin_fast.training.HyperNetwork`` (torch); both hold the same
layers and agree to 1e-5.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import DTwinInputError
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


def mish_slope(u: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Derivative of :func:`mish`, any shape, dtype kept.

    tanh(s) + u * sigmoid(u) * (1 - tanh(s)^2) with s = softplus(u). By e = e^u and
    n = e^2 + 2 e as in mish, the first term is n / (n + 2) and the second
    4 u e (1 + e) / (n + 2)^2; above u = 22 the second is below float64's last bit of 1.
    """
    capped = np.minimum(u, 22)
    e = np.exp(capped)
    n = e * (e + 2)
    # Divided twice: the square of n + 2 would come near float32's largest number.
    out: npt.NDArray[Any] = n / (n + 2) + capped * (4 * e * (1 + e) / (n + 2) / (n + 2))
    return out


@np.errstate(over="ignore", invalid="ignore")
def generate_weights(layers: Sequence[Layer], x: Float32) -> Float32:
    """Hypernetwork forward pass without dropout: x (S, E) float32 -> flat weights (S, P).

    A row of the result is the same to the bit whatever rows stand beside it. Numbers too
    large for float32 become infinite; the rollout reports their subject as diverged.
    """
    return weights_of_hidden(layers, hidden_units(layers, x))


@np.errstate(over="ignore", invalid="ignore")
def hidden_units(layers: Sequence[Layer], x: Float32) -> Float32:
    """The units (S, D) of the last hidden layer, rows as of :func:`generate_weights`."""
    *hidden, last = layers
    units = np.empty((len(x), last.weight.shape[1]), np.float32)
    for rows, h in _blocks(x):
        for layer in hidden:
            h = mish(h @ layer.weight.T + layer.bias)
        units[rows] = h[: rows.stop - rows.start]
    return units


@np.errstate(over="ignore", invalid="ignore")
def weights_of_hidden(layers: Sequence[Layer], units: Float32) -> Float32:
    """Flat weights (S, P) of units (S, D), rows as of :func:`generate_weights`."""
    last = layers[-1]
    flat = np.empty((len(units), len(last.bias)), np.float32)
    for rows, h in _blocks(units):
        flat[rows] = (h @ last.weight.T + last.bias)[: rows.stop - rows.start]
    return flat


@np.errstate(over="ignore", invalid="ignore")
def backpropagate_weights(
    layers: Sequence[Layer], x: Float32, d_flat: npt.NDArray[np.floating[Any]]
) -> Float32:
    """Gradient of ``sum(generate_weights(layers, x) * d_flat)`` with respect to x.

    Computed in float32. A row of the result is the same to the bit whatever rows stand
    beside it; NaN or infinite numbers in a row stay in that row.

    Args:
        layers: the hypernetwork, E inputs and P outputs.
        x: (S,E) float32, as :func:`generate_weights` takes it.
        d_flat: (S,P) float32 or float64.

    Returns:
        (S,E) float32.

    Raises:
        DTwinInputError: x or d_flat of another shape (code ``shape``).
    """
    *hidden, last = layers
    wanted = ((len(x), layers[0].weight.shape[1]), (len(x), len(last.bias)))
    if (x.shape, d_flat.shape) != wanted:
        raise DTwinInputError(
            "shape",
            "the sizes do not fit together",
            field="x, d_flat",
            wanted="(S, {}) and (S, {})".format(*(shape[1] for shape in wanted)),
            got=f"{x.shape} and {d_flat.shape}",
            fix="Give a gradient of what generate_weights returns for the same rows",
        )
    d_x = np.empty(x.shape, np.float32)
    for (rows, h), (_, d_block) in zip(_blocks(x), _blocks(d_flat), strict=True):
        slopes = []
        for layer in hidden:
            u = h @ layer.weight.T + layer.bias
            slopes.append(mish_slope(u))
            h = mish(u)
        d_h = d_block @ last.weight
        for layer, slope in zip(reversed(hidden), reversed(slopes), strict=True):
            d_h = (d_h * slope) @ layer.weight
        d_x[rows] = d_h[: rows.stop - rows.start]
    return d_x


def _blocks(array: npt.NDArray[Any]) -> Iterator[tuple[slice, Float32]]:
    """Rows and their float32 copies, BLOCK_SUBJECTS at a time, filled up with rows of zeros.

    Every block is the same array with new contents.
    """
    block = np.empty((BLOCK_SUBJECTS, array.shape[1]), np.float32)
    for start in range(0, len(array), BLOCK_SUBJECTS):
        rows = slice(start, min(start + BLOCK_SUBJECTS, len(array)))
        block[: rows.stop - start] = array[rows]
        block[rows.stop - start :] = 0
        yield rows, block
