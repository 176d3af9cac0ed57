"""Reading of result folders: JSON fields and table columns, each checked where it is asked for."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DTwinInputError
from ..files import check_regular_file
from ..readers.tables import NOT_A_NUMBER, read_text_table

Float64 = npt.NDArray[np.float64]
MAX_JSON_BYTES = 64 * 2**20


def report_error(field: str, what: str, wanted: object, got: object, fix: str) -> DTwinInputError:
    """The error of a result folder that no report can be made of (code ``report``)."""
    return DTwinInputError(
        "report", what, field=field, wanted=str(wanted)[:300], got=str(got)[:200], fix=fix
    )


@dataclass(frozen=True)
class Fields:
    """An object of a JSON file.

    Attributes:
        values: name -> value.
        where: file and path inside it, for errors.
    """

    values: Mapping[str, Any]
    where: str

    def number(self, name: str) -> float:
        """A number; NaN where it is null or absent: it was not computed."""
        value = self.values.get(name)
        if value is None:
            return math.nan
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(name, "a number or null", value)
        return float(value)

    def count(self, name: str) -> int:
        """A whole number of at least 0."""
        value = self.values.get(name)
        if type(value) is not int or value < 0:
            raise self._wrong(name, "a whole number", value)
        return value

    def text(self, name: str) -> str:
        """Text."""
        value = self.values.get(name)
        if not isinstance(value, str):
            raise self._wrong(name, "text", value)
        return value

    def texts(self, name: str) -> list[str]:
        """A list of texts."""
        value = self.values.get(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(name, "a list of texts", value)
        return value

    def fields(self, name: str) -> Fields:
        """An object inside; empty where it is null or absent: it was not computed."""
        value = self.values.get(name)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise self._wrong(name, "an object or null", value)
        return Fields(value, f"{self.where}: {name}")

    def rows(self, name: str) -> list[Fields]:
        """A list of objects."""
        value = self.values.get(name)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self._wrong(name, "a list of objects", value)
        return [Fields(item, f"{self.where}: {name}[{i}]") for i, item in enumerate(value)]

    def _wrong(self, name: str, wanted: str, got: object) -> DTwinInputError:
        fix = "Write the folder again with dtwin intervene or dtwin evaluate"
        return report_error(f"{self.where}: {name}", "this is not what is read", wanted, got, fix)


def read_fields(path: Path) -> Fields:
    """The object that a JSON file holds.

    Raises:
        DTwinInputError: not such a file (code ``report``), or none that can be read
            (``file_missing``, ``file_kind``, ``file_empty``, ``file_too_large``).
    """
    check_regular_file(path, field=str(path), max_bytes=MAX_JSON_BYTES)
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        fix = "Write the folder again"
        raise report_error(str(path), "this file is not valid JSON", "JSON", error, fix) from error
    if not isinstance(values, dict):
        raise report_error(
            str(path),
            "this file is of something else",
            "a JSON object",
            type(values).__name__,
            "Write the folder again",
        )
    return Fields(values, path.name)


@dataclass(frozen=True)
class Columns:
    """A table by columns.

    Attributes:
        titles: of the columns.
        cells: title -> the cells of all rows.
        where: file name, for errors.
    """

    titles: tuple[str, ...]
    cells: Mapping[str, Sequence[str]]
    where: str

    def __len__(self) -> int:
        return len(self.cells[self.titles[0]])

    def text(self, title: str) -> Sequence[str]:
        """The cells of a column; ``n/a`` is an empty text."""
        self.require(title)
        return ["" if cell in NOT_A_NUMBER else cell for cell in self.cells[title]]

    def numbers(self, title: str) -> Float64:
        """(rows,) a column of numbers, NaN where there is none.

        Raises:
            DTwinInputError: no such column, or other text in it (code ``report``).
        """
        self.require(title)
        try:
            return np.array(
                [math.nan if cell in NOT_A_NUMBER else float(cell) for cell in self.cells[title]],
                np.float64,
            )
        except ValueError as error:
            fix = "Write the folder again"
            raise report_error(
                f"{self.where}: {title}", "a cell is not a number", "numbers or n/a", error, fix
            ) from error

    def require(self, *titles: str) -> None:
        """Refuse a table without these columns (code ``report``)."""
        if absent := [title for title in titles if title not in self.cells]:
            raise report_error(
                self.where,
                "columns are missing",
                ", ".join(absent),
                ", ".join(self.titles),
                "Write the folder again",
            )


def read_columns(path: Path) -> Columns:
    """A table with a header row; it may have no other rows.

    Raises:
        DTwinInputError: as ``readers.tables.read_text_table``; two columns of one title (code
            ``report``).
    """
    titles, rows = read_text_table(path)
    if len(set(titles)) < len(titles):
        raise report_error(
            path.name, "two columns have one title", "different titles", titles, "Rename one"
        )
    columns = zip(*rows, strict=True) if rows else ([] for _ in titles)
    return Columns(tuple(titles), dict(zip(titles, columns, strict=True)), path.name)
