"""NIfTI headers read under limits, before nibabel opens the file."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from ..errors import DTwinInputError, MissingExtraError
from ..files import check_expansion, check_regular_file
from .request import parsing, size_error

DTYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
"""NIfTI datatype codes of real numbers; complex, colour and long double are refused."""
MAX_VOXEL_MM = 1e6
MAX_EXTENSION_BYTES = 64 * 2**20


@dataclass(frozen=True)
class NiftiHeader:
    """Declared facts of a NIfTI-1 or NIfTI-2 file.

    Attributes:
        shape: lengths of the axes.
        offset: where the data start, bytes.
        is_cifti: the intent code is one of CIFTI's.
    """

    shape: tuple[int, ...]
    offset: int
    is_cifti: bool


def read_header(path: Path) -> NiftiHeader:
    """Header of a ``.nii`` or ``.nii.gz`` whose declared data can be in the file.

    Raises:
        DTwinInputError: not NIfTI, or no real numbers (``unreadable``, ``dtype``), more data
            declared than stored (``file_size``, ``file_bomb``, ``file_too_large``).
    """
    stored = check_regular_file(path, field=path.name)
    is_gzip = path.name.endswith(".gz")
    with parsing(path), gzip.open(path) if is_gzip else path.open("rb") as file:
        header, dtype = _parse(file.read(540))
    declared = header.offset + prod(header.shape) * dtype.itemsize
    check_expansion(declared, stored, field=path.name)
    if not is_gzip and declared > stored:
        raise size_error(path, f"{declared:,} bytes for shape {header.shape}", f"{stored:,} bytes")
    if header.is_cifti:
        _refuse_entities(path, header.offset)
    return header


def _parse(block: bytes) -> tuple[NiftiHeader, np.dtype[np.generic]]:
    try:
        from nibabel.nifti1 import header_dtype as nifti1
        from nibabel.nifti2 import header_dtype as nifti2
    except ImportError as error:
        raise MissingExtraError("nibabel", "neuro", "reading NIfTI and CIFTI") from error
    for layout, magic in ((nifti1, b"n+1"), (nifti2, b"n+2")):
        for fields in (layout.newbyteorder("<"), layout.newbyteorder(">")):
            if len(block) < fields.itemsize:
                continue
            raw = np.frombuffer(block, fields, count=1)[0]
            if raw["sizeof_hdr"] == fields.itemsize and bytes(raw["magic"])[:3] == magic:
                return _check(raw)
    raise ValueError("no NIfTI-1 or NIfTI-2 header")


def _check(raw: np.void) -> tuple[NiftiHeader, np.dtype[np.generic]]:
    n_axes = int(raw["dim"][0])
    shape = tuple(int(length) for length in raw["dim"][1 : n_axes + 1])
    if not 1 <= n_axes <= 7 or any(length < 1 for length in shape):
        raise ValueError(f"axes {n_axes}, lengths {shape}")
    offset = float(raw["vox_offset"])
    if not (int(raw["sizeof_hdr"]) <= offset <= MAX_EXTENSION_BYTES and offset == int(offset)):
        raise ValueError(f"data offset {offset}")
    sizes = raw["pixdim"][1:4]
    if not (np.isfinite(sizes) & (np.abs(sizes) < MAX_VOXEL_MM)).all():
        raise ValueError(f"voxel sizes {sizes}")
    code = int(raw["datatype"])
    if code not in DTYPES:
        raise DTwinInputError(
            "dtype",
            "this image does not hold real numbers",
            field="NIfTI header",
            wanted="integers, float32 or float64",
            got=f"datatype {code}",
            fix="Convert the image",
        )
    if int(raw["bitpix"]) != 8 * np.dtype(DTYPES[code]).itemsize:
        raise ValueError(f"datatype {code} with {raw['bitpix']} bits")
    is_cifti = 3000 <= int(raw["intent_code"]) < 3100
    return NiftiHeader(shape, int(offset), is_cifti), np.dtype(DTYPES[code])


def _refuse_entities(path: Path, offset: int) -> None:
    """CIFTI's XML never declares entities; ones that expand each other fill the memory."""
    with path.open("rb") as file:
        if b"<!ENTITY" in file.read(offset):
            raise DTwinInputError(
                "unreadable",
                "the XML of this file declares entities",
                field=path.name,
                fix="Export the file again",
            )
