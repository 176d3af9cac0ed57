"""Parcellated CIFTI-2: ``.ptseries.nii`` and ``.pconn.nii``.

HCP's files of Glasser's atlas call a parcel ``R_V1_ROI`` that tables of the atlas call
``R_V1``. The ending ``_ROI`` is therefore dropped where all parcels of a file carry it.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..connectome import Connectomes
from ..errors import DTwinInputError, MissingExtraError
from .nifti_header import read_header
from .request import Request, parsing, subject_of
from .timeseries import connectome_of_series

ENDING = "_ROI"


def read_ptseries(path: Path, request: Request) -> Connectomes:
    """Connectome of one parcellated time series (volumes by parcels)."""
    data, axes = _read(path)
    series = data if _is_parcels(axes[1]) else data.T
    parcels = axes[1] if _is_parcels(axes[1]) else axes[0]
    return request.connectomes(
        path,
        connectome_of_series(series, path)[None],
        regions=_names(path, parcels, series.shape[1]),
        subjects=(subject_of(path),),
        is_fisher_z=False,
    )


def read_pconn(path: Path, request: Request) -> Connectomes:
    """Connectome of one parcellated connectivity matrix (parcels by parcels)."""
    data, axes = _read(path)
    names = _names(path, axes[0], data.shape[0])
    if names != _names(path, axes[1], data.shape[1]):
        raise _axes_error(path, "the parcels of rows and columns are not the same")
    return request.connectomes(path, data[None], regions=names, subjects=(subject_of(path),))


def _read(path: Path) -> tuple[npt.NDArray[Any], tuple[Any, Any]]:
    """(rows, columns) data and the two axes."""
    header = read_header(path)
    try:
        from nibabel.cifti2.cifti2 import Cifti2HeaderError, Cifti2Image
        from nibabel.filebasedimages import ImageFileError
        from nibabel.spatialimages import HeaderDataError
    except ImportError as error:
        raise MissingExtraError("nibabel", "neuro", "reading CIFTI") from error
    if not header.is_cifti or len(header.shape) != 6:
        raise _axes_error(path, "this is not a CIFTI-2 matrix")
    with parsing(path, Cifti2HeaderError, ImageFileError, HeaderDataError):
        image: Any = _load(path, Cifti2Image)
        axes = (image.header.get_axis(0), image.header.get_axis(1))
        with np.errstate(over="ignore", invalid="ignore"):
            data = np.asarray(image.dataobj)
    if data.ndim != 2 or not any(_is_parcels(axis) for axis in axes):
        raise _axes_error(path, "this file has no parcels")
    return data, axes


def _load(path: Path, image_class: Any) -> Any:
    """nibabel only warns where the XML and the NIfTI header disagree about the shape."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Dataobj shape", UserWarning)
        try:
            return image_class.from_filename(path)
        except UserWarning as warning:
            raise ValueError(str(warning)) from warning


def _is_parcels(axis: Any) -> bool:
    from nibabel.cifti2.cifti2_axes import ParcelsAxis

    return isinstance(axis, ParcelsAxis)


def _names(path: Path, axis: Any, wanted: int) -> tuple[str, ...]:
    if not _is_parcels(axis) or len(axis) != wanted:
        raise _axes_error(path, "an axis does not list the parcels")
    names = tuple(str(name).strip() for name in axis.name)
    if all(name.endswith(ENDING) for name in names):
        return tuple(name.removesuffix(ENDING) for name in names)
    return names


def _axes_error(path: Path, what: str) -> DTwinInputError:
    return DTwinInputError(
        "cifti_axes",
        what,
        field=path.name,
        wanted="ptseries (series by parcels) or pconn (parcels by parcels)",
        fix="Parcellate the data with wb_command -cifti-parcellate",
    )
