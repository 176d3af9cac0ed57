"""The product of a step: a tile of rows and a matrix that stays on the chip."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_matrix(address, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """(ROWS, COLUMNS) dense tile."""
    row = tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    return tl.load(address + row * COLUMNS + column)


@triton.jit
def product(rows, matrix, half, DOT: tl.constexpr):
    """rows (BLOCK, SIZE) @ matrix (SIZE, SIZE), in float32.

    matrix: float32, bfloat16, or int32 (SIZE / 2, SIZE), which holds the bfloat16 rows 2i and
    2i + 1 in its low and high halves.
    half: 16, in a form that the compiler cannot know to be the same at every step: it would
    else unpack the pairs before the loop, into twice the registers.
    DOT: the type of the tensor cores' operands, or None for one row.
    """
    if matrix.dtype == tl.int32:
        even, odd = tl.split(tl.reshape(rows, (rows.shape[1] // 2, 2)))
        low = (matrix << half).to(tl.float32, bitcast=True)
        high = ((matrix >> half) << half).to(tl.float32, bitcast=True)
        sums = tl.sum(even[:, None] * low + odd[:, None] * high, axis=0)[None, :]
    elif DOT is None:
        sums = tl.sum(tl.sum(rows, axis=0)[:, None] * matrix, axis=0)[None, :]
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
