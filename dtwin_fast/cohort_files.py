"""A cohort on disk: plain npy arrays, TSV tables and one JSON file.

::

    cohort.json          schedules, BOLD regions, TR
    connectomes.npy      (S,E) float32, Pearson r or Fisher z as cohort.json says
    regions.tsv          name: the R regions in order; both absent without connectomes
    participants.tsv     participant_id and columns such as age_years
    <task>_choice.npy    (S,N) int8, -1 = no response
    <task>_rt_s.npy      (S,N) float32, NaN = no response
    <task>_bold.npy      (S,V,regions) float32 at TR; absent without BOLD
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .cohort import Cohort, TaskData, is_run_of
from .connectome import Connectomes
from .errors import DTwinInputError
from .files import check_regular_file, write_atomic, write_npy
from .readers import read_connectomes
from .readers.request import parsing
from .readers.tables import MAX_CELL_CHARS, read_text_table
from .spec import MAX_TR_S
from .tables import write_tsv
from .tasks import TASKS
from .tasks.schedule import Schedule

COHORT_FILE = "cohort.json"
FORMAT = "dtwin_fast cohort"
MAX_JSON_BYTES = 32 * 2**20

# A code such as 007 is text.
INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
NUMBER = re.compile(r"-?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|-?inf")


def save_cohort(cohort: Cohort, folder: str | Path) -> None:
    """Write a cohort folder; cohort.json comes last, so an unfinished folder is refused.

    Raises:
        DTwinInputError: connectomes without region names (code ``regions_unnamed``), or a
            column of participants that a table cannot hold (``cohort``).
    """
    folder = Path(folder)
    regions = cohort.connectomes.regions
    if regions is None:
        raise DTwinInputError(
            "regions_unnamed",
            "a cohort on disk needs region names",
            field="connectomes",
            fix="Give regions= when making the connectomes",
        )
    columns = {name: _cells(name, column) for name, column in cohort.participants.items()}
    # An earlier cohort in this folder ends here: its header must not describe new arrays.
    (folder / COHORT_FILE).unlink(missing_ok=True)
    if regions:
        write_npy(folder / "connectomes.npy", cohort.connectomes.edges)
        write_tsv(folder / "regions.tsv", ["name"], ([name] for name in regions))
    write_tsv(
        folder / "participants.tsv",
        ["participant_id", *columns],
        zip(cohort.connectomes.subjects, *columns.values(), strict=True),
    )
    for name, data in cohort.tasks.items():
        write_npy(folder / f"{name}_choice.npy", data.choice)
        write_npy(folder / f"{name}_rt_s.npy", data.rt_s)
        if data.bold is not None:
            write_npy(folder / f"{name}_bold.npy", data.bold)
    header = {
        "format": FORMAT,
        "has_connectomes": bool(regions),
        "is_fisher_z": cohort.connectomes.is_fisher_z,
        "bold_regions": list(cohort.bold_regions),
        "tr_s": float(cohort.tr_s),
        "tasks": {name: data.schedule.to_dict() for name, data in cohort.tasks.items()},
        "with_bold": [name for name, data in cohort.tasks.items() if data.bold is not None],
    }
    write_atomic(folder / COHORT_FILE, json.dumps(header, allow_nan=False) + "\n")


def load_cohort(folder: str | Path) -> Cohort:
    """Read a cohort folder.

    Columns of participants come back as int64 where every cell is an integer, as float64
    where every cell is a number or ``n/a``, else as text.

    Raises:
        DTwinInputError: not a cohort folder, or files that do not fit together.
    """
    folder = Path(folder)
    header = _read_header(folder / COHORT_FILE)
    subjects, participants = _read_participants(folder / "participants.tsv")
    if header.has_connectomes:
        connectomes = read_connectomes(
            folder / "connectomes.npy",
            regions=folder / "regions.tsv",
            subjects=subjects,
            is_fisher_z=header.is_fisher_z,
        )
    else:
        connectomes = Connectomes.none(subjects)
    tasks = {}
    for name, schedule in header.schedules.items():
        choice, rt_s = (_read_npy(folder / f"{name}_{what}.npy") for what in ("choice", "rt_s"))
        bold = _read_npy(folder / f"{name}_bold.npy") if name in header.with_bold else None
        tasks[name] = TaskData(schedule, choice, rt_s, bold)
    return Cohort(connectomes, tasks, header.bold_regions, header.tr_s, participants)


def connectome_files(folder: Path) -> tuple[Path, Path, tuple[str, ...], bool]:
    """A cohort's edges (.npy), its table of regions, its subjects, and whether edges are Fisher z.

    Raises:
        DTwinInputError: not a cohort folder, or one without connectomes (``cohort_file``).
    """
    header = _read_header(folder / COHORT_FILE)
    if not header.has_connectomes:
        raise _cohort_error(folder, "these people have no connectomes", "connectomes", "none")
    subjects, _ = _read_participants(folder / "participants.tsv")
    return folder / "connectomes.npy", folder / "regions.tsv", subjects, header.is_fisher_z


@dataclass(frozen=True)
class _Header:
    schedules: dict[str, Schedule]
    bold_regions: tuple[str, ...]
    tr_s: float
    has_connectomes: bool
    is_fisher_z: bool
    with_bold: tuple[str, ...]


def _read_header(path: Path) -> _Header:
    check_regular_file(path, max_bytes=MAX_JSON_BYTES)
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        raise _cohort_error(path, "this is not a JSON file", FORMAT, error) from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise _cohort_error(path, "this is not a cohort file", FORMAT, type(values).__name__)
    tasks: Any = values.get("tasks")
    tr_s: Any = values.get("tr_s")
    if not isinstance(tasks, dict) or not all(
        any(is_run_of(name, task) for task in TASKS) for name in tasks
    ):
        raise _cohort_error(path, "unknown tasks", " | ".join(TASKS), tasks)
    if not all(isinstance(schedule, dict) for schedule in tasks.values()):
        raise _cohort_error(path, "a task has no schedule", "a schedule for each task", tasks)
    if type(tr_s) not in (int, float) or not 0 < tr_s < MAX_TR_S:
        raise _cohort_error(path, "the TR is not a time", f"seconds below {MAX_TR_S}", tr_s)
    if type(values.get("is_fisher_z")) is not bool:
        raise _cohort_error(path, "the unit is not said", "is_fisher_z true or false", "neither")
    # Cohorts of earlier versions all have connectomes, and do not say so.
    has_connectomes = values.get("has_connectomes", True)
    if type(has_connectomes) is not bool:
        raise _cohort_error(
            path, "it is not said whether there are connectomes", "true or false", has_connectomes
        )
    for name in ("bold_regions", "with_bold"):
        entries = values.get(name)
        if not isinstance(entries, list) or not all(isinstance(e, str) for e in entries):
            raise _cohort_error(path, f"{name} is not a list of names", "names", entries)
    return _Header(
        {name: Schedule.from_dict(schedule) for name, schedule in tasks.items()},
        tuple(values["bold_regions"]),
        float(tr_s),
        has_connectomes,
        values["is_fisher_z"],
        tuple(values["with_bold"]),
    )


def _read_npy(path: Path) -> npt.NDArray[Any]:
    size = check_regular_file(path)
    # Mapped, not read: a header may declare more than the file holds, and numpy compares
    # when it maps.
    with parsing(path, UserWarning), warnings.catch_warnings():
        warnings.simplefilter("error")
        array = np.lib.format.open_memmap(path, mode="r")
        if array.offset + array.nbytes != size:
            raise ValueError("there are bytes behind the array")
    return np.array(array)


def _read_participants(path: Path) -> tuple[tuple[str, ...], dict[str, npt.NDArray[Any]]]:
    titles, rows = read_text_table(path)
    if not rows or titles[0] != "participant_id" or len(set(titles)) < len(titles):
        raise _cohort_error(
            path,
            "this is not a table of participants",
            "rows, a first column participant_id, every title once",
            f"{len(rows)} rows of {titles}",
        )
    subjects, *columns = zip(*rows, strict=True)
    return subjects, {
        name: _as_numbers(column) for name, column in zip(titles[1:], columns, strict=True)
    }


def _cells(name: str, column: npt.NDArray[Any]) -> list[str]:
    """A column as text that reads back as it was."""
    kind, cells = column.dtype.kind, [name]
    if kind == "f" and np.can_cast(column.dtype, np.float64):
        cells += ["n/a" if math.isnan(value) else repr(value) for value in column.tolist()]
    elif kind == "U" or (kind in "iu" and np.can_cast(column.dtype, np.int64)):
        cells += [str(value) for value in column.tolist()]
    is_plain = all(c.isprintable() and c == c.strip() and len(c) <= MAX_CELL_CHARS for c in cells)
    if len(cells) != len(column) + 1 or not is_plain or name in ("", "participant_id"):
        raise DTwinInputError(
            "cohort",
            "a table cannot hold this column",
            field=f"participants[{name!r}]",
            wanted="numbers or short printable text under a title of its own",
            got=str(column.dtype),
            fix="Convert it with astype, or rename it",
        )
    return cells[1:]


def _as_numbers(cells: Sequence[str]) -> npt.NDArray[Any]:
    try:
        if all(map(INTEGER.fullmatch, cells)):
            return np.array(list(map(int, cells)), np.int64)
    except OverflowError:
        return np.array(cells)
    if all(cell == "n/a" or NUMBER.fullmatch(cell) for cell in cells):
        return np.array([math.nan if cell == "n/a" else float(cell) for cell in cells], np.float64)
    return np.array(cells)  # words, such as a site's name


def _cohort_error(path: Path, what: str, wanted: object, got: object) -> DTwinInputError:
    return DTwinInputError(
        "cohort_file",
        what,
        field=str(path),
        wanted=str(wanted),
        got=str(got)[:200],
        fix="Name a folder that `dtwin simulate` or save_cohort wrote, whole",
    )
