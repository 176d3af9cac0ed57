"""What is known of people beside scans and trials: participants, phenotype, head motion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..readers.request import plain_id
from ..readers.tables import SUBJECT_COLUMNS, read_number_table
from .columns import Table, read_table, require, rows_by_subject, table_error, take, typed

Columns = dict[str, npt.NDArray[Any]]


def read_participants(
    path: Path, subjects: Sequence[str], titles: Mapping[str, str] | None = None
) -> Columns:
    """Columns (S,) of a table of people; those it does not list get NaN or ``n/a``.

    Args:
        titles: title -> name, and only these; by default all, under their own titles.

    Raises:
        DTwinInputError: as ``read_table``; no ids, or one twice; none of the people.
    """
    table = read_table(path)
    rows = _rows(table, path, subjects)
    if titles is None:
        titles = {title: title for title in table if title.lower() not in SUBJECT_COLUMNS}
    require(table, list(titles), path.name)
    return {name: take(typed(table[title]), rows) for title, name in titles.items()}


def read_phenotype(folder: Path, columns: Sequence[str], subjects: Sequence[str]) -> Columns:
    """Columns (S,) of the phenotype tables of a release, named as they are asked for.

    Args:
        columns: ``TABLE:TITLE`` each, for ``folder/TABLE.tsv``. 999 is a missing value there.

    Raises:
        DTwinInputError: as ``read_participants``; another form of name (``argument``).
    """
    found: Columns = {}
    for name in columns:
        stem, colon, title = name.partition(":")
        if not (stem and colon and title) or Path(stem).name != stem:
            raise table_error("phenotype", "argument", "this names no column", "TABLE:TITLE", name)
        path = folder / f"{stem}.tsv"
        table = read_table(path)
        require(table, [title], path.name)
        cells = np.where(np.isin(table[title], ("999", "999.0")), "n/a", table[title])
        found[name] = take(typed(cells), _rows(table, path, subjects))
    return found


def read_mean_fd(path: Path, subjects: Sequence[str]) -> npt.NDArray[np.float64]:
    """(S,) mean framewise displacement, mm, of a table with a row a person, a column a frame.

    Frames that a run lacks are empty cells. People who are not listed get NaN.

    Raises:
        DTwinInputError: as ``read_number_table``; rows without names (``names_column``), none of
            the people, negative displacements (``table_number``).
    """
    _, names, fd_mm = read_number_table(path)
    if not names:
        raise table_error(
            path.name, "names_column", "the rows have no names", "ids in the first column", "none"
        )
    if (fd_mm < 0).any() or np.isinf(fd_mm).any():
        raise table_error(path.name, "table_number", "this is no displacement", "mm from 0", "less")
    table = {"id": np.array(names)}
    measured = ~np.isnan(fd_mm)
    total = np.where(measured, fd_mm, 0).sum(axis=1)
    mean = np.divide(
        total, measured.sum(axis=1), out=np.full(len(total), np.nan), where=measured.any(axis=1)
    )
    found: npt.NDArray[np.float64] = take(mean, _rows(table, path, subjects))
    return found


def _rows(table: Table, path: Path, subjects: Sequence[str]) -> list[int | None]:
    place = rows_by_subject(table, path.name)
    rows = [place.get(plain_id(subject)) for subject in subjects]
    if all(row is None for row in rows):
        raise table_error(
            path.name, "subject_mismatch", "the table lists none of the people",
            subjects[0], next(iter(place)),
        )  # fmt: skip
    return rows
