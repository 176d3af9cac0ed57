"""People of one array on disk: rows are read by range, so the cohort may exceed the memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..arrays import as_real_array
from ..cohort_files import connectome_files
from ..connectome import Connectomes
from ..connectome_checks import (
    batch_shape,
    check_cohort_size,
    check_layout,
    check_regions,
    name_subjects,
)
from ..errors import DTwinInputError
from ..files import check_regular_file
from ..readers import request_of
from ..readers.arrays import load_npz, read_layout
from ..readers.request import Request, match_subjects, parsing, subject_of
from .input_checks import (
    RowArrays,
    check_range,
    check_unchanged,
    names_digest,
    reading,
    stamp_of,
)
from .parquet_files import ParquetRows
from .zarr_files import ZarrRows

MAX_PEOPLE = 2_000_000
"""Most people of one input; their names are kept in memory."""
MAX_READ_BYTES = 2**30
"""Linux reads no more than 2 GiB at once."""
SAMPLE_BYTES = 4 * 2**20
"""Looked at when a cohort is opened, to see whether its edges include the diagonal."""


class Rows(Protocol):
    """An array on disk, read by ranges of its first axis; its values are not checked yet.

    Attributes:
        path: the file.
        kind: the word for it in the identity.
        shape: (N,E) or (N,R,R), or one person's (E,) or (R,R).
        dtype: of its numbers.
        regions, ids: the names inside the file, None where it has none.
        stamp: what changes with the file's content, for the identity.
    """

    @property
    def path(self) -> Path: ...
    @property
    def kind(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def regions(self) -> tuple[str, ...] | None: ...
    @property
    def ids(self) -> tuple[str, ...] | None: ...
    @property
    def stamp(self) -> dict[str, Any]: ...

    def read(self, start: int, stop: int) -> RowArrays:
        """The rows ``start`` to ``stop - 1`` (code ``input_changed`` if they are not what was)."""
        ...


class ArrayPeople:
    """The people of ``Rows``; attributes and ``read`` are those of ``people.People``."""

    def __init__(self, rows: Rows, request: Request) -> None:
        self._rows = rows
        self._field = field = rows.path.name
        as_real_array(np.empty(0, rows.dtype), field)
        own = None if rows.regions is None else check_regions(rows.regions, field=field)
        self._row_regions = request.regions if own is None else own
        self._wanted = None if own is None else request.regions
        self._shape, self._n_row_regions = batch_shape(rows.shape, self._row_regions, field=field)
        if self._shape[0] > MAX_PEOPLE:
            raise DTwinInputError(
                "too_large",
                "these are too many people for one screening",
                field=field,
                wanted=f"at most {MAX_PEOPLE:,}",
                got=f"{self._shape[0]:,}",
                fix="Give the cohort in parts",
            )
        # Once for all ranges: what a person's data mean must not depend on a range's ends.
        check_layout(self._sample(), self._n_row_regions, self._row_regions, field=field)
        self.subjects = _names(rows, self._shape[0], request)
        self.regions = self._row_regions if self._wanted is None else self._wanted
        self.n_regions = self._n_row_regions if self.regions is None else len(self.regions)
        self.is_fisher_z = request.is_fisher_z
        self.identity: dict[str, Any] = {
            "kind": rows.kind,
            "name": field,
            **rows.stamp,
            "shape": list(rows.shape),
            "dtype": rows.dtype.str,
            "is_fisher_z": request.is_fisher_z,
            "subjects_sha256": names_digest(self.subjects),
            "regions_sha256": names_digest(self.regions or ()),
        }

    def read(self, start: int, stop: int) -> Connectomes:
        check_range(start, stop, len(self.subjects), field=self._field)
        check_cohort_size(stop - start, self._n_row_regions, field=self._field)
        made = Connectomes.from_rows(
            self._read_rows(start, stop),
            self._n_row_regions,
            regions=self._row_regions,
            subjects=self.subjects[start:stop],
            is_fisher_z=self.is_fisher_z,
            bad_subjects="drop",
            field=self._field,
        )
        return made if self._wanted is None else made.align(self._wanted, bad_subjects="drop")

    def _sample(self) -> npt.NDArray[Any]:
        """The first few rows of edges; no matrices, as their shape alone is their layout."""
        n_people, *shape = self._shape
        if len(shape) == 2:
            return np.empty((0, *shape))
        row_bytes = prod(shape) * self._rows.dtype.itemsize
        rows = self._read_rows(0, max(1, min(n_people, SAMPLE_BYTES // row_bytes)))
        whole = [row for row in rows if row.shape == (*shape,)]
        return np.array(whole or [np.full(shape, np.nan)])

    def _read_rows(self, start: int, stop: int) -> RowArrays:
        if self._shape == self._rows.shape:
            return self._rows.read(start, stop)
        return [np.asarray(self._rows.read(0, self._rows.shape[0]))][start:stop]  # one person's


class NpyRows:
    """A ``.npy`` file, read and never mapped: one that is cut off under us is an error."""

    kind = "npy"
    regions: tuple[str, ...] | None = None
    ids: tuple[str, ...] | None = None

    def __init__(self, path: Path) -> None:
        self.path = path
        size = check_regular_file(path, field=path.name, max_bytes=sys.maxsize)
        with parsing(path), path.open("rb") as file:
            self._seen = stamp_of(os.fstat(file.fileno()))
            layout = read_layout(path, file, size)
            self._data_start = file.tell()
        self.shape, self._is_fortran, self.dtype = layout
        self.stamp = {"bytes": self._seen.size, "mtime_ns": self._seen.mtime_ns}

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        n_rows, *rest = self.shape
        size = self.dtype.itemsize
        with reading(self.path, self._seen) as file:
            if not self._is_fortran:
                rows = np.empty((stop - start, *rest), self.dtype)
                row_bytes = prod(rest) * size
                _fill(file, self._data_start + start * row_bytes, rows)
                return rows
            # The first axis runs fastest: a range of it is a piece of every column.
            columns = np.empty((prod(rest), stop - start), self.dtype)
            for number, column in enumerate(columns):
                _fill(file, self._data_start + (number * n_rows + start) * size, column)
            return columns.reshape(*reversed(rest), stop - start).T


def _fill(file: int, start: int, array: npt.NDArray[Any]) -> None:
    """Read an array's bytes from a position; at the file's end the rest stays as it is."""
    view = array.reshape(-1).view(np.uint8).data
    while len(view):
        count = os.preadv(file, [view[:MAX_READ_BYTES]], start)
        if count == 0:
            return  # cut off, which reading() reports
        view, start = view[count:], start + count


class NpzRows:
    """A ``.npz`` archive, read as a whole: it is compressed, so no range can be found in it."""

    kind = "npz"

    def __init__(self, path: Path) -> None:
        self.path = path
        check_regular_file(path, field=path.name)
        seen = stamp_of(path.stat())
        self._array, names = load_npz(path)
        check_unchanged(path, seen)
        self.shape: tuple[int, ...] = self._array.shape
        self.dtype = self._array.dtype
        self.regions, self.ids = names.get("regions"), names.get("subjects")
        self.stamp = {"bytes": seen.size, "mtime_ns": seen.mtime_ns}

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        return self._array[start:stop]


ROWS: dict[str, Callable[[Path], Rows]] = {
    ".npy": NpyRows,
    ".npz": NpzRows,
    ".zarr": ZarrRows,
    ".parquet": ParquetRows,
}
"""File name ending -> rows of that format."""


def is_array(path: Path) -> bool:
    """Whether the name's ending is in ``ROWS``."""
    return path.suffix in ROWS


def open_array(path: Path, request: Request) -> ArrayPeople:
    """The people of one array file.

    Raises:
        DTwinInputError: as ``readers.arrays`` for its header, ``Connectomes.from_arrays`` for
            the whole input, and ``too_large`` beyond ``MAX_PEOPLE``.
    """
    return ArrayPeople(ROWS[path.suffix](path), request)


def open_cohort(folder: Path) -> ArrayPeople:
    """The people of a cohort folder, which says their names, regions and unit.

    Raises:
        DTwinInputError: as :func:`open_array`; not a cohort folder, or one without
            connectomes (``cohort_file``).
    """
    edges, regions, subjects, is_fisher_z = connectome_files(folder)
    path, request = request_of(
        edges,
        regions=regions,
        subjects=subjects,
        atlas=None,
        is_fisher_z=is_fisher_z,
        bad_subjects="drop",
    )
    return open_array(path, request)


def _names(rows: Rows, n_people: int, request: Request) -> tuple[str, ...]:
    """One name for each row: its own, the given name of the same subject, or a number."""
    if rows.ids is None:
        only = (subject_of(rows.path),) if n_people == 1 else None
        return name_subjects(request.subjects or only, n_people)
    names = name_subjects(rows.ids, n_people)
    if request.subjects is None:
        return names
    return match_subjects(names, request.subjects, field=rows.path.name)
