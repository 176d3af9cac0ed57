"""Cohort arrays: ``.npy`` and ``.npz``."""

from __future__ import annotations

import sys
import warnings
import zipfile
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ..connectome import Connectomes
from ..connectome_checks import MAX_REGIONS, batch_shape
from ..errors import DTwinInputError
from ..files import check_expansion, check_regular_file
from .request import Request, parsing, size_error, subject_of
from .zip_directory import open_zip

ARRAY_KEYS = ("fc", "edges", "connectomes")
"""Names under which an npz archive may hold its connectomes."""
MAX_HEADER_CHARS = 10_000
MAX_MEMBERS = 64
MAX_NAMES_BYTES = 256 * 2**20


def read_npy(path: Path, request: Request) -> Connectomes:
    """Connectomes of one ``.npy`` file: (S,R,R), (R,R), (S,E) or (E,)."""
    size = check_regular_file(path, field=path.name)
    with parsing(path), path.open("rb") as file:
        array = _read_array(path, file, size, kinds="fiu")
    return request.connectomes(path, array, subjects=_only_subject(path, array, request.regions))


def read_npz(path: Path, request: Request) -> Connectomes:
    """Connectomes of one ``.npz`` file, with optional text arrays ``regions``, ``subjects``."""
    array, names = load_npz(path)
    regions = names.get("regions")
    return request.connectomes(
        path,
        array,
        regions=regions,
        subjects=_only_subject(path, array, regions or request.regions),
        ids=names.get("subjects"),
    )


def load_npz(path: Path) -> tuple[npt.NDArray[Any], dict[str, tuple[str, ...]]]:
    """The connectomes of a ``.npz`` file, not checked, and its ``regions`` and ``subjects``."""
    size = check_regular_file(path, field=path.name)
    with parsing(path), open_zip(path, size) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if not 0 < len(archive.infolist()) <= MAX_MEMBERS:
            raise size_error(path, f"1 to {MAX_MEMBERS} arrays", f"{len(archive.infolist())}")
        for info in members.values():
            _check_member(path, info, size)
        key = _array_key(path, archive, members)
        array = _read_member(path, archive, members[key], kinds="fiu")
        names: dict[str, tuple[str, ...]] = {}
        for field in {"regions", "subjects"} & members.keys():
            _check_names_member(path, members[field])
            most = max(MAX_REGIONS, array.shape[0] if array.ndim else 1)
            text = _read_member(path, archive, members[field], kinds="U", max_items=most)
            names[field] = tuple(text.ravel().tolist())
    return array, names


def _only_subject(
    path: Path, array: npt.NDArray[Any], regions: tuple[str, ...] | None
) -> tuple[str, ...] | None:
    """The file's own subject when its array holds one connectome."""
    shape, _ = batch_shape(array.shape, regions, field=path.name)
    return (subject_of(path),) if shape[0] == 1 else None


def _read_array(
    path: Path, file: IO[bytes], n_bytes: int, *, kinds: str, max_items: int = sys.maxsize
) -> npt.NDArray[Any]:
    """One array of an npy stream of ``n_bytes``; sizes are compared before anything is read."""
    shape, is_fortran, dtype = read_layout(path, file, n_bytes, kinds=kinds)
    if prod(shape) > max_items:
        raise size_error(path, f"at most {max_items:,} names", f"{prod(shape):,}")
    declared = prod(shape) * dtype.itemsize
    data = file.read(declared)
    if len(data) != declared:
        raise size_error(path, f"{declared:,} bytes", f"{len(data):,} bytes")
    array: npt.NDArray[Any] = np.frombuffer(data, dtype)
    return array.reshape(shape, order="F" if is_fortran else "C")


def read_layout(
    path: Path, file: IO[bytes], n_bytes: int, *, kinds: str = "fiu"
) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, Fortran order and dtype of an npy stream of ``n_bytes``; its data come next.

    Raises:
        DTwinInputError: other numbers than ``kinds`` (``dtype``), or a header that declares
            other data than the bytes behind it (``file_size``).
        ValueError: no npy header.
    """
    shape, is_fortran, dtype = _read_header(file)
    if dtype.kind not in kinds:
        wanted = "real numbers" if "f" in kinds else "text"
        raise DTwinInputError(
            "dtype",
            f"this array does not hold {wanted}",
            field=path.name,
            got=str(dtype),
            fix="Save a plain array: objects are pickles and are never read",
        )
    declared = prod(shape) * dtype.itemsize
    stored = n_bytes - file.tell()
    if declared != stored or any(length < 0 for length in shape):
        raise size_error(path, f"{declared:,} bytes for shape {shape}", f"{stored:,} bytes")
    return shape, is_fortran, dtype


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    reader = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if reader is None:
        raise ValueError(f"npy format version {version}")
    with warnings.catch_warnings():
        # numpy warns about headers that no current numpy writes; those are refused.
        warnings.simplefilter("error")
        try:
            shape, is_fortran, dtype = reader(file, max_header_size=MAX_HEADER_CHARS)
        except Warning as warning:
            raise ValueError(str(warning)) from warning
    return shape, is_fortran, dtype


def _check_member(path: Path, info: zipfile.ZipInfo, file_size: int) -> None:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"zip compression {info.compress_type}")
    if info.compress_size > file_size:
        raise size_error(path, f"at most {file_size:,} bytes", f"{info.compress_size:,} bytes")
    check_expansion(info.file_size, info.compress_size, field=f"{path.name}/{info.filename}")


def _check_names_member(path: Path, info: zipfile.ZipInfo) -> None:
    if info.file_size > MAX_NAMES_BYTES:
        wanted = f"at most {MAX_NAMES_BYTES:,} bytes of names"
        raise size_error(path, wanted, f"{info.file_size:,} bytes")


def _array_key(path: Path, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]) -> str:
    for key in ARRAY_KEYS:
        if key in members:
            return key
    numeric = []
    for key, info in members.items():
        with archive.open(info) as stream:
            if _read_header(stream)[2].kind in "fiu":
                numeric.append(key)
    if len(numeric) == 1:
        return numeric[0]
    raise DTwinInputError(
        "npz_key",
        "it is not clear which array holds the connectomes",
        field=path.name,
        wanted=" or ".join(ARRAY_KEYS),
        got=", ".join(sorted(members))[:200],
        fix=f"Save the connectomes as {ARRAY_KEYS[0]!r}",
    )


def _read_member(
    path: Path,
    archive: zipfile.ZipFile,
    info: zipfile.ZipInfo,
    *,
    kinds: str,
    max_items: int = sys.maxsize,
) -> npt.NDArray[Any]:
    with archive.open(info) as stream:
        array = _read_array(path, stream, info.file_size, kinds=kinds, max_items=max_items)
        if stream.read(1):  # also makes zipfile compare the checksum
            raise size_error(path, f"{info.file_size:,} bytes", "more")
    return array
