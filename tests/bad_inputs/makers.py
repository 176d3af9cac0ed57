"""Files made byte by byte, so that their headers may say what no library would write."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from .people import NAMES, R, matrices

GRID = (4, 4, 2)
"""Voxels of the images; voxels 0 to 15 are background, then one for each region."""
BOMB_BYTES = 2**31


def npy(header: bytes, data: bytes = b"", version: int = 1) -> bytes:
    """A .npy with a header as given."""
    size = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + size + header + data


def npy_shape(shape: str, descr: str = "'<f4'", data: bytes = b"") -> bytes:
    """A .npy that declares this shape and dtype, whatever its data."""
    return npy(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode(), data)


def npy_of(array: Any) -> bytes:
    """What numpy saves; objects as a pickle, which nothing may open."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def npz(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of members as given."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def npz_of(**arrays: Any) -> bytes:
    """What numpy saves."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def encrypted(archive: bytes) -> bytes:
    """The flag of an encrypted member, in the local and the central header."""
    data = bytearray(archive)
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def nifti(
    dims: tuple[int, ...],
    code: int = 16,
    bits: int = 32,
    offset: float = 352,
    voxel: float = 2,
    slope: float = 0,
    extension: bytes = b"\0\0\0\0",
    data: bytes = b"",
) -> bytes:
    """A NIfTI-1 file."""
    header = bytearray(348)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into(f"<{len(dims) + 1}h", header, 40, len(dims), *dims)
    struct.pack_into("<hh", header, 70, code, bits)
    struct.pack_into("<8f", header, 76, 1, voxel, 2, 2, 1, 1, 1, 1)
    struct.pack_into("<ff", header, 108, offset, slope)
    header[344:348] = b"n+1\0"
    return bytes(header) + extension + data


def bold(n_volumes: int = 30, **more: Any) -> bytes:
    """A 4-D run of noise on GRID."""
    data = np.random.default_rng(2).normal(size=(n_volumes, *GRID)).astype("<f4")
    return nifti((*GRID, n_volumes), data=data.tobytes(), **more)


LABELS = [0] * 16 + list(range(1, R + 1))
LABEL_TABLE = "index\tname\n" + "".join(f"{i}\t{name}\n" for i, name in enumerate(NAMES, 1))


def write_atlas(
    folder: Path, labels: list[int] = LABELS, names: str = LABEL_TABLE
) -> tuple[Path, Path]:
    """A label image on GRID and its table."""
    image, table = folder / "atlas.nii", folder / "atlas.tsv"
    image.write_bytes(nifti(GRID, code=8, data=np.array(labels, "<i4").tobytes()))
    table.write_text(names)
    return image, table


def relmat(end: str = "\n", mark: str = "\t", start: str = "") -> str:
    """The table of one person's connectome; its first correlation is 0.500."""
    matrix = matrices(1)[0]
    matrix[0, 1] = matrix[1, 0] = 0.5
    lines = [["Node", *NAMES]]
    lines += [[name, *(f"{r:.3f}" for r in row)] for name, row in zip(NAMES, matrix, strict=True)]
    return start + end.join(mark.join(line) for line in lines) + end


def timeseries(n_volumes: int = 30) -> str:
    """The table of one person's regional series."""
    rows = np.random.default_rng(3).normal(size=(n_volumes, R))
    lines = [list(NAMES), *([f"{value:.4f}" for value in row] for row in rows)]
    return "".join("\t".join(line) + "\n" for line in lines)


# Bombs: small files that declare gigabytes.


def deflated_zeros(head: bytes, n_bytes: int) -> tuple[bytes, int]:
    """Raw deflate of ``head`` and zeros up to ``n_bytes``, and its CRC-32, made piece by piece.

    A full flush ends every piece on a byte, so the same compressed piece can be repeated.
    """
    piece = bytes(2**24)
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = pack.compress(head) + pack.flush(zlib.Z_FULL_FLUSH)
    first = pack.compress(piece) + pack.flush(zlib.Z_FULL_FLUSH)
    count = n_bytes // len(piece)
    crc = zlib.crc32(head)
    for _ in range(count):
        crc = zlib.crc32(piece, crc)
    return start + first * count + pack.flush(zlib.Z_FINISH), crc


def npz_bomb(compressed: int | None = None) -> bytes:
    """``compressed`` is a lie about the stored bytes."""
    head = npy_shape(f"(1, {BOMB_BYTES // 4})")
    body, crc = deflated_zeros(head, BOMB_BYTES)
    size = len(head) + BOMB_BYTES
    name = b"fc.npy"
    facts = struct.pack(
        "<HHHHHIIIHH", 20, 0, 8, 0, 33, crc, compressed or len(body), size, len(name), 0
    )
    local = b"PK\x03\x04" + facts + name
    central = b"PK\x01\x02" + struct.pack("<H", 20) + facts + struct.pack("<HHHII", 0, 0, 0, 0, 0)
    central += name
    end = struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local) + len(body), 0)
    return local + body + central + b"PK\x05\x06" + end


def nii_gz_bomb() -> bytes:
    """2 GiB of float32 zeros."""
    head = nifti((1024, 1024, 512, 1))
    body, crc = deflated_zeros(head, BOMB_BYTES)
    tail = struct.pack("<II", crc, (len(head) + BOMB_BYTES) % 2**32)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + body + tail


def hdf5(path: Path, kind: str) -> Path:
    """An HDF5 file that asks for more than its own numbers, or is not a run."""
    import h5py

    data = np.random.default_rng(0).normal(size=(R, 30))
    with h5py.File(path, "w") as file:
        if kind == "external link":
            file["x"] = h5py.ExternalLink("/etc/passwd", "/")
        elif kind == "soft link only":
            file["x"] = h5py.SoftLink("/absent")
        elif kind == "virtual":
            layout = h5py.VirtualLayout((R, 30), "f8")
            layout[:] = h5py.VirtualSource("other.h5", "x", (R, 30))
            file.create_virtual_dataset("x", layout)
        elif kind == "external storage":
            file.create_dataset("x", (R, 30), "f8", external=[("/etc/passwd", 0, R * 240)])
        elif kind == "two data sets":
            file["x"], file["y"] = data, data
        elif kind == "integers":
            file["x"] = np.ones((R, 30), int)
        elif kind == "complex":
            file["x"] = data.astype(complex)
        elif kind == "3-D":
            file["x"] = data[None]
        elif kind == "other size":
            file["x"] = data[:-1]
        elif kind == "one volume":
            file["x"] = data[:, :1]
        elif kind == "gap":
            data[0, 3] = np.nan
            file["x"] = data
        elif kind == "never written":
            file.create_dataset("x", (R, 10**9), "f8", chunks=(R, 1000))
        elif kind == "huge chunks":
            file.create_dataset("x", (R, 30), "f8", chunks=(2000, 5000), maxshape=(None, None))
            file["x"][0, 0] = 1
        elif kind == "lzf":
            file.create_dataset("x", data=data, compression="lzf")
        elif kind == "chunk that inflates":
            x = file.create_dataset("x", (R, 30), "f8", chunks=(R, 30), compression="gzip")
            x.id.write_direct_chunk((0, 0), zlib.compress(bytes(2**26)))
        elif kind == "2 GiB of zeros":
            shape = (R, BOMB_BYTES // 8 // R)
            x = file.create_dataset("x", shape, "f8", chunks=(R, 2**18), compression="gzip")
            raw = zlib.compress(bytes(R * 2**21))
            for start in range(0, shape[1], 2**18):
                x.id.write_direct_chunk((0, start), raw)
        elif kind == "many objects":
            for number in range(1100):
                file.create_group(f"g{number}")
    return path


def write_cifti(path: Path, data: Any, rows: tuple[str, ...], columns: tuple[str, ...]) -> Path:
    """A pconn, or a ptseries whose rows are volumes."""
    import nibabel as nib
    from nibabel.cifti2.cifti2_axes import ParcelsAxis, SeriesAxis

    axes = [
        ParcelsAxis(
            np.array(names),
            [np.array([[i, 0, 0]]) for i in range(len(names))],
            [{}] * len(names),
            np.eye(4),
            (len(names), 1, 1),
            {},
        )
        for names in (rows, columns)
    ]
    if not path.name.endswith("pconn.nii"):
        axes[0] = SeriesAxis(0, 0.8, len(data))
    header = nib.cifti2.Cifti2Header.from_axes(axes)
    nib.Cifti2Image(np.asarray(data, np.float32), header).to_filename(path)
    return path


def gzipped(data: bytes, *, members: int = 1) -> bytes:
    """A gzip file in one or several members."""
    size = -(-len(data) // members)
    return b"".join(
        gzip.compress(data[start : start + size]) for start in range(0, len(data), size)
    )
