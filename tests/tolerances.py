"""The one table of tolerances, by quantity and precision. Loosening one is a design decision.

Errors are absolute and measured in units of the largest wanted magnitude, or of 1 where that is
larger (see :func:`assert_close`). With u = 2^-24 for float32 and 2^-53 for float64, a sum of n
rounded terms in another order differs by about sqrt(n) u, and a contracting RNN (weights within
1/sqrt(H), as torch draws them) damps what it inherits from earlier steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

TOLERANCES: dict[str, dict[str, float]] = {
    # tanh and sigmoid alone, relative: 4 u. A short series, three roundings and a division.
    "activation": {"float32": 2.4e-7, "float64": 4.5e-16},
    # The same in units of the last place. float32: measured over all values on every instruction
    # set, 2.4984 and 2.4019. float64: 2.56 and 2.47 in 2^27 random values, which find no worst.
    "tanh_ulp": {"float32": 2.5, "float64": 3.0},
    "sigmoid_ulp": {"float32": 2.41, "float64": 3.0},
    # Hidden states: sums of H + I <= 200 terms, about 16 u per step.
    "states": {"float32": 1e-6, "float64": 4e-15},
    # Outputs: one more sum, of H terms. bfloat16 weights are exact in float32.
    "outputs": {"float32": 1e-6, "float64": 4e-15, "bfloat16": 1e-6},
    # Sums of T <= 300 outputs, taken before the readout by the engine, after it by the test.
    "projected": {"float32": 2e-6, "float64": 8e-15},
    # One affine layer, relative to the largest element: sums of up to 128 products, then of those,
    # which round about as sqrt(depth) u = 2e-5 / 16 of random numbers at a depth of 1e5.
    "affine": {"float32": 2e-6},
    # Generated weights: three layers, the first a sum of E <= 5,000 edges, about 70 u each;
    # the engine and torch sum in another order.
    "generated": {"float32": 1e-5},
    # Weights of the C library: the same products as Python's, but arctanh and exp are the C
    # library's and not numpy's, within 2 u each; sums of a few such units pass them on.
    "c_weights": {"float32": 1e-6},
    # Its readouts of the same outputs: float64 sums of <= 100 steps in another order, rounded once.
    "c_readouts": {"float32": 1.2e-7},
    # Mish or its derivative alone, relative (to the sum of the sizes of the derivative's two
    # terms, which cancel): an exp, three more roundings and a division; float32 exp is
    # within 2 u, its square doubles that.
    "mish": {"float32": 6e-7, "float64": 1.2e-15},
    # Gradients of edges from those of weights, in units of the largest: a float32 sum of
    # P <= 2e5 products, which BLAS takes in blocks, then a sum of <= 200 for each hidden layer.
    "edge_gradients": {"float32": 5e-6},
    # The same through a float32 rollout of some hundred steps, readouts and targets, in which
    # fast and slow trials cancel.
    "target_gradients": {"float32": 2e-5},
    # Gradients: sums of up to B * T products of such states, in the order that autograd takes.
    "gradients": {"float32": 5e-6, "float64": 1e-14},
    # Predictions after 30 steps of training in another arithmetic. Adam divides by the gradient's
    # size, so rounding grows: 1e-3 at most in three seeds, where one step more or less is 9e-2.
    "trained": {"float32": 1e-2},
    # Another runtime's rollout of some hundred steps, and what is read of it: two float32 programs.
    "onnx": {"float32": 2e-6},
    # Central differences with a step of 1e-5: it squared, times third derivatives of order 10,
    # and a loss of order 10 rounded at u, divided by it.
    "finite_differences": {"float64": 1e-8},
}
"""Largest error by quantity and precision."""


def assert_close(
    got: npt.NDArray[Any], wanted: npt.NDArray[Any], quantity: str, precision: str
) -> None:
    """Fail unless the arrays have one shape and agree within the table's tolerance."""
    assert got.shape == wanted.shape
    assert np.isfinite(wanted).all()
    scale = max(1.0, float(np.abs(wanted).max(initial=0.0)))
    error = float(np.abs(got.astype(np.float64) - wanted).max(initial=0.0)) / scale
    assert error <= TOLERANCES[quantity][precision], f"{quantity} differ by {error:.3g}"
