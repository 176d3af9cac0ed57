"""Square tables of one subject: BIDS ``*_relmat.tsv``, older ``*_conmat.tsv``, and csv."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..connectome import Connectomes
from ..connectome_checks import MAX_REGIONS
from ..errors import DTwinInputError
from .request import Request, subject_of
from .tables import MAX_REGION_ROWS, read_number_table


def read_relmat(path: Path, request: Request) -> Connectomes:
    """Connectome of one table: a header of region names, and their names again as first column.

    A table without names needs ``regions``, which then name its rows.

    Raises:
        DTwinInputError: as ``read_number_table`` and ``Connectomes.from_arrays``; also
            ``not_square``, ``table_names`` (row and column names differ),
            ``regions_unnamed``.
    """
    columns, rows, matrix = read_number_table(path, max_rows=MAX_REGION_ROWS)
    if matrix.shape[0] != matrix.shape[1] or len(matrix) > MAX_REGIONS:
        raise DTwinInputError(
            "not_square",
            "this table is no square matrix",
            field=path.name,
            wanted=f"as many rows as columns, at most {MAX_REGIONS:,}",
            got=f"{matrix.shape[0]} rows, {matrix.shape[1]} columns",
            fix="Name time series *_timeseries.tsv; give matrices with all their rows",
        )
    if rows and rows != columns:
        differing = next(pair for pair in zip(columns, rows, strict=True) if pair[0] != pair[1])
        raise DTwinInputError(
            "table_names",
            "the row names are not the column names in the same order",
            field=path.name,
            wanted=differing[0][:60],
            got=differing[1][:60],
            fix="Export the matrix again with one list of names",
        )
    _refuse_numbers_as_names(path, columns)
    if not columns and request.regions is None:
        raise DTwinInputError(
            "regions_unnamed",
            "this table has no region names",
            field=path.name,
            fix="Give regions= (--regions) with the names in row order, or add a header row",
        )
    return request.connectomes(
        path,
        matrix[None],
        regions=tuple(columns) or None,
        subjects=(subject_of(path),),
    )


def _refuse_numbers_as_names(path: Path, names: list[str]) -> None:
    """A row of correlations behind an empty corner is data, not names."""
    for name in names:
        try:
            value = float(name)
        except ValueError:
            continue
        if value != int(value) if np.isfinite(value) else True:
            raise DTwinInputError(
                "region_name",
                "the header holds numbers, not region names",
                field=path.name,
                got=name[:40],
                fix="Add a header row of names, or leave the corner cell filled",
            )
