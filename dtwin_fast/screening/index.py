"""The one-subject files of a folder, with size and time; kept as Parquet for the next run.

A kept index is taken again as long as no folder in it has changed (the system stamps a
folder when a file in it comes, goes or is renamed). Files that change in place are found
when they are read.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import DTwinInputError, MissingExtraError
from ..files import check_expansion, check_regular_file, write_atomic
from ..readers import FOLDER_ENDINGS, MAX_FOLDER_FILES
from ..readers.request import parsing
from .filters import KEYS, entities_of
from .input_checks import NO_FILE, Stamp, stamp_of

CACHE_NAME = "dtwin-index.parquet"
RESULT_MARK = ".dtwin"
"""A folder that holds this one is a screening's output, and no input."""
MAX_CACHE_BYTES = 512 * 2**20
MAX_CACHE_ROWS = 8_000_000
_FORMAT = {b"dtwin_fast": b"index 1"}

IndexProgress = Callable[[int], None]
"""Told the number of files found so far."""


class IndexedFile(NamedTuple):
    """One file: its path below the folder with ``/`` between parts, bytes, and time of change.

    Size and time are -1 where there is no regular file, such as behind a broken link.
    """

    path: str
    size: int
    mtime_ns: int


def index_folder(
    folder: Path, *, cache: Path | None = None, progress: IndexProgress | None = None
) -> list[IndexedFile]:
    """All one-subject files in a folder and its subfolders, in the order of their paths.

    Links to folders are not followed; outputs of a screening are left out.

    Args:
        cache: a Parquet file, or a folder for one, outside of ``folder``.

    Raises:
        DTwinInputError: a folder that cannot be read, or more than ``MAX_FOLDER_FILES``
            (code ``folder_files``); a cache that is another file, damaged, or names files
            outside of ``folder`` (``index_cache``).
        MissingExtraError: a cache without pyarrow.
    """
    if cache is not None:
        cache = cache / CACHE_NAME if cache.is_dir() else cache
        if cache.exists():
            folders, files = _load(cache)
            root = folder.resolve()
            if all(_mtime_of(root / path) == mtime_ns for path, mtime_ns in folders.items()):
                return files
    folders, files = _scan(folder, progress)
    if cache is not None:
        _refuse_inside(cache, folder, folders)
        _save(cache, folders, files)
    return files


def files_digest(files: Sequence[IndexedFile]) -> str:
    """SHA-256 of paths, sizes and times."""
    digest = hashlib.sha256()
    for path, size, mtime_ns in files:
        digest.update(os.fsencode(path) + f"\0{size}\0{mtime_ns}\0".encode())
    return digest.hexdigest()


def _scan(root: Path, progress: IndexProgress | None) -> tuple[dict[str, int], list[IndexedFile]]:
    folders: dict[str, int] = {}
    files: list[IndexedFile] = []
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            # Before it is listed: what comes later must not look as if it had been seen.
            mtime_ns = os.stat(root / folder).st_mtime_ns  # noqa: PTH116
            with os.scandir(root / folder) as listing:
                entries = list(listing)
        except OSError as error:
            raise _folder_error(root / folder, f"{type(error).__name__}") from error
        if any(entry.name == RESULT_MARK for entry in entries):
            continue
        folders[folder] = mtime_ns
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir():
                if not entry.is_symlink():
                    waiting.append(path)
            elif path.endswith(FOLDER_ENDINGS):
                files.append(IndexedFile(path, *_stamp_of(entry)))
        if len(files) > MAX_FOLDER_FILES:
            raise _folder_error(root, f"more than {MAX_FOLDER_FILES:,} files")
        if progress is not None:
            progress(len(files))
    files.sort(key=lambda file: file.path.split("/"))
    return folders, files


def _stamp_of(entry: os.DirEntry[str]) -> Stamp:
    try:
        return stamp_of(entry.stat())
    except OSError:
        return NO_FILE


def _mtime_of(folder: Path) -> int | None:
    """A real folder's time of change; None for links and whatever else is there."""
    try:
        info = os.lstat(folder)
    except OSError:
        return None
    return info.st_mtime_ns if stat.S_ISDIR(info.st_mode) else None


def _save(cache: Path, folders: dict[str, int], files: list[IndexedFile]) -> None:
    pa, pq = _pyarrow()
    found = [entities_of(file.path.rpartition("/")[2]) for file in files]
    none = [None] * len(folders)
    columns: dict[str, Any] = {
        "path": pa.array(
            [*map(os.fsencode, folders), *(os.fsencode(file.path) for file in files)], pa.binary()
        ),
        "is_folder": pa.array([True] * len(folders) + [False] * len(files)),
        "size": pa.array([*none, *(file.size for file in files)], pa.int64()),
        "mtime_ns": pa.array([*folders.values(), *(file.mtime_ns for file in files)], pa.int64()),
    }
    for key in KEYS:
        values = [os.fsencode(e[key]) if key in e else None for e in found]
        columns[key] = pa.array([*none, *values], pa.binary())
    sink = pa.BufferOutputStream()
    table = pa.table(columns).replace_schema_metadata(_FORMAT)
    pq.write_table(table, sink, use_dictionary=False)
    write_atomic(cache, sink.getvalue().to_pybytes())


def _load(cache: Path) -> tuple[dict[str, int], list[IndexedFile]]:
    """A kept index whose paths all lie inside the folder; entities are read from the names."""
    pa, pq = _pyarrow()
    stored = check_regular_file(cache, max_bytes=MAX_CACHE_BYTES)
    with parsing(cache, pa.ArrowException), pq.ParquetFile(cache) as file:
        meta = file.metadata
        if (meta.metadata or {}).get(b"dtwin_fast") != _FORMAT[b"dtwin_fast"]:
            raise _cache_error(cache, "this file is no index of a folder")
        groups = [meta.row_group(number) for number in range(meta.num_row_groups)]
        check_expansion(sum(g.total_byte_size for g in groups), stored, field=str(cache))
        if meta.num_rows > MAX_CACHE_ROWS:
            raise _cache_error(cache, f"this index has more than {MAX_CACHE_ROWS:,} rows")
        encodings = {e for g in groups for n in range(g.num_columns) for e in g.column(n).encodings}
        if not encodings <= {"PLAIN", "RLE"}:  # a dictionary can repeat a long text at no cost
            raise _cache_error(cache, "this index is compressed in a way that can hide its size")
        table = file.read(columns=["path", "is_folder", "size", "mtime_ns"])
        paths = [os.fsdecode(path) for path in table["path"].to_pylist()]
        rows = zip(
            paths, *(table[name].to_pylist() for name in table.column_names[1:]), strict=True
        )
        folders: dict[str, int] = {}
        files: list[IndexedFile] = []
        for path, is_folder, size, mtime_ns in rows:
            if is_folder:
                folders[path] = mtime_ns
            else:
                files.append(IndexedFile(path, size, mtime_ns))
    _check_paths(cache, folders, files)
    return folders, files


def _check_paths(cache: Path, folders: dict[str, int], files: list[IndexedFile]) -> None:
    """Every path is below a folder of the index, step by step, so none leads out of it."""
    is_good = "" in folders and all(file.path.endswith(FOLDER_ENDINGS) for file in files)
    for path in (*folders, *(file.path for file in files)):
        parent, _, name = path.rpartition("/")
        is_good &= path == "" or (parent in folders and name not in ("", ".", "..", RESULT_MARK))
        is_good &= not path.startswith("/") and "\0" not in path
    if not is_good:
        raise _cache_error(cache, "this index names files that no scan of a folder finds")


def _refuse_inside(cache: Path, folder: Path, folders: dict[str, int]) -> None:
    place = cache.parent.resolve()
    if place in {(folder / path).resolve() for path in folders}:
        raise DTwinInputError(
            "argument",
            "an index inside the folder that it describes changes that folder",
            field="index_cache",
            got=str(cache),
            fix="Keep it beside the folder, or with the output",
        )


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("pyarrow", "screen", "Keeping an index") from error
    return pa, pq


def _folder_error(folder: Path, got: str) -> DTwinInputError:
    return DTwinInputError(
        "folder_files",
        "this folder cannot be indexed",
        field=str(folder),
        got=got,
        fix="Check its permissions; give the cohort in parts",
    )


def _cache_error(cache: Path, what: str) -> DTwinInputError:
    return DTwinInputError(
        "index_cache",
        what,
        field=str(cache),
        fix="Delete this file, or name another one, to index the folder again",
    )
