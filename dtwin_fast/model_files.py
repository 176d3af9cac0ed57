"""A model folder on disk: ``model.safetensors`` + ``config.json`` + ``MODEL_CARD.md``.

The safetensors layout (8-byte little-endian header length, JSON header, raw tensors) is
read and written here, because the runtime depends on numpy alone and every size must be
checked before anything is allocated.
"""

from __future__ import annotations

import hashlib
import json
import math
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import DTwinInputError
from .files import check_regular_file, write_atomic

FORMAT = "dtwin_fast model"
FORMAT_VERSION = 1
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
CARD_FILE = "MODEL_CARD.md"

MAX_HEADER_BYTES = 2**20
MAX_CONFIG_BYTES = 32 * 2**20

Tensors = dict[str, npt.NDArray[np.float32]]


def encode_safetensors(tensors: Mapping[str, npt.NDArray[np.float32]]) -> bytes:
    """The bytes of a safetensors file of float32 tensors, names in sorted order."""
    header: dict[str, Any] = {}
    chunks: list[bytes] = []
    offset = 0
    for name in sorted(tensors):
        data = np.ascontiguousarray(tensors[name], dtype="<f4").tobytes()
        header[name] = {
            "dtype": "F32",
            "shape": list(tensors[name].shape),
            "data_offsets": [offset, offset + len(data)],
        }
        offset += len(data)
        chunks.append(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8 bytes
    return b"".join([len(text).to_bytes(8, "little"), text, *chunks])


def decode_safetensors(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> tuple[Tensors, str]:
    """Read exactly the named float32 tensors, and the SHA-256 of the file they came from.

    Every byte is read once, so the SHA-256 is that of the tensors returned even if the
    file is replaced meanwhile.

    Args:
        path: a safetensors file.
        shapes: wanted name -> shape; the file must hold these and no others.

    Raises:
        DTwinInputError: not such a file, truncated, other names, shapes or dtypes
            (codes ``file_*``, ``model_file``, ``model_tensors``), before memory is taken.
    """
    size = check_regular_file(path)
    with path.open("rb") as file:
        prefix = file.read(8)
        length = int.from_bytes(prefix, "little")
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise _model_error("model_file", path, "this is not a safetensors file")
        text = file.read(length)
        try:
            header = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _model_error("model_file", path, "its header is not JSON") from error
        if not isinstance(header, dict):
            raise _model_error("model_file", path, "its header is not a JSON object")
        header.pop("__metadata__", None)
        if set(header) != set(shapes):
            raise _model_error(
                "model_tensors",
                path,
                "the tensors are not those that config.json describes",
                wanted=f"{len(shapes)} tensors: {_names(set(shapes))}",
                got=f"missing: {_names(set(shapes) - set(header))}; "
                f"extra: {_names(set(header) - set(shapes))}",
            )
        spans = {
            name: _check_span(path, name, header[name], shape) for name, shape in shapes.items()
        }
        _check_tiling(path, spans, size - 8 - length)
        digest = hashlib.sha256(prefix + text)
        tensors: Tensors = {}
        for name in sorted(spans, key=spans.__getitem__):
            begin, end = spans[name]
            raw = bytearray(end - begin)
            if file.readinto(raw) != len(raw):
                raise _model_error("model_file", path, "the file ends early")
            digest.update(raw)
            tensor = np.frombuffer(raw, "<f4").reshape(shapes[name])
            tensors[name] = tensor.astype(np.float32, copy=False)
    return tensors, digest.hexdigest()


def _check_span(path: Path, name: str, entry: Any, shape: tuple[int, ...]) -> tuple[int, int]:
    wanted = {"dtype": "F32", "shape": list(shape)}
    got = {key: entry.get(key) for key in wanted} if isinstance(entry, dict) else entry
    offsets: Any = entry.get("data_offsets") if isinstance(entry, dict) else None
    valid = isinstance(offsets, list) and [type(offset) for offset in offsets] == [int, int]
    if got != wanted or not valid or offsets[1] - offsets[0] != 4 * math.prod(shape):
        raise _model_error(
            "model_tensors",
            path,
            f"tensor {name!r} does not fit config.json",
            wanted=str(wanted),
            got=str(entry)[:200],
        )
    return offsets[0], offsets[1]


def _check_tiling(path: Path, spans: dict[str, tuple[int, int]], n_bytes: int) -> None:
    # The tensors must cover the data exactly, without overlaps, as the format demands.
    position = 0
    for begin, end in sorted(spans.values()):
        if begin != position:
            raise _model_error("model_file", path, "tensors overlap or leave a hole")
        position = end
    if position != n_bytes:
        raise _model_error(
            "model_file",
            path,
            "the file is truncated or longer than its header says",
            wanted=f"{position:,} bytes of tensors",
            got=f"{n_bytes:,} bytes",
        )


def save_model(
    folder: Path, tensors: Mapping[str, npt.NDArray[np.float32]], config: dict[str, Any], card: str
) -> str:
    """Write a model folder and return the SHA-256 of its weights file.

    config.json is written last and names the weights' SHA-256, so a folder whose writing
    was interrupted is refused by :func:`read_config` or :func:`read_weights`.

    Raises:
        DTwinInputError: a config that JSON cannot hold or that is too large to be read
            again (code ``model_config``), or a folder that cannot be made (code
            ``out_unwritable``); nothing is written.
    """
    data = encode_safetensors(tensors)
    digest = hashlib.sha256(data).hexdigest()
    full = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "weights_sha256": digest,
        **config,
    }
    try:
        text = json.dumps(full, indent=1, allow_nan=False) + "\n"
    except (ValueError, TypeError, RecursionError) as error:
        raise _config_error(folder / CONFIG_FILE, str(error)) from error
    if len(text) > MAX_CONFIG_BYTES:
        raise _config_error(folder / CONFIG_FILE, f"{len(text):,} bytes")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise DTwinInputError(
            "out_unwritable",
            "no folder can be made here",
            field=str(folder),
            wanted="a new folder, or one that exists",
            got=str(error),
            fix="Name a folder that you may write",
        ) from error
    write_atomic(folder / WEIGHTS_FILE, data)
    write_atomic(folder / CARD_FILE, card)
    write_atomic(folder / CONFIG_FILE, text)
    return digest


def read_config(folder: Path) -> dict[str, Any]:
    """The parsed config.json of a model folder.

    Raises:
        DTwinInputError: no folder, no config, not JSON, another format or version
            (codes ``model_folder``, ``model_config``).
    """
    path = folder / CONFIG_FILE
    try:
        check_regular_file(path, max_bytes=MAX_CONFIG_BYTES)
    except DTwinInputError as error:
        if error.code != "file_missing":
            raise
        raise DTwinInputError(
            "model_folder",
            "this is not a model folder",
            field=str(folder),
            wanted=f"a folder with {WEIGHTS_FILE} and {CONFIG_FILE}",
            got=f"no {CONFIG_FILE} that can be read",
            fix="Name the folder that `dtwin demo` or `Twin.save` wrote",
        ) from error
    try:
        config = json.loads(path.read_bytes(), parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise _model_error("model_config", path, "config.json is not valid JSON") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise _model_error("model_config", path, f"this is not the config of a {FORMAT}")
    if config.get("format_version") != FORMAT_VERSION:
        raise _model_error(
            "model_config",
            path,
            "this model was written by another version of dtwin_fast",
            wanted=f"format_version {FORMAT_VERSION}",
            got=repr(config.get("format_version")),
        )
    return config


def read_weights(folder: Path, shapes: Mapping[str, tuple[int, ...]], sha256: Any) -> Tensors:
    """The tensors of a model folder.

    Raises:
        DTwinInputError: as :func:`decode_safetensors`; or a file whose SHA-256 is not the
            one that config.json names (code ``model_sha256``).
    """
    path = folder / WEIGHTS_FILE
    tensors, found = decode_safetensors(path, shapes)
    if found != sha256:
        raise _model_error(
            "model_sha256",
            path,
            "the weights are not those that config.json was written for",
            wanted=reprlib.repr(sha256),
            got=found,
        )
    return tensors


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a number that JSON knows")
    return value


def _names(names: set[str]) -> str:
    shown = sorted(names)[:5]
    return ", ".join(shown) + (" ..." if len(names) > 5 else "") if shown else "none"


def _model_error(
    code: str, path: Path, what: str, *, wanted: str = "", got: str = ""
) -> DTwinInputError:
    return DTwinInputError(
        code,
        what,
        field=str(path),
        wanted=wanted,
        got=got,
        fix="Copy the model folder again from its source, or train it again",
    )


def _config_error(path: Path, got: str) -> DTwinInputError:
    return DTwinInputError(
        "model_config",
        "this twin cannot be written as JSON",
        field=str(path),
        wanted=f"plain values, finite numbers, at most {MAX_CONFIG_BYTES:,} bytes",
        got=got,
        fix="Look for NaN, arrays or long lists in Twin.training",
    )
