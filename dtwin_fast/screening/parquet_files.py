"""Rows of a Parquet table: a column of lists of edges, or a numeric column for each edge."""

from __future__ import annotations

import json
import sys
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from ..connectome_checks import MAX_NAME_CHARS
from ..errors import DTwinInputError, MissingExtraError
from ..files import check_expansion, check_regular_file
from ..readers.arrays import ARRAY_KEYS
from ..readers.request import parsing
from ..readers.tables import SUBJECT_COLUMNS
from .input_checks import RowArrays, check_unchanged, stamp_of

MAX_GROUP_BYTES = 2**30
"""Largest row group, decoded: it is decoded as a whole."""
ID_COLUMNS = (*SUBJECT_COLUMNS, "eid")
"""UK Biobank calls its people ``eid``."""


class ParquetRows:
    """One person per row; the last row group read stays decoded for the next range.

    ``edges`` (or ``fc``, ``connectomes``) is a column of lists; without one, all columns but
    the ids are edges, in their order. A JSON list of names under ``regions`` in the schema's
    metadata names the regions.
    """

    kind = "parquet"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._bytes = check_regular_file(path, field=path.name, max_bytes=sys.maxsize)
        self._seen = stamp_of(path.stat())
        self._pa, self._pq = _pyarrow()
        with parsing(path, self._pa.ArrowException), self._pq.ParquetFile(path) as file:
            self._meta = file.metadata
            schema = file.schema_arrow
        self._id_column = next((n for n in schema.names if n.lower() in ID_COLUMNS), None)
        lists = [name for name in ARRAY_KEYS if name in schema.names][:1]
        self._is_list = bool(lists)
        self._columns = lists or [name for name in schema.names if name != self._id_column]
        self.dtype = self._dtype_of(schema)
        groups = [self._meta.row_group(number) for number in range(self._meta.num_row_groups)]
        self._starts = [0, *accumulate(group.num_rows for group in groups)]
        for group in groups:
            self._check_group(group, schema)
        self._decoding = Lock()
        self._decoded: tuple[int, RowArrays] = (-1, ())
        self.shape = (self._starts[-1], self._n_edges(schema))
        self.regions = self._region_names(schema)
        self.ids = None if self._id_column is None else self._read_ids(self._id_column)
        self.stamp = {"bytes": self._seen.size, "mtime_ns": self._seen.mtime_ns}

    def read(self, start: int, stop: int) -> RowArrays:
        rows: list[npt.NDArray[Any]] = []
        while start < stop:
            number = bisect_right(self._starts, start) - 1
            first, last = self._starts[number : number + 2]
            rows.extend(self._group(number)[start - first : stop - first])
            start = last
        return rows

    def _group(self, number: int) -> RowArrays:
        """The rows of one group; one is decoded at a time, which bounds the memory."""
        with self._decoding:
            check_unchanged(self.path, self._seen)
            if self._decoded[0] != number:
                self._decoded = (-1, ())
                with parsing(self.path, self._pa.ArrowException):
                    rows = self._decode(number)
                    if len(rows) != self._starts[number + 1] - self._starts[number]:
                        raise ValueError("a row group has another number of rows than it says")
                check_unchanged(self.path, self._seen)
                self._decoded = (number, rows)
            return self._decoded[1]

    def _decode(self, number: int) -> RowArrays:
        with self._pq.ParquetFile(self.path, metadata=self._meta) as file:
            table = file.read_row_group(number, columns=self._columns)
        if not self._is_list:
            return np.stack([column.to_numpy() for column in table.columns]).T
        rows: list[npt.NDArray[Any]] = []
        for chunk in table.column(0).chunks:
            lists = chunk.cast(self._pa.large_list(chunk.type.value_type))
            values = lists.values.to_numpy(zero_copy_only=False)  # single nulls become NaN
            ends = lists.offsets.to_numpy()
            known = lists.is_valid().to_numpy(zero_copy_only=False)
            spans = zip(ends[:-1], np.where(known, ends[1:], ends[:-1]), strict=True)
            rows.extend(values[start:end] for start, end in spans)
        return rows

    def _dtype_of(self, schema: Any) -> np.dtype[Any]:
        types = {schema.field(name).type for name in self._columns}
        if self._is_list:
            is_list = self._pa.types.is_list, self._pa.types.is_large_list
            (kind,) = types
            if not any(is_it(kind) for is_it in (*is_list, self._pa.types.is_fixed_size_list)):
                raise self._column_error(self._columns[0], "lists of numbers", str(kind))
            types = {kind.value_type}
        for kind in types:
            if not (self._pa.types.is_floating(kind) or self._pa.types.is_integer(kind)):
                name = next(
                    n for n in self._columns if self._is_list or schema.field(n).type == kind
                )
                raise self._column_error(name, "numbers", str(kind))
        if not types:
            raise self._column_error("edges", "a column of edges", "none")
        return np.result_type(*(kind.to_pandas_dtype() for kind in types))

    def _check_group(self, group: Any, schema: Any) -> None:
        """Refuse a row group that decodes to too much, by itself or for what it stores."""
        n_values, stored = group.num_rows * len(self._columns), self._bytes
        if self._is_list:
            columns = [group.column(number) for number in range(group.num_columns)]
            mine = [c for c in columns if c.path_in_schema.split(".")[0] == self._columns[0]]
            stored = sum(column.total_compressed_size for column in mine)
            kind = schema.field(self._columns[0]).type
            size = kind.list_size if self._pa.types.is_fixed_size_list(kind) else 0
            n_values = max(sum(column.num_values for column in mine), group.num_rows * size)
        n_bytes = n_values * self.dtype.itemsize
        if n_bytes > MAX_GROUP_BYTES:
            raise DTwinInputError(
                "too_large",
                "a row group is too large to be decoded at once",
                field=self.path.name,
                wanted=f"at most {MAX_GROUP_BYTES:,} bytes",
                got=f"{n_bytes:,} bytes",
                fix="Write fewer people a group: pyarrow.parquet.write_table(..., "
                "row_group_size=256)",
            )
        check_expansion(n_bytes, stored, field=self.path.name)

    def _n_edges(self, schema: Any) -> int:
        if not self._is_list:
            return len(self._columns)
        kind = schema.field(self._columns[0]).type
        if self._pa.types.is_fixed_size_list(kind):
            return int(kind.list_size)
        first = self._group(0) if self._meta.num_row_groups else ()
        return next((len(row) for row in first if len(row)), 0)

    def _region_names(self, schema: Any) -> tuple[str, ...] | None:
        text = (schema.metadata or {}).get(b"regions")
        if text is None:
            return None
        with parsing(self.path, RecursionError):
            names = json.loads(text)
            if not isinstance(names, list):
                raise ValueError("the metadata regions are no list")
        return tuple(names)  # checked as names where they are used

    def _read_ids(self, column: str) -> tuple[str, ...]:
        # As a dictionary: one long text, repeated, would otherwise take memory for every row.
        with (
            parsing(self.path, self._pa.ArrowException),
            self._pq.ParquetFile(self.path, read_dictionary=[column]) as file,
        ):
            for number in range(self._meta.num_row_groups):
                group = self._meta.row_group(number)
                for place in range(group.num_columns):
                    part = group.column(place)
                    if part.path_in_schema == column:
                        declared, stored = part.total_uncompressed_size, part.total_compressed_size
                        check_expansion(declared, stored, field=self.path.name)
            chunks = file.read(columns=[column]).column(0).chunks
            for chunk in chunks:
                is_coded = self._pa.types.is_dictionary(chunk.type)
                words = chunk.dictionary.to_pylist() if is_coded else ()
                if any(len(word) > MAX_NAME_CHARS for word in words):
                    raise self._column_error(column, f"at most {MAX_NAME_CHARS} characters", "more")
            names = [name for chunk in chunks for name in chunk.to_pylist()]
        return tuple("" if name is None else str(name) for name in names)

    def _column_error(self, column: str, wanted: str, got: str) -> DTwinInputError:
        return DTwinInputError(
            "parquet_column",
            "this column cannot be used",
            field=f"{self.path.name}:{column[:60]}",
            wanted=wanted,
            got=got[:100],
            fix="Give a column edges (lists of numbers) and a column subject, or only columns "
            "of edges besides subject",
        )


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("pyarrow", "screen", "Reading Parquet") from error
    return pa, pq
