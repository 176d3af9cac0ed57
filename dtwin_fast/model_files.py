"""A model folder on disk: ``model.safetensors`` + ``config.json`` + ``MODEL_CARD.md``.

The safetensors layout (8-byte little-endian header length, JSON header, raw tensors) is
read and written here, because the runtime depends on numpy alone and every size must be
checked before anything is allocated.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import DTwinInputError
from .files import check_regular_file, sha256_file, write_atomic

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


def decode_safetensors(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Tensors:
    """Read exactly the named float32 tensors.

    Args:
        path: a safetensors file.
        shapes: wanted name -> shape; the file must hold these and no others.

    Raises:
        DTwinInputError: not such a file, truncated, other names, shapes or dtypes
            (codes ``model_file``, ``model_tensors``).
    """
    size = check_regular_file(path)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise _model_error("model_file", path, "this is not a safetensors file")
        try:
            header = json.loads(file.read(length))
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
        tensors: Tensors = {}
        for name, shape in shapes.items():
            begin, end = spans[name]
            file.seek(8 + length + begin)
            tensor = np.empty(shape, "<f4")
            if file.readinto(memoryview(tensor.reshape(-1)).cast("B")) != end - begin:
                raise _model_error("model_file", path, "the file ends early")
            tensors[name] = tensor.astype(np.float32, copy=False)
    return tensors


def _check_span(path: Path, name: str, entry: Any, shape: tuple[int, ...]) -> tuple[int, int]:
    wanted = {"dtype": "F32", "shape": list(shape)}
    got = {key: entry.get(key) for key in wanted} if isinstance(entry, dict) else entry
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
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
    was interrupted is refused by :func:`read_config` or :func:`check_weights`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = encode_safetensors(tensors)
    digest = hashlib.sha256(data).hexdigest()
    full = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "weights_sha256": digest,
        **config,
    }
    write_atomic(folder / WEIGHTS_FILE, data)
    write_atomic(folder / CARD_FILE, card)
    write_atomic(folder / CONFIG_FILE, json.dumps(full, indent=1, allow_nan=False) + "\n")
    return digest


def read_config(folder: Path) -> dict[str, Any]:
    """The parsed config.json of a model folder.

    Raises:
        DTwinInputError: no folder, no config, not JSON, another format or version
            (codes ``model_folder``, ``model_config``).
    """
    path = folder / CONFIG_FILE
    if not folder.is_dir() or not path.exists():
        raise DTwinInputError(
            "model_folder",
            "this is not a model folder",
            field=str(folder),
            wanted=f"a folder with {WEIGHTS_FILE} and {CONFIG_FILE}",
            got="no such folder" if not folder.is_dir() else f"no {CONFIG_FILE}",
            fix="Name the folder that `dtwin train` or `dtwin demo` wrote",
        )
    check_regular_file(path, max_bytes=MAX_CONFIG_BYTES)
    try:
        config = json.loads(path.read_bytes())
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


def check_weights(folder: Path, sha256: Any) -> None:
    """Refuse a weights file whose SHA-256 is not the one in config.json (code ``model_sha256``)."""
    path = folder / WEIGHTS_FILE
    check_regular_file(path)
    found = sha256_file(path)
    if found != sha256:
        raise _model_error(
            "model_sha256",
            path,
            "the weights are not those that config.json was written for",
            wanted=str(sha256),
            got=found,
        )


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
