"""Tables of a screening as Parquet, a part for each shard and then one file of all."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MissingExtraError
from ..files import atomic_file

ROWS_OF_GROUP = 65_536
"""Rows of a row group, whatever the shards: the same people give the same bytes."""

TEXT, INTEGER, YES_NO, NUMBER = "string", "int64", "bool_", "float64"
"""Names of Arrow types."""

REJECTED = {
    "row": INTEGER,
    "source_id": TEXT,
    "code": TEXT,
    "reason": TEXT,
    "fix": TEXT,
    "wanted": TEXT,
    "got": TEXT,
}
"""Columns of the table of people without results."""

SCORES = {
    "row": INTEGER,
    "participant_id": TEXT,
    "session_id": TEXT,
    "source_id": TEXT,
    "flags": TEXT,
    "diverged": YES_NO,
}
"""First columns of the table of scores; all others are numbers."""


def encode(columns: Mapping[str, Any], types: Mapping[str, str]) -> bytes:
    """A small table as a Parquet file.

    Args:
        columns: name -> values, one for each row.
        types: name -> Arrow type; the others are ``NUMBER``.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    pa, pq = import_pyarrow()
    arrays = {}
    for name, values in columns.items():
        kind = types.get(name, NUMBER)
        values = values if kind == TEXT else np.asarray(values)
        arrays[name] = pa.array(values, getattr(pa, kind)())
    buffer = io.BytesIO()
    pq.write_table(pa.table(arrays), buffer, compression="zstd")
    return buffer.getvalue()


def decode(data: bytes) -> Any:
    """The ``pyarrow.Table`` of a Parquet file."""
    pa, pq = import_pyarrow()
    return pq.read_table(pa.BufferReader(data))


def write_joined(path: Path, parts: Iterable[Any]) -> None:
    """Write tables of equal columns, one at least, as one file in constant memory."""
    _, pq = import_pyarrow()
    with atomic_file(path) as file:
        writer = None
        try:
            for group in _groups(parts):
                writer = writer or pq.ParquetWriter(file, group.schema, compression="zstd")
                writer.write_table(group, row_group_size=ROWS_OF_GROUP)
        except BaseException:
            if writer is not None:
                writer.is_open = False  # or its destructor writes into the file that is gone
            raise
        assert writer is not None
        writer.close()


def _groups(parts: Iterable[Any]) -> Iterator[Any]:
    """The rows of all parts in tables of ``ROWS_OF_GROUP``, one at least."""
    pa, _ = import_pyarrow()
    waiting: list[Any] = []
    n_waiting = 0
    for part in parts:
        waiting.append(part)
        n_waiting += len(part)
        if n_waiting >= ROWS_OF_GROUP:
            joined = pa.concat_tables(waiting).combine_chunks()
            n_waiting %= ROWS_OF_GROUP
            yield joined.slice(0, len(joined) - n_waiting)
            waiting = [joined.slice(len(joined) - n_waiting)]
    yield pa.concat_tables(waiting).combine_chunks()


def import_pyarrow() -> tuple[Any, Any]:
    """The packages pyarrow and pyarrow.parquet.

    Raises:
        MissingExtraError: they are not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "screen", "Tables of a screening") from error
    return pyarrow, pyarrow.parquet
