"""Tables of a screening as Parquet, a part for each shard and then one file of all."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
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
    pa, pq = import_pyarrow()
    waiting: list[Any] = []
    n_waiting = 0
    with atomic_file(path) as file:
        writer = None
        for part in parts:
            writer = writer or pq.ParquetWriter(file, part.schema, compression="zstd")
            waiting.append(part)
            n_waiting += len(part)
            while n_waiting >= ROWS_OF_GROUP:
                joined = pa.concat_tables(waiting).combine_chunks()
                writer.write_table(joined.slice(0, ROWS_OF_GROUP), row_group_size=ROWS_OF_GROUP)
                waiting = [joined.slice(ROWS_OF_GROUP)]
                n_waiting -= ROWS_OF_GROUP
        assert writer is not None
        writer.write_table(pa.concat_tables(waiting).combine_chunks())
        writer.close()


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
