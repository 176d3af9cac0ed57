"""Region time series to connectomes, and the ``*_timeseries.tsv`` reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..connectome import Connectomes
from ..connectome_checks import MAX_REGIONS
from ..errors import DTwinInputError, MissingExtraError
from .request import Request, subject_of
from .tables import read_number_table

MIN_VOLUMES = 10
"""Fewer volumes give no connectome worth the name."""
CONSTANT = 1e-7
"""A series whose range is below this part of its level is constant: float32 resolution."""


def connectome_of_series(series: npt.NDArray[Any], path: Path) -> npt.NDArray[np.float64]:
    """(R,R) float64 Pearson correlations of a (T,R) series.

    A region that is constant or NaN throughout has no correlations: its row and column
    are NaN. nilearn's ``ConnectivityMeasure`` does the estimation, with the plain
    (not the shrunk) covariance.

    Raises:
        DTwinInputError: T below 10 (``too_short``), infinite values (``infinite``),
            NaN in part of a series (``nan``), too many regions (``region_count``).
    """
    n_volumes, n_regions = series.shape
    if n_volumes < MIN_VOLUMES:
        raise _series_error(
            path, "too_short", "this run is too short", f"at least {MIN_VOLUMES}", n_volumes
        )
    if not 2 <= n_regions <= MAX_REGIONS:
        raise _series_error(
            path,
            "region_count",
            "the number of regions does not fit",
            f"2 to {MAX_REGIONS:,}",
            n_regions,
        )
    if np.isinf(series).any():
        raise _series_error(path, "infinite", "a series holds infinite values", "numbers", "inf")
    gaps = np.isnan(series)
    absent = gaps.all(axis=0)
    if gaps[:, ~absent].any():
        raise _series_error(
            path, "nan", "a series has gaps", "numbers", f"{gaps[:, ~absent].sum()} NaN"
        )
    # Correlation does not change with the unit; one unit keeps squares inside float64.
    level = np.max(np.abs(series), axis=0, initial=0, where=~gaps).astype(np.float64)
    scaled = np.divide(series, level, out=np.zeros(series.shape), where=(level > 0) & ~absent)
    present = np.flatnonzero(np.ptp(scaled, axis=0) > CONSTANT)
    matrix = np.full((n_regions, n_regions), np.nan)
    if present.size:
        matrix[np.ix_(present, present)] = _pearson(scaled[:, present])
    return matrix


def read_timeseries(path: Path, request: Request) -> Connectomes:
    """Connectome of one ``*_timeseries.tsv``: a header of region names, one row a volume."""
    columns, rows, series = read_number_table(path)
    if rows:
        raise _series_error(
            path, "table_number", "a cell is not a number", "volumes of numbers", rows[0][:40]
        )
    if not columns and request.regions is None:
        raise DTwinInputError(
            "regions_unnamed",
            "this table has no region names",
            field=path.name,
            fix="Give regions= (--regions) with the names in column order, or add a header row",
        )
    return request.connectomes(
        path,
        connectome_of_series(series, path)[None],
        regions=tuple(columns) or None,
        subjects=(subject_of(path),),
        is_fisher_z=False,
    )


def _pearson(series: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    try:
        from nilearn.connectome import ConnectivityMeasure
        from sklearn.covariance import EmpiricalCovariance
    except ImportError as error:
        raise MissingExtraError("nilearn", "neuro", "computing connectomes") from error
    measure = ConnectivityMeasure(
        cov_estimator=EmpiricalCovariance(store_precision=False),
        kind="correlation",
        standardize=False,
    )
    matrix: npt.NDArray[np.float64] = measure.fit_transform([series])[0]
    return matrix


def _series_error(path: Path, code: str, what: str, wanted: str, got: object) -> DTwinInputError:
    return DTwinInputError(
        code,
        what,
        field=path.name,
        wanted=wanted,
        got=str(got),
        fix="Export the time series again, volumes by rows and regions by columns",
    )
