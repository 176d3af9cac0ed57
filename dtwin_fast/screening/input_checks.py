"""Whether an input is still the one that was opened, and what is asked of it is there."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy.typing as npt

from ..errors import DTwinInputError

RowArrays = Sequence[npt.NDArray[Any]] | npt.NDArray[Any]
"""Arrays of people, one each: a list, or one array with people on its first axis."""


class Stamp(NamedTuple):
    """Bytes and time of change, which together stand for a file's content."""

    size: int
    mtime_ns: int


NO_FILE = Stamp(-1, -1)
"""Stands for what is no regular file."""


def stamp_of(info: os.stat_result) -> Stamp:
    """The stamp of a regular file, or ``NO_FILE``."""
    is_file = stat.S_ISREG(info.st_mode)
    return Stamp(info.st_size, info.st_mtime_ns) if is_file else NO_FILE


def check_unchanged(path: Path, seen: Stamp) -> None:
    """Refuse a file that was changed, replaced or taken away (code ``input_changed``)."""
    try:
        now = stamp_of(path.stat())
    except OSError as error:
        raise input_changed(path, type(error).__name__) from error
    if now != seen:
        raise input_changed(path, "another size or time of change")


@contextmanager
def reading(path: Path, seen: Stamp) -> Iterator[int]:
    """A descriptor of the file that was seen, and still is when all has been read.

    Raises:
        DTwinInputError: another file (code ``input_changed``), or a disk that fails
            (``unreadable``).
    """
    try:
        # Without O_NONBLOCK, opening a pipe put in its place would wait for ever.
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise input_changed(path, type(error).__name__) from error
    try:
        _check_descriptor(path, file, seen)
        yield file
        _check_descriptor(path, file, seen)
    except OSError as error:
        raise DTwinInputError(
            "unreadable",
            "reading failed",
            field=path.name,
            got=type(error).__name__,
            fix="Check the disk, and go on from where the run ended",
        ) from error
    finally:
        os.close(file)


def _check_descriptor(path: Path, file: int, seen: Stamp) -> None:
    if stamp_of(os.fstat(file)) != seen:
        raise input_changed(path, "another size or time of change")


def input_changed(path: Path, got: str) -> DTwinInputError:
    """The error of a file that is not the one that was opened."""
    return DTwinInputError(
        "input_changed",
        "this file is not the one that was opened",
        field=path.name,
        got=got,
        fix="Leave the input alone while it is screened; start a new run for the new data",
    )


def check_range(start: int, stop: int, n_people: int, *, field: str) -> None:
    """Refuse positions that are not there (code ``subject_index``)."""
    if not 0 <= start <= stop <= n_people:
        raise DTwinInputError(
            "subject_index",
            "there is no such range of people",
            field=field,
            wanted=f"within 0..{n_people}",
            got=f"{start}..{stop}",
            fix="Take positions of subjects",
        )


def names_digest(names: Sequence[str]) -> str:
    """SHA-256 of checked names in their order; they hold no line breaks."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()
