"""A cohort on disk: plain npy arrays, TSV tables and one JSON file.

::

    cohort.json          schedules, BOLD regions, TR
    connectomes.npy      (S,E) float32, Pearson r or Fisher z as cohort.json says
    regions.tsv          name: the R regions in order
    participants.tsv     participant_id and columns such as age_years
    <task>_choice.npy    (S,N) int8, -1 = no response
    <task>_rt_s.npy      (S,N) float32, NaN = no response
    <task>_bold.npy      (S,V,regions) float32 at TR; absent without BOLD
"""

from __future__ import annotations

import io
import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .cohort import Cohort, TaskData
from .connectome import Connectomes
from .errors import DTwinInputError
from .files import check_regular_file, write_atomic
from .readers import read_connectomes
from .readers.request import parsing
from .readers.tables import read_text_table
from .tables import write_tsv
from .tasks import TASKS
from .tasks.schedule import Schedule

COHORT_FILE = "cohort.json"
FORMAT = "dtwin_fast cohort"
MAX_JSON_BYTES = 32 * 2**20


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
    columns = {name: _cells(name, column) for name, column in sorted(cohort.participants.items())}
    # An earlier cohort in this folder ends here: its header must not describe new arrays.
    (folder / COHORT_FILE).unlink(missing_ok=True)
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
        "is_fisher_z": cohort.connectomes.is_fisher_z,
        "bold_regions": list(cohort.bold_regions),
        "tr_s": cohort.tr_s,
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
    connectomes = read_connectomes(
        folder / "connectomes.npy",
        regions=folder / "regions.tsv",
        subjects=subjects,
        is_fisher_z=header.is_fisher_z,
    )
    tasks = {}
    for name, schedule in header.schedules.items():
        choice, rt_s = (_read_npy(folder / f"{name}_{what}.npy") for what in ("choice", "rt_s"))
        bold = _read_npy(folder / f"{name}_bold.npy") if name in header.with_bold else None
        tasks[name] = TaskData(schedule, choice, rt_s, bold)
    return Cohort(connectomes, tasks, header.bold_regions, header.tr_s, participants)


def write_npy(path: Path, array: npt.NDArray[Any]) -> None:
    """Write a .npy file atomically."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_atomic(path, buffer.getvalue())


@dataclass(frozen=True)
class _Header:
    schedules: dict[str, Schedule]
    bold_regions: tuple[str, ...]
    tr_s: float
    is_fisher_z: bool
    with_bold: tuple[str, ...]


def _read_header(path: Path) -> _Header:
    check_regular_file(path, max_bytes=MAX_JSON_BYTES)
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        raise _cohort_error(path, "this is not a JSON file", FORMAT, error) from error
    kinds = {
        "format": str,
        "is_fisher_z": bool,
        "bold_regions": list,
        "tr_s": float,
        "tasks": dict,
        "with_bold": list,
    }
    got = {key: type(value) for key, value in values.items()} if isinstance(values, dict) else {}
    if got != kinds or values["format"] != FORMAT:
        found = {key: kind.__name__ for key, kind in got.items()} or type(values).__name__
        raise _cohort_error(path, "this is not a cohort file", FORMAT, found)
    tasks, with_bold = values["tasks"], values["with_bold"]
    if not set(tasks) <= set(TASKS) or not all(isinstance(s, dict) for s in tasks.values()):
        raise _cohort_error(path, "unknown tasks", " | ".join(TASKS), list(tasks))
    for name, allowed in (("bold_regions", None), ("with_bold", tasks)):
        entries = values[name]
        known = all(isinstance(e, str) and (allowed is None or e in allowed) for e in entries)
        if not known or len(set(entries)) < len(entries):
            raise _cohort_error(path, f"{name} does not name each once", "names", entries)
    return _Header(
        {name: Schedule.from_dict(schedule) for name, schedule in tasks.items()},
        tuple(values["bold_regions"]),
        values["tr_s"],
        values["is_fisher_z"],
        tuple(with_bold),
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
    """A column as text that reads back to the same bits."""
    if column.dtype.kind == "f":
        return ["n/a" if math.isnan(value) else repr(value) for value in column.tolist()]
    if name == "participant_id" or column.dtype.kind not in "iuU":
        raise DTwinInputError(
            "cohort",
            "a table cannot hold this column",
            field=f"participants[{name!r}]",
            wanted="numbers or text under a title of its own",
            got=str(column.dtype),
            fix="Convert it with astype, or rename it",
        )
    return [str(value) for value in column.tolist()]


def _as_numbers(cells: Sequence[str]) -> npt.NDArray[Any]:
    for parse, dtype in ((int, np.int64), (float, np.float64)):
        missing = {"n/a": math.nan} if parse is float else {}
        try:
            return np.array([missing.get(cell) or parse(cell) for cell in cells], dtype)
        except (ValueError, OverflowError):
            continue
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
