"""Folders of one-subject files: which files, whose they are, and what a kept index may say."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dtwin_fast.connectome import matrices
from dtwin_fast.errors import DTwinInputError
from dtwin_fast.readers import read_connectomes
from dtwin_fast.screening import index
from dtwin_fast.screening.filters import Filters, entities_of
from dtwin_fast.screening.index import IndexedFile, files_digest, index_folder
from dtwin_fast.screening.people import People, open_people

R = 4
NAMES = tuple(f"area {i}" for i in range(R))
FloatArray = npt.NDArray[np.float32]


def edges(seed: int) -> FloatArray:
    values: FloatArray = np.tanh(0.5 * np.random.default_rng(seed).normal(size=6)).astype("f4")
    return values


def relmat(
    path: Path, seed: int = 0, names: tuple[str, ...] = NAMES, *, first: float | None = None
) -> Path:
    """A table of random edges, of which the first may be given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = edges(seed)
    if first is not None:
        values[0] = first
    full = matrices(values[None])[0][: len(names), : len(names)].tolist()
    rows = [["Node", *names], *([n, *map(str, row)] for n, row in zip(names, full, strict=True))]
    path.write_text("".join("\t".join(row) + "\n" for row in rows))
    return path


def bids(folder: Path, n: int = 3) -> Path:
    for i in range(1, n + 1):
        name = f"sub-{i:02d}_task-rest_seg-A_relmat.tsv"
        relmat(folder / f"sub-{i:02d}" / "func" / name, i)
    return folder


def refused(code: str, path: Path, **options: Any) -> DTwinInputError:
    with pytest.raises(DTwinInputError) as caught:
        open_people(path, **options)
    assert caught.value.code == code, caught.value
    return caught.value


def all_of(people: People) -> Any:
    return people.read(0, len(people.subjects))


def test_people_of_a_folder_are_those_that_readers_find(tmp_path: Path) -> None:
    folder = bids(tmp_path)
    relmat(folder / "sub-09_relmat.tsv", 9, NAMES[::-1])
    (folder / "sub-04_relmat.tsv").write_text("no table")
    (folder / "participants.tsv").write_text("participant_id\nsub-01\n")
    people = open_people(folder)
    wanted = read_connectomes(folder, bad_subjects="drop")
    made = all_of(people)
    assert people.subjects == ("sub-01", "sub-02", "sub-03", "sub-04", "sub-09")
    assert (people.regions, people.n_regions) == (NAMES, R)
    np.testing.assert_array_equal(made.edges, wanted.edges)
    assert (made.subjects, made.flags) == (wanted.subjects, wanted.flags)
    (error,) = made.rejected
    assert (error.subject, error.code) == ("sub-04", wanted.rejected[0].code)
    for start in range(5):
        part = people.read(start, start + 1)
        place = [made.subjects.index(name) for name in part.subjects]
        np.testing.assert_array_equal(part.edges, made.edges[place])


def test_bad_files_change_nothing_of_the_others(tmp_path: Path) -> None:
    folder = bids(tmp_path, 3)
    clean = all_of(open_people(folder))
    relmat(folder / "sub-00_relmat.tsv", 5).write_text("first, and damaged")
    relmat(folder / "sub-04_relmat.tsv", 5, NAMES[:3])
    relmat(folder / "sub-05_relmat.tsv", 5, ("a", "b", "c", "d"))
    (folder / "sub-06_relmat.tsv").write_bytes(b"")
    (folder / "sub-07_relmat.tsv").symlink_to("nowhere")
    os.mkfifo(folder / "sub-08_relmat.tsv")
    np.save(folder / "sub-09.npy", edges(9))
    relmat(folder / "sub-10_relmat.tsv", 5, first=7.5)
    made = all_of(open_people(folder))
    np.testing.assert_array_equal(made.edges, clean.edges)
    assert made.subjects == clean.subjects
    assert {error.subject: error.code for error in made.rejected} == {
        "sub-00": "table_separator",
        "sub-04": "regions_missing",
        "sub-05": "regions_missing",
        "sub-06": "file_empty",
        "sub-07": "file_missing",
        "sub-08": "file_kind",
        "sub-09": "regions_unnamed",
        "sub-10": "r_out_of_range",
    }


def test_folders_of_arrays_without_names(tmp_path: Path) -> None:
    for i in range(3):
        np.save(tmp_path / f"sub-{i}.npy", edges(i))
    np.save(tmp_path / "sub-3.npy", edges(3)[:3])
    relmat(tmp_path / "sub-4_relmat.tsv")
    people = open_people(tmp_path)
    assert people.regions is None
    made = all_of(people)
    np.testing.assert_array_equal(made.edges, [edges(i) for i in range(3)])
    assert [error.code for error in made.rejected] == ["region_count", "region_count"]
    people = open_people(tmp_path, regions=NAMES)
    assert people.regions == NAMES
    assert len(all_of(people)) == 4


def test_fisher_z_in_one_file_stops_the_range(tmp_path: Path) -> None:
    folder = bids(tmp_path)
    relmat(folder / "sub-04_relmat.tsv", 4, first=1.5)
    people = open_people(folder)
    assert len(people.read(0, 3)) == 3
    with pytest.raises(DTwinInputError, match="fisher_z_as_r") as caught:
        people.read(2, 4)
    assert caught.value.subject == "sub-04"


def test_where_nothing_can_be_read_the_first_files_error_is_raised(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"sub-{i}_relmat.tsv").write_bytes(b"" if i == 0 else b"x")
    assert refused("file_empty", tmp_path).subject == "sub-0"


def test_names_that_no_person_can_have_are_rejected(tmp_path: Path) -> None:
    folder = bids(tmp_path)
    np.save(folder / "=cmd().npy", edges(0))
    np.save(folder / "two\nlines.npy", edges(0))
    os.rename(folder / "two\nlines.npy", os.fsencode(folder) + b"/\xff.npy")  # noqa: PTH104
    np.save(folder / "two\nlines.npy", edges(0))
    people = open_people(folder)
    made = all_of(people)
    assert made.subjects == ("sub-01", "sub-02", "sub-03")
    assert [error.code for error in made.rejected] == ["subject_id"] * 3
    odd = [name for name in people.subjects if name.startswith("file-")]
    assert sorted(error.subject or "" for error in made.rejected) == sorted(odd)
    assert json.dumps(people.identity)
    assert (
        open_people(folder, index_cache=tmp_path.parent / "i.parquet").subjects == people.subjects
    )


def test_sessions_and_runs_of_one_person_are_named_apart(tmp_path: Path) -> None:
    for session in ("1", "2"):
        for run in ("1", "2"):
            name = f"sub-01_ses-{session}_task-rest_run-{run}_relmat.tsv"
            relmat(tmp_path / "sub-01" / f"ses-{session}" / name)
    relmat(tmp_path / "sub-02_ses-1_task-rest_run-1_relmat.tsv")
    people = open_people(tmp_path)
    assert people.subjects == (
        "sub-01_ses-1_task-rest_run-1",
        "sub-01_ses-1_task-rest_run-2",
        "sub-01_ses-2_task-rest_run-1",
        "sub-01_ses-2_task-rest_run-2",
        "sub-02",
    )
    one = open_people(tmp_path, filters=Filters.of(sessions=["ses-1"], runs=["02"]))
    assert one.subjects == ("sub-01",)
    assert all_of(one).subjects == ("sub-01",)


def test_several_files_of_one_person_say_how_to_choose(tmp_path: Path) -> None:
    folder = bids(tmp_path)
    relmat(folder / "sub-01/func/sub-01_task-rest_seg-B_relmat.tsv")
    relmat(folder / "sub-01/func/sub-01_task-rest_seg-B_stat-partial_relmat.tsv")
    assert "seg is A | B; stat is none | partial" in refused("subject_duplicate", folder).fix
    assert len(open_people(folder, filters=Filters.of(atlases=["A"])).subjects) == 3


def filters_of(folder: Path, asked: Any) -> Filters:
    (folder / "filter.json").write_text(json.dumps(asked))
    return Filters.of(file=folder / "filter.json")


@pytest.mark.parametrize(
    ("asked", "n_taken"),
    [
        ({"suffix": "relmat"}, 3),
        ({"subject": "01"}, 1),
        ({"sub": ["sub-01", "3"]}, 1),
        ({"fc": {"segmentation": "A", "task": ["rest", "x"]}}, 3),
        ({"atlas": "A", "session": None}, 3),
        ({"session": "*"}, 3),
        ({"run": None}, 3),
    ],
)
def test_filter_files(asked: Any, n_taken: int, tmp_path: Path) -> None:
    folder = bids(tmp_path / "in")
    if asked == {"sub": ["sub-01", "3"]}:
        error = refused("filters", folder, filters=filters_of(tmp_path, asked))
        assert "3" in error.got
        return
    assert len(open_people(folder, filters=filters_of(tmp_path, asked)).subjects) == n_taken


@pytest.mark.parametrize(
    "text", ["[", "[]", "3", '{"sex": "f"}', '{"run": [{}]}', '{"run": ""}', "[" * 10**5]
)
def test_filter_files_that_are_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "filter.json").write_text(text)
    with pytest.raises(DTwinInputError) as caught:
        Filters.of(file=tmp_path / "filter.json")
    assert caught.value.code in ("filters", "unreadable")


def test_labels(tmp_path: Path) -> None:
    folder = bids(tmp_path)
    for label in ("02", "sub-02"):
        assert open_people(folder, filters=Filters.of(participants=[label])).subjects == ("sub-02",)
    assert "99" in refused("filters", folder, filters=Filters.of(participants=["01", "99"])).got
    refused("folder_files", folder, filters=Filters.of(tasks=["other"]))
    for labels in ("01", [1], [""]):
        with pytest.raises(DTwinInputError, match="filters"):
            Filters.of(participants=labels)  # type: ignore[arg-type]


def test_entities() -> None:
    name = "sub-01_ses-2_task-rest_run-003_atlas-Gordon_stat-r_desc-x-y_relmat.tsv"
    assert entities_of(name) == {
        "sub": "01",
        "ses": "2",
        "task": "rest",
        "run": "003",
        "seg": "Gordon",
        "stat": "r",
        "desc": "x-y",
        "suffix": "relmat",
    }
    assert entities_of("plain.npy") == {"suffix": "plain"}


def test_given_names_are_those_of_the_files(tmp_path: Path) -> None:
    folder = bids(tmp_path)
    assert open_people(folder, subjects=["03", "02", "01"]).subjects == ("01", "02", "03")
    refused("subject_mismatch", folder, subjects=["01", "02", "04"])


def test_an_output_inside_the_input_is_no_input(tmp_path: Path) -> None:
    folder = bids(tmp_path)
    before = open_people(folder).identity
    relmat(folder / "derivatives/dtwin/sub-01/sub-01_relmat.tsv")
    (folder / "derivatives/dtwin/.dtwin").mkdir()
    assert open_people(folder).identity == before
    refused("folder_files", folder / "derivatives/dtwin")


def test_linked_folders_are_not_entered_and_linked_files_are_read(tmp_path: Path) -> None:
    outside = bids(tmp_path / "outside")
    folder = bids(tmp_path / "in", 1)
    (folder / "more").symlink_to(outside)
    (folder / "more_relmat.tsv").symlink_to(outside)
    (folder / "sub-07_relmat.tsv").symlink_to(
        outside / "sub-02/func/sub-02_task-rest_seg-A_relmat.tsv"
    )
    assert open_people(folder).subjects == ("sub-01", "sub-07")


def test_a_folder_that_may_not_be_read_is_no_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bids(tmp_path)
    scandir = os.scandir

    def guarded(path: Any) -> Any:  # root may read everything, so modes would show nothing
        if Path(path).name == "sub-02":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    refused("folder_files", folder)


def test_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "MAX_FOLDER_FILES", 2)
    refused("folder_files", bids(tmp_path))


@pytest.mark.parametrize("change", ["rewritten", "touched", "gone", "replaced by a pipe"])
def test_a_changed_file_is_one_persons_fault(change: str, tmp_path: Path) -> None:
    people = open_people(bids(tmp_path))
    clean = all_of(people)
    path = next(tmp_path.rglob("sub-02_*"))
    if change == "rewritten":
        relmat(path, 77)
    elif change == "touched":
        os.utime(path, ns=(0, 10**18))
    else:
        path.unlink()
        if change != "gone":
            os.mkfifo(path)
    made = all_of(people)
    np.testing.assert_array_equal(made.edges, clean.edges[[0, 2]])
    (error,) = made.rejected
    code = {"gone": "file_missing", "replaced by a pipe": "file_kind"}.get(change, "input_changed")
    assert (error.subject, error.code) == ("sub-02", code)


# The kept index


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that are scanned from now on."""
    scans: list[Path] = []
    scan = index._scan

    def note(root: Path, progress: Any) -> Any:
        scans.append(root)
        return scan(root, progress)

    monkeypatch.setattr(index, "_scan", note)
    return scans


def test_a_kept_index_is_the_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = bids(tmp_path / "in")
    kept = tmp_path / "kept"
    kept.mkdir()
    scans = counted(monkeypatch)
    found: list[int] = []
    first = open_people(folder, index_cache=kept, progress=found.append)
    assert found[-1] == 3
    again = open_people(folder, index_cache=kept)
    assert scans == [folder]
    assert again.identity == first.identity
    np.testing.assert_array_equal(all_of(again).edges, all_of(first).edges)
    table = pq.read_table(kept / "dtwin-index.parquet")
    files = table.filter(pa.compute.invert(table["is_folder"]))
    assert files["sub"].to_pylist() == [b"01", b"02", b"03"]
    assert files["seg"].to_pylist() == [b"A"] * 3
    # A file as well as a folder; filters work on what is kept.
    one = open_people(
        folder, index_cache=kept / "dtwin-index.parquet", filters=Filters.of(participants=["02"])
    )
    assert (one.subjects, len(scans)) == (("sub-02",), 1)
    # A link to the folder is the folder.
    (tmp_path / "link").symlink_to(folder)
    assert open_people(tmp_path / "link", index_cache=kept).subjects == first.subjects
    assert len(scans) == 1


@pytest.mark.parametrize("change", ["added", "gone", "renamed", "new folder", "folder now a link"])
def test_an_index_of_another_folder_is_made_again(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bids(tmp_path / "in")
    kept = tmp_path / "index.parquet"
    open_people(folder, index_cache=kept)
    scans = counted(monkeypatch)
    last = folder / "sub-03"
    path = next(last.rglob("*.tsv"))
    if change == "added":
        relmat(folder / "sub-03/func/sub-04_relmat.tsv")
    elif change == "gone":
        path.unlink()
    elif change == "renamed":
        path.rename(path.with_name("sub-05_relmat.tsv"))
    elif change == "new folder":
        relmat(folder / "sub-06/sub-06_relmat.tsv")
    else:
        last.rename(tmp_path / "away")
        last.symlink_to(tmp_path / "away")
    wanted = open_people(folder).subjects
    assert scans == [folder]
    assert open_people(folder, index_cache=kept).subjects == wanted
    assert len(scans) == 2
    assert open_people(folder, index_cache=kept).subjects == wanted
    assert len(scans) == 2


def test_a_file_changed_in_place_is_found_when_it_is_read(tmp_path: Path) -> None:
    folder = bids(tmp_path / "in")
    kept = tmp_path / "index.parquet"
    first = open_people(folder, index_cache=kept)
    with next(folder.rglob("sub-02_*")).open("a") as file:
        file.write("\n")
    people = open_people(folder, index_cache=kept)
    assert people.identity == first.identity
    assert [(e.subject, e.code) for e in all_of(people).rejected] == [("sub-02", "input_changed")]
    kept.unlink()
    people = open_people(folder, index_cache=kept)
    assert people.identity != first.identity
    assert not all_of(people).rejected


def poisoned(folder: Path, kept: Path, change: Callable[[dict[str, list[Any]]], None]) -> None:
    """A kept index with other rows."""
    open_people(folder, index_cache=kept)
    table = pq.read_table(kept)
    columns = table.to_pydict()
    change(columns)
    made = pa.table(columns, schema=table.schema)
    pq.write_table(made, kept, use_dictionary=False)


def replace_path(old: bytes, new: bytes) -> Callable[[dict[str, list[Any]]], None]:
    def change(columns: dict[str, list[Any]]) -> None:
        columns["path"] = [new if path == old else path for path in columns["path"]]

    return change


def add(path: str, *, is_folder: bool = False) -> Callable[[dict[str, list[Any]]], None]:
    def change(columns: dict[str, list[Any]]) -> None:
        for name, values in columns.items():
            values.append(None if name not in ("path", "is_folder") else values[-1])
        columns["path"][-1] = os.fsencode(path)
        columns["is_folder"][-1] = is_folder
        columns["mtime_ns"][-1] = columns["size"][-1] = 1

    return change


POISON: dict[str, Callable[[dict[str, list[Any]]], None]] = {
    "a file above": add("../secret_relmat.tsv"),
    "an absolute file": add("/secret_relmat.tsv"),
    "a file above a subfolder": add("sub-01/../../secret_relmat.tsv"),
    "a file in no folder": add("elsewhere/secret_relmat.tsv"),
    "another kind of file": add("secret.txt"),
    "an empty name": add(""),
    "a name with an end": add("sub-01/a\0_relmat.tsv"),
    "a folder above": add("..", is_folder=True),
    "an absolute folder": add("/etc", is_folder=True),
    "a folder through a folder": add("sub-01/..", is_folder=True),
    "no folder at all": replace_path(b"", b"sub-09"),
}


@pytest.mark.parametrize("row", POISON)
def test_an_index_cannot_lead_out_of_its_folder(row: str, tmp_path: Path) -> None:
    folder = bids(tmp_path / "in")
    relmat(tmp_path / "secret_relmat.tsv")
    poisoned(folder, tmp_path / "index.parquet", POISON[row])
    refused("index_cache", folder, index_cache=tmp_path / "index.parquet")


def test_an_index_cannot_lead_through_a_link(tmp_path: Path) -> None:
    outside = bids(tmp_path / "outside", 1)
    folder = bids(tmp_path / "in", 1)
    (folder / "link").symlink_to(outside / "sub-01/func")

    def change(columns: dict[str, list[Any]]) -> None:
        add("link", is_folder=True)(columns)
        columns["mtime_ns"][-1] = (folder / "link").stat().st_mtime_ns
        add("link/sub-01_task-rest_seg-A_relmat.tsv")(columns)

    poisoned(folder, tmp_path / "index.parquet", change)
    people = open_people(folder, index_cache=tmp_path / "index.parquet")
    assert len(people.subjects) == 1  # scanned again


def test_files_that_are_no_index_are_left_alone(tmp_path: Path) -> None:
    folder = bids(tmp_path / "in")
    theirs = tmp_path / "data.parquet"
    pq.write_table(pa.table({"path": ["x"]}), theirs)
    before = theirs.read_bytes()
    refused("index_cache", folder, index_cache=theirs)
    assert theirs.read_bytes() == before
    theirs.write_text("text")
    refused("unreadable", folder, index_cache=theirs)
    assert theirs.read_text() == "text"
    os.mkfifo(tmp_path / "pipe")
    refused("file_kind", folder, index_cache=tmp_path / "pipe")
    for inside in (folder, folder / "sub-01", folder / "sub-01" / "index.parquet"):
        refused("argument", folder, index_cache=inside)
    assert not list(folder.rglob("*.parquet"))


def test_an_index_that_hides_its_size_is_refused(tmp_path: Path) -> None:
    folder = bids(tmp_path / "in")
    kept = tmp_path / "index.parquet"
    open_people(folder, index_cache=kept)
    table = pq.read_table(kept)
    pq.write_table(table, kept, use_dictionary=True)
    refused("index_cache", folder, index_cache=kept)


def test_a_tree_of_2000_files(tmp_path: Path) -> None:
    text = relmat(tmp_path / "one.tsv").read_text()
    folder = tmp_path / "in"
    for i in range(500):
        func = folder / f"sub-{i:04d}" / "func"
        func.mkdir(parents=True)
        for j in range(4):
            name = f"sub-{i:04d}_ses-{j % 2}_task-rest_seg-{'AB'[j // 2]}_relmat.tsv"
            (func / name).write_text(text)
    files = index_folder(folder, cache=tmp_path / "index.parquet")
    assert len(files) == 2000
    assert files == sorted(files, key=lambda file: Path(file.path))
    assert files_digest(files) == files_digest(index_folder(folder))
    assert index_folder(folder, cache=tmp_path / "index.parquet") == files
    chosen = Filters.of(sessions=["1"], atlases=["B"])
    people = open_people(folder, filters=chosen, index_cache=tmp_path / "index.parquet")
    assert people.subjects == tuple(f"sub-{i:04d}" for i in range(500))
    assert people.identity["files"] == 500
    made = people.read(490, 500)
    np.testing.assert_array_equal(made.edges, np.tile(edges(0), (10, 1)))


def test_digests_tell_paths_sizes_and_times_apart() -> None:
    files = [IndexedFile("a", 1, 2), IndexedFile("b", 3, 4)]
    others = [
        [IndexedFile("a", 1, 2)],
        [IndexedFile("a", 1, 2), IndexedFile("c", 3, 4)],
        [IndexedFile("a", 1, 23), IndexedFile("b", 3, 4)],
        [IndexedFile("a", 12, 2), IndexedFile("b", 3, 4)],
        files[::-1],
    ]
    assert len({files_digest(one) for one in [files, *others]}) == 6
