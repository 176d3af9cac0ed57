"""Rows of a Zarr v3 array: every chunk must be there, and must decode to its declared size.

Zarr reads a chunk that is missing as fill values, mostly zeros, and lets a compressed
chunk say how much memory it wants. Both are checked here before zarr decodes anything.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DTwinInputError, MissingExtraError
from ..files import check_regular_file
from ..readers.arrays import ARRAY_KEYS
from ..readers.request import parsing
from .input_checks import Stamp, check_unchanged, reading, stamp_of

META_FILE = "zarr.json"
MAX_META_BYTES = 64 * 2**20
MAX_CHUNK_BYTES = 2**30
"""Largest decoded chunk; a range decodes all chunks that it touches."""
MAX_CHUNKS = 200_000
COMPRESSORS = ("zstd", "blosc")
"""They say the decoded size in a chunk's first bytes; gzip only at the end, if truly."""
FRAME_BYTES = 18
"""Longest head of a zstd frame; blosc needs 16."""
ZSTD_MAGIC = 0xFD2FB528


class ZarrRows:
    """An array, or the array ``fc``, ``edges`` or ``connectomes`` of a group.

    The attributes ``regions`` and ``subjects`` of the array may hold lists of names.
    """

    kind = "zarr"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folder, meta = _array_in(path)
        self._size_in_frame, self._compressor = _layout(path, meta)
        self._array = _open(path, self._folder)
        self.shape: tuple[int, ...] = self._array.shape
        self.dtype: np.dtype[Any] = self._array.dtype
        self._chunk_shape: tuple[int, ...] = self._array.chunks
        self.regions = _names(path, meta, "regions")
        self.ids = _names(path, meta, "subjects")
        self._seen: dict[tuple[int, ...], Stamp] = {}
        digest = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
        for place in self._chunks(0, self.shape[0]):
            chunk = self._path_of(place)
            check_regular_file(chunk, field=f"{path.name}/{chunk.relative_to(path)}")
            self._seen[place] = stamp_of(chunk.stat())
            digest.update(repr((place, *self._seen[place])).encode())
        stored = sum(seen.size for seen in self._seen.values())
        self.stamp = {"bytes": stored, "chunks_sha256": digest.hexdigest()}

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        places = list(self._chunks(start, stop))
        for place in places:
            self._check_frame(self._path_of(place), self._seen[place])
        with parsing(self.path):
            rows: npt.NDArray[Any] = np.asarray(self._array[start:stop])
        for place in places:  # after zarr, which reads a chunk that has gone as fill values
            check_unchanged(self._path_of(place), self._seen[place])
        return rows

    def _chunks(self, start: int, stop: int) -> Iterator[tuple[int, ...]]:
        """Places in the grid of the chunks of some rows."""
        ends = [-(-n // size) for n, size in zip(self.shape, self._chunk_shape, strict=True)]
        first = range(start // self._chunk_shape[0], -(-stop // self._chunk_shape[0]))
        return product(first if stop > start else (), *map(range, ends[1:]))

    def _path_of(self, place: tuple[int, ...]) -> Path:
        key: str = self._array.metadata.encode_chunk_key(place)
        return self._folder / key

    def _check_frame(self, chunk: Path, seen: Stamp) -> None:
        with reading(chunk, seen) as file:
            head = os.pread(file, FRAME_BYTES, 0)
        declared = seen.size
        if self._compressor is not None:
            declared = _zstd_size(head) if self._compressor == "zstd" else _blosc_size(head)
        wanted = self._size_in_frame
        if declared != wanted:
            raise DTwinInputError(
                "file_size",
                "a chunk does not hold the data of its place in the array",
                field=f"{self.path.name}/{chunk.relative_to(self.path)}",
                wanted=f"{wanted:,} bytes",
                got=f"{declared:,} bytes" if declared >= 0 else "no size in its first bytes",
                fix="Copy or export the array again; it is cut off or damaged",
            )


def _array_in(path: Path) -> tuple[Path, dict[str, Any]]:
    """The folder of the array and its metadata."""
    meta = _read_meta(path, path)
    if meta.get("node_type") != "group":
        return path, meta
    keys = [key for key in ARRAY_KEYS if (path / key / META_FILE).is_file()]
    if not keys:
        wanted = " or ".join(ARRAY_KEYS)
        raise _error(path, "zarr_array", "this group has no array of connectomes", wanted, "")
    return path / keys[0], _read_meta(path, path / keys[0])


def _read_meta(path: Path, folder: Path) -> dict[str, Any]:
    file = folder / META_FILE
    check_regular_file(file, field=f"{path.name}/{META_FILE}", max_bytes=MAX_META_BYTES)
    with parsing(path, RecursionError):
        meta = json.loads(file.read_bytes())
        if not isinstance(meta, dict):
            raise ValueError("the metadata are no object")
    return meta


def _layout(path: Path, meta: Mapping[str, Any]) -> tuple[int, str | None]:
    """Bytes of a chunk before it is compressed, and its compressor; sizes are compared first."""
    with parsing(path):
        shape, chunk_shape = meta["shape"], meta["chunk_grid"]["configuration"]["chunk_shape"]
        lengths = [*shape, *chunk_shape]
        is_sized = all(type(length) is int and length >= 0 for length in lengths)
        if not is_sized or 0 in chunk_shape or len(shape) != len(chunk_shape) or not shape:
            raise ValueError("sizes that no array has")
        if meta["chunk_grid"]["name"] != "regular" or meta.get("storage_transformers"):
            raise ValueError("chunks in no regular grid")
        item = np.dtype(meta["data_type"]).itemsize
        names = [codec["name"] for codec in meta["codecs"]]
    packed = [name for name in names if name in COMPRESSORS]
    if names[:1] != ["bytes"] or not {*names[1:]} <= {"crc32c", *COMPRESSORS} or len(packed) > 1:
        wanted = f"bytes, then one of {' | '.join(COMPRESSORS)} or nothing, with or without crc32c"
        raise _error(path, "zarr_codec", "chunks are encoded another way", wanted, str(names)[:200])
    n_chunks = prod(-(-n // size) for n, size in zip(shape, chunk_shape, strict=True))
    size = prod(chunk_shape) * item
    if size > MAX_CHUNK_BYTES or n_chunks > MAX_CHUNKS:
        wanted = f"chunks of at most {MAX_CHUNK_BYTES:,} bytes, at most {MAX_CHUNKS:,} of them"
        got = f"{n_chunks:,} of {size:,} bytes"
        raise _error(path, "zarr_chunks", "the chunks are too large or too many", wanted, got)
    before = names.index(packed[0]) if packed else len(names)
    return size + 4 * names[:before].count("crc32c"), packed[0] if packed else None


def _open(path: Path, folder: Path) -> Any:
    try:
        import zarr
    except ImportError as error:
        raise MissingExtraError("zarr", "screen", "Reading Zarr arrays") from error
    with parsing(path):
        return zarr.open_array(zarr.storage.LocalStore(folder, read_only=True), mode="r")


def _names(path: Path, meta: Mapping[str, Any], key: str) -> tuple[str, ...] | None:
    names = (meta.get("attributes") or {}).get(key)
    if names is None:
        return None
    if not isinstance(names, list):
        what = f"the attribute {key} is no list of names"
        raise _error(path, "zarr_array", what, "a list of text", type(names).__name__)
    return tuple(names)  # checked as names where they are used


def _zstd_size(head: bytes) -> int:
    """Decoded bytes that a zstd frame declares (RFC 8878, 3.1.1.1), -1 if none."""
    if len(head) < 6 or int.from_bytes(head[:4], "little") != ZSTD_MAGIC:
        return -1
    flags = head[4]
    is_single = bool(flags & 0x20)
    start = 5 + (not is_single) + (0, 1, 2, 4)[flags & 3]
    width = (int(is_single), 2, 4, 8)[flags >> 6]
    if width == 0 or len(head) < start + width:
        return -1
    return int.from_bytes(head[start : start + width], "little") + (256 if width == 2 else 0)


def _blosc_size(head: bytes) -> int:
    """Decoded bytes that a blosc chunk declares, -1 if it is none."""
    return int.from_bytes(head[4:8], "little") if len(head) >= 16 else -1


def _error(path: Path, code: str, what: str, wanted: str, got: str) -> DTwinInputError:
    return DTwinInputError(
        code,
        what,
        field=path.name,
        wanted=wanted,
        got=got,
        fix="Save (N,E) or (N,R,R) as Zarr v3, some people a chunk: "
        "zarr.create_array(..., chunks=(64, E))",
    )
