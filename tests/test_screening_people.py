"""People of every source: any range is what a whole read gives, and a changed file is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

from dtwin_fast.connectome import Connectomes, matrices
from dtwin_fast.errors import DTwinInputError
from dtwin_fast.readers import read_connectomes
from dtwin_fast.screening import array_files, parquet_files, zarr_files
from dtwin_fast.screening.filters import Filters
from dtwin_fast.screening.people import People, open_people

N = 20
R = 5
E = 10
NAMES = tuple(f"area {i}" for i in range(R))
IDS = tuple(f"sub-{i:02d}" for i in range(N))
FloatArray = npt.NDArray[np.float32]


def edges(n: int = N, seed: int = 0) -> FloatArray:
    rng = np.random.default_rng(seed)
    values: FloatArray = np.tanh(0.5 * rng.normal(size=(n, E))).astype(np.float32)
    return values


def damaged() -> FloatArray:
    """Person 3 has no data, 5 a region without, 7 one infinite edge."""
    values = edges()
    values[3] = np.nan
    rows, columns = np.triu_indices(R, 1)
    values[5, (rows == 2) | (columns == 2)] = np.nan
    values[7, 4] = np.inf
    return values


def save_npy(folder: Path, values: npt.NDArray[Any]) -> Path:
    np.save(folder / "fc.npy", values)
    return folder / "fc.npy"


def save_fortran(folder: Path, values: FloatArray) -> Path:
    return save_npy(folder, np.asfortranarray(values))


def save_matrices(folder: Path, values: FloatArray) -> Path:
    return save_npy(folder, matrices(values).astype(np.float64))


def save_fortran_matrices(folder: Path, values: FloatArray) -> Path:
    return save_npy(folder, np.asfortranarray(matrices(values)))


def save_big_endian(folder: Path, values: FloatArray) -> Path:
    return save_npy(folder, values.astype(">f8"))


def save_npz(folder: Path, values: FloatArray) -> Path:
    np.savez_compressed(folder / "fc.npz", fc=values)
    return folder / "fc.npz"


def save_zarr(
    folder: Path, values: npt.NDArray[Any], *, chunks: tuple[int, ...] = (3, 4), **options: Any
) -> Path:
    path = folder / "fc.zarr"
    array = zarr.create_array(
        path, shape=values.shape, chunks=chunks, dtype=values.dtype, fill_value=0, **options
    )
    array[:] = values
    return path


def save_zarr_matrices(folder: Path, values: FloatArray) -> Path:
    return save_zarr(
        folder,
        matrices(values),
        chunks=(7, R, 2),
        compressors=zarr.codecs.BloscCodec(),
        serializer=zarr.codecs.BytesCodec(endian="big"),
    )


def save_zarr_group(folder: Path, values: FloatArray) -> Path:
    path = folder / "fc.zarr"
    zarr.create_group(path)
    array = zarr.create_array(
        path / "edges",
        shape=values.shape,
        chunks=(6, E),
        dtype=values.dtype,
        compressors=[zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec()],
    )
    array[:] = values
    return path


def save_parquet(folder: Path, values: FloatArray, *, kind: Any = None, **more: Any) -> Path:
    column = pa.array(list(values), kind or pa.list_(pa.float32()))
    pq.write_table(pa.table({**more, "edges": column}), folder / "fc.parquet", row_group_size=6)
    return folder / "fc.parquet"


def save_parquet_fixed(folder: Path, values: FloatArray) -> Path:
    return save_parquet(folder, values, kind=pa.list_(pa.float32(), E))


def save_parquet_wide(folder: Path, values: FloatArray) -> Path:
    table = pa.table({f"edge {i}": values[:, i] for i in range(E)})
    pq.write_table(table, folder / "fc.parquet", row_group_size=7)
    return folder / "fc.parquet"


SAVERS: dict[str, Callable[[Path, FloatArray], Path]] = {
    "npy": save_npy,
    "npy, Fortran order": save_fortran,
    "npy, matrices": save_matrices,
    "npy, Fortran matrices": save_fortran_matrices,
    "npy, big endian": save_big_endian,
    "npz": save_npz,
    "zarr": save_zarr,
    "zarr, matrices": save_zarr_matrices,
    "zarr, group": save_zarr_group,
    "parquet, lists": save_parquet,
    "parquet, fixed lists": save_parquet_fixed,
    "parquet, wide": save_parquet_wide,
}


def same(made: Connectomes, wanted: Connectomes) -> None:
    np.testing.assert_array_equal(made.edges.view(np.uint32), wanted.edges.view(np.uint32))
    np.testing.assert_array_equal(made.missing, wanted.missing)
    assert made.subjects == wanted.subjects
    assert made.flags == wanted.flags
    assert made.regions == wanted.regions
    assert [(e.code, e.subject) for e in made.rejected] == [
        (e.code, e.subject) for e in wanted.rejected
    ]


def whole(people: People) -> Connectomes:
    return people.read(0, len(people.subjects))


def refused(code: str, path: Path | str, **options: Any) -> DTwinInputError:
    with pytest.raises(DTwinInputError) as caught:
        whole(open_people(path, **options))
    assert caught.value.code == code, caught.value
    assert str(caught.value.fix)
    return caught.value


@pytest.mark.parametrize("kind", SAVERS)
def test_ranges_are_parts_of_a_whole_read(kind: str, tmp_path: Path) -> None:
    values = damaged()
    people = open_people(SAVERS[kind](tmp_path, values), regions=NAMES)
    wanted = Connectomes.from_arrays(values, regions=NAMES, bad_subjects="drop")
    if "matrices" in kind:  # a mean of equal triangles, and a diagonal of its own
        array = matrices(values)
        wanted = Connectomes.from_arrays(array, regions=NAMES, bad_subjects="drop")
    same(whole(people), wanted)
    assert (people.n_regions, people.regions, people.is_fisher_z) == (R, NAMES, False)
    assert people.subjects == tuple(f"sub-{i:04d}" for i in range(1, N + 1))
    kept = dict(zip(wanted.subjects, wanted.edges, strict=True))
    errors = {error.subject: error.code for error in wanted.rejected}
    assert len(errors) == 2
    for start, stop in [(0, 1), (2, 9), (3, 4), (5, 20), (19, 20), (4, 4), (0, E)]:
        part = people.read(start, stop)
        asked = people.subjects[start:stop]
        assert part.subjects == tuple(name for name in asked if name in kept)
        assert {e.subject: e.code for e in part.rejected} == {
            name: errors[name] for name in asked if name in errors
        }
        for name, row in zip(part.subjects, part.edges, strict=True):
            assert row.tobytes() == kept[name].tobytes()


@pytest.mark.parametrize("kind", ["npy", "zarr", "parquet, lists", "npz"])
def test_threads_read_ranges_at_the_same_time(kind: str, tmp_path: Path) -> None:
    people = open_people(SAVERS[kind](tmp_path, edges()))
    wanted = whole(people).edges
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda i: people.read(i, i + 3).edges, [*range(N - 3)] * 4))
    for number, part in enumerate(parts):
        start = number % (N - 3)
        np.testing.assert_array_equal(part, wanted[start : start + 3])


@pytest.mark.parametrize("kind", SAVERS)
def test_an_identity_says_what_the_input_is(kind: str, tmp_path: Path) -> None:
    path = SAVERS[kind](tmp_path, edges())
    first = open_people(path).identity
    assert json.loads(json.dumps(first)) == first == open_people(path).identity
    # Small enough to stay below 1 where they would be seen to be Fisher z.
    for other in (
        open_people(path, is_fisher_z="matrices" not in kind, regions=NAMES),
        open_people(path, subjects=[f"p{i}" for i in range(N)]),
        open_people(path, regions=NAMES),
    ):
        assert other.identity != first
    file = path if path.is_file() else next(p for p in path.rglob("*") if p.parts[-2] == "0")
    os.utime(file, ns=(0, 10**18))
    assert open_people(path).identity != first


def test_names_inside_a_source_hold(tmp_path: Path) -> None:
    values = edges()
    np.savez(tmp_path / "a.npz", fc=values, subjects=np.array(IDS), regions=np.array(NAMES))
    save_zarr(tmp_path, values, attributes={"subjects": list(IDS), "regions": list(NAMES)})
    metadata = {"regions": json.dumps(NAMES)}
    table = pa.table({"subject": list(IDS), "edges": list(values)}).replace_schema_metadata(
        metadata
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=3)
    wanted = Connectomes.from_arrays(values, regions=NAMES, subjects=IDS)
    order = NAMES[::-1]
    for name in ("a.npz", "fc.zarr", "a.parquet"):
        same(whole(open_people(tmp_path / name)), wanted)
        people = open_people(tmp_path / name, regions=order[:4])
        assert (people.regions, people.n_regions) == (order[:4], 4)
        same(people.read(2, 6), wanted.select(slice(2, 6)).align(order[:4]))
        # The same people, spelled otherwise and in any order: the source's order stays.
        people = open_people(tmp_path / name, subjects=[i.removeprefix("sub-") for i in IDS[::-1]])
        assert people.subjects == tuple(i.removeprefix("sub-") for i in IDS)
        refused("subject_mismatch", tmp_path / name, subjects=[f"x{i}" for i in range(N)])


def test_ids_of_a_biobank_are_numbers(tmp_path: Path) -> None:
    path = save_parquet(tmp_path, edges(), eid=pa.array(range(1000000, 1000000 + N)))
    assert open_people(path).subjects[:2] == ("1000000", "1000001")


def test_one_person_of_an_array_is_named_after_the_file(tmp_path: Path) -> None:
    for values in (
        edges(1)[0],
        matrices(edges(1))[0],
        edges(1),
        np.asfortranarray(matrices(edges(1))[0]),
    ):
        np.save(tmp_path / "sub-07.npy", values)
        people = open_people(tmp_path / "sub-07.npy")
        assert people.subjects == ("sub-07",)
        np.testing.assert_array_equal(whole(people).edges, edges(1))


def test_as_many_people_as_edges_are_people_where_regions_say_so(tmp_path: Path) -> None:
    path = save_npy(tmp_path, edges(E))
    (error,) = whole(open_people(path)).rejected
    assert error.code == "diagonal"  # taken for one matrix
    wanted = Connectomes.from_arrays(edges(E), regions=NAMES)
    same(whole(open_people(path, regions=NAMES)), wanted)
    same(read_connectomes(path, regions=NAMES), wanted)
    assert open_people(path, regions=NAMES).read(0, E).subjects == wanted.subjects


def test_a_cohort_folder_says_its_names_and_unit(tmp_path: Path) -> None:
    from dtwin_fast.cohort import Cohort
    from dtwin_fast.cohort_files import save_cohort

    made = Connectomes.from_arrays(edges(), regions=NAMES, subjects=IDS, is_fisher_z=True)
    save_cohort(Cohort(made, {}, (), 0.8, {}), tmp_path)
    people = open_people(tmp_path)
    assert people.is_fisher_z
    same(whole(people), made)
    for options in ({"regions": NAMES}, {"subjects": IDS}, {"is_fisher_z": True}):
        refused("argument", tmp_path, **options)
    save_cohort(Cohort(Connectomes.none(IDS), {}, (), 0.8, {}), tmp_path)
    refused("cohort_file", tmp_path)


def test_one_person_of_one_file(tmp_path: Path) -> None:
    rows = [["Node", *NAMES]]
    rows += [[n, *map(str, r)] for n, r in zip(NAMES, matrices(edges(1))[0], strict=True)]
    path = tmp_path / "sub-07_relmat.tsv"
    path.write_text("".join("\t".join(row) + "\n" for row in rows))
    people = open_people(path)
    same(whole(people), read_connectomes(path))
    assert open_people(path, subjects=["me"]).subjects == ("me",)
    refused("subject_count", path, subjects=["me", "you"])


def test_a_row_of_another_length_is_one_persons_fault(tmp_path: Path) -> None:
    rows = [list(map(float, row)) for row in edges()]
    rows[4] = rows[4][:3]
    lists: list[list[float | None] | None] = [*rows]
    lists[6] = None
    lists[8] = [None, *rows[8][1:]]
    table = pa.table({"subject": IDS, "edges": pa.array(lists, pa.list_(pa.float32()))})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=5)
    made = whole(open_people(tmp_path / "a.parquet"))
    assert {e.subject: e.code for e in made.rejected} == {
        IDS[4]: "edge_count",
        IDS[6]: "edge_count",
        IDS[8]: "nan",
    }
    others = [i for i in range(N) if i not in (4, 6, 8)]
    np.testing.assert_array_equal(made.edges, edges()[others])


def test_a_table_of_nulls_rejects_everyone(tmp_path: Path) -> None:
    column = pa.array([None] * 4, pa.list_(pa.float32(), E))
    pq.write_table(pa.table({"edges": column}), tmp_path / "a.parquet")
    made = whole(open_people(tmp_path / "a.parquet"))
    assert [error.code for error in made.rejected] == ["edge_count"] * 4
    assert made.edges.shape == (0, E)


def test_fisher_z_in_one_person_stops_the_range(tmp_path: Path) -> None:
    values = edges()
    values[11, 0] = 1.7
    people = open_people(save_npy(tmp_path, values))
    assert len(people.read(0, 11)) == 11
    with pytest.raises(DTwinInputError, match="fisher_z_as_r"):
        people.read(8, 14)


def test_a_diagonal_among_the_edges_is_seen_when_a_cohort_is_opened(tmp_path: Path) -> None:
    rows, columns = np.triu_indices(4)
    values = matrices(edges()[:, :6])[:, rows, columns]
    for kind in ("npy", "zarr", "parquet, lists"):
        refused("triangle_with_diagonal", SAVERS[kind](tmp_path, values))


@pytest.mark.parametrize("span", [(-1, 2), (3, 2), (0, N + 1)])
def test_there_is_no_such_range(span: tuple[int, int], tmp_path: Path) -> None:
    for kind in ("npy", "zarr", "parquet, lists"):
        people = open_people(SAVERS[kind](tmp_path, edges()))
        with pytest.raises(DTwinInputError, match="subject_index"):
            people.read(*span)


def test_a_cohort_larger_than_memory_is_opened_and_a_range_that_is_not_refused(
    tmp_path: Path,
) -> None:
    n_edges = 434 * 433 // 2
    n_people = 100_000  # 37 GB of float32, of which the disk holds none
    with (tmp_path / "fc.npy").open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (n_people, n_edges)}
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        file.seek(start + 99_999 * n_edges * 4)
        file.write(np.full(n_edges, 0.5, np.float32).tobytes())
    people = open_people(tmp_path / "fc.npy")
    last = people.read(99_998, 100_000)
    assert last.subjects == ("sub-100000",)
    assert (last.edges == 0.5).all()
    assert [error.code for error in last.rejected] == ["all_zero"]
    with pytest.raises(DTwinInputError, match="too_large"):
        people.read(0, n_people)


MEMORY = """
import sys
from dtwin_fast.screening.people import open_people

def peak():  # getrusage's would begin with the parent's
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

people = open_people(sys.argv[1])
n = len(people.subjects)
people.read(0, 50)
people.read(50, 100)
before = peak()
for start in range(0, n, 50):
    assert len(people.read(start, start + 50)) == 50
print(peak() - before)
"""


@pytest.mark.parametrize("kind", ["npy", "zarr", "parquet"])
def test_memory_does_not_grow_with_the_cohort(kind: str, tmp_path: Path) -> None:
    values = np.tanh(np.random.default_rng(0).normal(size=(2000, 4950))).astype(np.float32)
    if kind == "npy":
        path = save_npy(tmp_path, values)
    elif kind == "zarr":
        path = save_zarr(tmp_path, values, chunks=(50, 4950), compressors=None)
    else:
        path = tmp_path / "fc.parquet"
        column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 4950)
        pq.write_table(pa.table({"edges": column}), path, row_group_size=50)
    command = [sys.executable, "-c", MEMORY, str(path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(run.stdout) < 16 * 2**10  # KiB; the cohort has 38 MB, a range 1


@pytest.mark.parametrize("kind", ["npy", "npy, Fortran order", "zarr", "parquet, lists"])
@pytest.mark.parametrize("change", ["cut", "grown", "gone", "touched", "pipe"])
def test_a_file_that_changes_under_us_is_an_error(kind: str, change: str, tmp_path: Path) -> None:
    path = SAVERS[kind](tmp_path, edges())
    people = open_people(path)
    file = path if path.is_file() else path / "c/2/1"
    if change == "cut":
        os.truncate(file, file.stat().st_size - 5)
    elif change == "grown":
        os.truncate(file, file.stat().st_size + 5)
    elif change == "touched":
        os.utime(file, ns=(0, 10**18))
    else:
        file.unlink()
        if change == "pipe":
            os.mkfifo(file)
    with pytest.raises(DTwinInputError) as caught:
        people.read(4, 10)
    assert caught.value.code == "input_changed"


def test_a_file_cut_off_while_it_is_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_npy(tmp_path, edges())
    people = open_people(path)
    whole_read = os.preadv

    def cut_first(file: int, buffers: list[Any], start: int) -> int:
        os.truncate(path, start + 8)
        return whole_read(file, buffers, start)

    monkeypatch.setattr(os, "preadv", cut_first)
    with pytest.raises(DTwinInputError, match="input_changed"):
        people.read(4, 10)


def test_reads_in_pieces_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    people = open_people(save_npy(tmp_path, edges()))
    monkeypatch.setattr(array_files, "MAX_READ_BYTES", 7)
    np.testing.assert_array_equal(people.read(3, 9).edges, edges()[3:9])


def test_too_many_people_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(array_files, "MAX_PEOPLE", N - 1)
    refused("too_large", save_npy(tmp_path, edges()))


def meta_of(path: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((path / "zarr.json").read_text())
    return made


def change_meta(path: Path, **values: Any) -> None:
    (path / "zarr.json").write_text(json.dumps({**meta_of(path), **values}))


def test_a_chunk_that_is_not_there_is_no_zero(tmp_path: Path) -> None:
    path = save_zarr(tmp_path, edges())
    (path / "c/3/0").unlink()
    assert (zarr.open_array(path, mode="r")[9:12, :4] == 0).all()  # what zarr makes of it
    assert "c/3/0" in refused("file_missing", path).field


def test_a_chunk_written_by_zarr_as_all_zeros_is_refused(tmp_path: Path) -> None:
    values = edges()
    values[:3] = 0  # zarr leaves out chunks of fill values
    path = save_zarr(tmp_path, values)
    refused("file_missing", path)
    save_zarr(tmp_path / "b", values, config={"write_empty_chunks": True})
    made = whole(open_people(tmp_path / "b/fc.zarr"))
    assert [error.code for error in made.rejected] == ["all_zero"] * 3


def grid(*chunk_shape: int) -> dict[str, Any]:
    return {"name": "regular", "configuration": {"chunk_shape": list(chunk_shape)}}


BAD_ZARRS: dict[str, tuple[str, dict[str, Any]]] = {
    "a shape of 2^40 people": ("zarr_chunks", {"shape": [2**40, E]}),
    "a shape below 0": ("unreadable", {"shape": [-1, E]}),
    "a shape of text": ("unreadable", {"shape": ["20", E]}),
    "a shape that is true": ("unreadable", {"shape": [True, E]}),
    "no shape": ("unreadable", {"shape": None}),
    "chunks of 2^40 people": ("zarr_chunks", {"chunk_grid": grid(2**40, E)}),
    "chunks of no people": ("unreadable", {"chunk_grid": grid(0, E)}),
    "chunks of one axis": ("unreadable", {"chunk_grid": grid(3)}),
    "chunks in another grid": ("unreadable", {"chunk_grid": {"name": "rectilinear"}}),
    "larger chunks than stored": ("file_size", {"chunk_grid": grid(5, E), "shape": [5, E]}),
    "no numbers": ("unreadable", {"data_type": "string"}),
    "truths": ("dtype", {"data_type": "bool", "fill_value": False}),
    "complex numbers": ("dtype", {"data_type": "complex64", "fill_value": [0.0, 0.0]}),
    "no codecs": ("zarr_codec", {"codecs": []}),
    "an unknown codec": ("zarr_codec", {"codecs": [{"name": "bytes"}, {"name": "pickle"}]}),
    "version 2": ("unreadable", {"zarr_format": 2}),
    "names that are none": ("zarr_array", {"attributes": {"subjects": "abc"}}),
    "names of numbers": ("subject_id", {"attributes": {"subjects": list(range(N))}}),
    "a name twice": ("subject_duplicate", {"attributes": {"subjects": ["a"] * N}}),
    "too few names": ("subject_count", {"attributes": {"subjects": ["a"]}}),
    "too few regions": ("region_count", {"attributes": {"regions": ["a", "b", "c"]}}),
}


@pytest.mark.parametrize("row", BAD_ZARRS)
def test_bad_zarr(row: str, tmp_path: Path) -> None:
    code, values = BAD_ZARRS[row]
    path = save_zarr(tmp_path, edges(), chunks=(3, E))
    change_meta(path, **values)
    refused(code, path)


def test_other_folders_are_no_zarr(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    refused("file_missing", tmp_path / "a.zarr")
    (tmp_path / "a.zarr/zarr.json").write_text("[" * 100_000)
    refused("unreadable", tmp_path / "a.zarr")
    (tmp_path / "a.zarr/zarr.json").write_text("[]")
    refused("unreadable", tmp_path / "a.zarr")
    (tmp_path / "a.zarr/zarr.json").unlink()
    zarr.create_group(tmp_path / "a.zarr")
    refused("zarr_array", tmp_path / "a.zarr")
    save_zarr(tmp_path, edges(), compressors=zarr.codecs.GzipCodec())
    assert "zstd" in refused("zarr_codec", tmp_path / "fc.zarr").wanted
    zarr.create_array(tmp_path / "v2.zarr", shape=(2, E), chunks=(1, E), dtype="f4", zarr_format=2)
    refused("file_missing", tmp_path / "v2.zarr")


def zstd_frame(declared: int) -> bytes:
    """A frame that declares its size in 8 bytes, and one block of repeated zeros."""
    block = (min(declared, 2**17) << 3 | 1 << 1 | 1).to_bytes(3, "little") + b"\0"
    return b"\x28\xb5\x2f\xfd" + bytes([0xC0, 0x40]) + declared.to_bytes(8, "little") + block


@pytest.mark.parametrize("compressor", ["zstd", "blosc", "none"])
def test_a_chunk_says_the_size_it_should(
    compressor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {
        "zstd": zarr.codecs.ZstdCodec(),
        "blosc": zarr.codecs.BloscCodec(),
        "none": None,
    }
    path = save_zarr(tmp_path, edges(), chunks=(3, E), compressors=options[compressor])
    monkeypatch.setattr(array_files, "SAMPLE_BYTES", 0)  # the first is looked at when opened
    chunk = path / "c/6/0"
    good = chunk.read_bytes()
    frames = {
        "zstd": zstd_frame(2**40),
        "blosc": good[:4] + (2**30).to_bytes(4, "little") + good[8:],
        "none": good + b"\0",
    }
    for bad in (frames[compressor], good[:3], b"\0" * len(good) if compressor != "none" else b"x"):
        chunk.write_bytes(bad)
        people = open_people(path)
        assert len(people.read(6, 9)) == 3
        with pytest.raises(DTwinInputError) as caught:
            people.read(17, 20)
        assert caught.value.code == "file_size"


@pytest.mark.parametrize("n_bytes", [1, 200, 256, 60_000, 65_791, 65_792, 10**6, 2**33])
def test_sizes_in_zstd_frames(n_bytes: int) -> None:
    from numcodecs.zstd import Zstd

    head = zstd_frame(n_bytes)
    if n_bytes < 2**32:
        head = bytes(Zstd().encode(b"\0" * n_bytes))
    assert zarr_files._zstd_size(head[: zarr_files.FRAME_BYTES]) == n_bytes


def table_of(**columns: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        pq.write_table(pa.table(columns), folder / "fc.parquet")
        return folder / "fc.parquet"

    return write


BAD_TABLES: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "edges that are numbers": ("parquet_column", table_of(edges=[0.1, 0.2])),
    "lists of text": ("parquet_column", table_of(edges=[["a"] * E])),
    "text among wide columns": ("parquet_column", table_of(a=[0.1], site=["x"], b=[0.2])),
    "only ids": ("parquet_column", table_of(subject=["a"])),
    "nobody": ("no_subjects", table_of(subject=pa.array([], pa.string()), a=pa.array([], "f4"))),
    "7 edges": ("edge_count", table_of(edges=[[0.1] * 7])),
    "empty lists": ("edge_count", table_of(edges=pa.array([[], []], pa.list_(pa.float32())))),
    "a name that is null": ("subject_id", table_of(subject=["a", None], edges=[[0.1] * E] * 2)),
    "a name twice": ("subject_duplicate", table_of(subject=["a", "a"], edges=[[0.1] * E] * 2)),
    "long names": ("parquet_column", table_of(subject=["a" * 10**6], edges=[[0.1] * E])),
}


@pytest.mark.parametrize("row", BAD_TABLES)
def test_bad_table(row: str, tmp_path: Path) -> None:
    code, write = BAD_TABLES[row]
    refused(code, write(tmp_path))


def test_a_row_group_that_decodes_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 40 MB of zeros in a page of a few bytes.
    column = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(10 * 10**6, np.float32)), 10**6)
    pq.write_table(pa.table({"edges": column}), tmp_path / "fc.parquet")
    assert (tmp_path / "fc.parquet").stat().st_size < 10**5
    refused("file_bomb", tmp_path / "fc.parquet")
    monkeypatch.setattr(parquet_files, "MAX_GROUP_BYTES", 100)
    for kind in ("parquet, lists", "parquet, fixed lists", "parquet, wide"):
        assert "row_group_size" in refused("too_large", SAVERS[kind](tmp_path, edges())).fix


@pytest.mark.parametrize("kind", ["parquet, lists", "parquet, wide"])
def test_a_table_cut_off_or_flipped_is_refused_or_whole(kind: str, tmp_path: Path) -> None:
    good = SAVERS[kind](tmp_path, edges()).read_bytes()
    bad = [good[:size] for size in range(0, len(good), max(1, len(good) // 40))]
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(good), 200):
        bad.append(good[:place] + bytes([good[place] ^ 1 << rng.integers(8)]) + good[place + 1 :])
    path = tmp_path / "bad.parquet"
    n_refused = 0
    for data in bad:
        path.write_bytes(data)
        try:
            whole(open_people(path))
        except DTwinInputError:
            n_refused += 1
    assert n_refused >= 40


def test_arguments_that_an_array_has_no_use_for(tmp_path: Path) -> None:
    path = save_npy(tmp_path, edges())
    refused("argument", path, filters=Filters.of(participants=["01"]))
    refused("argument", path, index_cache=tmp_path)
    refused("argument", path, atlas=(path, path))


@pytest.mark.parametrize("name", ["none.npy", "none.npz", "none.zarr", "none.parquet", "none.tsv"])
def test_a_file_that_is_not_there(name: str, tmp_path: Path) -> None:
    refused("file_missing", tmp_path / name)


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.parquet", "sub-01_relmat.tsv"])
def test_what_is_no_file_is_refused_and_not_waited_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    refused("file_kind", tmp_path / name)


def test_a_header_that_lies_is_refused(tmp_path: Path) -> None:
    path = save_npy(tmp_path, edges())
    data = path.read_bytes()
    path.write_bytes(data.replace(b"(20, 10)", b"(99, 10)"))
    refused("file_size", path)
    path.write_bytes(data[:-1])
    refused("file_size", path)
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    refused("dtype", path)
    path.write_bytes(zlib.compress(data))
    refused("unreadable", path)
