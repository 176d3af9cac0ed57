"""A report on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..files import write_atomic
from .cohort_page import cohort_page
from .figures.canvas import drawing
from .folders import REPORT_FOLDER, find_folders
from .intervention import read_intervention
from .material import INDEX, Material, page_name
from .page import GENERATOR
from .people import choose, everybody
from .scores import read_scores
from .subject_page import SubjectPages

_HEAD_BYTES = 2000


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        index: the cohort's page.
        people: how many pages of people there are.
        largest_bytes: of the largest page.
    """

    index: Path
    people: int
    largest_bytes: int


def write_report(
    out: Path,
    people: Sequence[str] | int | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Written:
    """Write ``OUT/report/index.html`` and a page ``OUT/report/sub-X.html`` for each person.

    Pages of people that an earlier report left there are taken away, and the index is written
    last: a report that has it is whole.

    Args:
        out: a folder with ``intervention.json``, ``scores.json`` or both, itself or in its direct
            subfolders.
        people: labels, or how many from the first; None is everybody.
        progress: is told pages done and their number.

    Raises:
        DTwinInputError: no results, results that do not fit together (code ``report``), people
            that there are not (``argument``), a table that cannot be read.
        MissingExtraError: a package of the extra ``report`` is missing.
    """
    folders = find_folders(out)
    run = None if folders.intervention is None else read_intervention(folders.intervention)
    scores = None if folders.scores is None else read_scores(folders.scores)
    everyone = everybody(run, scores)
    material = Material(run, scores, everyone, choose(everyone, people))
    folder = out / REPORT_FOLDER
    with drawing():
        index = cohort_page(material)
        (folder / INDEX).unlink(missing_ok=True)
        total, largest = len(material.pages) + 1, len(index.encode())
        subjects = SubjectPages(material)
        for place, person in enumerate(material.pages):
            page = subjects.page(place).encode()
            largest = max(largest, len(page))
            write_atomic(folder / page_name(person), page)
            if progress is not None:
                progress(place + 1, total)
    _take_away_others(folder, {page_name(person) for person in material.pages})
    write_atomic(folder / INDEX, index)
    if progress is not None:
        progress(total, total)
    return Written(folder / INDEX, len(material.pages), largest)


def _take_away_others(folder: Path, names: set[str]) -> None:
    """Remove the pages of people that an earlier report wrote, and nothing else."""
    for path in folder.glob("sub-*.html"):
        if path.name not in names and path.is_file():
            with path.open("rb") as file:
                if GENERATOR.encode() in file.read(_HEAD_BYTES):
                    path.unlink()
