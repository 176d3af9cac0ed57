"""JSON of the Open Inference Protocol, and the bytes that may follow it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np

from ..errors import DTwinInputError
from .models import VERSION, Answer, Model, Work
from .refusals import too_large
from .settings import JSON_BYTES, JSON_NUMBERS
from .tensors import (
    Array,
    Asked,
    Scalar,
    TensorSpec,
    find_spec,
    from_bytes,
    to_bytes,
    wrong_size,
)

Text = Annotated[str, msgspec.Meta(max_length=256)]
Size = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Shape = Annotated[list[Size], msgspec.Meta(max_length=8)]
Parameters = Annotated[dict[Text, Scalar], msgspec.Meta(max_length=32)]
BINARY = "binary_data_size"
JSON_OTHERS = 1000
"""Values of a request that are no numbers of a tensor."""


class _Input(msgspec.Struct, forbid_unknown_fields=True):
    name: Text
    shape: Shape
    datatype: Text
    parameters: Parameters = {}
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Output(msgspec.Struct, forbid_unknown_fields=True):
    name: Text
    parameters: Parameters = {}


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    inputs: Annotated[list[_Input], msgspec.Meta(max_length=8)]
    id: Text = ""
    parameters: Parameters = {}
    outputs: Annotated[list[_Output], msgspec.Meta(max_length=32)] | None = None


class Parsed(msgspec.Struct):
    """A request, and how its answer is to be written.

    Attributes:
        work: what to run.
        id: which the answer repeats.
        binary: outputs that are written as bytes after the JSON.
        wait_us: how long its turn is waited for, in microseconds, or None.
    """

    work: Work
    id: str
    binary: frozenset[str]
    wait_us: int | None


def parse(body: bytes, json_length: str | None, model: Model, max_rows: int) -> Parsed:
    """Read and check a request.

    Args:
        body: JSON, and perhaps bytes of tensors.
        json_length: the header ``Inference-Header-Content-Length``: how much of it is JSON.
        model: which it is for.
        max_rows: people at most.

    Raises:
        DTwinInputError: it cannot be run (codes ``json``, ``header``, ``data_size``,
            ``parameter``, ``too_large``, and those of ``find_spec`` and ``Model.accept``).
    """
    size = len(body) if json_length is None else _length(json_length, len(body))
    if json_length is not None and size > JSON_BYTES:
        raise too_large("json", f"{JSON_BYTES} bytes", f"{size} bytes", "Send less JSON")
    # Before anything is made of it: there is a comma between any two values.
    if (n_values := body.count(b",", 0, size)) > JSON_NUMBERS + JSON_OTHERS:
        raise too_large(
            "json",
            f"{JSON_NUMBERS + JSON_OTHERS:,} values in JSON",
            f"{n_values:,}",
            "Send bytes (binary_data_size), or fewer people",
        )
    view = memoryview(body)
    request: _Request = _decode(view[:size], _Request)
    inputs: dict[str, Array] = {}
    rest = view[size:]
    for tensor in request.inputs:
        spec = find_spec(model.inputs, tensor.name, tensor.datatype, tensor.shape, max_rows)
        if spec.name in inputs:
            raise _bad("input", spec.name, "each input once", "one twice")
        n_bytes = tensor.parameters.pop(BINARY, None)
        if tensor.parameters:
            raise _bad("parameter", spec.name, BINARY, repr(next(iter(tensor.parameters))[:80]))
        if n_bytes is None:
            inputs[spec.name] = _numbers(spec, tensor)
            continue
        if type(n_bytes) is not int or not 0 <= n_bytes <= len(rest):
            raise _bad("header", BINARY, f"0 to {len(rest)}, what is left", str(n_bytes)[:32])
        if tensor.data is not msgspec.UNSET:
            raise _bad("input", spec.name, "data or bytes", "both")
        inputs[spec.name] = from_bytes(spec, tensor.shape, rest[:n_bytes])
        rest = rest[n_bytes:]
    if rest:
        raise _bad("header", BINARY, "all bytes after the JSON", f"{len(rest)} are left")
    every = _flag(request.parameters, "binary_data_output", False)
    wait_us = request.parameters.pop("timeout", None)
    if wait_us is not None and not (type(wait_us) is int and 0 < wait_us < 2**63):
        raise _bad("parameter", "timeout", "microseconds", repr(wait_us)[:32])
    names = None if request.outputs is None else tuple(o.name for o in request.outputs)
    work = model.accept(Asked(inputs, names or None, request.parameters))
    chosen = {o.name: _flag(o.parameters, "binary_data", every) for o in request.outputs or ()}
    for output in request.outputs or ():
        if output.parameters:
            name = next(iter(output.parameters))
            raise _bad("parameter", output.name, "binary_data", repr(name[:80]))
    binary = frozenset(name for name in work.outputs if chosen.get(name, every))
    if binary != set(work.outputs) and work.n_values > JSON_NUMBERS:
        raise too_large(
            "outputs",
            f"{JSON_NUMBERS:,} numbers in JSON",
            f"{work.n_values:,}",
            "Ask for binary data, or for fewer outputs",
        )
    return Parsed(work, request.id, binary, wait_us)


def write(model: Model, asked: Parsed, answer: Answer) -> tuple[bytes, int | None]:
    """The body of an answer, and how much of it is JSON where bytes follow.

    NaN, which JSON does not have, is null.
    """
    outputs: list[dict[str, Any]] = []
    after: list[bytes] = []
    for spec in model.outputs:
        if (array := answer.arrays.get(spec.name)) is None:
            continue
        tensor = {"name": spec.name, "datatype": spec.datatype, "shape": list(array.shape)}
        if spec.name in asked.binary:
            after.append(to_bytes(array))
            outputs.append({**tensor, "parameters": {BINARY: len(after[-1])}})
        else:
            outputs.append({**tensor, "data": array.ravel().tolist()})
    text = msgspec.json.encode(
        {
            "model_name": model.name,
            "model_version": VERSION,
            "id": asked.id,
            "parameters": answer.parameters,
            "outputs": outputs,
        }
    )
    return b"".join([text, *after]), len(text) if after else None


def _length(text: str, most: int) -> int:
    # int() would take signs, blanks, underscores and digits of other scripts.
    if text.isascii() and text.isdigit() and len(text) < 19 and int(text) <= most:
        return int(text)
    raise _bad("header", "Inference-Header-Content-Length", f"0 to {most}", repr(text[:32]))


def _decode(text: bytes | memoryview, form: Any) -> Any:
    try:
        return msgspec.json.decode(text, type=form)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        # Its words name a place or a type, never a value.
        got = "too many levels" if isinstance(error, RecursionError) else str(error)
        raise DTwinInputError(
            "json",
            "this is not the JSON of a request",
            field="body",
            wanted="an inference request of the Open Inference Protocol",
            got=got[:200],
            fix="See /openapi.json",
        ) from error


def _numbers(spec: TensorSpec, tensor: _Input) -> Array:
    """(rows,columns) numbers of a tensor, flat or in rows."""
    n_rows, n_columns = tensor.shape
    n_values = n_rows * n_columns
    text = b"" if tensor.data is msgspec.UNSET else bytes(tensor.data)
    # Rows or not, there is a comma between any two numbers.
    n_found = text.count(b",") + 1 if text else 0
    if n_found != n_values:
        raise wrong_size(spec.name, f"{n_values} numbers", f"{n_found}")
    numbers: list[Any] = _decode(text, list[float | list[float]])
    is_flat = not numbers or isinstance(numbers[0], float)
    flat = numbers if is_flat else itertools.chain.from_iterable(numbers)
    try:
        # float64: what float32 cannot hold must be refused, not become infinite.
        values = np.fromiter(flat, np.float64, n_values)
        widths = {n_columns} if is_flat else {len(row) for row in numbers}
    except (TypeError, ValueError) as error:  # numbers among rows, or rows among numbers
        raise wrong_size(spec.name, f"{n_rows} rows of {n_columns}", "other rows") from error
    if widths != {n_columns}:
        raise wrong_size(spec.name, f"{n_rows} rows of {n_columns}", "other rows")
    return values.reshape(tensor.shape)


def _flag(parameters: dict[str, Scalar], name: str, default: bool) -> bool:
    value = parameters.pop(name, default)
    if isinstance(value, bool):
        return value
    raise _bad("parameter", name, "true or false", repr(value)[:32])


def _bad(code: str, field: str, wanted: str, got: str) -> DTwinInputError:
    return DTwinInputError(
        code,
        "this request does not fit together",
        field=field,
        wanted=wanted,
        got=got,
        fix="See /openapi.json",
    )


def facts(model: Model) -> dict[str, Any]:
    """The metadata of a model: the protocol's, and the names of its axes."""

    def tensors(specs: Sequence[TensorSpec]) -> list[dict[str, Any]]:
        return [
            {"name": s.name, "datatype": s.datatype, "shape": list(s.shape), "what": s.what}
            for s in specs
        ]

    return {
        "name": model.name,
        "versions": [VERSION],
        "platform": "dtwin_fast",
        "inputs": tensors(model.inputs),
        "outputs": tensors(model.outputs),
        "parameters": model.parameters,
        **model.facts,
    }
