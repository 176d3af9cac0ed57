"""tanh and sigmoid of float32, from tl.exp: Triton's interpreter has no libdevice."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x)), with no exponent that overflows."""
    e = tl.exp(-tl.abs(x))
    return tl.where(x < 0, e, 1.0) / (1.0 + e)


@triton.jit
def tanh(x):
    """tanh to 4 u of float32, near zero too, where 1 - exp(-2x) would cancel."""
    size = tl.abs(x)
    e = tl.exp(-2.0 * size)
    far = (1.0 - e) / (1.0 + e)
    # x + x s P(s), s = x^2: P minimises the largest relative error up to 0.625.
    s = x * x
    p = -0.005704978 * s + 0.02063908
    p = p * s - 0.05373971
    p = p * s + 0.13331442
    p = p * s - 0.3333328
    near = x + x * (s * p)
    return tl.where(size < 0.625, near, tl.where(x < 0, -far, far))
