"""Every bad input, through every entry point: its documented error, soon, and in little memory.

A row of ``bad_inputs.TABLE`` and one of its entry points are one test, named
``row | entry point``. Each must give the row's code within its limits of time and memory, without
a warning. A command must also exit as documented, say it in one line, and leave no results
behind, or those of the good people alone.
"""

from __future__ import annotations

import ast
import contextlib
import csv
import gzip
import importlib
import io
import re
import shutil
import signal
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
from bad_inputs import TABLE, Case, Place
from bad_inputs.arrays import PEOPLE
from bad_inputs.cases import MAX_BYTES, MAX_SECONDS, PERSON_CODES
from bad_inputs.files import GOOD, options_of
from bad_inputs.makers import BOMB_BYTES, nii_gz_bomb, npz_bomb
from bad_inputs.people import BAD, NAMES, N, matrices

import dtwin_fast
from dtwin_fast import cli
from dtwin_fast.connectome import Connectomes
from dtwin_fast.connectome_checks import FATAL_CODES
from dtwin_fast.errors import DTwinInputError
from dtwin_fast.readers import read_connectomes
from dtwin_fast.screening import open_results
from dtwin_fast.twin import Twin

HANG_SECONDS = 20
"""A call that takes so long is stopped, so that the other rows still get their turn."""

PYTHON = [(row, entry) for row, case in TABLE.items() for entry in case.calls]
COMMANDS = [
    (row, command)
    for number, (row, case) in enumerate(TABLE.items())
    for command in (case.commands if case.words else ())
    # Both read alike: of the inputs that screen takes, every fourth goes to predict too.
    if command == "screen" or "screen" not in case.commands or number % 4 == 0
]
ENTRIES = len(PYTHON) + len(COMMANDS)


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


@pytest.fixture(scope="module", autouse=True)
def imported(inputs: Path, tiny_twin: Twin, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What a first run imports is no cost of the first row."""
    for command in ("screen", "predict"):
        place = Place(
            tmp_path_factory.mktemp(command),
            tiny_twin,
            inputs / "model",
            inputs / "fc.npy",
            command,
        )
        with _sigterm():
            assert cli.main(place.words(place.model, place.people, {"regions": NAMES})) == 0
    for name in ("sklearn.covariance", "nilearn.connectome", "h5py", "nibabel.cifti2"):
        importlib.import_module(name)


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


@pytest.mark.parametrize(("row", "command"), COMMANDS, ids=_ids(COMMANDS))
def test_command(row: str, command: str, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    case = TABLE[row]
    assert case.words
    place = replace(place, command=command)
    words = list(case.words(place))
    before = set(place.folder.rglob("*"))
    # A person alone in a file is the whole input to screen, and one of one to predict.
    is_alone = case.code in PERSON_CODES and "read_connectomes" in case.calls
    exits = {case.exit, cli.EXIT_UNREADABLE} if is_alone else {case.exit}
    if command == "screen" and case.code in FATAL_CODES:
        exits.add(3)  # a mistake of one person among others

    def act() -> None:
        capsys.readouterr()
        shutil.rmtree(place.out, ignore_errors=True)
        code = cli.main(words)
        out, err = capsys.readouterr()
        assert code in exits, err or out
        assert "Traceback" not in err
        if code == 3:
            assert case.code in _rejected(place)
            return
        last = err.splitlines()[-1]  # a bar of progress may stand before it
        assert last.startswith(f"dtwin: [{case.code}] "), err
        assert err.count("dtwin: ") == 1
        assert out == ""
        assert [path for path in place.folder.rglob("*") if _is_result(path, before)] == []

    with _sigterm():
        assert_limits(case, act)


@contextlib.contextmanager
def _sigterm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _is_result(path: Path, before: set[Path]) -> bool:
    """Whether a file is new, and no note of a screening that has not ended."""
    is_new = path not in before and not path.is_dir()
    return is_new and {".dtwin", "logs"}.isdisjoint(path.parts)


def _rejected(place: Place) -> list[str]:
    """The codes of the people whom a command has rejected."""
    if place.command == "screen":
        codes: list[str] = open_results(place.out).rejected()["code"].to_pylist()
        return codes
    with (place.out / "rejected.tsv").open(encoding="utf-8", newline="") as file:
        return [row["code"] for row in csv.DictReader(file, delimiter="\t")]


@pytest.mark.parametrize("row", PEOPLE, ids=lambda row: ascii(row)[1:-1])
def test_a_bad_person_changes_no_bit_of_the_others(row: str, place: Place) -> None:
    code, array = PEOPLE[row]
    others = np.delete(array, BAD, axis=0)
    weights = place.twin.personalize(array, bad_subjects="drop")
    np.testing.assert_array_equal(weights.to_flat(), place.twin.personalize(others).to_flat())
    got, wanted = place.twin.predict(array, bad_subjects="drop"), place.twin.predict(others)
    assert [(error.code, error.subject) for error in got.rejected] == [(code, "sub-0002")]
    for field in ("choice_prob", "rt_s", "bold", "contrasts"):
        np.testing.assert_array_equal(getattr(got, field), getattr(wanted, field))
    assert got.flags == wanted.flags


@pytest.mark.parametrize("row", list(PEOPLE)[::3], ids=lambda row: ascii(row)[1:-1])
def test_a_bad_person_changes_no_bit_of_the_others_screened(row: str, place: Place) -> None:
    code, array = PEOPLE[row]
    people = [f"sub-{i}" for i in range(N)]
    good = [name for i, name in enumerate(people) if i != BAD]
    found = []
    for name, fc, subjects in (
        ("all", array, people),
        ("good", np.delete(array, BAD, axis=0), good),
    ):
        (place.folder / name).mkdir()
        here = replace(place, folder=place.folder / name, command="screen")
        np.save(here.folder / "fc.npy", fc)
        options = {"regions": NAMES, "subjects": subjects}
        with _sigterm():
            cli.main(here.words(here.model, here.folder / "fc.npy", options))
        found.append(open_results(here.out))
    both, alone = found
    assert both.rejected().select(["source_id", "code"]).to_pylist() == [
        {"source_id": people[BAD], "code": code}
    ]
    assert both.scores().drop(["row"]).equals(alone.scores().drop(["row"]))
    for name in alone.arrays:
        np.testing.assert_array_equal(np.delete(both.array(name), BAD, axis=0), alone.array(name))
        assert np.isnan(both.array(name)[BAD]).all()


@pytest.mark.parametrize("name", GOOD)
def test_flipped_bits_are_to_the_command_what_they_are_to_python(
    name: str, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused with one code by both, or read by both: some flips are of digits or of padding."""
    path = place.folder / name
    GOOD[name](path)
    whole = path.read_bytes()
    options = options_of(name, place.folder)
    words = place.words(place.model, path, options)
    rng = np.random.default_rng(20261129)
    # Half of the flips hit the first kilobyte, where the headers are.
    first, anywhere = rng.integers(0, min(len(whole), 1024), 8), rng.integers(0, len(whole), 8)
    for at in (*first, *anywhere):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        code, wanted = "", cli.EXIT_UNREADABLE
        try:
            read = read_connectomes(path, **options, bad_subjects="drop")
            wanted = 3 if place.twin.predict(read, bad_subjects="drop").rejected else 0
        except DTwinInputError as error:
            code = f"dtwin: [{error.code}] "
        shutil.rmtree(place.out, ignore_errors=True)
        with no_hang(), _sigterm():
            assert cli.main(words) == wanted
        assert code in capsys.readouterr().err


def test_errors_say_what_to_do_about_a_diagonal_in_the_edges() -> None:
    with_diagonal = matrices(2, 6)[:, *np.triu_indices(6)]
    with pytest.raises(DTwinInputError, match="15 edges for 6 regions; got 21"):
        Connectomes.from_arrays(with_diagonal)
    with pytest.raises(DTwinInputError, match="15 for 6 regions or 21 for 7"):
        Connectomes.from_arrays(np.zeros(16))


def test_the_bombs_are_real() -> None:
    """The archives are sound: an ordinary reader would inflate them."""
    with zipfile.ZipFile(io.BytesIO(npz_bomb())) as archive, archive.open("fc.npy") as stream:
        assert np.lib.format.read_magic(stream) == (1, 0)
        assert archive.getinfo("fc.npy").file_size > BOMB_BYTES
        assert len(stream.read(2**20)) == 2**20
    with gzip.open(io.BytesIO(nii_gz_bomb())) as stream:
        assert stream.read(348)[344:347] == b"n+1"
        assert len(stream.read(2**20)) == 2**20


LAYERS = (
    *("arrays", "files", "connectome", "connectome_checks", "weights", "dispatch", "spec"),
    *("readers/*", "twin", "twin_parts", "twin_files", "model_files", "prediction"),
    *("tasks/schedule", "cohort_files"),
)
ELSEWHERE = {
    "cohort": "people of a cohort that is made, not read: test_cohort_files.py",
}
"""Code -> why no row can have it."""


def _codes(source: str) -> set[str]:
    """The codes that a module gives to errors, itself or through a function of its own with a
    parameter ``code``, and those that its docstrings name where they say what is raised."""
    tree = list(ast.walk(ast.parse(source)))
    functions = [node for node in tree if isinstance(node, ast.FunctionDef)]
    place = {"DTwinInputError": 0, "problem": 0}
    for function in functions:
        names = [argument.arg for argument in function.args.args]
        if "code" in names:
            place[function.name] = names.index("code")
    given: list[ast.expr] = []
    for call in (node for node in tree if isinstance(node, ast.Call)):
        given += [word.value for word in call.keywords if word.arg == "code"]
        at = place.get(ast.unparse(call.func))
        given += call.args[at : at + 1] if at is not None else []
    codes = {node.value for node in given if isinstance(node, ast.Constant)}
    for node in (*functions, *(node for node in tree if isinstance(node, ast.ClassDef))):
        _, _, raises = (ast.get_docstring(node) or "").partition("Raises:")
        for listed in re.findall(r"\(([^()]*``[^()]*)\)", raises):
            codes |= set(re.findall("``([a-z0-9_]+)``", listed))
    return codes


def test_every_code_is_in_the_table() -> None:
    package = Path(dtwin_fast.__file__).parent
    sources = [path for layer in LAYERS for path in sorted(package.glob(f"{layer}.py"))]
    codes = set().union(*(_codes(path.read_text("utf-8")) for path in sources))
    missing = codes - {case.code for case in TABLE.values()}
    assert missing == set(ELSEWHERE)


def test_the_table_is_as_large_as_it_should_be() -> None:
    assert len(TABLE) >= 250
    assert ENTRIES >= 500
    assert MAX_SECONDS == 2
    assert MAX_BYTES == 64 * 2**20
