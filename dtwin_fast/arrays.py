"""Arrays of real numbers from whatever a caller gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import DTwinInputError

MAX_ITEM_BYTES = 8
"""Wider numbers (long double) would lose digits on their way into float64."""


def as_real_array(value: Any, field: str) -> npt.NDArray[Any]:
    """``value`` as an array of floats or integers of at most 64 bits; arrays are not copied.

    Raises:
        DTwinInputError: ragged lists, tensors that refuse to become arrays, masked arrays,
            complex, boolean, object, text or long double numbers (code ``dtype``).
    """
    if isinstance(value, np.ma.MaskedArray):
        raise _dtype_error(field, "a masked array", "Give filled(numpy.nan)")
    try:
        array: npt.NDArray[Any] = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        # Ragged lists, and tensors of other libraries that refuse to become arrays.
        raise _dtype_error(field, str(error), "Give a numpy array") from error
    if array.dtype.kind not in "fiu" or array.dtype.itemsize > MAX_ITEM_BYTES:
        fix = "Convert it with astype('float32') after checking what it holds"
        raise _dtype_error(field, str(array.dtype), fix)
    return array


def _dtype_error(field: str, got: str, fix: str) -> DTwinInputError:
    return DTwinInputError(
        "dtype",
        "this is not an array of real numbers",
        field=field,
        wanted="floating point or integers of at most 64 bits",
        got=got,
        fix=fix,
    )
