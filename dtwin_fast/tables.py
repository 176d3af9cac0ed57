"""Tab-separated tables as the rest of the field reads them: a header row, n/a for missing."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from .files import write_atomic

Cell = str | int | float | bool


def write_tsv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Write a table; floats with six significant digits, NaN as n/a (BIDS)."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter="\t", lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_text(cell) for cell in row] for row in rows)
    write_atomic(path, buffer.getvalue())


def _text(cell: Cell) -> str:
    if isinstance(cell, float):
        return f"{cell:.6g}" if math.isfinite(cell) else "n/a"
    return str(cell)
