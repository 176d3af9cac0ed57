"""Tables as the rest of the field reads them: a header row, n/a for missing."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from .files import write_atomic

Cell = str | int | float | bool


def write_tsv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Write a table with tabs; floats with six significant digits, NaN as n/a (BIDS)."""
    _write(path, header, rows, "\t")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """The same with commas."""
    _write(path, header, rows, ",")


def _write(
    path: Path, header: Sequence[str], rows: Iterable[Sequence[Cell]], delimiter: str
) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=delimiter, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_text(cell) for cell in row] for row in rows)
    write_atomic(path, buffer.getvalue())


def _text(cell: Cell) -> str:
    if isinstance(cell, float):
        return f"{cell:.6g}" if math.isfinite(cell) else "n/a"
    return str(cell)
