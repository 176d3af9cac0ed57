"""Tensors of the Open Inference Protocol: names, types, and arrays to and from bytes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DTwinInputError

Array = npt.NDArray[Any]
Scalar = bool | int | float | str

DTYPES = {"FP32": "<f4", "FP64": "<f8", "BOOL": "?"}
"""Datatype -> numpy's, little-endian as on the wire; BYTES are texts."""


@dataclass(frozen=True)
class TensorSpec:
    """A tensor of a model.

    Attributes:
        name, datatype: as the protocol has them.
        shape: -1 where it depends on the request.
        what: one line for people.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    what: str


@dataclass(frozen=True)
class Asked:
    """A request, whichever way it came.

    Attributes:
        inputs: name -> array.
        outputs: names that are wanted, or None: all.
        parameters: name -> value.
    """

    inputs: dict[str, Array]
    outputs: tuple[str, ...] | None = None
    parameters: Mapping[str, Scalar] = field(default_factory=dict)


def find_spec(
    specs: Sequence[TensorSpec], name: str, datatype: str, shape: Sequence[int], max_rows: int
) -> TensorSpec:
    """The input that a tensor of a request is, once its type and shape are as they must be.

    Raises:
        DTwinInputError: no such input, or another type or shape (codes ``input``, ``datatype``,
            ``shape``, ``too_large``).
    """
    spec = find_name(specs, name, "input")
    if datatype != spec.datatype:
        raise DTwinInputError(
            "datatype",
            "this input has another type",
            field=spec.name,
            wanted=spec.datatype,
            got=repr(datatype[:16]),
            fix="Convert the numbers",
        )
    fits = len(shape) == len(spec.shape) and all(
        is_ > 0 if wanted == -1 else is_ == wanted
        for is_, wanted in zip(shape, spec.shape, strict=True)
    )
    if not fits:
        raise DTwinInputError(
            "shape",
            "this input has another shape",
            field=spec.name,
            wanted=f"{list(spec.shape)}, a positive number in place of -1",
            got=str(list(shape[:8]))[:80],
            fix="Send a row of edges for each person, regions in the order of the metadata",
        )
    if shape[0] > max_rows:
        raise DTwinInputError(
            "too_large",
            "these are more people than the server's queue holds",
            field=spec.name,
            wanted=f"at most {max_rows} people",
            got=f"{shape[0]} people",
            fix="Send several requests",
        )
    return spec


def find_name(specs: Sequence[TensorSpec], name: str, kind: str) -> TensorSpec:
    """The tensor of that name.

    Raises:
        DTwinInputError: there is none (code ``input`` or ``output``).
    """
    for spec in specs:
        if spec.name == name:
            return spec
    raise DTwinInputError(
        kind,
        f"this model has no such {kind}",
        field=f"{kind}s",
        wanted=" | ".join(spec.name for spec in specs),
        got=repr(name[:80]),
        fix="Name one of these",
    )


def from_bytes(spec: TensorSpec, shape: Sequence[int], data: memoryview | bytes) -> Array:
    """The array of a tensor's bytes, which it shares.

    Raises:
        DTwinInputError: too few bytes or too many (code ``data_size``).
    """
    dtype = np.dtype(DTYPES[spec.datatype])
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if len(data) != size:
        raise wrong_size(spec.name, f"{size} bytes", f"{len(data)} bytes")
    return np.frombuffer(data, dtype).reshape(shape)


def wrong_size(field: str, wanted: str, got: str) -> DTwinInputError:
    """Data that do not fill their tensor."""
    return DTwinInputError(
        "data_size",
        "the data do not fit the shape",
        field=field,
        wanted=wanted,
        got=got,
        fix="Send as many numbers as the shape says",
    )


def to_bytes(array: Array) -> bytes:
    """An array as the protocol's bytes; texts (dtype object) with their lengths before them."""
    if array.dtype != object:
        return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    texts = (text.encode() for text in array.flat)
    return b"".join(
        itertools.chain.from_iterable((len(text).to_bytes(4, "little"), text) for text in texts)
    )
