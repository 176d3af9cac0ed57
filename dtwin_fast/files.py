"""Reading with limits and writing without torn files."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from .errors import DTwinInputError

MAX_FILE_BYTES = 16 * 2**30
"""No single input file may be larger than this (16 GiB)."""

MAX_EXPANSION = 200
"""Compressed files may declare at most this many times their stored bytes."""
FREE_EXPANSION_BYTES = 32 * 2**20
"""Declared sizes below this are harmless whatever their ratio (label images, zeros)."""


def as_path(value: object, *, field: str) -> Path:
    """The value as a path.

    Raises:
        DTwinInputError: neither text nor a path, or empty (code ``argument``).
    """
    if isinstance(value, (str, os.PathLike)):
        text = os.fspath(value)
        if text and isinstance(text, str):
            return Path(text)
    raise DTwinInputError(
        "argument",
        "this is not a path",
        field=field,
        wanted="text or a pathlib.Path",
        got=type(value).__name__,
        fix="Give the path of a file or folder",
    )


def check_expansion(declared: int, stored: int, *, field: str) -> None:
    """Refuse a compressed part that declares far more bytes than it stores.

    Raises:
        DTwinInputError: code ``file_bomb`` (ratio) or ``file_too_large`` (bytes).
    """
    if declared > MAX_FILE_BYTES:
        raise DTwinInputError(
            "file_too_large",
            "the data declared by this file are larger than the limit",
            field=field,
            wanted=f"at most {MAX_FILE_BYTES:,} bytes",
            got=f"{declared:,} bytes",
            fix="Split the cohort into several files",
        )
    if declared > FREE_EXPANSION_BYTES and declared > MAX_EXPANSION * stored:
        raise DTwinInputError(
            "file_bomb",
            "this file declares far more data than it can hold",
            field=field,
            wanted=f"at most {MAX_EXPANSION} times its {stored:,} stored bytes",
            got=f"{declared:,} bytes",
            fix="Export the file again, uncompressed if the data really are so regular",
        )


def check_regular_file(path: Path, *, field: str = "", max_bytes: int = MAX_FILE_BYTES) -> int:
    """Size in bytes of a readable regular file.

    Raises:
        DTwinInputError: missing, a directory, a device or pipe, unreadable, empty or
            larger than ``max_bytes`` (codes ``file_missing``, ``file_kind``,
            ``file_empty``, ``file_too_large``).
    """
    field = field or str(path)
    try:
        info = path.stat()
    except (OSError, ValueError) as error:
        raise DTwinInputError(
            "file_missing",
            f"this file cannot be opened: {error.__class__.__name__}",
            field=field,
            fix="Check the path and its permissions",
        ) from error
    if not stat.S_ISREG(info.st_mode):
        raise DTwinInputError(
            "file_kind",
            "this is not a regular file",
            field=field,
            fix="Name a file, not a folder, pipe or device",
        )
    if not os.access(path, os.R_OK):
        raise DTwinInputError(
            "file_missing",
            "this file cannot be opened: reading it is not permitted",
            field=field,
            fix="Check the path and its permissions",
        )
    if info.st_size == 0:
        raise DTwinInputError(
            "file_empty", "this file is empty", field=field, fix="Export the file again"
        )
    if info.st_size > max_bytes:
        raise DTwinInputError(
            "file_too_large",
            "this file is larger than the limit",
            field=field,
            wanted=f"at most {max_bytes:,} bytes",
            got=f"{info.st_size:,} bytes",
            fix="Split the cohort into several files",
        )
    return info.st_size


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a whole file so that readers see the old one or the new one, never a part.

    Text is encoded as UTF-8.
    """
    with atomic_file(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write ``path`` into piece by piece; see :func:`write_atomic`.

    The bytes go to a temporary file beside ``path``, are flushed to disk, and the file
    is renamed over ``path``. After an error nothing of it is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not path's name and more: that may already be as long as names can be.
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with naming(path):
            with part.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_npy(path: Path, array: npt.NDArray[Any]) -> None:
    """The same of an array, as a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_atomic(path, buffer.getvalue())


def sync_folder(folder: Path) -> None:
    """Bring a folder's entries to the disk: a rename is durable only then."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with naming(folder):
            os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let the system's errors name ``path``: those of an open file name nothing."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
