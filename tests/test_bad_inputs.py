"""Every bad input, through every entry point: its documented error, soon, and in little memory.

A row of ``bad_inputs.TABLE`` and one of its entry points are one test, named
``row | entry point``. Each must give the row's code within its limits of time and memory, without
a warning. A command must also exit as documented, say it in one line, and leave no results
behind, or those of the good people alone.
"""

from __future__ import annotations

import contextlib
import csv
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
from bad_inputs import TABLE, Case, Place
from bad_inputs.cases import MAX_BYTES, MAX_SECONDS
from bad_inputs.people import NAMES, matrices

from dtwin_fast import cli
from dtwin_fast.errors import DTwinInputError
from dtwin_fast.twin import Twin

HANG_SECONDS = 20
"""A call that takes so long is stopped, so that the other rows still get their turn."""

PYTHON = [(row, entry) for row, case in TABLE.items() for entry in case.calls]
COMMANDS = [row for row, case in TABLE.items() if case.words]


def _ids(pairs: list[tuple[str, str]]) -> list[str]:
    return [f"{ascii(row)[1:-1]} | {entry}" for row, entry in pairs]


@pytest.fixture(scope="module")
def inputs(tiny_twin: Twin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and people that fit it; what they need has been imported."""
    assert tiny_twin.regions == NAMES
    folder = tmp_path_factory.mktemp("inputs")
    tiny_twin.save(folder / "model")
    np.save(folder / "fc.npy", matrices())
    return folder


@pytest.fixture
def place(inputs: Path, tiny_twin: Twin, tmp_path: Path) -> Place:
    return Place(tmp_path, tiny_twin, inputs / "model", inputs / "fc.npy")


@contextlib.contextmanager
def no_hang() -> Iterator[None]:
    def stop(signum: int, frame: FrameType | None) -> None:
        raise AssertionError(f"still at it after {HANG_SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(HANG_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _memory(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def cost(act: Callable[[], object]) -> tuple[float, int]:
    """Seconds, and bytes of resident memory above what was resident before."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _memory("VmRSS")
    start = time.perf_counter()
    with no_hang():
        act()
    return time.perf_counter() - start, _memory("VmHWM") - before


def assert_limits(case: Case, act: Callable[[], object]) -> None:
    """``act`` keeps the limits; once in two times is enough on a busy machine."""
    for last in (False, True):
        seconds, n_bytes = cost(act)
        if seconds < case.seconds and n_bytes < case.n_bytes:
            return
        assert not last, f"{seconds:.3f} s of {case.seconds}, {n_bytes:,} B of {case.n_bytes:,}"


@pytest.mark.parametrize(("row", "entry"), PYTHON, ids=_ids(PYTHON))
def test_python(row: str, entry: str, place: Place) -> None:
    case = TABLE[row]
    call = case.calls[entry](place)

    def act() -> None:
        with pytest.raises(DTwinInputError) as caught:
            call()
        assert caught.value.code == case.code, str(caught.value)
        assert caught.value.fix
        assert len(str(caught.value)) < 5000

    assert_limits(case, act)


@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: ascii(row)[1:-1])
def test_command(row: str, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    case = TABLE[row]
    assert case.words
    words = list(case.words(place))
    before = sorted(place.folder.rglob("*"))

    def act() -> None:
        capsys.readouterr()
        shutil.rmtree(place.out, ignore_errors=True)
        code = cli.main(words)
        out, err = capsys.readouterr()
        assert code == case.exit, err or out
        assert "Traceback" not in err
        if code == 3:
            assert case.code in [rejected["code"] for rejected in _rows(place.out, "rejected")]
            return
        last = err.splitlines()[-1]  # a bar of progress may stand before it
        assert last.startswith(f"dtwin: [{case.code}] "), err
        assert err.count("dtwin: ") == 1
        assert out == ""
        assert sorted(place.folder.rglob("*")) == before

    with _sigterm():
        assert_limits(case, act)


@contextlib.contextmanager
def _sigterm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _rows(out: Path, name: str) -> list[dict[str, str]]:
    with (out / f"{name}.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_the_table_is_as_large_as_it_should_be() -> None:
    assert len(TABLE) >= 250
    assert sum(len(case.entries) for case in TABLE.values()) >= 500
    assert MAX_SECONDS == 2
    assert MAX_BYTES == 64 * 2**20
