"""Cohort folders: what is saved is loaded to the bit, and damage is one typed error."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dtwin_fast import cohort_files
from dtwin_fast.cohort import Cohort, TaskData
from dtwin_fast.cohort_files import load_cohort, save_cohort
from dtwin_fast.connectome import Connectomes
from dtwin_fast.errors import DTwinInputError
from dtwin_fast.simulate import simulate
from dtwin_fast.tasks import TASKS

N_PEOPLE = 5


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    pytest.importorskip("nilearn")
    return simulate(N_PEOPLE, 16, seed=4).cohort


@pytest.fixture(scope="module")
def saved(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    save_cohort(cohort, folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(saved, tmp_path / "cohort"))


def _assert_same(got: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> None:
    assert got.dtype == wanted.dtype
    np.testing.assert_array_equal(got, wanted)


def _assert_equal(got: Cohort, wanted: Cohort) -> None:
    assert got.connectomes.subjects == wanted.connectomes.subjects
    assert got.connectomes.regions == wanted.connectomes.regions
    assert got.connectomes.is_fisher_z == wanted.connectomes.is_fisher_z
    assert got.bold_regions == wanted.bold_regions
    assert got.tr_s == wanted.tr_s
    _assert_same(got.connectomes.edges, wanted.connectomes.edges)
    _assert_same(got.connectomes.missing, wanted.connectomes.missing)
    assert list(got.participants) == list(wanted.participants)
    for name, column in wanted.participants.items():
        _assert_same(got.participants[name], column)
    assert list(got.tasks) == list(wanted.tasks)
    for name, data in wanted.tasks.items():
        _assert_same(got.tasks[name].choice, data.choice)
        _assert_same(got.tasks[name].rt_s, data.rt_s)
        assert got.tasks[name].schedule.to_dict() == data.schedule.to_dict()
        if data.bold is None:
            assert got.tasks[name].bold is None
        else:
            bold = got.tasks[name].bold
            assert bold is not None
            _assert_same(bold, data.bold)


# What is saved comes back


def test_round_trip_to_the_bit(cohort: Cohort, saved: Path) -> None:
    assert cohort.tasks["faces"].bold is not None
    assert {column.dtype.kind for column in cohort.participants.values()} == {"i", "f"}
    _assert_equal(load_cohort(saved), cohort)


def test_round_trip_of_text_paths(cohort: Cohort, tmp_path: Path) -> None:
    save_cohort(cohort, str(tmp_path / "new" / "cohort"))
    _assert_equal(load_cohort(str(tmp_path / "new" / "cohort")), cohort)


def test_round_trip_of_a_cohort_that_lacks_things(cohort: Cohort, tmp_path: Path) -> None:
    edges = cohort.connectomes.edges.copy()
    edges[2, :15] = np.nan  # region 0 of one person
    regions = [f'area "{i}", α' for i in range(16)]
    stroop = cohort.tasks["stroop"]
    small = Cohort(
        Connectomes.from_arrays(
            np.arctanh(np.clip(edges, -0.99, 0.99)),
            regions=regions,
            subjects=[f"Zoë {i}" for i in range(N_PEOPLE)],
            is_fisher_z=True,
        ),
        {"stroop": TaskData(stroop.schedule, stroop.choice, stroop.rt_s)},
        cohort.bold_regions,
        1,
    )
    save_cohort(small, tmp_path)
    _assert_equal(load_cohort(tmp_path), replace(small, tr_s=1.0))
    assert load_cohort(tmp_path).connectomes.missing.sum() == 1


def test_round_trip_of_as_many_people_as_edges(tmp_path: Path) -> None:
    square = simulate(120, 16, with_bold=False).cohort
    assert square.connectomes.edges.shape == (120, 120)
    save_cohort(square, tmp_path)
    _assert_equal(load_cohort(tmp_path), square)


COLUMNS: dict[str, npt.NDArray[Any]] = {
    "floats": np.array([0.1 + 0.2, -1e-300, 5e300, np.nan, -0.0]),
    "whole floats": np.array([1.0, 2.0, 3.0, 4.0, np.inf]),
    "integers": np.array([0, -1, 2**62, 7, 7]),
    "words": np.array(["Bochum", "n/a", "", 'a "b"', "Zürich, CH"]),
    "codes": np.array(["007", "001", "12", "3", "4"]),
    "large codes": np.array(["9" * 30, "1", "2", "3", "4"]),
    "all missing": np.full(5, np.nan),
    "python numbers": np.array(["1_000", "1", "2", "3", "4"]),
}


@pytest.mark.parametrize("column", COLUMNS.values(), ids=COLUMNS)
def test_columns_of_participants_keep_value_and_kind(
    cohort: Cohort, tmp_path: Path, column: npt.NDArray[Any]
) -> None:
    with_column = replace(cohort, tasks={}, participants={"x": column, "y": column[::-1]})
    save_cohort(with_column, tmp_path)
    _assert_equal(load_cohort(tmp_path), with_column)


@given(column=hnp.arrays(st.sampled_from([np.float64, np.int64]), 5))
def test_numbers_come_back_to_the_bit(column: npt.NDArray[Any]) -> None:
    cells = cohort_files._cells("x", column)
    _assert_same(cohort_files._as_numbers(cells), column)


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("participant_id", np.zeros(5)),
        ("", np.zeros(5)),
        (" x", np.zeros(5)),
        ("a\tb", np.zeros(5)),
        ("x", np.zeros(5, bool)),
        ("x", np.zeros(5, object)),
        ("x", np.zeros(5, complex)),
        ("x", np.zeros(5, "datetime64[D]")),
        ("x", np.zeros(5, np.uint64)),
        ("x", np.array([" a", "b", "c", "d", "e"])),
        ("x", np.array(["a\n", "b", "c", "d", "e"])),
        ("x", np.array(["a" * 1001, "b", "c", "d", "e"])),
    ],
    ids=lambda value: repr(value)[:24] if isinstance(value, str) else str(value.dtype),
)
def test_columns_that_a_table_would_change_are_refused(
    cohort: Cohort, tmp_path: Path, name: str, column: npt.NDArray[Any]
) -> None:
    with pytest.raises(DTwinInputError, match="a table cannot hold this column"):
        save_cohort(replace(cohort, participants={name: column}), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_cohort_without_region_names_is_refused(cohort: Cohort, tmp_path: Path) -> None:
    nameless = replace(cohort, connectomes=replace(cohort.connectomes, regions=None))
    with pytest.raises(DTwinInputError, match="regions_unnamed"):
        save_cohort(nameless, tmp_path)


# An interrupted save is never taken for a cohort


def test_cohort_json_is_written_last(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    write = cohort_files.write_atomic

    def record(path: Path, data: bytes | str) -> None:
        written.append(path.name)
        write(path, data)

    monkeypatch.setattr(cohort_files, "write_atomic", record)
    monkeypatch.setattr("dtwin_fast.tables.write_atomic", record)
    monkeypatch.setattr("dtwin_fast.files.write_atomic", record)
    save_cohort(cohort, tmp_path)
    assert written[-1] == "cohort.json"
    assert set(written) == {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("n_files", range(9))
def test_an_interrupted_save_over_a_cohort_leaves_none(
    cohort: Cohort, folder: Path, monkeypatch: pytest.MonkeyPatch, n_files: int
) -> None:
    write, left = cohort_files.write_atomic, [n_files]

    def stop(path: Path, data: bytes | str) -> None:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        write(path, data)

    monkeypatch.setattr(cohort_files, "write_atomic", stop)
    monkeypatch.setattr("dtwin_fast.tables.write_atomic", stop)
    monkeypatch.setattr("dtwin_fast.files.write_atomic", stop)
    with pytest.raises(KeyboardInterrupt):
        save_cohort(cohort.select([4, 3, 2, 1, 0]), folder)
    with pytest.raises(DTwinInputError, match=r"cohort\.json"):
        load_cohort(folder)


# Damage

Damage = Callable[[Path], None]


def _edit(change: Callable[[dict[str, Any]], Any]) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "cohort.json"
        values = json.loads(path.read_bytes())
        changed = change(values)
        path.write_text(json.dumps(values if changed is None else changed))

    return damage


def _set(**values: Any) -> Damage:
    return _edit(lambda header: header.update(values))


def _write(name: str, data: bytes) -> Damage:
    return lambda folder: _nothing((folder / name).write_bytes(data))


def _replace(name: str, old: bytes, new: bytes) -> Damage:
    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        assert old in data
        (folder / name).write_bytes(data.replace(old, new))

    return damage


def _cut(name: str, n_bytes: int) -> Damage:
    return lambda folder: _nothing(
        (folder / name).write_bytes((folder / name).read_bytes()[:n_bytes])
    )


def _append(name: str, data: bytes) -> Damage:
    return lambda folder: _nothing((folder / name).write_bytes((folder / name).read_bytes() + data))


def _array(name: str, change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> Damage:
    return lambda folder: np.save(folder / name, change(np.load(folder / name)))


def _nothing(_: object) -> None:
    pass


def _object_array(folder: Path) -> None:
    array = np.array([[{}]], dtype=object)
    np.save(folder / "faces_choice.npy", array, allow_pickle=True)


def _folder_for_a_file(folder: Path) -> None:
    (folder / "faces_rt_s.npy").unlink()
    (folder / "faces_rt_s.npy").mkdir()


def _table(lines: list[str]) -> Damage:
    return _write("participants.tsv", "\n".join(lines).encode())


FILES = (
    "cohort.json",
    "connectomes.npy",
    "regions.tsv",
    "participants.tsv",
    "faces_choice.npy",
    "faces_rt_s.npy",
    "faces_bold.npy",
)
ROWS = [f"sub-{i}\t{i}" for i in range(N_PEOPLE)]
NPY_HEADER = b"\x93NUMPY\x01\x00"

DAMAGE: dict[str, Damage] = {
    **{f"{name} is absent": lambda f, n=name: (f / n).unlink() for name in FILES},  # type: ignore[misc]
    **{f"{name} is empty": _write(name, b"") for name in FILES},
    **{f"{name} is noise": _write(name, bytes(range(256))) for name in FILES},
    **{f"{name} is cut": _cut(name, 100) for name in FILES if name != "regions.tsv"},
    "a folder for a file": _folder_for_a_file,
    "json is a list": _write("cohort.json", b"[]"),
    "json is a number": _write("cohort.json", b"3"),
    "json is deep": _write("cohort.json", b"[" * 10**5),
    "json is not utf-8": _replace("cohort.json", b"dtwin_fast cohort", b"\xff\xfe"),
    "json is cut": _cut("cohort.json", 1000),
    "another format": _set(format="model"),
    "format is no text": _set(format=3),
    "no tasks": _edit(lambda h: _nothing(h.pop("tasks"))),
    "tasks are a list": _set(tasks=[]),
    "unknown task": _edit(lambda h: h["tasks"].update(chess=h["tasks"]["faces"])),
    "a task outside the folder": _edit(lambda h: h["tasks"].update({"../x": h["tasks"]["faces"]})),
    "a task without schedule": _edit(lambda h: h["tasks"].update(faces=None)),
    "schedules are swapped": _edit(
        lambda h: h.update(tasks=dict(zip(h["tasks"], reversed(h["tasks"].values()), strict=True)))
    ),
    "a schedule has a hole": _edit(lambda h: _nothing(h["tasks"]["faces"].pop("item"))),
    "tr is absent": _edit(lambda h: _nothing(h.pop("tr_s"))),
    "tr is zero": _set(tr_s=0),
    "tr is negative": _set(tr_s=-0.8),
    "tr is text": _set(tr_s="0.8"),
    "tr is true": _set(tr_s=True),
    "tr is NaN": _set(tr_s=float("nan")),
    "tr is infinite": _set(tr_s=float("inf")),
    "tr has a thousand digits": _set(tr_s=10**1000),
    "tr is shorter: volumes are missing": _set(tr_s=0.4),
    "unit is text": _set(is_fisher_z="false"),
    "unit is absent": _edit(lambda h: _nothing(h.pop("is_fisher_z"))),
    "bold regions are text": _set(bold_regions="LH_V1"),
    "bold regions are numbers": _set(bold_regions=list(range(20))),
    "bold regions are lists": _set(bold_regions=[["a"]] * 20),
    "bold regions are too few": _set(bold_regions=["LH_V1"]),
    "bold regions are absent": _edit(lambda h: _nothing(h.pop("bold_regions"))),
    "with_bold is a number": _set(with_bold=1),
    "with_bold is absent": _edit(lambda h: _nothing(h.pop("with_bold"))),
    "npy holds objects": _object_array,
    "npy is longer than it says": _append("faces_bold.npy", b"\x00" * 8),
    "npy is an npz": _write("faces_rt_s.npy", b"PK\x03\x04" + b"\x00" * 500),
    "npy header is not closed": _write("faces_rt_s.npy", NPY_HEADER + b"\x10\x00{'descr': (((("),
    "npy header lies": _replace("faces_bold.npy", b"'shape': (5, 493", b"'shape': (9, 493"),
    "npy header is python 2": _replace("faces_bold.npy", b"(5, 493, 20)", b"(5L,493,20)"),
    "npy has another version": _replace("faces_rt_s.npy", NPY_HEADER, b"\x93NUMPY\x09\x00"),
    "npy is of bytes": _array("faces_choice.npy", lambda a: a.astype("S1")),
    "choice is 0-d": _array("faces_choice.npy", lambda a: a[0, 0]),
    "choice is 1-d": _array("faces_choice.npy", lambda a: a[0]),
    "choice is int64": _array("faces_choice.npy", lambda a: a.astype(np.int64)),
    "choice is another byte order": _array("faces_rt_s.npy", lambda a: a.astype(">f4")),
    "choice is 3": _array("faces_choice.npy", lambda a: np.where(a >= 0, 3, a).astype(np.int8)),
    "choice is -4": _array("faces_choice.npy", lambda a: np.where(a < 0, -4, a).astype(np.int8)),
    "a trial is missing": _array("faces_choice.npy", lambda a: a[:, 1:]),
    "a person is missing": _array("faces_choice.npy", lambda a: a[1:]),
    "nobody is left": _array("faces_choice.npy", lambda a: a[:0]),
    "rt is float64": _array("faces_rt_s.npy", lambda a: a.astype(np.float64)),
    "rt is infinite": _array("faces_rt_s.npy", lambda a: np.where(a > 0, np.inf, a)),
    "rt is never NaN": _array("faces_rt_s.npy", lambda a: np.nan_to_num(a)),
    "rt lacks a person": _array("faces_rt_s.npy", lambda a: a[1:]),
    "bold is infinite": _array("faces_bold.npy", lambda a: a * np.float32(np.inf)),
    "bold is float64": _array("faces_bold.npy", lambda a: a.astype(np.float64)),
    "bold lacks a person": _array("faces_bold.npy", lambda a: a[1:]),
    "bold lacks volumes": _array("faces_bold.npy", lambda a: a[:, :100]),
    "bold lacks a region": _array("faces_bold.npy", lambda a: a[:, :, 1:]),
    "bold is 2-d": _array("faces_bold.npy", lambda a: a[:, :, 0]),
    "bold is empty": _array("faces_bold.npy", lambda a: a[:, :0]),
    "edges lack a person": _array("connectomes.npy", lambda a: a[1:]),
    "edges lack an edge": _array("connectomes.npy", lambda a: a[:, 1:]),
    "edges are infinite": _array("connectomes.npy", lambda a: a + np.float32(np.inf)),
    "regions are too few": _write("regions.tsv", b"name\nV1\nV2\n"),
    "regions repeat": _write("regions.tsv", b"name\n" + b"V1\n" * 16),
    "participants are a header": _table(["participant_id\tage"]),
    "participants are blank lines": _table(["", "", ""]),
    "participants are ragged": _table(["participant_id\tage", *ROWS[:-1], "sub-4"]),
    "participants have a long row": _table(["participant_id\tage", *ROWS[:-1], "sub-4\t4\t4"]),
    "participants are too few": _table(["participant_id\tage", *ROWS[1:]]),
    "participants have no id": _table(["who\tage", *ROWS]),
    "participants have ids last": _table(["age\tparticipant_id", *ROWS]),
    "participants have a title twice": _table(
        ["participant_id\tage\tage", *(f"{row}\t1" for row in ROWS)]
    ),
    "participants repeat": _table(["participant_id\tage", *ROWS[:-1], ROWS[0]]),
    "participants are not utf-8": _write("participants.tsv", b"participant_id\nZo\xeb\n"),
    "participants have an open quote": _table(["participant_id\tage", '"' + ROWS[0], *ROWS[1:]]),
    "participants have commas": _write("participants.tsv", b"participant_id,age\nsub-1,2\n"),
    "participants have a NUL": _table(["participant_id\tage", "sub\x00-0\t0", *ROWS[1:]]),
    "participants are paths": _table(["participant_id", "../../x", "b", "c", "d", "e"]),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_one_typed_error(folder: Path, damage: Damage) -> None:
    damage(folder)
    with pytest.raises(DTwinInputError) as caught:
        load_cohort(folder)
    assert caught.value.field
    assert caught.value.fix
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize("path", ["absent", "a\x00b", "x" * 300], ids=["absent", "NUL", "long"])
def test_paths_that_are_no_cohort(tmp_path: Path, path: str) -> None:
    with pytest.raises(DTwinInputError, match="file_missing"):
        load_cohort(tmp_path / path)


def test_nothing_is_left_open_or_mapped(folder: Path) -> None:
    loaded = load_cohort(folder)
    for data in loaded.tasks.values():
        assert type(data.choice) is np.ndarray
        assert data.bold is not None
        assert data.bold.flags.owndata


# The parts of a cohort fit together


def test_select_keeps_everyone_in_step(cohort: Cohort) -> None:
    some = cohort.select([3, 0])
    assert some.connectomes.subjects == ("sub-00004", "sub-00001")
    for name, data in cohort.tasks.items():
        _assert_same(some.tasks[name].rt_s, data.rt_s[[3, 0]])
    _assert_same(some.participants["age_years"], cohort.participants["age_years"][[3, 0]])
    _assert_equal(cohort.select(np.ones(N_PEOPLE, bool)), cohort)
    assert len(cohort.select([])) == 0


def _task(cohort: Cohort, **parts: Any) -> TaskData:
    return replace(cohort.tasks["faces"], **parts)


MISFITS: dict[str, Callable[[Cohort], object]] = {
    "participants are 2-d": lambda c: replace(c, participants={"x": np.zeros((N_PEOPLE, 2))}),
    "participants are 0-d": lambda c: replace(c, participants={"x": np.zeros(())}),
    "participants are too few": lambda c: replace(c, participants={"x": np.zeros(2)}),
    "a task of others": lambda c: replace(c, tasks={"faces": c.tasks["faces"].select([0])}),
    "another task's schedule": lambda c: replace(c, tasks={"faces": c.tasks["stroop"]}),
    "no TR": lambda c: replace(c, tr_s=0.0),
    "TR is NaN": lambda c: replace(c, tr_s=float("nan")),
    "bold regions": lambda c: replace(c, bold_regions=("LH_V1",)),
    "choices of others": lambda c: _task(c, choice=c.tasks["stroop"].choice),
    "rt where nobody answered": lambda c: _task(c, rt_s=np.ones_like(c.tasks["faces"].rt_s)),
    "choices are a list": lambda c: _task(c, choice=c.tasks["faces"].choice.tolist()),
    "rt is a list": lambda c: _task(c, rt_s=c.tasks["faces"].rt_s.tolist()),
    "choices are a number": lambda c: _task(c, choice=np.int8(0)),
    "BOLD is a list": lambda c: _task(c, bold=c.tasks["faces"].bold.tolist()),  # type: ignore[union-attr]
    "a schedule is a name": lambda c: _task(c, schedule="faces"),
    "participants are a list": lambda c: replace(c, participants={"x": [0.0] * N_PEOPLE}),
    "participants are no dict": lambda c: replace(c, participants=[1, 2]),
    "tasks are a list": lambda c: replace(c, tasks=[c.tasks["faces"]]),
    "a task is an array": lambda c: replace(c, tasks={"faces": c.tasks["faces"].choice}),
    "connectomes are an array": lambda c: replace(c, connectomes=c.connectomes.edges),
    "bold regions are a list": lambda c: replace(c, bold_regions=list(c.bold_regions)),
    "TR is text": lambda c: replace(c, tr_s="0.8"),
    "another schedule": lambda c: _task(c, schedule=TASKS["stroop"].make_schedule(0)),
}


@pytest.mark.parametrize("misfit", MISFITS.values(), ids=MISFITS)
def test_parts_that_do_not_fit_are_refused(
    cohort: Cohort, misfit: Callable[[Cohort], object]
) -> None:
    with pytest.raises(DTwinInputError, match=r"\[cohort\]"):
        misfit(cohort)
