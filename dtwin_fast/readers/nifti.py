"""4-D NIfTI with a label image: parcel means, then a connectome."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..connectome import Connectomes
from ..connectome_checks import check_regions
from ..errors import DTwinInputError, MissingExtraError
from .nifti_header import read_header
from .request import Request, parsing, subject_of
from .tables import MAX_REGION_ROWS, REGION_COLUMNS, column_index, read_text_table
from .timeseries import connectome_of_series

LABEL_COLUMNS = ("index", "label", "id", "value", "row")
MIN_COVERAGE = 0.5
"""Smallest part of a parcel's voxels that must hold data, as XCP-D has it."""
GRID_TOLERANCE_MM = 1e-3
MOST_AFTER_VOXELS = 2**20
"""Bytes that a gzip file may hold after its last voxel."""


def read_nifti(path: Path, request: Request) -> Connectomes:
    """Connectome of one 4-D run on the grid of ``request.atlas``.

    Parcels with data in less than half of their voxels are missing regions.

    Raises:
        DTwinInputError: no atlas (``atlas_missing``), other grids (``grid``), labels that
            are no integers or not in the table (``atlas``), not 4-D (``shape``), as well as what
            ``read_header`` and ``connectome_of_series`` raise.
    """
    if request.atlas is None:
        raise DTwinInputError(
            "atlas_missing",
            "a 4-D image needs a label image and its table",
            field=path.name,
            fix="Give atlas=(label image, labels table)",
        )
    image_path, table_path = request.atlas
    labels, label_affine = _read_labels(image_path)
    values, names = _read_label_table(table_path)
    shape = read_header(path).shape
    if len(shape) != 4:
        raise _image_error(path, "shape", "this is not a 4-D run", "(x, y, z, T)", shape)
    with _opened(path) as (affine, data):
        if shape[:3] != labels.shape or not _same_affine(affine, label_affine):
            raise DTwinInputError(
                "grid",
                "the run and the label image are on different grids",
                field=path.name,
                wanted=f"{labels.shape} and the affine of {image_path.name}",
                got=f"{shape[:3]} and its own affine",
                fix="Resample the label image to the run's grid, nearest neighbour",
            )
        series = _parcel_means(path, data, labels, values)
    return request.connectomes(
        path,
        connectome_of_series(series, path)[None],
        regions=names,
        subjects=(subject_of(path),),
        is_fisher_z=False,
    )


@contextmanager
def _opened(path: Path) -> Iterator[tuple[npt.NDArray[np.float64], Any]]:
    """Affine and array proxy; what was read of a gzip file is compared with its checksum."""
    try:
        import nibabel
        from nibabel.filebasedimages import ImageFileError
        from nibabel.spatialimages import HeaderDataError
    except ImportError as error:
        raise MissingExtraError("nibabel", "neuro", "reading NIfTI") from error
    with parsing(path, ImageFileError, HeaderDataError):
        image: Any = nibabel.load(path, keep_file_open=True)
        affine, data = image.affine, image.dataobj
        if affine is None or not np.isfinite(affine).all():
            raise ValueError("an affine that is not finite")
        if not path.name.endswith(".gz"):
            yield affine, data
            return
        # nibabel stops at the last voxel; the checksum comes after it.
        with gzip.open(path) as stream:
            spec = (data.shape, data.dtype, data.offset, data.slope, data.inter)
            yield affine, type(data)(stream, spec)
            if len(stream.read(MOST_AFTER_VOXELS)) == MOST_AFTER_VOXELS:
                raise ValueError("much data after the last voxel")


def _read_labels(path: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    shape = read_header(path).shape
    if len(shape) != 3 and prod(shape[3:]) != 1:
        raise _image_error(path, "shape", "the label image is not 3-D", "(x, y, z)", shape)
    with (
        _opened(path) as (affine, voxels),
        np.errstate(over="ignore", invalid="ignore"),
    ):
        data = np.asarray(voxels).reshape(shape[:3])
    if not (np.isfinite(data).all() and np.array_equal(data, np.rint(data))):
        raise _image_error(path, "atlas", "the label image holds fractions", "integers", "others")
    if data.min() < 0 or data.max() > 2**31:
        raise _image_error(path, "atlas", "labels are out of range", "0 to 2^31", data.max())
    return data.astype(np.int64), affine


def _read_label_table(path: Path) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """Label values and names, in table order."""
    columns, rows = read_text_table(path, max_rows=MAX_REGION_ROWS)
    lower = [column.lower() for column in columns]
    for title in LABEL_COLUMNS:
        if title in lower and rows and all(row[lower.index(title)].isdecimal() for row in rows):
            label_column = lower.index(title)
            break
    else:
        raise _image_error(
            path, "atlas", "no column holds label numbers", " or ".join(LABEL_COLUMNS), columns
        )
    titles = tuple(name for name in REGION_COLUMNS if name != lower[label_column])
    name_column = column_index(path, columns, titles, fix="Give the names one of these titles")
    pairs = [(int(row[label_column][:12]), row[name_column]) for row in rows]
    pairs = [(value, name) for value, name in pairs if value != 0]  # 0 is the background
    values = np.array([value for value, _ in pairs], np.int64)
    if np.unique(values).size != values.size:
        raise _image_error(path, "atlas", "a label number occurs twice", "unique numbers", "")
    return values, check_regions([name for _, name in pairs], field=path.name)


def _parcel_means(
    path: Path, data: Any, labels: npt.NDArray[np.int64], values: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """(T, R) mean of each parcel's voxels, volume by volume; NaN for missing parcels."""
    flat = labels.ravel(order="F")
    inside = np.flatnonzero(flat)
    order = np.argsort(values)
    slot = np.searchsorted(values[order], flat[inside])
    known = slot < len(values)
    known[known] = values[order][slot[known]] == flat[inside][known]
    if not known.all():
        unknown = np.unique(flat[inside][~known])
        raise _image_error(
            path, "atlas", "labels of the image are not in its table", "all of them", unknown[:5]
        )
    parcel = order[slot]
    n_parcels, n_volumes = len(values), data.shape[3]
    sums = np.empty((n_volumes, n_parcels))
    has_data = np.zeros(len(inside), np.bool_)
    for volume in range(n_volumes):
        with np.errstate(over="ignore", invalid="ignore"):
            voxels = np.asarray(data[..., volume], np.float64)
        voxels = voxels.ravel(order="F")[inside]
        empty = np.isnan(voxels)
        voxels[empty] = 0
        if np.isinf(voxels).any():
            raise _image_error(path, "infinite", "voxels are infinite", "numbers", "inf")
        if np.any(empty & has_data):
            raise _image_error(path, "nan", "voxels are NaN in part of the run", "numbers", "")
        has_data |= voxels != 0
        sums[volume] = np.bincount(parcel, voxels, minlength=n_parcels)
    size = np.bincount(parcel, minlength=n_parcels)
    covered = np.bincount(parcel, has_data, minlength=n_parcels)
    is_missing = (size == 0) | (covered < MIN_COVERAGE * size)
    means = sums / np.maximum(covered, 1)
    means[:, is_missing] = np.nan
    return means


def _same_affine(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> bool:
    return bool(np.allclose(one, other, rtol=0, atol=GRID_TOLERANCE_MM))


def _image_error(path: Path, code: str, what: str, wanted: str, got: object) -> DTwinInputError:
    return DTwinInputError(
        code,
        what,
        field=path.name,
        wanted=wanted,
        got=str(got)[:200],
        fix="Check the image and the atlas with a viewer",
    )
