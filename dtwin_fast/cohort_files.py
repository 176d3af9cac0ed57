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

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .cohort import Cohort, TaskData
from .connectome import Connectomes
from .errors import DTwinInputError
from .files import check_regular_file, write_atomic
from .readers import read_connectomes
from .tables import write_tsv
from .tasks import TASKS
from .tasks.schedule import Schedule

COHORT_FILE = "cohort.json"
FORMAT = "dtwin_fast cohort"
MAX_JSON_BYTES = 32 * 2**20


def save_cohort(cohort: Cohort, folder: Path) -> None:
    """Write a cohort folder; cohort.json comes last, so an unfinished folder is refused.

    Raises:
        DTwinInputError: connectomes without region names (code ``regions_unnamed``).
    """
    regions = cohort.connectomes.regions
    if regions is None:
        raise DTwinInputError(
            "regions_unnamed",
            "a cohort on disk needs region names",
            field="connectomes",
            fix="Give regions= when making the connectomes",
        )
    write_npy(folder / "connectomes.npy", cohort.connectomes.edges)
    write_tsv(folder / "regions.tsv", ["name"], ([name] for name in regions))
    columns = {name: column.tolist() for name, column in cohort.participants.items()}
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
    write_atomic(folder / COHORT_FILE, json.dumps(header) + "\n")


def load_cohort(folder: Path) -> Cohort:
    """Read a cohort folder.

    Raises:
        DTwinInputError: not a cohort folder, or files that do not fit together.
    """
    path = folder / COHORT_FILE
    check_regular_file(path, max_bytes=MAX_JSON_BYTES)
    try:
        header = json.loads(path.read_bytes())
        if header["format"] != FORMAT:
            raise KeyError("format")
        schedules = {str(n): Schedule.from_dict(s) for n, s in header["tasks"].items()}
        bold_regions = tuple(map(str, header["bold_regions"]))
        tr_s, is_fisher_z = float(header["tr_s"]), bool(header["is_fisher_z"])
        with_bold = set(header["with_bold"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _cohort_error(path, "this is not a cohort file", "cohort.json", error) from error
    if unknown := set(schedules) - set(TASKS):
        raise _cohort_error(path, "unknown tasks", " | ".join(TASKS), sorted(unknown))
    participants = _read_participants(folder / "participants.tsv")
    subjects = participants.pop("participant_id").tolist()
    connectomes = read_connectomes(
        folder / "connectomes.npy",
        regions=folder / "regions.tsv",
        subjects=subjects,
        is_fisher_z=is_fisher_z,
    )
    tasks = {
        name: _read_task(folder, name, schedule, len(subjects), name in with_bold)
        for name, schedule in schedules.items()
    }
    return Cohort(connectomes, tasks, bold_regions, tr_s, participants)


def write_npy(path: Path, array: npt.NDArray[Any]) -> None:
    """Write a .npy file atomically."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_atomic(path, buffer.getvalue())


def _read_task(
    folder: Path, name: str, schedule: Schedule, n_subjects: int, with_bold: bool
) -> TaskData:
    trials = (n_subjects, schedule.n_trials)
    choice = _read_npy(folder / f"{name}_choice.npy", np.int8, trials)
    rt_s = _read_npy(folder / f"{name}_rt_s.npy", np.float32, trials)
    bold = None
    if with_bold:
        bold = _read_npy(folder / f"{name}_bold.npy", np.float32, (n_subjects, None, None))
    return TaskData(schedule, choice, rt_s, bold)


def _read_npy(path: Path, dtype: type, shape: tuple[int | None, ...]) -> npt.NDArray[Any]:
    check_regular_file(path)
    try:
        # A memory map allocates nothing until the declared size has been compared with
        # the file's, which numpy does when it maps.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError, OverflowError) as error:
        raise _cohort_error(path, "this is not a readable npy file", "npy", error) from error
    fits = len(array.shape) == len(shape) and all(
        want in (None, got) for want, got in zip(shape, array.shape, strict=True)
    )
    if array.dtype != dtype or not fits:
        raise _cohort_error(
            path,
            "this array has another shape or dtype",
            f"{np.dtype(dtype)} {shape}",
            f"{array.dtype} {array.shape}",
        )
    return np.array(array)


def _read_participants(path: Path) -> dict[str, npt.NDArray[Any]]:
    check_regular_file(path, max_bytes=MAX_JSON_BYTES)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = list(csv.reader(file, delimiter="\t"))
    except (ValueError, UnicodeDecodeError, csv.Error) as error:
        raise _cohort_error(path, "this is not a readable table", "TSV", error) from error
    if "participant_id" not in header or any(len(row) != len(header) for row in rows):
        raise _cohort_error(path, "columns are missing", "participant_id and full rows", header)
    table = {name: np.array(column) for name, column in zip(header, zip(*rows, strict=True))}
    return {
        name: column if name == "participant_id" else _as_numbers(column)
        for name, column in table.items()
    }


def _as_numbers(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    try:
        return np.where(column == "n/a", "nan", column).astype(np.float64)
    except ValueError:
        return column  # a column of words, such as a site's name


def _cohort_error(path: Path, what: str, wanted: object, got: object) -> DTwinInputError:
    return DTwinInputError(
        "cohort_file",
        what,
        field=str(path),
        wanted=str(wanted),
        got=str(got)[:200],
        fix="Name a folder that `dtwin simulate` or save_cohort wrote, whole",
    )
