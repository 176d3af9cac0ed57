"""Every file format: what is written is read back, and damage is one typed error."""

from __future__ import annotations

import gzip
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dtwin_fast.connectome import Connectomes, vectorise
from dtwin_fast.errors import DTwinInputError, MissingExtraError
from dtwin_fast.readers import FORMATS, read_connectomes
from dtwin_fast.readers.timeseries import connectome_of_series

R = 6
T = 40
NAMES = tuple(f"area {i}" for i in range(R))
FloatArray = npt.NDArray[np.float64]

PEARSON_ATOL = 1e-12
"""Float64 rounding of two orders of summation over 40 volumes."""
TEXT_ATOL = 1e-7
"""Half a unit of float32 near 1."""


def series(seed: int = 0) -> FloatArray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(T, R)) @ rng.normal(size=(R, R)) + 100


def table(path: Path, header: list[str], rows: list[list[Any]], mark: str = "\t") -> Path:
    lines = [header, *rows] if header else rows
    path.write_text("".join(mark.join(map(str, line)) + "\n" for line in lines), "utf-8")
    return path


def write_relmat(path: Path, fc: FloatArray, names: tuple[str, ...] = NAMES) -> Path:
    rows = [[name, *row] for name, row in zip(names, fc.tolist(), strict=True)]
    return table(path, ["Node", *names], rows, "\t" if path.suffix == ".tsv" else ",")


def write_timeseries(path: Path, data: FloatArray, names: tuple[str, ...] = NAMES) -> Path:
    return table(path, list(names), data.tolist())


def write_cifti(
    path: Path,
    data: FloatArray,
    row_names: tuple[str, ...] = NAMES,
    column_names: tuple[str, ...] = NAMES,
) -> Path:
    import nibabel as nib
    from nibabel.cifti2.cifti2_axes import ParcelsAxis, SeriesAxis

    size = data.shape[1]
    voxels = [np.array([[i, 0, 0]]) for i in range(size)]
    rows, columns = (
        ParcelsAxis(np.array(names), voxels, [{}] * size, np.eye(4), (size, 1, 1), {})
        for names in (row_names, column_names)
    )
    if not path.name.endswith("pconn.nii"):
        rows = SeriesAxis(0, 0.8, len(data))
    header = nib.cifti2.Cifti2Header.from_axes((rows, columns))
    nib.Cifti2Image(data.astype(np.float32), header).to_filename(path)
    return path


def write_hdf5(path: Path, data: FloatArray, **options: Any) -> Path:
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset("dataset", data=data, **options)
    return path


def write_bold(path: Path, data: FloatArray) -> tuple[Path, tuple[Path, Path]]:
    """Every region is a slab of 2 x 2 voxels; the voxels' mean is the region's series."""
    import nibabel as nib

    affine = np.diag([2.0, 2, 2, 1])
    labels = np.repeat(np.arange(1, R + 1, dtype=np.int16), 4).reshape(R, 2, 2)
    noise = np.array([[-1.0, 1], [2, -2]])
    bold = data.T[:, None, None, :] + noise[None, :, :, None]
    image = path.parent / "atlas.nii.gz"
    nib.Nifti1Image(bold.astype(np.float32), affine).to_filename(path)
    nib.Nifti1Image(labels, affine).to_filename(image)
    rows = [[i + 1, name] for i, name in enumerate(NAMES)]
    return path, (image, table(path.parent / "atlas.tsv", ["index", "name"], rows))


def write_npz(path: Path, fc: FloatArray) -> Path:
    np.savez_compressed(path, fc=fc, regions=np.array(NAMES), subjects=np.array(["sub-07"]))
    return path


def write_npy(path: Path, fc: FloatArray) -> Path:
    np.save(path, fc)
    return path


WRITERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "sub-07_relmat.tsv": lambda p: {"path": write_relmat(p, np.corrcoef(series().T))},
    "sub-07_seg-x_conmat.tsv": lambda p: {"path": write_relmat(p, np.corrcoef(series().T))},
    "sub-07.csv": lambda p: {"path": write_relmat(p, np.corrcoef(series().T))},
    "sub-07_timeseries.tsv": lambda p: {"path": write_timeseries(p, series())},
    "sub-07.ptseries.nii": lambda p: {"path": write_cifti(p, series())},
    "sub-07.pconn.nii": lambda p: {"path": write_cifti(p, np.corrcoef(series().T))},
    "sub-07_bold.nii": lambda p: dict(zip(("path", "atlas"), write_bold(p, series()), strict=True)),
    "sub-07_bold.nii.gz": lambda p: dict(
        zip(("path", "atlas"), write_bold(p, series()), strict=True)
    ),
    "sub-07.npy": lambda p: {"path": write_npy(p, np.corrcoef(series().T)), "regions": NAMES},
    "sub-07.npz": lambda p: {"path": write_npz(p, np.corrcoef(series().T)[None])},
    "sub-07.h5": lambda p: {"path": write_hdf5(p, series().T), "regions": NAMES},
    "sub-07.hdf5": lambda p: {
        "path": write_hdf5(p, series(), compression="gzip", shuffle=True),
        "regions": NAMES,
    },
}


def test_every_format_is_tested() -> None:
    assert [end for end in FORMATS if not any(name.endswith(end) for name in WRITERS)] == []


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_connectome(name: str, tmp_path: Path) -> None:
    made = read_connectomes(**WRITERS[name](tmp_path / name))
    assert made.subjects == ("sub-07",)
    assert made.regions == NAMES
    assert made.flags == ((),)
    wanted = vectorise(np.corrcoef(series().T))
    atol = 1e-5 if "nii" in name else TEXT_ATOL  # float32 voxels at a level of 100
    np.testing.assert_allclose(made.edges[0], wanted, rtol=0, atol=atol)


DAMAGED = [name for name in WRITERS if name not in ("sub-07_seg-x_conmat.tsv", "sub-07.csv")]


def read_or_refuse(request: dict[str, Any]) -> str:
    try:
        made = read_connectomes(**request)
    except DTwinInputError as error:
        return error.code
    assert isinstance(made, Connectomes)
    return "read"


@pytest.mark.parametrize("name", DAMAGED)
def test_a_file_cut_off_anywhere_is_refused_or_still_whole(name: str, tmp_path: Path) -> None:
    request = WRITERS[name](tmp_path / name)
    whole = request["path"].read_bytes()
    codes = []
    for part in range(16):
        request["path"].write_bytes(whole[: len(whole) * part // 16])
        codes.append(read_or_refuse(request))
    assert codes[0] == "file_empty"
    assert set(codes[1:8]) & {"read"} == set()


@pytest.mark.parametrize("name", DAMAGED)
def test_flipped_bits_are_refused_or_harmless(name: str, tmp_path: Path) -> None:
    request = WRITERS[name](tmp_path / name)
    whole = request["path"].read_bytes()
    rng = np.random.default_rng(7)
    # Half of the flips hit the first kilobyte, where the headers are.
    places = np.concatenate(
        [rng.integers(0, min(len(whole), 1024), 150), rng.integers(0, len(whole), 150)]
    )
    codes = set()
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        request["path"].write_bytes(damaged)
        codes.add(read_or_refuse(request))
    assert codes - {"read"}, "no flip was noticed"


@given(order=st.permutations(range(R)))
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_order_of_regions_in_a_file_does_not_matter(order: list[int], tmp_path: Path) -> None:
    fc = np.corrcoef(series().T)
    straight = read_connectomes(write_relmat(tmp_path / "sub-1_relmat.tsv", fc))
    names = tuple(NAMES[i] for i in order)
    path = write_relmat(tmp_path / "sub-1_relmat.tsv", fc[order][:, order], names)
    shuffled = read_connectomes(path, regions=NAMES)
    assert shuffled.regions == NAMES
    np.testing.assert_array_equal(shuffled.edges, straight.edges)


@pytest.mark.parametrize("mark", ["\t", ",", ";"], ids=["tab", "comma", "semicolon"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("start", ["", "\ufeff"], ids=["plain", "BOM"])
@pytest.mark.parametrize("corner", ["Node", "", "region"], ids=["Node", "empty", "region"])
def test_dialects_of_tables(mark: str, end: str, start: str, corner: str, tmp_path: Path) -> None:
    fc = np.corrcoef(series().T)
    path = tmp_path / ("sub-1.tsv" if mark == "\t" else "sub-1.csv")
    lines = [[corner, *NAMES], *([n, *map(str, row)] for n, row in zip(NAMES, fc, strict=True))]
    path.write_bytes((start + end.join(mark.join(line) for line in lines)).encode())
    made = read_connectomes(path)
    assert made.regions == NAMES
    np.testing.assert_array_equal(made.edges[0], vectorise(fc).astype(np.float32))


def test_missing_cells_are_missing_regions(tmp_path: Path) -> None:
    rows = [[f"{value}" for value in row] for row in np.corrcoef(series().T)]
    for i in range(R):
        rows[2][i] = rows[i][2] = "n/a"
    path = table(
        tmp_path / "sub-1_relmat.tsv",
        ["", *NAMES],
        [[n, *r] for n, r in zip(NAMES, rows, strict=True)],
    )
    assert read_connectomes(path).flags == (("missing_regions:1",),)


def test_headerless_square_takes_the_names_given(tmp_path: Path) -> None:
    fc = np.corrcoef(series().T)
    path = table(tmp_path / "sub-1_relmat.tsv", [], fc.tolist())
    assert read_connectomes(path, regions=NAMES).regions == NAMES


@pytest.mark.parametrize("kind", ["names", "csv", "txt", "tsv"])
def test_names_come_as_a_list_or_as_a_table(kind: str, tmp_path: Path) -> None:
    fc = np.corrcoef(series().T)
    np.save(tmp_path / "cohort.npy", np.stack([fc, fc]))
    regions: Any = list(NAMES)
    subjects: Any = ["anna", "bert"]
    if kind == "csv":
        regions = table(tmp_path / "r.csv", ["row", "Label"], [*enumerate(NAMES)], ",")
        subjects = table(tmp_path / "s.csv", ["age", "subject"], [[3, "anna"], [4, "bert"]], ",")
    elif kind == "tsv":
        regions = table(tmp_path / "r.tsv", ["name"], [[name] for name in NAMES])
        subjects = table(tmp_path / "s.tsv", ["participant_id", "x"], [["anna", 1], ["bert", 2]])
    elif kind == "txt":
        regions = table(tmp_path / "r.txt", [], [[name] for name in NAMES])
        subjects = str(table(tmp_path / "s.txt", [], [["anna"], ["bert"]]))
    made = read_connectomes(tmp_path / "cohort.npy", regions=regions, subjects=subjects)
    assert (made.regions, made.subjects) == (NAMES, ("anna", "bert"))


CHOICE = "row,label,Area name,id,id\n" + "".join(
    f"{i},left,{name},x,y\n" for i, name in enumerate(NAMES)
)


@pytest.mark.parametrize("field", ["regions", "subjects"])
def test_a_column_is_chosen_after_a_colon(field: str, tmp_path: Path) -> None:
    np.save(tmp_path / "cohort.npy", np.stack([np.corrcoef(series(i).T) for i in range(R)]))
    (tmp_path / "r.csv").write_text(CHOICE)
    options: Any = {field: f"{tmp_path / 'r.csv'}:Area name"}
    made = read_connectomes(tmp_path / "cohort.npy", **options)
    assert getattr(made, field) == NAMES


def test_the_title_of_the_only_column_is_no_name(tmp_path: Path) -> None:
    np.save(tmp_path / "sub-1.npy", np.corrcoef(series().T))
    source = table(tmp_path / "r.txt", ["atlas"], [[name] for name in NAMES])
    assert read_connectomes(tmp_path / "sub-1.npy", regions=f"{source}:atlas").regions == NAMES


def test_a_file_whose_own_name_has_the_colon_is_taken_whole(tmp_path: Path) -> None:
    np.save(tmp_path / "sub-1.npy", np.corrcoef(series().T))
    (tmp_path / "r.csv").write_text(CHOICE)
    whole = table(tmp_path / "r.csv:row", [], [[name] for name in NAMES])
    assert read_connectomes(tmp_path / "sub-1.npy", regions=whole).regions == NAMES


@pytest.mark.parametrize(
    ("source", "code", "fix"),
    [
        ("r.csv", "region_duplicate", "or choose another column as r.csv:COLUMN"),
        ("r.csv:label", "region_duplicate", "or choose another column as r.csv:COLUMN"),
        ("r.csv:area name", "names_column", "Choose a column as r.csv:COLUMN"),
        ("r.csv:id", "names_column", "Choose a column as r.csv:COLUMN"),
        ("r.csv:", "names_column", "Choose a column as r.csv:COLUMN"),
        ("untitled.csv", "names_column", "Choose a column as untitled.csv:COLUMN"),
        ("absent.csv:label", "file_missing", "Check the path"),
    ],
    ids=[
        "repeats",
        "chosen repeats",
        "other case",
        "title twice",
        "no title",
        "no usual title",
        "no such file",
    ],
)
def test_names_that_cannot_be_taken(source: str, code: str, fix: str, tmp_path: Path) -> None:
    np.save(tmp_path / "sub-1.npy", np.corrcoef(series().T))
    (tmp_path / "r.csv").write_text(CHOICE)
    (tmp_path / "untitled.csv").write_text("row,x\n1,2\n")
    with pytest.raises(DTwinInputError) as caught:
        read_connectomes(tmp_path / "sub-1.npy", regions=str(tmp_path / source))
    assert caught.value.code == code
    assert fix in caught.value.fix


@pytest.mark.parametrize("key", ["fc", "edges", "connectomes", "anything"])
def test_npz_keys(key: str, tmp_path: Path) -> None:
    fc = np.stack([np.corrcoef(series(i).T) for i in range(2)])
    np.savez(tmp_path / "c.npz", **{key: vectorise(fc), "note": np.array("text")})
    made = read_connectomes(tmp_path / "c.npz")
    np.testing.assert_array_equal(made.edges, vectorise(fc).astype(np.float32))


@pytest.mark.parametrize("version", [(1, 0), (2, 0)], ids=["1.0", "2.0"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_layouts(version: tuple[int, int], order: Any, tmp_path: Path) -> None:
    fc = np.stack([np.corrcoef(series(i).T) for i in range(2)])
    path = tmp_path / "c.npy"
    with path.open("wb") as file:
        np.lib.format.write_array(file, np.asarray(fc, ">f4", order=order), version=version)
    np.testing.assert_array_equal(read_connectomes(path).edges, vectorise(fc.astype(np.float32)))


def test_fisher_z_files(tmp_path: Path) -> None:
    fc = np.corrcoef(series().T)
    fc[range(R), range(R)] = 0
    np.save(tmp_path / "z.npy", np.arctanh(fc) * 2)
    with pytest.raises(DTwinInputError, match="fisher_z_as_r"):
        read_connectomes(tmp_path / "z.npy")
    made = read_connectomes(tmp_path / "z.npy", is_fisher_z=True)
    np.testing.assert_array_equal(
        made.fisher_z()[0], vectorise(np.arctanh(fc) * 2).astype(np.float32)
    )


def test_symlinks_to_files_are_followed(tmp_path: Path) -> None:
    path = write_relmat(tmp_path / "sub-1_relmat.tsv", np.corrcoef(series().T))
    (tmp_path / "sub-2_relmat.tsv").symlink_to(path)
    assert read_connectomes(tmp_path).subjects == ("sub-1", "sub-2")


def bids_folder(folder: Path) -> Path:
    """Three people; the second has two sessions and another order of regions."""
    for number, (subject, extra) in enumerate(
        [("01", ""), ("02", "_ses-a"), ("02", "_ses-b"), ("03", "")]
    ):
        func = folder / f"sub-{subject}" / "func"
        func.mkdir(parents=True, exist_ok=True)
        order = list(range(R))[:: -1 if subject == "02" else 1]
        fc = np.corrcoef(series(number).T)[order][:, order]
        names = tuple(NAMES[i] for i in order)
        write_relmat(func / f"sub-{subject}{extra}_task-rest_seg-x_relmat.tsv", fc, names)
    table(folder / "participants.tsv", ["participant_id"], [["sub-01"]])
    return folder


def test_folders_are_read_by_path_and_aligned_by_name(tmp_path: Path) -> None:
    made = read_connectomes(bids_folder(tmp_path))
    assert made.subjects == ("sub-01", "sub-02_ses-a", "sub-02_ses-b", "sub-03")
    assert made.regions == NAMES
    wanted = np.stack([vectorise(np.corrcoef(series(i).T)) for i in range(4)])
    np.testing.assert_array_equal(made.edges, wanted.astype(np.float32))


def test_unreadable_files_of_a_folder_are_listed(tmp_path: Path) -> None:
    folder = bids_folder(tmp_path)
    (folder / "sub-03/func/sub-03_task-rest_seg-x_relmat.tsv").write_text("broken")
    with pytest.raises(DTwinInputError, match="subject sub-03"):
        read_connectomes(folder)
    made = read_connectomes(folder, bad_subjects="drop")
    assert made.subjects == ("sub-01", "sub-02_ses-a", "sub-02_ses-b")
    assert [error.subject for error in made.rejected] == ["sub-03"]


def people(folder: Path, *names: str) -> list[npt.NDArray[np.float32]]:
    """One .npy a name; the edges of each, in the order of the names."""
    fc = [np.corrcoef(series(number).T) for number in range(len(names))]
    for name, one in zip(names, fc, strict=True):
        np.save(folder / f"{name}.npy", one)
    return [vectorise(one).astype(np.float32) for one in fc]


@pytest.mark.parametrize(
    ("files", "given"),
    [
        (["sub-01", "sub-02"], ["sub-02", "sub-01"]),
        (["sub-01", "sub-02"], ["02", "01"]),
        (["01", "02"], ["sub-02", "sub-01"]),
        (["anna", "bert"], ["bert", "anna"]),
        (["NDAR_INV1", "sub-NDARINV2"], ["NDARINV2", "NDAR_INV1"]),
    ],
    ids=["BIDS", "without sub-", "sub- added", "plain names", "TCP"],
)
def test_listed_subjects_are_found_by_their_file_names(
    files: list[str], given: list[str], tmp_path: Path
) -> None:
    first, second = people(tmp_path, *files)
    made = read_connectomes(tmp_path, subjects=given)
    assert made.subjects == tuple(given)
    np.testing.assert_array_equal(made.edges, [second, first])


def test_listed_subjects_keep_their_errors_and_the_regions_their_order(tmp_path: Path) -> None:
    folder = bids_folder(tmp_path)
    (folder / "sub-03/func/sub-03_task-rest_seg-x_relmat.tsv").write_text("broken")
    given = ["03", "02_ses-b", "02_ses-a", "01"]
    made = read_connectomes(folder, subjects=given, bad_subjects="drop")
    assert made.subjects == ("02_ses-b", "02_ses-a", "01")
    assert [error.subject for error in made.rejected] == ["03"]
    straight = read_connectomes(folder, bad_subjects="drop")
    assert made.regions == straight.regions == NAMES
    np.testing.assert_array_equal(made.edges, straight.edges[::-1])


@pytest.mark.parametrize("listed", [["sub-02", "sub-01"], ["sub-01", "01"]], ids=str)
def test_files_without_ids_are_named_by_position(listed: list[str], tmp_path: Path) -> None:
    edges = people(tmp_path, "scan1", "scan2")
    np.save(tmp_path.with_suffix(".npy"), np.stack(edges))
    for path in (tmp_path, tmp_path.with_suffix(".npy")):
        made = read_connectomes(path, subjects=listed)
        assert made.subjects == tuple(listed)
        np.testing.assert_array_equal(made.edges, edges)


@pytest.mark.parametrize(
    ("files", "given", "code"),
    [
        (["sub-01", "sub-02"], ["a", "b"], "subject_mismatch"),
        (["sub-01", "sub-02"], ["sub-01", "sub-03"], "subject_mismatch"),
        (["sub-01", "sub-02"], ["sub-01"], "subject_mismatch"),
        (["sub-01", "sub-02"], ["sub-01", "sub-02", "sub-03"], "subject_mismatch"),
        (["sub-01", "sub-02"], ["sub-01", "01"], "subject_mismatch"),
        (["sub-01_seg-x", "sub-01_seg-y"], ["sub-01", "sub-02"], "subject_mismatch"),
        (["anna", "bert"], ["bert", "carl"], "subject_mismatch"),
        (["scan1", "scan2"], ["a"], "subject_count"),
        (["scan1", "scan2"], [], "subject_count"),
    ],
    ids=[
        "all others",
        "one other",
        "one too few",
        "one too many",
        "one twice",
        "two files of one",
        "one other plain name",
        "too few by position",
        "none",
    ],
)
@pytest.mark.parametrize("bad_subjects", ["raise", "drop"])
def test_other_subjects_than_the_files_are_refused(
    files: list[str], given: list[str], code: str, bad_subjects: Any, tmp_path: Path
) -> None:
    people(tmp_path, *files)
    with pytest.raises(DTwinInputError) as caught:
        read_connectomes(tmp_path, subjects=given, bad_subjects=bad_subjects)
    assert caught.value.code == code


def write_cohort(path: Path, *subjects: str) -> FloatArray:
    """An npz with its own subjects; the edges as they are read."""
    fc = np.stack([np.corrcoef(series(number).T) for number in range(len(subjects))])
    np.savez(path, fc=fc, subjects=np.array(subjects))
    return vectorise(fc).astype(np.float32)


def test_subjects_of_an_npz_are_put_in_the_order_asked_for(tmp_path: Path) -> None:
    edges = write_cohort(tmp_path / "c.npz", "sub-1", "sub-2", "sub-3")
    made = read_connectomes(tmp_path / "c.npz", subjects=["3", "sub-1", "sub-2"])
    assert made.subjects == ("3", "sub-1", "sub-2")
    np.testing.assert_array_equal(made.edges, edges[[2, 0, 1]])
    with pytest.raises(DTwinInputError) as caught:
        read_connectomes(tmp_path / "c.npz", subjects=["sub-3", "sub-1", "sub-4"])
    assert caught.value.code == "subject_mismatch"
    assert (caught.value.wanted, caught.value.got) == ("sub-4", "sub-2")


def test_order_of_npz_subjects_holds_when_some_are_dropped(tmp_path: Path) -> None:
    fc = np.stack([np.corrcoef(series(number).T) for number in range(3)])
    fc[1] = np.nan
    np.savez(tmp_path / "c.npz", fc=fc, subjects=np.array(["a", "b", "c"]))
    made = read_connectomes(tmp_path / "c.npz", subjects=["c", "b", "a"], bad_subjects="drop")
    assert made.subjects == ("c", "a")
    assert [error.subject for error in made.rejected] == ["b"]
    np.testing.assert_array_equal(made.edges, vectorise(fc[[2, 0]]).astype(np.float32))


def test_npz_files_of_a_folder_must_be_named_after_their_subject(tmp_path: Path) -> None:
    for session in "ab":
        write_cohort(tmp_path / f"sub-01_ses-{session}.npz", "sub-01")
    assert read_connectomes(tmp_path).subjects == ("sub-01_ses-a", "sub-01_ses-b")
    write_cohort(tmp_path / "sub-02.npz", "sub-03")
    with pytest.raises(DTwinInputError, match=r"\[subject_mismatch\] sub-02.npz, subject sub-02"):
        read_connectomes(tmp_path)


def test_an_empty_list_of_subjects_is_no_list(tmp_path: Path) -> None:
    people(tmp_path, "cohort")
    with pytest.raises(DTwinInputError, match=r"\[subject_count\]"):
        read_connectomes(tmp_path / "cohort.npy", subjects=[])


def test_fisher_z_in_one_file_stops_the_folder(tmp_path: Path) -> None:
    for name, largest in (("sub-01", 0.5), ("sub-02", 1.5), ("sub-03", 0.5)):
        np.save(tmp_path / f"{name}.npy", np.linspace(0.1, largest, 15))
    with pytest.raises(DTwinInputError, match=r"\[fisher_z_as_r\].*subject sub-02"):
        read_connectomes(tmp_path, bad_subjects="drop")


def test_subjects_who_lack_the_wanted_regions_can_be_dropped(tmp_path: Path) -> None:
    fc = np.stack([np.corrcoef(series(number).T) for number in range(2)])
    fc[0, :3] = fc[0, :, :3] = np.nan
    np.savez(tmp_path / "c.npz", fc=fc, regions=np.array(NAMES))
    made = read_connectomes(tmp_path / "c.npz", regions=NAMES[:4], bad_subjects="drop")
    assert made.subjects == ("sub-0002",)
    assert [error.code for error in made.rejected] == ["all_missing"]


@pytest.mark.parametrize("name", ["a.pconn.nii", "a.ptseries.nii"])
def test_the_ending_of_hcps_parcels_is_dropped_where_all_have_it(name: str, tmp_path: Path) -> None:
    endings = ("_ROI",) * R
    data = np.corrcoef(series().T) if "pconn" in name else series()
    for names, wanted in (
        (tuple(map("".join, zip(NAMES, endings, strict=True))), NAMES),
        ((*NAMES[:-1], "last_ROI"), (*NAMES[:-1], "last_ROI")),
    ):
        path = write_cifti(tmp_path / name, data, names, names)
        assert read_connectomes(path).regions == wanted


@pytest.mark.parametrize("damaged", ["sub-1_bold.nii.gz", "atlas.nii.gz"])
def test_a_flipped_bit_in_a_gzipped_image_is_found(damaged: str, tmp_path: Path) -> None:
    path, atlas = write_bold(tmp_path / "sub-1_bold.nii.gz", series())
    file = tmp_path / damaged
    content = gzip.decompress(file.read_bytes())
    stored = bytearray(gzip.compress(content, compresslevel=0))
    stored[-12] ^= 1  # of the last voxel: before the checksum and the length
    file.write_bytes(stored)
    with pytest.raises(DTwinInputError, match=r"\[unreadable\] .*CRC"):
        read_connectomes(path, atlas=atlas)
    file.write_bytes(gzip.compress(content + bytes(2**21)))
    with pytest.raises(DTwinInputError, match=r"\[unreadable\] .*after the last voxel"):
        read_connectomes(path, atlas=atlas)


def test_folder_of_images_needs_the_atlas(tmp_path: Path) -> None:
    path, atlas = write_bold(tmp_path / "sub-1_bold.nii.gz", series())
    assert read_connectomes(tmp_path, atlas=atlas).subjects == ("sub-1",)
    with pytest.raises(DTwinInputError, match=r"\[folder_files\]"):
        read_connectomes(tmp_path)
    assert path.exists()


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("NDAR_INVAB12CD34/rest.h5", "sub-NDARINVAB12CD34"),
        ("sub-NDARINVAB12CD34/rest.h5", "sub-NDARINVAB12CD34"),
        ("NDAR_INVAB12CD34_rest.h5", "sub-NDARINVAB12CD34"),
        ("sub-X1/ses-1/rest.h5", "sub-X1"),
    ],
)
def test_subject_of_tcp_paths(name: str, subject: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_hdf5(path, series().T)
    assert read_connectomes(path, regions=NAMES).subjects == (subject,)


def test_tcp_has_434_regions_by_default(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(size=(434, 30))
    made = read_connectomes(write_hdf5(tmp_path / "x.h5", data))
    assert (made.n_regions, made.regions) == (434, None)
    np.testing.assert_allclose(made.edges[0], vectorise(np.corrcoef(data)), rtol=0, atol=TEXT_ATOL)


def test_pearson_is_numpys(tmp_path: Path) -> None:
    data = series() * 10.0 ** np.arange(-2, R - 2)
    np.testing.assert_allclose(
        connectome_of_series(data, tmp_path), np.corrcoef(data.T), rtol=0, atol=PEARSON_ATOL
    )


@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1e150, 1e308])
def test_unit_of_the_series_does_not_matter(scale: float, tmp_path: Path) -> None:
    data = np.random.default_rng(3).integers(-1, 2, size=(T, R)).astype(np.float64)
    scaled = data * scale
    np.testing.assert_allclose(
        connectome_of_series(scaled, tmp_path),
        np.corrcoef(data.T),
        rtol=0,
        atol=1e-3 if scale < 1e-307 else PEARSON_ATOL,  # denormals have few digits
    )


@pytest.mark.parametrize("value", [0.0, 1234.5678, np.nan, -1e300], ids=str)
def test_constant_regions_are_missing(value: float, tmp_path: Path) -> None:
    data = series()
    data[:, 3] = value
    made = read_connectomes(write_timeseries(tmp_path / "sub-1_timeseries.tsv", data))
    np.testing.assert_array_equal(np.flatnonzero(made.missing[0]), [3])
    others = [i for i in range(R) if i != 3]
    np.testing.assert_allclose(
        made.align([NAMES[i] for i in others]).edges[0],
        vectorise(np.corrcoef(data[:, others].T)),
        rtol=0,
        atol=TEXT_ATOL,
    )


def test_parcels_without_data_are_missing(tmp_path: Path) -> None:
    import nibabel as nib

    path, atlas = write_bold(tmp_path / "sub-1_bold.nii", series())
    image: Any = nib.load(path)
    bold = np.asarray(image.dataobj).copy()
    bold[1] = 0  # nothing
    bold[2, 0] = np.nan  # half of the voxels: enough
    bold[3, :, 0] = 0
    bold[3, 0] = 0  # a quarter: too little
    nib.Nifti1Image(bold, image.affine).to_filename(path)
    with atlas[1].open("a") as file:
        file.write("99\tnot in the image\n")
    made = read_connectomes(path, atlas=atlas)
    assert made.regions == (*NAMES, "not in the image")
    np.testing.assert_array_equal(np.flatnonzero(made.missing[0]), [1, 3, R])


def test_label_order_of_the_table_is_the_region_order(tmp_path: Path) -> None:
    path, (image, names) = write_bold(tmp_path / "sub-1_bold.nii", series())
    lines = names.read_text().splitlines()
    names.write_text("\n".join([lines[0], "0\tbackground", *lines[:0:-1]]))
    made = read_connectomes(path, atlas=(image, names))
    assert made.regions == NAMES[::-1]
    np.testing.assert_allclose(
        made.edges[0], vectorise(np.corrcoef(series()[:, ::-1].T)), rtol=0, atol=1e-5
    )


def test_pconn_of_two_lists_of_parcels_is_refused(tmp_path: Path) -> None:
    fc = np.corrcoef(series().T)
    path = write_cifti(tmp_path / "a.pconn.nii", fc, row_names=NAMES[::-1])
    with pytest.raises(DTwinInputError, match=r"\[cifti_axes\].*not the same"):
        read_connectomes(path)


def test_cifti_that_declares_entities_is_refused_unparsed(tmp_path: Path) -> None:
    path = write_cifti(tmp_path / "a.pconn.nii", np.corrcoef(series().T))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"<Volume ", b"<!ENTITY", 1))
    with pytest.raises(DTwinInputError, match=r"\[unreadable\].*declares entities"):
        read_connectomes(path)


EXTRAS = {
    "sub-07_timeseries.tsv": "nilearn.connectome",
    "sub-07.ptseries.nii": "nibabel.nifti1",
    "sub-07_bold.nii": "nibabel.nifti1",
    "sub-07.h5": "h5py",
}


@pytest.mark.parametrize("name", EXTRAS)
def test_absent_packages_are_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = WRITERS[name](tmp_path / name)
    monkeypatch.setitem(sys.modules, EXTRAS[name], None)
    with pytest.raises(MissingExtraError, match=r"pip install 'dtwin_fast\[neuro\]'"):
        read_connectomes(**request)


def test_importing_the_readers_needs_numpy_alone() -> None:
    code = (
        "import sys; before = set(sys.modules); import numpy; import dtwin_fast.readers;"
        "heavy = {'nibabel', 'nilearn', 'h5py', 'pandas', 'scipy', 'torch', 'sklearn'};"
        "sys.exit(', '.join(sorted(heavy & (set(sys.modules) - before))) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_folder_beyond_the_limit_is_refused_after_its_first_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dtwin_fast.connectome_checks.MAX_COHORT_BYTES", 4 * 15 * 4 - 1)
    with pytest.raises(DTwinInputError, match=r"\[too_large\].*240 bytes"):
        read_connectomes(bids_folder(tmp_path))


def test_uncompressed_archives_are_read(tmp_path: Path) -> None:
    fc = np.corrcoef(series().T)
    np.savez(tmp_path / "sub-3.npz", fc)
    assert zipfile.ZipFile(tmp_path / "sub-3.npz").namelist() == ["arr_0.npy"]
    assert read_connectomes(tmp_path / "sub-3.npz").subjects == ("sub-3",)
