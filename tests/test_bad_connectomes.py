"""Input that must be refused: every row names the code of the one error it may raise."""

from __future__ import annotations

import gzip
import io
import os
import resource
import struct
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dtwin_fast.connectome import Connectomes
from dtwin_fast.errors import DTwinInputError
from dtwin_fast.readers import read_connectomes

R = 6
FloatArray = npt.NDArray[np.float64]


def fc(n_subjects: int = 2, n_regions: int = R) -> FloatArray:
    series = np.random.default_rng(1).normal(size=(n_subjects, n_regions, 30))
    return np.stack([np.corrcoef(one) for one in series])


def edges(n_subjects: int = 2, n_regions: int = R) -> FloatArray:
    return fc(n_subjects, n_regions)[:, *np.triu_indices(n_regions, 1)]


def changed(
    value: float, *index: Any, both: bool = True, of: Callable[[], FloatArray] = fc
) -> FloatArray:
    """Correlations with one value set, in both triangles unless told."""
    array = of()
    array[index] = value
    if both and len(index) == 3:
        array[index[0], index[2], index[1]] = value
    return array


def three_missing() -> FloatArray:
    array = fc()
    array[:, :3] = array[:, :, :3] = np.nan
    return array


def diagonal(value: float) -> FloatArray:
    return changed(value, slice(None), range(R), range(R))


def with_diagonal() -> FloatArray:
    """(2, R(R+1)/2) triangles that contain the ones of the diagonal."""
    return fc()[:, *np.triu_indices(R)]


ARRAYS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    # values
    "one NaN": ("nan", changed(np.nan, 0, 1, 2), {}),
    "NaN in edges": ("nan", changed(np.nan, 1, 3, of=edges), {}),
    "NaN on one side": ("asymmetric", changed(np.nan, 0, 1, 2, both=False), {}),
    "NaN in half a row": ("nan", changed(np.nan, 0, 1, slice(2, 5)), {}),
    "two halves of a brain": (
        "nan",
        np.where(np.kron(np.eye(2), np.ones((4, 4))) == 1, 1, np.nan),
        {},
    ),
    "all NaN": ("all_missing", np.full((2, R, R), np.nan), {}),
    "all NaN edges": ("all_missing", np.full((2, 15), np.nan), {}),
    "one region left": (
        "all_missing",
        np.where(np.arange(R * R).reshape(R, R) == 0, 1, np.nan),
        {},
    ),
    "two regions, NaN": ("all_missing", np.array([[1, np.nan], [np.nan, 1]]), {}),
    "+Inf": ("infinite", changed(np.inf, 0, 1, 2), {}),
    "-Inf": ("infinite", changed(-np.inf, 0, 1, 2), {}),
    "+Inf on one side": ("infinite", changed(np.inf, 0, 4, 2, both=False), {}),
    "Inf in edges": ("infinite", changed(np.inf, 1, 3, of=edges), {}),
    "Inf in Fisher z": ("infinite", changed(np.inf, 1, 3, of=edges), {"is_fisher_z": True}),
    "1e39 in float64": ("infinite", changed(1e39, 1, 3, of=edges), {}),
    "1e38": ("r_out_of_range", changed(1e38, 1, 3, of=edges), {}),
    "1e308 in both triangles": ("infinite", changed(1e308, 0, 1, 2), {}),
    "r of 1.00002": ("fisher_z_as_r", changed(1.00002, 0, 1, 2), {}),
    "r of -1.5": ("fisher_z_as_r", changed(-1.5, 1, 3, of=edges), {}),
    "r of 5": ("r_out_of_range", changed(5, 1, 3, of=edges), {}),
    "percent": ("r_out_of_range", edges() * 100, {}),
    "z of 11": ("z_out_of_range", changed(11, 1, 3, of=edges), {"is_fisher_z": True}),
    "asymmetric by 1e-3": ("asymmetric", fc() + np.triu(np.full((R, R), 1e-3), 1), {}),
    "asymmetric by 3e-5": ("asymmetric", fc() + np.triu(np.full((R, R), 3e-5), 1), {}),
    "asymmetric": ("asymmetric", changed(0.99, 0, 1, 2, both=False), {}),
    "upper triangle only": ("asymmetric", np.triu(fc()), {}),
    "asymmetric 1e308": ("asymmetric", changed(1e308, 0, 1, 2, both=False), {}),
    "asymmetric integers": ("asymmetric", np.triu(np.ones((R, R), np.int8)), {}),
    "diagonal 0.9": ("diagonal", diagonal(0.9), {}),
    "diagonal -1": ("diagonal", diagonal(-1), {}),
    "diagonal 7": ("diagonal", diagonal(7), {}),
    "covariances": ("diagonal", fc() * 30, {}),
    "one diagonal cell": ("diagonal", changed(0.5, 0, 2, 2), {}),
    "infinite diagonal of r": ("fisher_z_as_r", diagonal(np.inf), {}),
    "-Inf diagonal": ("diagonal", diagonal(-np.inf), {}),
    "r announced as z": ("r_as_fisher_z", fc(), {"is_fisher_z": True}),
    "z diagonal 1.5": ("diagonal", diagonal(1.5), {"is_fisher_z": True}),
    "z diagonal -Inf": ("diagonal", diagonal(-np.inf), {"is_fisher_z": True}),
    "all zero": ("all_zero", np.zeros((2, R, R)), {}),
    "all zero edges": ("all_zero", np.zeros((2, 15)), {}),
    "identity": ("all_zero", np.eye(R), {}),
    "zero where not missing": (
        "all_zero",
        np.pad(np.zeros((3, 3)), (0, 2), constant_values=np.nan),
        {},
    ),
    # shapes
    "scalar": ("shape", np.float32(0.5), {}),
    "4-D": ("shape", fc()[None], {}),
    "not square": ("shape", fc()[:, :, :4], {}),
    "not square, 2-D": ("edge_count", fc()[0, :4, :5], {}),
    "nobody": ("no_subjects", np.zeros((0, R, R)), {}),
    "nobody's edges": ("no_subjects", np.zeros((0, 15)), {}),
    "no regions": ("region_count", np.zeros((2, 0, 0)), {}),
    "one region": ("region_count", np.ones((2, 1, 1)), {}),
    "no edges": ("edge_count", np.zeros((2, 0)), {}),
    "16 edges": ("edge_count", np.zeros((1, 16)), {}),
    "14 edges": ("edge_count", np.zeros(14), {}),
    "ragged lists": ("dtype", [[0.1, 0.2, 0.3], [0.1]], {}),
    "diagonal in the edges": ("triangle_with_diagonal", with_diagonal(), {}),
    "diagonal in the edges, by names": (
        "triangle_with_diagonal",
        with_diagonal() * 0.5,
        {"regions": list("abcdef")},
    ),
    "more than fits": ("too_large", np.broadcast_to(np.float32(0), (10**6, 446, 446)), {}),
    "more than 2^63 elements": ("too_large", np.broadcast_to(np.float32(0), (2**33, 4950)), {}),
    "voxels for regions": ("region_count", np.broadcast_to(np.int8(0), (10**5, 10**5)), {}),
    # dtypes
    "complex": ("dtype", fc().astype(np.complex64), {}),
    "long double": ("dtype", fc().astype(np.longdouble), {}),
    "bool": ("dtype", np.ones((R, R), bool), {}),
    "object": ("dtype", fc().astype(object), {}),
    "text": ("dtype", fc().astype("U"), {}),
    "bytes": ("dtype", fc().astype("S8"), {}),
    "dates": ("dtype", np.zeros(15, "datetime64[s]"), {}),
    "records": ("dtype", np.zeros(15, [("r", "f4")]), {}),
    "masked array": ("dtype", np.ma.masked_greater(fc(), 0.5), {}),
    "None": ("dtype", None, {}),
    "a path": ("dtype", "fc.npy", {}),
    # regions
    "5 names for 6 regions": ("region_count", fc(), {"regions": list("abcde")}),
    "5 names for edges of 7": ("region_count", edges(2, 7), {"regions": list("abcde")}),
    "one name": ("region_count", fc(), {"regions": ["a"]}),
    "no names": ("region_count", fc(), {"regions": []}),
    "a name twice": ("region_duplicate", fc(), {"regions": list("abcdea")}),
    "names in one text": ("region_name", fc(), {"regions": "abcdef"}),
    "numbers for names": ("region_name", fc(), {"regions": range(6)}),
    "an empty name": ("region_name", fc(), {"regions": [*"abcde", ""]}),
    "a name of blanks": ("region_name", fc(), {"regions": [*"abcde", " "]}),
    "a blank at the end": ("region_name", fc(), {"regions": [*"abcde", "f "]}),
    "a tab in a name": ("region_name", fc(), {"regions": [*"abcde", "f\tg"]}),
    "NUL in a name": ("region_name", fc(), {"regions": [*"abcde", "f\0"]}),
    "201 characters": ("region_name", fc(), {"regions": [*"abcde", "f" * 201]}),
    "names by number": ("region_name", fc(), {"regions": 6}),
    # subjects
    "one subject too few": ("subject_count", fc(), {"subjects": ["a"]}),
    "a subject twice": ("subject_duplicate", fc(), {"subjects": ["a", "a"]}),
    "subjects by number": ("subject_id", fc(), {"subjects": [1, 2]}),
    "subjects in one text": ("subject_id", fc(), {"subjects": "ab"}),
    **{
        f"subject {ascii(name)[:20]}": ("subject_id", fc(), {"subjects": ["a", name]})
        for name in (
            "",
            " ",
            "a/b",
            "a\\b",
            "..",
            ".hidden",
            "../x",
            "a\nb",
            "a\0b",
            "a\x1b[0m",
            "=1+1",
            "+x",
            "-x",
            "@x",
            "a:b",
            "a\u2028b",
            "a\u202eb",
            "\ud800",
            "x" * 300,
        )
    },
    # arguments
    "unknown bad_subjects": ("argument", fc(), {"bad_subjects": "skip"}),
}


@pytest.mark.parametrize("row", ARRAYS)
def test_bad_array(row: str) -> None:
    code, array, options = ARRAYS[row]
    with pytest.raises(DTwinInputError) as caught:
        Connectomes.from_arrays(array, **options)
    assert caught.value.code == code
    assert caught.value.fix


SUBJECT_CODES = ("nan", "infinite", "asymmetric", "diagonal", "r_out_of_range", "all_zero")


@pytest.mark.parametrize("row", [row for row in ARRAYS if ARRAYS[row][0] in SUBJECT_CODES])
def test_bad_subject_is_named_and_can_be_dropped(row: str) -> None:
    code, array, options = ARRAYS[row]
    with pytest.raises(DTwinInputError, match=r"subject sub-000[12]"):
        Connectomes.from_arrays(array, **options)
    made = Connectomes.from_arrays(array, **options, bad_subjects="drop")
    assert code in {error.code for error in made.rejected}
    assert all(error.subject not in made.subjects for error in made.rejected)


def test_codes_say_what_to_do_about_a_diagonal_in_the_edges() -> None:
    with pytest.raises(DTwinInputError, match="15 edges for 6 regions; got 21"):
        Connectomes.from_arrays(with_diagonal())
    with pytest.raises(DTwinInputError, match="15 for 6 regions or 21 for 7"):
        Connectomes.from_arrays(np.zeros(16))


NAMED = Connectomes.from_arrays(fc(), regions=list("abcdef"))
METHODS: dict[str, tuple[str, Callable[[], Any]]] = {
    "align to absent names": ("regions_missing", lambda: NAMED.align(list("abcxyz"))),
    "align to another case": ("regions_missing", lambda: NAMED.align(list("ABCDEF"))),
    "align to a name twice": ("region_duplicate", lambda: NAMED.align(list("aab"))),
    "align to one name": ("region_count", lambda: NAMED.align(["a"])),
    "align without names": (
        "regions_unnamed",
        lambda: Connectomes.from_arrays(fc()).align(list("abcdef")),
    ),
    "align to missing regions": (
        "all_missing",
        lambda: Connectomes.from_arrays(
            three_missing(),
            regions=list("abcdef"),
        ).align(list("abd")),
    ),
    "select beyond the end": ("subject_index", lambda: NAMED.select([2])),
    "select by fraction": ("subject_index", lambda: NAMED.select(np.array([0.5]))),
    "select by a short mask": ("subject_index", lambda: NAMED.select(np.array([True]))),
    "select twice": ("subject_duplicate", lambda: NAMED.select([0, 0])),
    "unknown policy": ("argument", lambda: NAMED.resolve_missing("zero")),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("row", METHODS)
def test_bad_call(row: str) -> None:
    code, call = METHODS[row]
    with pytest.raises(DTwinInputError) as caught:
        call()
    assert caught.value.code == code


# Files. A row: expected code, file name, bytes or a writer, options of read_connectomes.

SQUARE = "Node\ta\tb\na\t1\t.5\nb\t.5\t1\n"


def npy(header: bytes, data: bytes = b"", version: int = 1) -> bytes:
    size = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + size + header + data


def npy_shape(shape: str, descr: str = "'<f4'", data: bytes = b"") -> bytes:
    return npy(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode(), data)


def npz(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def npz_of(**arrays: Any) -> bytes:
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
    data: bytes = b"",
) -> bytes:
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into(f"<{len(dims) + 1}h", header, 40, len(dims), *dims)
    struct.pack_into("<hh", header, 70, code, bits)
    struct.pack_into("<8f", header, 76, 1, voxel, 2, 2, 1, 1, 1, 1)
    struct.pack_into("<f", header, 108, offset)
    header[344:348] = b"n+1\0"
    return bytes(header) + data


FILES: dict[str, tuple[str, str, bytes | str, dict[str, Any]]] = {
    # tables
    "empty": ("file_empty", "a_relmat.tsv", b"", {}),
    "blank": ("table_empty", "a_relmat.tsv", "\n \n", {}),
    "header only": ("table_empty", "a_relmat.tsv", "Node\ta\tb\n", {}),
    "ragged": ("table_ragged", "a_relmat.tsv", "Node\ta\tb\na\t1\nb\t.5\t1\n", {}),
    "too few rows": ("not_square", "a_relmat.tsv", "Node\ta\tb\na\t1\t.5\n", {}),
    "time series named relmat": ("not_square", "a_relmat.tsv", "a\tb\n1\t2\n2\t1\n3\t4\n", {}),
    "decimal commas": ("table_number", "a.tsv", SQUARE.replace(".5", "0,5"), {}),
    "decimal commas in csv": (
        "table_number",
        "a.csv",
        SQUARE.replace("\t", ";").replace(".5", "0,5"),
        {},
    ),
    "words": ("table_number", "a.tsv", SQUARE.replace(".5", "high"), {}),
    "underscored digits": ("table_number", "a.tsv", SQUARE.replace(".5", "0_0"), {}),
    "digits of another script": ("table_number", "a.tsv", SQUARE.replace(".5", "\u0660"), {}),
    "commas in a tsv": ("table_separator", "a.tsv", SQUARE.replace("\t", ","), {}),
    "two separators": ("table_separator", "a.csv", SQUARE.replace("\ta", ",a"), {}),
    "other row names": ("table_names", "a.tsv", SQUARE.replace("\nb", "\nc"), {}),
    "rows swapped": ("table_names", "a.tsv", "Node\ta\tb\nb\t.5\t1\na\t1\t.5\n", {}),
    "column name twice": ("region_duplicate", "a.tsv", SQUARE.replace("b", "a"), {}),
    "empty column name": ("region_name", "a.tsv", "Node\ta\t\na\t1\t.5\n\t.5\t1\n", {}),
    "correlations as header": (
        "region_name",
        "a.tsv",
        "\t.5\t.4\n.5\t1\t.3\n.4\t.3\t1\n",
        {},
    ),
    "no names": ("regions_unnamed", "a.tsv", "1\t.5\n.5\t1\n", {}),
    "names that are not there": ("regions_missing", "a.tsv", SQUARE, {"regions": ["a", "x"]}),
    "Latin-1": ("table_encoding", "a.tsv", SQUARE.replace("a", "\xe4").encode("latin-1"), {}),
    "UTF-16": ("table_encoding", "a.tsv", SQUARE.encode("utf-16"), {}),
    "open quote": ("unreadable", "a.tsv", SQUARE.replace("\tb", '\t"b', 1), {}),
    "old Mac lines": ("unreadable", "a.tsv", SQUARE.replace("\n", "\r"), {}),
    "long cell": ("table_cell", "a.tsv", SQUARE.replace(".5", "." + "5" * 2000), {}),
    "10^6 columns": ("table_columns", "a.tsv", "\t".join("x" * 10**6) + "\n", {}),
    "long line": ("table_line", "a.tsv", "x" * (5 * 2**20), {}),
    "asymmetric table": ("asymmetric", "a.tsv", SQUARE.replace("a\t1\t.5", "a\t1\t.6"), {}),
    "infinite cell": ("infinite", "a.tsv", SQUARE.replace(".5", "inf"), {}),
    "1e999": ("infinite", "a.tsv", SQUARE.replace(".5", "1e999"), {}),
    "NUL in a table": ("region_name", "a.tsv", SQUARE.replace("a", "a\0"), {}),
    "two subjects for one": ("subject_count", "a.tsv", SQUARE, {"subjects": ["a", "b"]}),
    # time series
    "one volume": ("too_short", "a_timeseries.tsv", "a\tb\n1\t2\n", {}),
    "nine volumes": ("too_short", "a_timeseries.tsv", "a\tb\n" + "1\t2\n3\t1\n4\t4\n" * 3, {}),
    "one region's series": ("region_count", "a_timeseries.tsv", "a\n" + "1\n2\n" * 9, {}),
    "gap": ("nan", "a_timeseries.tsv", "a\tb\nn/a\t2\n" + "1\t2\n2\t1\n" * 9, {}),
    "infinite volume": ("infinite", "a_timeseries.tsv", "a\tb\n-inf\t2\n" + "1\t2\n2\t1\n" * 9, {}),
    "constant": ("all_missing", "a_timeseries.tsv", "a\tb\n" + "1\t2\n" * 20, {}),
    "unnamed series": ("regions_unnamed", "a_timeseries.tsv", "1\t2\n2\t1\n" * 9, {}),
    "named volumes": (
        "table_number",
        "a_timeseries.tsv",
        "name\ta\tb\n" + "v\t1\t2\nw\t2\t1\n" * 9,
        {},
    ),
    # npy
    "npy, wrong magic": ("unreadable", "a.npy", b"\x94NUMPY" + bytes(200), {}),
    "npy, no header": ("unreadable", "a.npy", b"\x93NUMPY\x01\x00", {}),
    "npy, version 9": (
        "unreadable",
        "a.npy",
        npy(b"{}", version=1)[:6] + b"\x09\x00" + bytes(90),
        {},
    ),
    "npy, 1 TiB": ("file_size", "a.npy", npy_shape("(524288, 524288)"), {}),
    "npy, 10^23": ("file_size", "a.npy", npy_shape(f"({10**23},)"), {}),
    "npy, overflow to 0": ("file_size", "a.npy", npy_shape(f"({2**32}, {2**32})"), {}),
    "npy, negative": ("file_size", "a.npy", npy_shape("(-1, 15)"), {}),
    "npy, negative twice": ("file_size", "a.npy", npy_shape("(-1, -15)", data=bytes(60)), {}),
    "npy, cut off": ("file_size", "a.npy", npy_shape("(2, 15)", data=bytes(100)), {}),
    "npy, too long": ("file_size", "a.npy", npy_shape("(2, 15)", data=bytes(121)), {}),
    "npy, fractional shape": ("unreadable", "a.npy", npy_shape("(2.5, 15)"), {}),
    "npy, objects": ("dtype", "a.npy", npy_shape("(1,)", "'|O'", b"cos\nsystem\n"), {}),
    "npy, text": ("dtype", "a.npy", npy_shape("(1,)", "'<U4'", bytes(16)), {}),
    "npy, records": ("dtype", "a.npy", npy_shape("(1,)", "[('r', '<f4')]", bytes(4)), {}),
    "npy, unknown dtype": ("unreadable", "a.npy", npy_shape("(1,)", "'<q9'", bytes(9)), {}),
    "npy, deep header": ("unreadable", "a.npy", npy(b"(" * 9000), {}),
    "npy, header of code": ("unreadable", "a.npy", npy(b"__import__('os').getcwd()\n"), {}),
    "npy, header of 4 GiB": (
        "unreadable",
        "a.npy",
        b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + bytes(99),
        {},
    ),
    "npy, Python 2 header": ("unreadable", "a.npy", npy_shape("(1L, 3L)", data=bytes(12)), {}),
    "npy, nobody": ("no_subjects", "a.npy", npy_shape("(0, 15)"), {}),
    # npz
    "npz, not a zip": ("unreadable", "a.npz", b"PK\x03\x04" + bytes(100), {}),
    "npz, empty": ("file_size", "a.npz", npz({}), {}),
    "npz, two arrays": ("npz_key", "a.npz", npz_of(a=edges(), b=edges()), {}),
    "npz, text only": ("npz_key", "a.npz", npz_of(a=np.array("x")), {}),
    "npz, object array": ("dtype", "a.npz", npz({"fc.npy": npy_shape("()", "'|O'", b"N.")}), {}),
    "npz, shape and bytes differ": (
        "file_size",
        "a.npz",
        npz({"fc.npy": npy_shape("(2, 15)", data=bytes(8))}),
        {},
    ),
    "npz, numbers for names": ("dtype", "a.npz", npz_of(fc=edges(), regions=np.arange(R)), {}),
    "npz, name count": (
        "region_count",
        "a.npz",
        npz_of(fc=edges(), regions=np.array(["a", "b"])),
        {},
    ),
    "npz, bzip2": (
        "unreadable",
        "a.npz",
        npz({"fc.npy": npy_shape("(3,)", data=bytes(12))}, zipfile.ZIP_BZIP2),
        {},
    ),
    "npz, encrypted": ("unreadable", "a.npz", encrypted(npz_of(fc=edges())), {}),
    "npz, 65 members": ("file_size", "a.npz", npz({f"a{i}.npy": b"x" for i in range(65)}), {}),
    "npz, no npy inside": ("unreadable", "a.npz", npz({"fc.npy": b"hello"}), {}),
    # NIfTI
    "nii without atlas": ("atlas_missing", "a.nii", nifti((2, 2, 2, 9)), {}),
    "nii, not NIfTI": ("unreadable", "a.nii", bytes(400), {"atlas": True}),
    "nii, dims 32767": (
        "file_too_large",
        "a.nii",
        nifti((32767, 32767, 32767, 100)),
        {"atlas": True},
    ),
    "nii, cut off": ("file_size", "a.nii", nifti((2, 2, 2, 10), data=bytes(319)), {"atlas": True}),
    "nii, negative dim": ("unreadable", "a.nii", nifti((2, -2, 2, 10)), {"atlas": True}),
    "nii, zero dim": ("unreadable", "a.nii", nifti((2, 0, 2, 10)), {"atlas": True}),
    "nii, no axes": ("unreadable", "a.nii", nifti(()), {"atlas": True}),
    "nii, offset NaN": ("unreadable", "a.nii", nifti((2, 2, 2, 9), offset=np.nan), {"atlas": True}),
    "nii, offset 1e30": ("unreadable", "a.nii", nifti((2, 2, 2, 9), offset=1e30), {"atlas": True}),
    "nii, offset -1": ("unreadable", "a.nii", nifti((2, 2, 2, 9), offset=-1), {"atlas": True}),
    "nii, voxel NaN": ("unreadable", "a.nii", nifti((2, 2, 2, 9), voxel=np.nan), {"atlas": True}),
    "nii, complex": ("dtype", "a.nii", nifti((2, 2, 2, 9), code=32, bits=64), {"atlas": True}),
    "nii, colours": ("dtype", "a.nii", nifti((2, 2, 2, 9), code=128, bits=24), {"atlas": True}),
    "nii, bits differ": ("unreadable", "a.nii", nifti((2, 2, 2, 9), bits=64), {"atlas": True}),
    "nii, 3-D": ("shape", "a.nii", nifti((2, 2, 2), data=bytes(32)), {"atlas": True}),
    "nii, other grid": ("grid", "a.nii", nifti((3, 2, 2, 10), data=bytes(480)), {"atlas": True}),
    "nii, other voxels": (
        "grid",
        "a.nii",
        nifti((2, 2, 2, 10), voxel=3, data=bytes(320)),
        {"atlas": True},
    ),
    "nii, too short": ("too_short", "a.nii", nifti((2, 2, 2, 5), data=bytes(160)), {"atlas": True}),
    "nii, all zero": (
        "all_missing",
        "a.nii",
        nifti((2, 2, 2, 12), data=bytes(384)),
        {"atlas": True},
    ),
    "nii, infinite": (
        "infinite",
        "a.nii",
        nifti((2, 2, 2, 12), data=struct.pack("<f", np.inf) * 96),
        {"atlas": True},
    ),
    "nii.gz, not gzip": ("unreadable", "a.nii.gz", nifti((2, 2, 2, 9)), {"atlas": True}),
    "nii.gz, cut off": (
        "unreadable",
        "a.nii.gz",
        gzip.compress(nifti((2, 2, 2, 12), data=os.urandom(384)))[:300],
        {"atlas": True},
    ),
    "nii.gz, fewer bytes than declared": (
        "unreadable",
        "a.nii.gz",
        gzip.compress(nifti((2, 2, 2, 12), data=bytes(383))),
        {"atlas": True},
    ),
    "nii.gz, dims 32767": (
        "file_too_large",
        "a.nii.gz",
        gzip.compress(nifti((32767, 32767, 32767, 100))),
        {"atlas": True},
    ),
    "ptseries, plain NIfTI": (
        "cifti_axes",
        "a.ptseries.nii",
        nifti((2, 2, 2, 12), data=bytes(384)),
        {},
    ),
    "pconn, zeros": ("unreadable", "a.pconn.nii", bytes(1000), {}),
    # HDF5
    "h5, not HDF5": ("unreadable", "a.h5", b"\x89HDF\r\n\x1a\n" + bytes(500), {}),
    # names and paths
    "unknown ending": ("format", "a.mat", b"MATLAB 5.0", {}),
    "no ending": ("format", "connectome", b"x", {}),
    "regions file without a name column": (
        "names_column",
        "a.npy",
        npy_shape("(15,)", data=edges(1).astype("<f4").tobytes()),
        {"regions": ("r.csv", "row,x\n1,2\n")},
    ),
    "regions file with a short row": (
        "table_ragged",
        "a.npy",
        npy_shape("(15,)", data=edges(1).astype("<f4").tobytes()),
        {"regions": ("r.csv", "row,name\n1\n")},
    ),
    "regions file that is empty": (
        "file_empty",
        "a.npy",
        npy_shape("(15,)", data=edges(1).astype("<f4").tobytes()),
        {"regions": ("r.csv", "")},
    ),
}


def write_atlas(folder: Path, labels: list[int], names: str) -> tuple[Path, Path]:
    image = folder / "atlas.nii"
    image.write_bytes(nifti((2, 2, 2), code=8, data=np.array(labels, "<i4").tobytes()))
    (folder / "atlas.tsv").write_text(names)
    return image, folder / "atlas.tsv"


LABELS = "index\tname\n1\ta\n2\tb\n"


def options_in(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Put files named by a row into the folder."""
    made = dict(options)
    if made.get("atlas") is True:
        made["atlas"] = write_atlas(folder, [0, 1, 1, 1, 2, 2, 2, 2], LABELS)
    if isinstance(made.get("regions"), tuple):
        name, text = made["regions"]
        made["regions"] = folder / name
        made["regions"].write_text(text)
    return made


@pytest.mark.parametrize("row", FILES)
def test_bad_file(row: str, tmp_path: Path) -> None:
    code, name, content, options = FILES[row]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DTwinInputError) as caught:
        read_connectomes(path, **options_in(tmp_path, options))
    assert caught.value.code == code
    assert caught.value.fix


ATLASES: dict[str, tuple[str, list[int], str]] = {
    "label without a name": ("atlas", [0, 1, 1, 1, 2, 2, 2, 3], LABELS),
    "label below the table": ("atlas", [1, 1, 1, 1, 2, 2, 2, 2], "index\tname\n2\ta\n3\tb\n"),
    "negative label": ("atlas", [-1, 1, 1, 1, 2, 2, 2, 2], LABELS),
    "no numbers": ("atlas", [0, 1, 1, 1, 2, 2, 2, 2], "index\tname\nx\ta\ny\tb\n"),
    "no names": ("names_column", [0, 1, 1, 1, 2, 2, 2, 2], "index\tcolour\n1\ta\n2\tb\n"),
    "number twice": ("atlas", [0, 1, 1, 1, 2, 2, 2, 2], "index\tname\n1\ta\n1\tb\n"),
    "name twice": ("region_duplicate", [0, 1, 1, 1, 2, 2, 2, 2], "index\tname\n1\ta\n2\ta\n"),
}


@pytest.mark.parametrize("row", ATLASES)
def test_bad_atlas(row: str, tmp_path: Path) -> None:
    code, labels, names = ATLASES[row]
    bold = np.random.default_rng(0).normal(size=96).astype("<f4").tobytes()
    (tmp_path / "a.nii").write_bytes(nifti((2, 2, 2, 12), data=bold))
    with pytest.raises(DTwinInputError) as caught:
        read_connectomes(tmp_path / "a.nii", atlas=write_atlas(tmp_path, labels, names))
    assert caught.value.code == code


PATHS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "absent": ("file_missing", lambda folder: folder / "absent.npy"),
    "NUL": ("file_missing", lambda folder: str(folder / "a\0.npy")),
    "too long": ("file_missing", lambda folder: folder / ("x" * 5000 + ".npy")),
    "dangling link": ("file_missing", lambda folder: _link(folder, folder / "absent")),
    "link to itself": ("file_missing", lambda folder: _link(folder, folder / "link.npy")),
    "pipe": ("file_kind", lambda folder: _pipe(folder)),
    "device": ("file_kind", lambda folder: _link(folder, Path("/dev/zero"))),
    "empty folder": ("folder_files", lambda folder: folder),
    "empty text": ("argument", lambda folder: ""),
    "None": ("argument", lambda folder: None),
    "a number": ("argument", lambda folder: 0),
    "an array": ("argument", lambda folder: fc()),
}


def _link(folder: Path, target: Path) -> Path:
    (folder / "link.npy").symlink_to(target)
    return folder / "link.npy"


def _pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.npy")
    return folder / "pipe.npy"


@pytest.mark.parametrize("row", PATHS)
def test_bad_path(row: str, tmp_path: Path) -> None:
    code, make = PATHS[row]
    with pytest.raises(DTwinInputError) as caught:
        read_connectomes(make(tmp_path))
    assert caught.value.code == code


@pytest.mark.parametrize(
    "options",
    [{"atlas": "atlas.nii"}, {"atlas": ("a.nii",)}, {"bad_subjects": "skip"}, {"regions": ""}],
    ids=str,
)
def test_bad_argument(options: dict[str, Any], tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", fc())
    with pytest.raises(DTwinInputError) as caught:
        read_connectomes(tmp_path / "a.npy", **options)
    assert caught.value.code == "argument"


def test_two_files_of_one_subject_are_refused(tmp_path: Path) -> None:
    for name in ("sub-1_seg-x_relmat.tsv", "sub-1_seg-y_relmat.tsv"):
        (tmp_path / name).write_text(SQUARE)
    with pytest.raises(DTwinInputError, match=r"\[subject_duplicate\]"):
        read_connectomes(tmp_path)


def test_folder_of_different_regions_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sub-1_relmat.tsv").write_text(SQUARE)
    (tmp_path / "sub-2_relmat.tsv").write_text(SQUARE.replace("b", "c"))
    with pytest.raises(DTwinInputError, match=r"\[regions_missing\].*subject sub-2"):
        read_connectomes(tmp_path)


# HDF5 files that ask for more than their own numbers


def hdf5(path: Path, kind: str) -> Path:
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
        elif kind == "3-D":
            file["x"] = data[None]
        elif kind == "other size":
            file["x"] = data[:-1]
        elif kind == "never written":
            file.create_dataset("x", (R, 10**9), "f8", chunks=(R, 1000))
        elif kind == "huge chunks":
            file.create_dataset("x", data=data, chunks=(R, 30), maxshape=(None, None))
            file.create_dataset("unused", (1,), "i1")
            del file["x"]
            file.create_dataset("x", (R, 30), "f8", chunks=(2000, 5000), maxshape=(None, None))
            file["x"][0, 0] = 1
        elif kind == "lzf":
            file.create_dataset("x", data=data, compression="lzf")
        elif kind == "chunk that inflates":
            x = file.create_dataset("x", (R, 30), "f8", chunks=(R, 30), compression="gzip")
            x.id.write_direct_chunk((0, 0), zlib.compress(bytes(2**26)))
        elif kind == "2 GiB of zeros":
            shape = (R, 2**27 // R)
            x = file.create_dataset("x", shape, "f8", chunks=(R, 2**20), compression="gzip")
            raw = zlib.compress(bytes(R * 2**23))
            for start in range(0, shape[1], 2**20):
                x.id.write_direct_chunk((0, start), raw)
        elif kind == "many objects":
            for number in range(1100):
                file.create_group(f"g{number}")
    return path


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("external link", "hdf5_unsafe"),
        ("soft link only", "hdf5_dataset"),
        ("virtual", "hdf5_unsafe"),
        ("external storage", "hdf5_unsafe"),
        ("two data sets", "hdf5_dataset"),
        ("integers", "hdf5_dataset"),
        ("3-D", "hdf5_dataset"),
        ("other size", "region_count"),
        ("never written", "file_size"),
        ("huge chunks", "file_size"),
        ("lzf", "hdf5_unsafe"),
        ("chunk that inflates", "file_size"),
        ("2 GiB of zeros", "file_bomb"),
        ("many objects", "hdf5_unsafe"),
        ("empty", "hdf5_dataset"),
    ],
)
def test_bad_hdf5(kind: str, code: str, tmp_path: Path) -> None:
    path = hdf5(tmp_path / "a.h5", kind)
    with pytest.raises(DTwinInputError) as caught:
        read_connectomes(path, regions=list("abcdef"))
    assert caught.value.code == code


# Bombs: small files that declare gigabytes.

BOMB_BYTES = 2**31
MAX_GROWTH_BYTES = 64 * 2**20
MAX_SECONDS = 2.0


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
    head = nifti((1024, 1024, 512, 1))  # 2 GiB of float32
    body, crc = deflated_zeros(head, BOMB_BYTES)
    tail = struct.pack("<II", crc, (len(head) + BOMB_BYTES) % 2**32)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + body + tail


BOMBS = {"a.npz": npz_bomb, "a.nii.gz": nii_gz_bomb}


@pytest.fixture(scope="module")
def bombs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bombs")
    for name, make in BOMBS.items():
        (folder / name).write_bytes(make())
    return folder


def peak_rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_without_inflating_them(name: str, bombs: Path, tmp_path: Path) -> None:
    import nibabel.nifti2  # noqa: F401 - imported before the clock runs

    atlas = write_atlas(tmp_path, [0, 1, 1, 1, 2, 2, 2, 2], LABELS)
    assert (bombs / name).stat().st_size < 3 * 2**20
    before = peak_rss()
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(DTwinInputError) as caught:
        read_connectomes(bombs / name, atlas=atlas)
    seconds = time.perf_counter() - start
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.code == "file_bomb"
    assert peak < MAX_GROWTH_BYTES
    assert peak_rss() - before < MAX_GROWTH_BYTES
    assert seconds < MAX_SECONDS


def test_bomb_that_lies_about_its_stored_bytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(npz_bomb(compressed=2**30))
    with pytest.raises(DTwinInputError, match=r"\[file_size\].*1,073,741,824"):
        read_connectomes(tmp_path / "a.npz")


def test_the_bombs_are_real(bombs: Path) -> None:
    """The archives are sound: an ordinary reader would inflate them."""
    with zipfile.ZipFile(bombs / "a.npz") as archive, archive.open("fc.npy") as stream:
        assert np.lib.format.read_magic(stream) == (1, 0)
        assert archive.getinfo("fc.npy").file_size > BOMB_BYTES
        assert len(stream.read(2**20)) == 2**20
    with gzip.open(bombs / "a.nii.gz") as stream:
        assert stream.read(348)[344:347] == b"n+1"
        assert len(stream.read(2**20)) == 2**20
