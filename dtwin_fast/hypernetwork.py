"""The hypernetwork at inference: edges -> Mish layers -> flat RNN weights, and back.

The training twin is ``dtwin_fast.training.HyperNetwork`` (torch); both hold the same
layers and agree to 1e-5. The products are the engine's: a BLAS rounds a row differently in other
company, and even at another place of the same batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ._core import affine
from .errors import BackendUnavailableError, DTwinInputError
from .spec import TwinSpec
from .threads import usable_threads
from .weights import count_weights

Float32 = npt.NDArray[np.float32]

BLOCK_SUBJECTS = 32
"""Subjects for whom reading the weights of all layers is worth it."""


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


@dataclass(frozen=True, eq=False)
class HiddenLayers:
    """What the hidden layers make of S people, and what the way back needs of it.

    Attributes:
        units: (S,D) of the last hidden layer.
        slopes: (S,width) of each hidden layer, the derivative of its Mish.
    """

    units: Float32
    slopes: tuple[Float32, ...]


@np.errstate(over="ignore", invalid="ignore")
def run_hidden(layers: Sequence[Layer], x: Float32) -> HiddenLayers:
    """The hidden layers of x (S,E), rows as of :func:`generate_weights`."""
    slopes = []
    for layer in layers[:-1]:
        u = _forward(layer, x)
        slopes.append(mish_slope(u))
        x = mish(u)
    return HiddenLayers(x, tuple(slopes))


@np.errstate(over="ignore", invalid="ignore")
def hidden_units(layers: Sequence[Layer], x: Float32) -> Float32:
    """The units (S,D) of the last hidden layer, rows as of :func:`generate_weights`."""
    for layer in layers[:-1]:
        x = mish(_forward(layer, x))
    return x


def weights_of_hidden(layers: Sequence[Layer], units: Float32) -> Float32:
    """Flat weights (S, P) of units (S, D), rows as of :func:`generate_weights`."""
    return _forward(layers[-1], units)


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
    wanted = ((len(x), layers[0].weight.shape[1]), (len(x), len(layers[-1].bias)))
    if (x.shape, d_flat.shape) != wanted:
        raise DTwinInputError(
            "shape",
            "the sizes do not fit together",
            field="x, d_flat",
            wanted="(S, {}) and (S, {})".format(*(shape[1] for shape in wanted)),
            got=f"{x.shape} and {d_flat.shape}",
            fix="Give a gradient of what generate_weights returns for the same rows",
        )
    return backpropagate_from(layers, run_hidden(layers, x), d_flat)


@np.errstate(over="ignore", invalid="ignore")
def backpropagate_from(
    layers: Sequence[Layer], hidden: HiddenLayers, d_flat: npt.NDArray[np.floating[Any]]
) -> Float32:
    """:func:`backpropagate_weights` of the x that :func:`run_hidden` was given; no checks."""
    d_h = _back(layers[-1], d_flat)
    for layer, slope in zip(reversed(layers[:-1]), reversed(hidden.slopes), strict=True):
        d_h = _back(layer, d_h * slope)
    return d_h


def _forward(layer: Layer, x: npt.NDArray[Any]) -> Float32:
    """(S,in) -> (S,out)."""
    y = np.empty((len(x), len(layer.bias)), np.float32)
    return _run(layer, x, np.ascontiguousarray(layer.bias), y)


def _back(layer: Layer, d_y: npt.NDArray[Any]) -> Float32:
    """(S,out) -> (S,in)."""
    return _run(layer, d_y, None, np.empty((len(d_y), layer.weight.shape[1]), np.float32))


def _run(layer: Layer, x: npt.NDArray[Any], bias: Float32 | None, y: Float32) -> Float32:
    rows = np.ascontiguousarray(x, np.float32)
    weight = np.ascontiguousarray(layer.weight)
    try:
        affine(x=rows, weight=weight, bias=bias, y=y, n_threads=usable_threads())
    except RuntimeError as error:  # DTWIN_ISA names what cannot run here
        raise BackendUnavailableError(str(error)) from error
    return y
