"""One row of the table: a bad input, the code of its error, and its entry points."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtwin_fast import cli
from dtwin_fast.cohort_files import load_cohort
from dtwin_fast.connectome import Connectomes
from dtwin_fast.readers import read_connectomes
from dtwin_fast.twin import Twin
from dtwin_fast.twin_files import load

from .makers import npy_of

MIB = 2**20
MAX_SECONDS = 2.0
MAX_BYTES = 64 * MIB
"""How far a refusal may take the process's memory above what it was."""
BOMB_SECONDS = 0.05

PERSON_CODES = frozenset(
    {
        *("nan", "infinite", "asymmetric", "diagonal", "r_as_fisher_z", "r_out_of_range"),
        *("z_out_of_range", "all_missing", "all_zero", "missing_regions"),
    }
)
"""Faults of one person of a cohort, who is rejected (exit 3) while the others are predicted."""

COMMANDS = ("screen", "predict")

Call = Callable[[], object]
Options = Mapping[str, Any]
NO_OPTIONS: Options = {}
Writer = Callable[[Path], object]
"""Writes a file at a path."""


@dataclass(frozen=True)
class Place:
    """Where a case is tried.

    Attributes:
        folder: empty, of this try alone.
        twin: one of R regions; ``model`` is its folder.
        people: a .npy of N good people.
        command: ``screen`` or ``predict``.
    """

    folder: Path
    twin: Twin
    model: Path
    people: Path
    command: str = "predict"

    def words(self, model: object, people: object, options: Options) -> list[str]:
        """The command line about people, with the options of ``read_connectomes``."""
        more: list[object] = []
        for field in ("regions", "subjects"):
            if options.get(field) is not None:
                more += [f"--{field}", self._table(field, options[field])]
        if options.get("atlas") is not None:
            more += ["--atlas", *options["atlas"]]
        if options.get("is_fisher_z"):
            more += ["--fisher-z"]
        out = [self.out] if self.command == "screen" else ["--out", self.out]
        return [str(word) for word in [self.command, model, people, *out, *more]]

    @property
    def out(self) -> Path:
        """The output folder of the command."""
        return self.folder / "out"

    def _table(self, field: str, names: Any) -> object:
        if isinstance(names, (str, Path)):
            return names
        path = self.folder / f"{field}.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["name" if field == "regions" else "subject"], *zip(names)])
        return path


@dataclass(frozen=True)
class Case:
    """A bad input.

    Attributes:
        code: of the one error it gives at every entry point.
        calls: entry point of Python -> what prepares the input and returns the call.
        words: what prepares the input and returns the command line; None where a command
            line cannot say it.
        commands: that take such words.
        exit: of the commands.
        seconds, n_bytes: limits of time, and of memory above what was taken before.
    """

    code: str
    calls: Mapping[str, Callable[[Place], Call]]
    words: Callable[[Place], Sequence[str]] | None = None
    commands: tuple[str, ...] = COMMANDS
    exit: int = cli.EXIT_UNREADABLE
    seconds: float = MAX_SECONDS
    n_bytes: int = MAX_BYTES


def exit_of(code: str) -> int:
    """The exit code of the command that meets this code first."""
    if code in PERSON_CODES:
        return 3
    return cli.EXIT_USAGE if code in cli.USAGE_CODES else cli.EXIT_UNREADABLE


def of_array(code: str, array: Any, *, in_file: bool = True, **options: Any) -> Case:
    """An array, and options of ``Connectomes.from_arrays``; a file has it too unless told."""
    calls: dict[str, Callable[[Place], Call]] = {}
    if code != "missing_regions":  # which is for the policy to refuse, not for the array
        calls["from_arrays"] = lambda place: lambda: Connectomes.from_arrays(array, **options)
    if not options:
        calls["personalize"] = lambda place: lambda: place.twin.personalize(array)
        calls["predict"] = lambda place: lambda: place.twin.predict(array)

    def words(place: Place) -> list[str]:
        path = place.folder / "fc.npy"
        path.write_bytes(npy_of(array))
        return place.words(place.model, path, {"regions": place.twin.regions, **options})

    return Case(code, calls, words if in_file else None, exit=exit_of(code))


def of_file(code: str, name: str, content: bytes | str | Writer, *more: Any, **limits: Any) -> Case:
    """A file of this name; the rest is as for :func:`of_path`."""

    def make(folder: Path) -> Path:
        path = folder / name
        if callable(content):
            content(path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return of_path(code, make, *more, **limits)


def of_path(
    code: str,
    make: Callable[[Path], object],
    options: Options | Callable[[Path], Options] = NO_OPTIONS,
    *,
    in_command: bool = True,
    commands: tuple[str, ...] = COMMANDS,
    exit: int | None = None,
    **limits: Any,
) -> Case:
    """A path made in a folder, and options of ``read_connectomes`` or what makes them there."""

    def made(place: Place) -> tuple[Any, Options]:
        path = make(place.folder)
        return path, options(place.folder) if callable(options) else options

    def read(place: Place) -> Call:
        path, more = made(place)
        return lambda: read_connectomes(path, **more)

    def predict(place: Place) -> Call:
        path, more = made(place)
        return lambda: place.twin.predict(read_connectomes(path, **more))

    def words(place: Place) -> list[str]:
        return place.words(place.model, *made(place))

    calls = {"predict": predict} if code == "missing_regions" else {"read_connectomes": read}
    wanted = exit_of(code) if exit is None else exit
    return Case(code, calls, words if in_command else None, commands, wanted, **limits)


def of_cohort(code: str, make: Callable[[Path], Path]) -> Case:
    """A cohort folder made in a folder."""

    def read(place: Place) -> Call:
        folder = make(place.folder)
        return lambda: load_cohort(folder)

    def words(place: Place) -> list[str]:
        return place.words(place.model, make(place.folder), {})

    return Case(code, {"load_cohort": read}, words)


def of_model(code: str, change: Callable[[Path, Twin], object], **limits: Any) -> Case:
    """A model folder after a change."""

    def make(place: Place) -> Path:
        folder = place.folder / "model"
        shutil.copytree(place.model, folder)
        change(folder, place.twin)
        return folder

    return of_model_path(code, make, **limits)


def of_model_path(code: str, make: Callable[[Place], Path], **limits: Any) -> Case:
    """What is given as model folder."""

    def opened(place: Place) -> Call:
        folder = make(place)
        return lambda: load(folder)

    def words(place: Place) -> list[str]:
        return place.words(make(place), place.people, {"regions": place.twin.regions})

    return Case(code, {"load": opened}, words, exit=exit_of(code), **limits)


def of_call(code: str, call: Callable[[Place], object]) -> Case:
    """A call of Python that no command line can make."""
    return Case(code, {"call": lambda place: lambda: call(place)})


def of_options(
    code: str,
    words: Sequence[object] | Callable[[Place], Sequence[object]],
    call: Callable[[Place], object] | None = None,
) -> Case:
    """Options of a command for good people, and the call of Python that asks for the same."""

    def full(place: Place) -> list[str]:
        more = words(place) if callable(words) else words
        base = place.words(place.model, place.people, {"regions": place.twin.regions})
        return [*base, *map(str, more)]

    calls: dict[str, Callable[[Place], Call]] = {}
    if call is not None:
        calls["predict"] = lambda place: lambda: call(place)
    return Case(code, calls, full, ("predict",), exit_of(code))


def edited(*path: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    """A change of one value of a parsed JSON file; ``...`` takes it out."""

    def change(values: dict[str, Any]) -> None:
        *parents, last = path
        part: Any = values
        for key in parents:
            part = part[key]
        if to is ...:
            del part[last]
        else:
            part[last] = to

    return change


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file in place."""
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
