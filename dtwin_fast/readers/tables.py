"""Bounded reading of TSV and CSV text: lists of names and tables of numbers."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from ..connectome_checks import MAX_REGIONS, check_regions, check_subjects
from ..errors import DTwinInputError
from ..files import check_regular_file
from .request import parsing

MAX_TEXT_BYTES = 256 * 2**20
MAX_LINE_BYTES = 4 * 2**20
MAX_COLUMNS = 100_000
MAX_CELL_CHARS = 1_000
MAX_NUMBER_ROWS = 100_000
"""Rows of a table of numbers: volumes, regions or people."""
MAX_PEOPLE_ROWS = 2_000_001
"""Names of people, and a header."""
MAX_REGION_ROWS = MAX_REGIONS + 1
"""Names of regions, and a header."""

REGION_COLUMNS = ("name", "label", "parcel", "region", "regions")
SUBJECT_COLUMNS = ("subject", "participant_id", "id")
ROW_NAME_TITLES = ("", "node", "name", "label", "parcel", "region")
NOT_A_NUMBER = frozenset({"n/a", "N/A", "NA", "nan", "NaN", "NAN", ""})
"""Cells that stand for a missing value; BIDS writes ``n/a``."""


def read_rows(path: Path, *, max_rows: int | None = None) -> Iterator[list[str]]:
    """Rows of cells without surrounding blanks; tab, comma or semicolon separated.

    Raises:
        DTwinInputError: limits (``file_too_large``, ``table_line``, ``table_columns``,
            ``table_cell``, ``table_rows``), bytes that are not UTF-8 (``table_encoding``),
            more than one possible separator (``table_separator``), broken quotes
            (``unreadable``).
    """
    size = check_regular_file(path, field=path.name, max_bytes=MAX_TEXT_BYTES)
    if max_rows is not None and size > max_rows:  # every row takes a byte at least
        _check_rows(path, max_rows)
    with parsing(path), path.open("rb") as file:
        lines = _lines(path, file)
        first = next(lines, "")
        separator = _separator(path, first)
        for row in _split(_chain(first, lines), separator):
            if len(row) > MAX_COLUMNS:
                raise _table_error(
                    path, "table_columns", "a row has too many columns", f"{len(row):,}"
                )
            if not row:
                continue
            if max(map(len, row)) > MAX_CELL_CHARS:
                raise _table_error(path, "table_cell", "a cell is too long", "")
            yield list(map(str.strip, row))


def read_number_table(
    path: Path, *, max_rows: int = MAX_NUMBER_ROWS
) -> tuple[list[str], list[str], npt.NDArray[np.float64]]:
    """Column names, row names and the (rows, columns) float64 numbers of a table.

    A first row with anything but numbers (or with an empty corner) names the columns. The
    first column names the rows when its title is empty or a word such as ``Node``, or when
    its first cell is no number. Lists are empty where the table has no names.

    Raises:
        DTwinInputError: as :func:`read_rows`; also ``table_empty``, ``table_ragged``,
            ``table_number``.
    """
    rows = read_rows(path, max_rows=max_rows)
    first = next(rows, None)
    if first is None:
        raise _table_error(path, "table_empty", "the table has no rows", "")
    columns: list[str] = []
    body: list[npt.NDArray[np.float64]] = []
    names: list[str] = []
    if _is_header(first):
        columns = first
    else:
        body.append(_numbers(path, first, 1))
    is_named = bool(columns) and columns[0].lower() in ROW_NAME_TITLES
    for number, row in enumerate(rows, start=2):
        if len(row) != len(first):
            raise _table_error(
                path,
                "table_ragged",
                "the rows do not have the same number of cells",
                f"{len(row)} cells in row {number}",
                f"{len(first)}",
            )
        if columns and not body and not is_named:
            is_named = not _is_number(row[0])
        if is_named:
            names.append(row[0])
        body.append(_numbers(path, row[1:] if is_named else row, number))
    if not body:
        raise _table_error(path, "table_empty", "the table has a header but no rows", "")
    return columns[1:] if is_named else columns, names, np.stack(body)


def read_names(
    source: str | os.PathLike[str], wanted: tuple[str, ...], field: str
) -> tuple[str, ...]:
    """Checked names from a table.

    Args:
        source: a table whose names are in the first of the ``wanted`` columns, or which
            has one column; or ``PATH:COLUMN``, the column's title as the table has it.
        wanted: titles in lower case.
        field: ``"regions"`` or ``"subjects"``.

    Raises:
        DTwinInputError: as :func:`read_rows`; no such column (``names_column``); what
            ``check_regions`` or ``check_subjects`` refuses.
    """
    path, title = _split_column(source)
    columns, rows = read_text_table(
        path, max_rows=MAX_REGION_ROWS if field == "regions" else MAX_PEOPLE_ROWS
    )
    choice = f"as {path.name}:COLUMN"
    if title is not None:
        if columns.count(title) != 1:
            raise _column_error(path, columns, f"one column {title!r}", f"Choose a column {choice}")
        index = columns.index(title)
    elif len(columns) == 1:
        index = 0
        if columns[0].lower() not in wanted:
            rows = [columns, *rows]
    else:
        index = column_index(path, columns, wanted, fix=f"Choose a column {choice}")
    check = check_regions if field == "regions" else check_subjects
    try:
        return check([row[index] for row in rows], field=field)
    except DTwinInputError as error:
        error.fix += f", or choose another column {choice}"
        raise


def _split_column(source: str | os.PathLike[str]) -> tuple[Path, str | None]:
    """The parts of ``PATH:COLUMN``; a file whose own name has the colon is taken whole."""
    text = os.fspath(source)
    path, colon, title = text.rpartition(":")
    # os.path answers where Path would raise on names that the system refuses.
    if colon and not os.path.exists(text) and os.path.isfile(path):  # noqa: PTH110, PTH113
        return Path(path), title
    return Path(text), None


def read_text_table(
    path: Path, *, max_rows: int | None = None
) -> tuple[list[str], list[list[str]]]:
    """First row and the other rows of a table, all of one length."""
    rows = list(read_rows(path, max_rows=max_rows))
    if not rows:
        raise _table_error(path, "table_empty", "the table has no rows", "")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]):
            raise _table_error(
                path,
                "table_ragged",
                "the rows do not have the same number of cells",
                f"{len(row)} cells in row {number}",
                f"{len(rows[0])}",
            )
    return rows[0], rows[1:]


def column_index(path: Path, columns: list[str], wanted: tuple[str, ...], *, fix: str) -> int:
    """Position of the first of the ``wanted`` columns (code ``names_column`` if none)."""
    lower = [column.lower() for column in columns]
    for name in wanted:
        if name in lower:
            return lower.index(name)
    raise _column_error(path, columns, " or ".join(wanted), fix)


def _column_error(path: Path, columns: list[str], wanted: str, fix: str) -> DTwinInputError:
    return DTwinInputError(
        "names_column",
        "no column holds the names",
        field=path.name,
        wanted=wanted,
        got=", ".join(columns)[:200],
        fix=fix,
    )


def _check_rows(path: Path, max_rows: int) -> None:
    """Refuse too many lines, which are counted before any becomes a row."""
    with path.open("rb") as file:
        count = sum(block.count(b"\n") for block in iter(lambda: file.read(2**20), b""))
    if count > max_rows:
        raise _table_error(
            path, "table_rows", "the table has too many rows", f"{count:,}", f"{max_rows:,}"
        )


def _lines(path: Path, file: IO[bytes]) -> Iterator[str]:
    encoding = "utf-8-sig"
    while line := file.readline(MAX_LINE_BYTES + 1):
        if len(line) > MAX_LINE_BYTES:
            raise _table_error(
                path,
                "table_line",
                "a line is too long",
                "",
                f"at most {MAX_LINE_BYTES:,} bytes",
            )
        try:
            text = line.decode(encoding)
        except UnicodeDecodeError as error:
            raise _table_error(
                path, "table_encoding", "this text is not UTF-8", f"byte {error.start}"
            ) from error
        if text.strip():
            yield text
        encoding = "utf-8"


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _split(lines: Iterator[str], separator: str) -> Iterator[list[str]]:
    """Cells of each row: by the csv module from the first line on that has something to quote."""
    for line in lines:
        bare = line.rstrip("\r\n")
        if '"' in bare or "\r" in bare:
            yield from csv.reader(_chain(line, lines), delimiter=separator, strict=True)
            return
        yield bare.split(separator)


def _separator(path: Path, header: str) -> str:
    if path.suffix == ".tsv":
        if "\t" not in header and (";" in header or "," in header):
            raise _table_error(
                path, "table_separator", "a .tsv table needs tabs between its cells", "none"
            )
        return "\t"
    present = [mark for mark in ("\t", ";", ",") if mark in header]
    if len(present) > 1:
        raise _table_error(
            path,
            "table_separator",
            "the first row does not say which separator is meant",
            " and ".join(repr(mark) for mark in present),
        )
    return present[0] if present else ","


def _is_header(row: list[str]) -> bool:
    return row[0] == "" or not all(_is_number(cell) for cell in row)


def _is_number(cell: str) -> bool:
    if cell in NOT_A_NUMBER:
        return True
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _numbers(path: Path, row: list[str], number: int) -> npt.NDArray[np.float64]:
    text = "".join(row)
    # float() takes 1_000 and digits of other scripts, which no exporter writes.
    try:
        if "_" in text or not text.isascii():
            raise ValueError("an underscore or a foreign digit")
        try:
            return np.fromiter(map(float, row), np.float64, len(row))
        except ValueError:
            cells = ("nan" if cell in NOT_A_NUMBER else cell for cell in row)
            return np.fromiter(map(float, cells), np.float64, len(row))
    except ValueError as error:
        raise _table_error(
            path,
            "table_number",
            "a cell is not a number",
            f"row {number}: {str(error)[:60]}",
            "numbers with a decimal point, or n/a",
        ) from error


def _table_error(path: Path, code: str, what: str, got: str, wanted: str = "") -> DTwinInputError:
    return DTwinInputError(
        code,
        what,
        field=path.name,
        wanted=wanted,
        got=got,
        fix="Export a UTF-8 table: one header row, equal rows, tabs (.tsv) or one separator (.csv)",
    )
