"""The product of a step: a tile of rows and a matrix that stays on the chip."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_matrix(matrix, n, SIZE: tl.constexpr):
    """(SIZE, SIZE) tile of a dense (n, n) matrix, zeros beyond n."""
    i = tl.arange(0, SIZE)
    mask = (i < n)[:, None] & (i < n)[None, :]
    return tl.load(matrix + i[:, None] * n + i[None, :], mask=mask, other=0.0)


@triton.jit
def product(rows, matrix, DOT: tl.constexpr):
    """rows (BLOCK, SIZE) @ matrix (SIZE, SIZE), in float32.

    DOT: the type of the tensor cores' operands, or None for one row.
    """
    if DOT is None:
        column = tl.sum(rows, axis=0)[:, None]
        sums = tl.sum(column * matrix.to(tl.float32), axis=0)[None, :]
    elif matrix.dtype == tl.float32:
        # Three products of TF32 parts: the error of a float32 product, at tensor-core speed.
        # "ieee" would be summed by single threads, each with a copy of much of the matrix.
        sums = tl.dot(rows, matrix, input_precision="tf32x3")
    else:
        # bfloat16 weights are exact, and three bfloat16 parts hold a float32's 24 bits.
        high = rows.to(tl.bfloat16)
        rest = rows - high.to(tl.float32)
        middle = rest.to(tl.bfloat16)
        low = (rest - middle.to(tl.float32)).to(tl.bfloat16)
        right = matrix.to(DOT)
        sums = tl.dot(low.to(DOT), right, input_precision="ieee")
        sums = tl.dot(middle.to(DOT), right, sums, input_precision="ieee")
        sums = tl.dot(high.to(DOT), right, sums, input_precision="ieee")
    return sums
