"""Tables as named columns of text, and the numbers in them."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..cohort_files import INTEGER, NUMBER
from ..errors import DTwinInputError
from ..files import check_expansion, check_regular_file
from ..readers.request import parsing, plain_id
from ..readers.tables import (
    MAX_TEXT_BYTES,
    NOT_A_NUMBER,
    SUBJECT_COLUMNS,
    column_index,
    read_text_table,
)

Text = npt.NDArray[np.str_]
Float64 = npt.NDArray[np.float64]
Table = dict[str, Text]
"""Column title -> (rows,) text, without surrounding blanks."""

MISSING = tuple(sorted(NOT_A_NUMBER))


def read_table(path: Path) -> Table:
    """A TSV or CSV table with a header row; ``.gz`` is unpacked, to a bounded size.

    Raises:
        DTwinInputError: as ``readers.tables.read_rows``; rows of other lengths
            (``table_ragged``), no rows (``table_empty``), two columns of one title
            (``table_column``).
    """
    titles, rows = _unpacked(path) if path.suffix == ".gz" else read_text_table(path)
    if not rows:
        raise table_error(path.name, "table_empty", "the table has no rows", "", "")
    if len(set(titles)) < len(titles):
        raise table_error(
            path.name, "table_column", "two columns have one title", "titles of their own", titles
        )
    return {title: np.array([row[i] for row in rows]) for i, title in enumerate(titles)}


def require(table: Table, columns: Sequence[str], field: str) -> None:
    """Refuse a table without these columns (code ``table_column``)."""
    if absent := [column for column in columns if column not in table]:
        raise table_error(
            field, "table_column", "columns are missing", ", ".join(absent), ", ".join(table)
        )


def numbers(table: Table, column: str, field: str) -> Float64:
    """(rows,) float64 of a column, NaN where the cell is empty or ``n/a``.

    Raises:
        DTwinInputError: other text, or infinity (code ``table_number``).
    """
    cells = np.where(np.isin(table[column], MISSING), "nan", table[column])
    try:
        values = cells.astype(np.float64)
        if np.isinf(values).any():
            raise ValueError("infinity")
    except ValueError as error:
        raise table_error(
            field, "table_number", f"{column} holds something else", "numbers or n/a", error
        ) from error
    return values


def typed(cells: Text) -> npt.NDArray[Any]:
    """A column as int64 where every cell is an integer, float64 where every cell is a number or
    missing, else as text with ``n/a`` for the missing; as ``load_cohort`` reads it."""
    missing = np.isin(cells, MISSING)
    texts = cells.tolist()
    if all(INTEGER.fullmatch(cell) and len(cell) < 19 for cell in texts):
        return cells.astype(np.int64)
    if all(absent or NUMBER.fullmatch(cell) for absent, cell in zip(missing, texts, strict=True)):
        return np.where(missing, "nan", cells).astype(np.float64)
    return np.where(missing, "n/a", cells)


def rows_by_subject(table: Table, field: str) -> dict[str, int]:
    """Row of each person, by plain id (``plain_id``), in a table of one row a person.

    Raises:
        DTwinInputError: no column of ids (``names_column``), a person twice
            (``subject_duplicate``).
    """
    titles = list(table)
    fix = "Name the column of ids participant_id"
    wanted = (*SUBJECT_COLUMNS, "subjectkey", "src_subject_id")
    ids = table[titles[column_index(Path(field), titles, wanted, fix=fix)]]
    rows = {plain_id(name): row for row, name in enumerate(ids.tolist())}
    if len(rows) < len(ids):
        raise table_error(
            field, "subject_duplicate", "somebody has two rows", f"{len(ids)} people", len(rows)
        )
    return rows


def take(cells: npt.NDArray[Any], rows: Sequence[int | None]) -> npt.NDArray[Any]:
    """The cells of some rows; where the row is None, NaN or ``n/a``."""
    known = np.array([row is not None for row in rows])
    picked = cells[[0 if row is None else row for row in rows]]
    if known.all():
        return picked
    if cells.dtype.kind in "if":
        return np.where(known, picked.astype(np.float64), np.nan)
    return np.where(known, picked, "n/a")


def table_error(
    field: str, code: str, what: str, wanted: object, got: object, subject: str | None = None
) -> DTwinInputError:
    """The error of a table that cannot be used."""
    return DTwinInputError(
        code,
        what,
        field=field,
        wanted=str(wanted)[:200],
        got=str(got)[:200],
        fix="See the columns in the documentation of dtwin_fast.datasets, and correct the table",
        subject=subject,
    )


def _unpacked(path: Path) -> tuple[list[str], list[list[str]]]:
    """The table in a .gz file, through a file of the table's own name."""
    stored = check_regular_file(path, field=path.name)
    with tempfile.TemporaryDirectory() as folder, parsing(path), gzip.open(path) as packed:
        data = packed.read(MAX_TEXT_BYTES + 1)
        check_expansion(len(data), stored, field=path.name)
        plain = Path(folder, path.stem)
        plain.write_bytes(data)
        return read_text_table(plain)
