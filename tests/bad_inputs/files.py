"""Binary files, paths and folders."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .cases import (
    BOMB_SECONDS,
    MAX_BYTES,
    NO_OPTIONS,
    Case,
    Options,
    Writer,
    of_cohort,
    of_file,
    of_path,
)
from .makers import (
    GRID,
    LABEL_TABLE,
    LABELS,
    bold,
    encrypted,
    gzipped,
    hdf5,
    nifti,
    nii_gz_bomb,
    npy,
    npy_of,
    npy_shape,
    npz,
    npz_bomb,
    npz_of,
    relmat,
    write_atlas,
    write_cifti,
)
from .people import NAMES, E, R, edges, matrices
from .tables import SERIES

NAMED: Options = {"regions": NAMES}
ONE = 4 * E


def _npy(code: str, content: bytes | Writer) -> Case:
    return of_file(code, "a.npy", content, NAMED)


def _npz(code: str, content: bytes | Writer, **limits: Any) -> Case:
    return of_file(code, "a.npz", content, NAMED, **limits)


NPY: dict[str, Case] = {
    "wrong magic": _npy("unreadable", b"\x94NUMPY" + bytes(200)),
    "a zip": _npy("unreadable", npz_of(fc=edges())),
    "no header": _npy("unreadable", b"\x93NUMPY\x01\x00"),
    "version 9": _npy("unreadable", npy(b"{}")[:6] + b"\x09\x00" + bytes(90)),
    "1 TiB": _npy("file_size", npy_shape("(524288, 524288)")),
    "10^23": _npy("file_size", npy_shape(f"({10**23},)")),
    "10^4000": _npy("file_size", npy_shape(f"({10**4000},)")),
    "overflow to 0": _npy("file_size", npy_shape(f"({2**32}, {2**32})")),
    "negative": _npy("file_size", npy_shape(f"(-1, {E})")),
    "negative twice": _npy("file_size", npy_shape(f"(-1, -{E})", data=bytes(ONE))),
    "cut off": _npy("file_size", npy_shape(f"(2, {E})", data=bytes(2 * ONE - 20))),
    "too long": _npy("file_size", npy_shape(f"(2, {E})", data=bytes(2 * ONE + 1))),
    "two arrays": _npy("file_size", npy_of(edges()) * 2),
    "fractional shape": _npy("unreadable", npy_shape(f"(2.5, {E})")),
    "shape of text": _npy("unreadable", npy_shape(f"('2', {E})")),
    "booleans for a shape": _npy("unreadable", npy_shape("(True, False, None)")),
    "objects": _npy("dtype", npy_shape("(1,)", "'|O'", b"cos\nsystem\n")),
    "a pickle": _npy("dtype", npy_of(np.array([{"a": 1}], object))),
    "text": _npy("dtype", npy_shape("(1,)", "'<U4'", bytes(16))),
    "records": _npy("dtype", npy_shape("(1,)", "[('r', '<f4')]", bytes(4))),
    "dates": _npy("dtype", npy_shape("(1,)", "'<M8[s]'", bytes(8))),
    "empty items": _npy("dtype", npy_shape(f"({10**18},)", "'|V0'")),
    "unknown dtype": _npy("unreadable", npy_shape("(1,)", "'<q9'", bytes(9))),
    "dtype of a list": _npy("unreadable", npy_shape("(1,)", "[1, 2]", bytes(9))),
    "deep header": _npy("unreadable", npy(b"(" * 9000)),
    "header of code": _npy("unreadable", npy(b"__import__('os').getcwd()\n")),
    "header of 60 kB": _npy("unreadable", npy(b" " * 60_000)),
    "header of 4 GiB": _npy(
        "unreadable", b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + bytes(99)
    ),
    "header without a shape": _npy(
        "unreadable", npy(b"{'descr': '<f4', 'fortran_order': False}\n")
    ),
    "Python 2 header": _npy("unreadable", npy_shape(f"(1L, {E}L)", data=bytes(ONE))),
    "nobody": _npy("no_subjects", npy_shape(f"(0, {E})")),
    "a number": _npy("shape", npy_of(np.float32(0.5))),
    "30 axes": _npy("shape", npy_shape(f"({'1, ' * 30})", data=bytes(4))),
    "18 GB": of_file(
        "file_too_large",
        "a.npy",
        lambda path: os.truncate(_touch(path), 18 * 10**9),
        NAMED,
        commands=("predict",),  # screen reads any length by pieces
    ),
}


def _touch(path: Path) -> Path:
    path.touch()
    return path


def _flip(data: bytes, at: int, bits: int = 0xFF) -> bytes:
    made = bytearray(data)
    made[at] ^= bits
    return bytes(made)


STORED = npz({"fc.npy": npy_of(edges())}, zipfile.ZIP_STORED)
MANY_NAMES = npz_of(fc=edges(), regions=np.full(8 * 10**6, "r", "<U1"))
MANY_SUBJECTS = npz_of(fc=edges(), subjects=np.full(8 * 10**6, "s", "<U1"))

NPZ: dict[str, Case] = {
    "not a zip": _npz("unreadable", b"PK\x03\x04" + bytes(100)),
    "a npy": _npz("unreadable", npy_of(edges())),
    "empty": _npz("file_size", npz({})),
    "two arrays": _npz("npz_key", npz_of(a=edges(), b=edges())),
    "text only": _npz("npz_key", npz_of(a=np.array("x"))),
    "object array": _npz("dtype", npz({"fc.npy": npy_shape("()", "'|O'", b"N.")})),
    "shape and bytes differ": _npz(
        "file_size", npz({"fc.npy": npy_shape(f"(2, {E})", data=bytes(8))})
    ),
    "1 TiB in a member": _npz("file_size", npz({"fc.npy": npy_shape("(524288, 524288)")})),
    "numbers for names": _npz("dtype", npz_of(fc=edges(), regions=np.arange(R))),
    "objects for names": _npz(
        "dtype", npz({"fc.npy": npy_of(edges()), "regions.npy": npy_of(np.array(NAMES, object))})
    ),
    "name count": _npz("region_count", npz_of(fc=edges(), regions=np.array(["a", "b"]))),
    "a name twice": _npz("region_duplicate", npz_of(fc=edges(), regions=np.array(["a"] * R))),
    "8 million region names": _npz("file_size", MANY_NAMES),
    "8 million subject names": _npz("file_size", MANY_SUBJECTS),
    "subject count": _npz("subject_count", npz_of(fc=edges(), subjects=np.array(["a", "b"]))),
    "subject paths": _npz("subject_id", npz_of(fc=edges(), subjects=np.array([*"abc", "../d"]))),
    "NUL in a subject": _npz("subject_id", npz_of(fc=edges(), subjects=np.array([*"abc", "d\0e"]))),
    "other subjects": of_file(
        "subject_mismatch",
        "a.npz",
        npz_of(fc=edges(), regions=np.array(NAMES), subjects=np.array([*"abcd"])),
        {"subjects": [*"abcx"]},
    ),
    "other regions": _npz(
        "regions_missing", npz_of(fc=edges(), regions=np.array([f"x{i}" for i in range(R)]))
    ),
    "bzip2": _npz(
        "unreadable", npz({"fc.npy": npy_shape("(3,)", data=bytes(12))}, zipfile.ZIP_BZIP2)
    ),
    "lzma": _npz(
        "unreadable", npz({"fc.npy": npy_shape("(3,)", data=bytes(12))}, zipfile.ZIP_LZMA)
    ),
    "encrypted": _npz("unreadable", encrypted(npz_of(fc=edges()))),
    "65 members": _npz("file_size", npz({f"a{i}.npy": b"x" for i in range(65)})),
    "60,000 members": _npz("file_size", lambda path: path.write_bytes(_many_members())),
    "no npy inside": _npz("unreadable", npz({"fc.npy": b"hello"})),
    "a checksum that differs": _npz("unreadable", _flip(STORED, 300)),
    "another name in the local header": _npz("unreadable", STORED.replace(b"fc.npy", b"fx.npy", 1)),
    "truncated behind the data": _npz("unreadable", STORED[:-30]),
    "2 GiB of zeros": _npz(
        "file_bomb", lambda path: path.write_bytes(_bomb("npz")), seconds=BOMB_SECONDS
    ),
    "2 GiB that lie about the stored bytes": _npz(
        "file_size", lambda path: path.write_bytes(_bomb("lie")), seconds=BOMB_SECONDS
    ),
}


@cache
def _bomb(kind: str) -> bytes:
    makers: dict[str, Callable[[], bytes]] = {
        "npz": npz_bomb,
        "lie": lambda: npz_bomb(compressed=2**30),
        "nii.gz": nii_gz_bomb,
    }
    return makers[kind]()


@cache
def _many_members() -> bytes:
    return npz({f"{i:x}": b"" for i in range(60_000)}, zipfile.ZIP_STORED)


# Images


def _atlas(labels: list[int] = LABELS, names: str = LABEL_TABLE) -> Callable[[Path], Options]:
    return lambda folder: {"atlas": write_atlas(folder, labels, names)}


def _nii(code: str, content: bytes | Writer, name: str = "a.nii", **more: Any) -> Case:
    return of_file(code, name, content, _atlas(), **more)


def _label(code: str, labels: list[int] = LABELS, names: str = LABEL_TABLE) -> Case:
    return of_file(code, "a.nii", bold(), _atlas(labels, names))


def _changed(at: int, to: int) -> list[int]:
    return [*LABELS[:at], to, *LABELS[at + 1 :]]


SHORT = nifti((*GRID, 5), data=bytes(5 * 128))
RUN = bold()
EXTENDED = nifti(
    (*GRID, 30), offset=368, extension=b"\1\0\0\0" + struct.pack("<ii", 2**31 - 1, 6) + bytes(8)
)

IMAGES: dict[str, Case] = {
    "no atlas": of_file("atlas_missing", "a.nii", RUN),
    "not NIfTI": _nii("unreadable", bytes(400)),
    "a header alone, cut": _nii("unreadable", RUN[:300]),
    "dims 32767": _nii("file_too_large", nifti((32767, 32767, 32767, 100))),
    "dims 32767 seven times": _nii("file_too_large", nifti((32767,) * 7)),
    "cut off": _nii("file_size", RUN[:-1]),
    "negative dim": _nii("unreadable", nifti((4, -4, 2, 30))),
    "zero dim": _nii("unreadable", nifti((4, 0, 2, 30))),
    "no axes": _nii("unreadable", nifti(())),
    "eight axes": _nii("unreadable", _flip(RUN, 40, 12)),
    "offset NaN": _nii("unreadable", nifti((*GRID, 30), offset=np.nan)),
    "offset Inf": _nii("unreadable", nifti((*GRID, 30), offset=np.inf)),
    "offset 1e30": _nii("unreadable", nifti((*GRID, 30), offset=1e30)),
    "offset -1": _nii("unreadable", nifti((*GRID, 30), offset=-1)),
    "offset 352.5": _nii("unreadable", nifti((*GRID, 30), offset=352.5)),
    "offset 0": _nii("unreadable", nifti((*GRID, 30), offset=0)),
    "voxel NaN": _nii("unreadable", bold(voxel=np.nan)),
    "voxel 1e30": _nii("unreadable", bold(voxel=1e30)),
    "complex": _nii("dtype", nifti((*GRID, 30), code=32, bits=64)),
    "colours": _nii("dtype", nifti((*GRID, 30), code=128, bits=24)),
    "long double": _nii("dtype", nifti((*GRID, 30), code=1536, bits=128)),
    "datatype 9999": _nii("dtype", nifti((*GRID, 30), code=9999, bits=32)),
    "bits differ": _nii("unreadable", nifti((*GRID, 30), bits=64)),
    "3-D": _nii("shape", nifti(GRID, data=bytes(128))),
    "other grid": _nii("grid", nifti((5, 4, 2, 10), data=bytes(1600))),
    "other voxels": _nii("grid", bold(voxel=3)),
    "too short": _nii("too_short", SHORT),
    "all zero": _nii("all_missing", nifti((*GRID, 30), data=bytes(30 * 128))),
    "infinite": _nii("infinite", nifti((*GRID, 30), data=struct.pack("<f", np.inf) * 960), exit=4),
    "one NaN": _nii("nan", RUN[:-4] + struct.pack("<f", np.nan), exit=4),
    "an extension of 2 GiB": _nii("file_size", EXTENDED),
    "gz, not gzip": _nii("unreadable", RUN, "a.nii.gz"),
    "gz, cut off": _nii("unreadable", gzipped(RUN)[:2000], "a.nii.gz"),
    "gz, header only": _nii("unreadable", gzipped(RUN)[:12], "a.nii.gz"),
    "gz, fewer bytes than declared": _nii("unreadable", gzipped(RUN[:-1]), "a.nii.gz"),
    "gz, second member cut off": _nii("unreadable", gzipped(RUN, members=2)[:-400], "a.nii.gz"),
    "gz, second member is no gzip": _nii(
        "unreadable", gzipped(RUN[:1000]) + b"garbage" * 9, "a.nii.gz"
    ),
    "gz, dims 32767": _nii(
        "file_too_large", gzipped(nifti((32767, 32767, 32767, 100))), "a.nii.gz"
    ),
    "gz, 2 GiB of zeros": _nii(
        "file_bomb", lambda p: p.write_bytes(_bomb("nii.gz")), "a.nii.gz", seconds=BOMB_SECONDS
    ),
    "label without a name": _label("atlas", _changed(16, R + 1)),
    "label below the table": _label("atlas", names=LABEL_TABLE.replace("1\tregion_00\n", "", 1)),
    "negative label": _label("atlas", _changed(0, -1)),
    "no label numbers": _label("atlas", names="index\tname\nx\ta\ny\tb\n"),
    "two label numbers of 400 digits": _label(
        "atlas", names=LABEL_TABLE + "9" * 400 + "\ty\n" + "9" * 401 + "\tz\n"
    ),
    "no label names": _label("names_column", names="index\tcolour\n1\ta\n2\tb\n"),
    "label number twice": _label("atlas", names=LABEL_TABLE + "1\tz\n"),
    "label name twice": _label("region_duplicate", names=LABEL_TABLE + "99\tregion_00\n"),
    "label table is empty": _label("file_empty", names=""),
    "labels of fractions": of_file(
        "atlas",
        "a.nii",
        RUN,
        lambda folder: {"atlas": _replaced_image(folder, struct.pack("<f", 1.5) * 32)},
    ),
    "labels of NaN": of_file(
        "atlas",
        "a.nii",
        RUN,
        lambda folder: {"atlas": _replaced_image(folder, struct.pack("<f", np.nan) * 32)},
    ),
    "atlas image is absent": of_file(
        "file_missing", "a.nii", RUN, lambda folder: {"atlas": (folder / "x.nii", folder / "x.tsv")}
    ),
    "atlas of one file": of_file("argument", "a.nii", RUN, {"atlas": ("a.nii",)}, in_command=False),
    "atlas in one text": of_file(
        "argument", "a.nii", RUN, {"atlas": "atlas.nii"}, in_command=False
    ),
}


def _replaced_image(folder: Path, data: bytes) -> tuple[Path, Path]:
    image, table = write_atlas(folder)
    image.write_bytes(nifti(GRID, data=data))
    return image, table


# CIFTI

CORRELATIONS = matrices(1)[0]


def _pconn(code: str, change: Callable[[bytes], bytes] = bytes, **names: Any) -> Case:
    def write(path: Path) -> None:
        given = {"rows": NAMES, "columns": NAMES} | names
        write_cifti(path, CORRELATIONS, **given)
        path.write_bytes(change(path.read_bytes()))

    return of_file(code, "a.pconn.nii", write)


CIFTI: dict[str, Case] = {
    "zeros": of_file("unreadable", "a.pconn.nii", bytes(1000)),
    "plain NIfTI": of_file("cifti_axes", "a.ptseries.nii", RUN),
    "rows in another order": _pconn("cifti_axes", rows=NAMES[::-1]),
    "a parcel twice": _pconn("region_duplicate", rows=("x",) * R, columns=("x",) * R),
    "a parcel without a name": _pconn(
        "region_name", rows=(*NAMES[:-1], ""), columns=(*NAMES[:-1], "")
    ),
    "entities": _pconn("unreadable", lambda data: data.replace(b"<Volume ", b"<!ENTITY", 1)),
    "broken XML": _pconn("unreadable", lambda data: data.replace(b"</CIFTI>", b"<//IFTI>", 1)),
    "XML of another kind": _pconn(
        "unreadable",
        lambda data: data.replace(b"TYPE_PARCELS", b"TYPE_NONSENS"),
    ),
    "cut off": _pconn("file_size", lambda data: data[:-1]),
    "two volumes": of_file(
        "too_short",
        "a.ptseries.nii",
        lambda path: write_cifti(path, CORRELATIONS[:2], NAMES, NAMES),
    ),
    "a gap": of_file(
        "nan",
        "a.ptseries.nii",
        lambda path: write_cifti(path, np.where(np.eye(R) == 1, np.nan, 1), NAMES, NAMES),
        exit=4,
    ),
}


def _hdf5(code: str, kind: str, **more: Any) -> Case:
    return of_file(code, "a.h5", lambda path: hdf5(path, kind), NAMED, **more)


HDF5: dict[str, Case] = {
    "not HDF5": of_file("unreadable", "a.h5", b"\x89HDF\r\n\x1a\n" + bytes(500), NAMED),
    "zeros": of_file("unreadable", "a.hdf5", bytes(5000), NAMED),
    "empty": _hdf5("hdf5_dataset", "empty"),
    "external link": _hdf5("hdf5_unsafe", "external link"),
    "soft link only": _hdf5("hdf5_dataset", "soft link only"),
    "virtual": _hdf5("hdf5_unsafe", "virtual"),
    "external storage": _hdf5("hdf5_unsafe", "external storage"),
    "two data sets": _hdf5("hdf5_dataset", "two data sets"),
    "integers": _hdf5("hdf5_dataset", "integers"),
    "complex": _hdf5("hdf5_dataset", "complex"),
    "3-D": _hdf5("hdf5_dataset", "3-D"),
    "other size": _hdf5("region_count", "other size"),
    "one volume": _hdf5("too_short", "one volume"),
    "a gap": _hdf5("nan", "gap", exit=4),
    "never written": _hdf5("file_size", "never written"),
    "huge chunks": _hdf5("file_size", "huge chunks", n_bytes=4 * MAX_BYTES),
    "lzf": _hdf5("hdf5_unsafe", "lzf"),
    "chunk that inflates": _hdf5("file_size", "chunk that inflates"),
    "2 GiB of zeros": _hdf5("file_bomb", "2 GiB of zeros", seconds=BOMB_SECONDS),
    "1100 objects": _hdf5("hdf5_unsafe", "many objects"),
    "434 regions by default": of_file(
        "region_count", "a.h5", lambda path: hdf5(path, "one volume")
    ),
}


# Paths


def _link(folder: Path, target: Path, name: str = "link.npy") -> Path:
    (folder / name).symlink_to(target)
    return folder / name


def _pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.npy")
    return folder / "pipe.npy"


def _folder(folder: Path, name: str = "people") -> Path:
    (folder / name).mkdir()
    return folder / name


PATHS: dict[str, Case] = {
    "absent": of_path("file_missing", lambda folder: folder / "absent.npy"),
    "NUL": of_path("file_missing", lambda folder: str(folder / "a\0.npy")),
    "half a character": of_path("file_missing", lambda folder: folder / "a\udcff.npy"),
    "1000 characters": of_path("file_missing", lambda folder: folder / ("x" * 1000 + ".npy")),
    "below a file": of_path("file_missing", lambda folder: _touch(folder / "f") / "a.npy"),
    "dangling link": of_path("file_missing", lambda folder: _link(folder, folder / "absent")),
    "link to itself": of_path("file_missing", lambda folder: _link(folder, folder / "link.npy")),
    "pipe": of_path("file_kind", _pipe),
    "link to a pipe": of_path("file_kind", lambda folder: _link(folder, _pipe(folder))),
    "/dev/zero": of_path("file_kind", lambda folder: _link(folder, Path("/dev/zero"))),
    "/dev/random": of_path("file_kind", lambda folder: _link(folder, Path("/dev/random"))),
    "link to a folder": of_path(
        "folder_files", lambda folder: _link(folder, _folder(folder), "link")
    ),
    "a folder named npy": of_path(
        "folder_files", lambda folder: _folder(folder, "a.npy"), commands=("predict",)
    ),
    "empty folder": of_path("folder_files", _folder),
    "unknown ending": of_file("format", "a.mat", b"MATLAB 5.0"),
    "no ending": of_file("format", "connectome", b"x"),
    "ending in capitals": of_file("format", "a.NPY", npy_of(edges())),
    "empty text": of_path("argument", lambda folder: "", in_command=False),
    "a number": of_path("argument", lambda folder: 7, in_command=False),
    "bytes": of_path("argument", lambda folder: b"a.npy", in_command=False),
    "an array": of_path("argument", lambda folder: matrices(), in_command=False),
    "unknown bad_subjects": of_file(
        "argument", "a.npy", npy_of(edges()), {"bad_subjects": "skip"}, in_command=False
    ),
}


# Folders


def _people(**files: bytes | str) -> Callable[[Path], Path]:
    """A folder of files by the names given, with ``__`` for a dot."""

    def make(parent: Path) -> Path:
        folder = _folder(parent)
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            (folder / name.replace("__", ".")).write_bytes(data)
        return folder

    return make


PERSON = relmat()
OTHER_ATLAS = PERSON.replace("region_", "area_")
GOOD_NPY = npy_of(edges()[0])


def _folder_of(
    code: str, options: Options = NO_OPTIONS, exit: int | None = None, **files: Any
) -> Case:
    return of_path(code, _people(**files), options, exit=exit)


def _with_pipe(parent: Path) -> Path:
    folder = _people(**{"sub-1_relmat__tsv": PERSON})(parent)
    os.mkfifo(folder / "sub-2_relmat.tsv")
    return folder


def _loop(parent: Path) -> Path:
    folder = _folder(parent)
    (folder / "again").symlink_to(folder)
    return folder


def _cohort(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], Path]:
    """A cohort folder whose cohort.json is changed."""

    def make(parent: Path) -> Path:
        folder = _folder(parent)
        header: dict[str, Any] = {
            "format": "dtwin_fast cohort",
            "has_connectomes": True,
            "is_fisher_z": False,
            "bold_regions": [],
            "tr_s": 0.8,
            "tasks": {},
            "with_bold": [],
        }
        change(header)
        np.save(folder / "connectomes.npy", edges())
        (folder / "regions.tsv").write_text("name\n" + "".join(f"{name}\n" for name in NAMES))
        (folder / "participants.tsv").write_text("participant_id\na\nb\nc\nd\n")
        (folder / "cohort.json").write_text(json.dumps(header))
        return folder

    return make


FOLDERS: dict[str, Case] = {
    "two files of one subject": _folder_of(
        "subject_duplicate",
        **{"sub-1_seg-x_relmat__tsv": PERSON, "sub-1_seg-y_relmat__tsv": PERSON},
    ),
    "other subjects": _folder_of(
        "subject_mismatch",
        {"subjects": ["sub-1", "sub-3"]},
        **{"sub-1_relmat__tsv": PERSON, "sub-2_relmat__tsv": PERSON},
    ),
    "names and files differ in number": _folder_of(
        "subject_count",
        {"subjects": [*"abc"], "regions": NAMES},
        scan1__npy=GOOD_NPY,
        scan2__npy=GOOD_NPY,
    ),
    "another atlas in one file": _folder_of(
        "regions_missing",
        exit=3,
        **{"sub-1_relmat__tsv": PERSON, "sub-2_relmat__tsv": OTHER_ATLAS},
    ),
    "one file broken": _folder_of(
        "table_ragged",
        exit=3,
        **{"sub-1_relmat__tsv": PERSON, "sub-2_relmat__tsv": PERSON + "x\t1\n"},
    ),
    "one file empty": _folder_of(
        "file_empty", exit=3, **{"sub-1_relmat__tsv": PERSON, "sub-2_relmat__tsv": b""}
    ),
    "the first file broken": _folder_of(
        "table_number",
        exit=3,
        **{"sub-1_relmat__tsv": PERSON.replace("0.500", "x"), "sub-2_relmat__tsv": PERSON},
    ),
    "one file noise": _folder_of(
        "unreadable", {"regions": NAMES}, exit=3, **{"sub-1__npy": GOOD_NPY, "sub-2__npy": b"noise"}
    ),
    "one person asymmetric": _folder_of(
        "asymmetric",
        **{
            "sub-1_relmat__tsv": PERSON,
            "sub-2_relmat__tsv": PERSON.replace("0.500", "0.6", 1),
        },
    ),
    "one run too short": _folder_of(
        "too_short",
        exit=3,
        **{
            "sub-1_timeseries__tsv": SERIES,
            "sub-2_timeseries__tsv": "".join(SERIES.splitlines(keepends=True)[:6]),
        },
    ),
    "one file is a pipe": of_path("file_kind", _with_pipe, exit=3),
    "Fisher z in one file": _folder_of(
        "fisher_z_as_r",
        **{"sub-1_relmat__tsv": PERSON, "sub-2_relmat__tsv": PERSON.replace("0.500", "1.5")},
    ),
    "all files broken": _folder_of(
        "table_empty", exit=4, **{"sub-1_relmat__tsv": "\n", "sub-2_relmat__tsv": "\n"}
    ),
    "ids that are paths": _folder_of("subject_id", {"regions": NAMES}, **{"=1__npy": GOOD_NPY}),
    "a link to itself": of_path("folder_files", _loop),
}

COHORTS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "of another format": ("cohort_file", _cohort(lambda h: h.update(format="zip"))),
    "without a unit": ("cohort_file", _cohort(lambda h: h.pop("is_fisher_z"))),
    "unit in words": ("cohort_file", _cohort(lambda h: h.update(is_fisher_z="yes"))),
    "unknown task": ("cohort_file", _cohort(lambda h: h.update(tasks={"chess": {}}))),
    "task without a schedule": ("cohort_file", _cohort(lambda h: h.update(tasks={"faces": None}))),
    "empty schedule": ("schedule", _cohort(lambda h: h.update(tasks={"faces": {}}))),
    "TR of zero": ("cohort_file", _cohort(lambda h: h.update(tr_s=0))),
    "TR of NaN": ("cohort_file", _cohort(lambda h: h.update(tr_s=float("nan")))),
    "TR that is true": ("cohort_file", _cohort(lambda h: h.update(tr_s=True))),
    "names in one text": ("cohort_file", _cohort(lambda h: h.update(bold_regions="abc"))),
}


# Every format cut off: what is left is never taken for the whole.


def _cut(data: bytes, part: int) -> bytes:
    return data[: len(data) * part // 64]


def _cut_written(write: Callable[[Path], object], part: int) -> Writer:
    def cut(path: Path) -> None:
        write(path)
        path.write_bytes(_cut(path.read_bytes(), part))

    return cut


def _good_hdf5(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file["x"] = np.random.default_rng(0).normal(size=(R, 30))


GOOD: dict[str, Writer] = {
    "a.npy": lambda path: np.save(path, matrices()),
    "a.npz": lambda path: np.savez_compressed(path, fc=matrices(), regions=np.array(NAMES)),
    "a.nii": lambda path: path.write_bytes(RUN),
    "a.nii.gz": lambda path: path.write_bytes(gzipped(RUN)),
    "a.pconn.nii": lambda path: write_cifti(path, CORRELATIONS, NAMES, NAMES),
    "a.h5": _good_hdf5,
    "a_relmat.tsv": lambda path: path.write_text(PERSON),
    "a_timeseries.tsv": lambda path: path.write_text(SERIES),
}
"""A good file of each format."""


def options_of(name: str, folder: Path) -> Options:
    """What ``read_connectomes`` needs besides to read a file of ``GOOD``."""
    if name in ("a.nii", "a.nii.gz"):
        return {"atlas": write_atlas(folder)}
    return NAMED if name in ("a.npy", "a.h5") else NO_OPTIONS


PARTS = (1, 16, 32, 48, 63)
CUT: dict[str, Case] = {
    **{f"npy, {part}/64": _npy("file_size", _cut(npy_of(matrices()), part)) for part in PARTS},
    **{f"npz, {part}/64": _npz("unreadable", _cut(npz_of(fc=matrices()), part)) for part in PARTS},
    **{
        f"nii, {part}/64": _nii("unreadable" if part == 1 else "file_size", _cut(RUN, part))
        for part in PARTS
    },
    **{
        f"nii.gz, {part}/64": _nii("unreadable", _cut(gzipped(RUN), part), "a.nii.gz")
        for part in PARTS
    },
    **{
        f"pconn, {part}/64": of_file(
            "unreadable" if part == 1 else "file_size",
            "a.pconn.nii",
            _cut_written(lambda path: write_cifti(path, CORRELATIONS, NAMES, NAMES), part),
        )
        for part in PARTS
    },
    **{
        f"h5, {part}/64": of_file("unreadable", "a.h5", _cut_written(_good_hdf5, part), NAMED)
        for part in PARTS
    },
    **{
        f"relmat, {part}/64": of_file(
            "table_empty" if part == 1 else "table_ragged",
            "a_relmat.tsv",
            _cut(PERSON.encode(), part),
        )
        for part in PARTS
    },
    **{
        f"timeseries, {part}/64": of_file(
            "table_empty" if part == 1 else "table_ragged",
            "a_timeseries.tsv",
            _cut(SERIES.encode(), part),
        )
        for part in PARTS
    },
}

FILES: dict[str, Case] = {
    f"{kind}: {name}": case
    for kind, cases in {
        "npy": NPY,
        "npz": NPZ,
        "image": IMAGES,
        "cifti": CIFTI,
        "hdf5": HDF5,
        "path": PATHS,
        "folder": FOLDERS,
        "cut off": CUT,
    }.items()
    for name, case in cases.items()
} | {f"cohort: {name}": of_cohort(code, make) for name, (code, make) in COHORTS.items()}
