"""The behaviour of the Transdiagnostic Connectome Project (OpenNeuro ds005237).

Three runs: the emotional faces task (``hammerAP``) and two of Stroop (``stroopAP``,
``stroopPA``). The project does not say which wrong colour was pressed in Stroop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..cohort import Cohort
from ..files import as_path
from ..readers.request import plain_id
from ..readers.tables import SUBJECT_COLUMNS, read_names
from ..tasks import faces, stroop
from .assemble import Notes, assemble, check_runs, people_with_trials
from .columns import Table, read_table, require, table_error
from .participants import read_participants
from .runs import Trials, run_of

TR_S = 0.8
PARTICIPANT_TITLES = {"age": "age_years", "sex": "sex", "Site": "site", "Group": "group"}


@dataclass(frozen=True)
class TcpRun:
    """A run of the project: its code in file names, its task, its length in seconds."""

    code: str
    task: str
    run_s: float


RUNS = {
    "faces": TcpRun("hammerAP", "faces", faces.RUN_S),
    "stroop": TcpRun("stroopAP", "stroop", stroop.RUN_S),
    "stroop_run-2": TcpRun("stroopPA", "stroop", stroop.RUN_S),
}
DEFAULT_RUNS = ("faces", "stroop")

FACES_TITLES = {"stim_left": "left", "stim_top": "top", "stim_right": "right"}
STROOP_TITLES = {"stim_text": "word", "stim_color": "ink"}


def read_tcp_trials(folder: str | Path, *, tasks: Sequence[str] = DEFAULT_RUNS) -> Cohort:
    """The cohort in ``trials.csv.gz`` (or ``.csv``) and ``participants.tsv``: behaviour only.

    The table has the columns subject, task (``hammerAP``, ``stroopAP``, ``stroopPA``), trial,
    onset, duration, condition, stim_text, stim_color, stim_left, stim_top, stim_right, rt,
    accuracy. Participants become ``age_years``, ``sex``, ``site``, ``group``. Flags and the
    people left out are in ``connectomes`` of the cohort, which has no regions.

    Args:
        tasks: some of ``faces``, ``stroop``, ``stroop_run-2``.

    Raises:
        DTwinInputError: as ``Trials.from_table``, ``run_of`` and ``read_participants``.
    """
    check_runs(tasks, tuple(RUNS))
    folder = as_path(folder, field="folder")
    path = folder / "trials.csv.gz"
    path = path if path.exists() else folder / "trials.csv"
    table = read_table(path)
    require(table, ("subject", "task"), path.name)
    trials = {}
    for name in tasks:
        is_run = table["task"] == RUNS[name].code
        if not is_run.any():
            raise table_error(
                path.name, "no_trials", f"there is no {RUNS[name].code}", name, "others"
            )
        trials[name] = tcp_run({k: cells[is_run] for k, cells in table.items()}, name, path.name)
    notes = Notes()
    subjects = people(trials, notes)
    runs = {n: run_of(run, n, subjects, RUNS[n].run_s) for n, run in trials.items()}
    participants = read_participants(folder / "participants.tsv", subjects, PARTICIPANT_TITLES)
    note_others(folder / "participants.tsv", subjects, notes)
    return assemble(
        subjects, runs, connectomes=None, notes=notes, tr_s=TR_S, participants=participants
    )


def tcp_run(table: Table, name: str, field: str) -> Trials:
    """One run from a table with the columns of :func:`read_tcp_trials`.

    Stroop's ``duration`` is the time to the next onset there, so it is the response window;
    the word itself is shown for a quarter of a second.
    """
    is_faces = RUNS[name].task == "faces"
    titles = FACES_TITLES if is_faces else STROOP_TITLES
    require(table, (*titles, "duration"), field)
    table = {titles.get(title, title): cells for title, cells in table.items()}
    table["window"] = table["duration"]
    table.pop("choice", None)
    if not is_faces:
        table["duration"] = np.full(len(table["window"]), str(stroop.STIMULUS_S))
    return Trials.from_table(table, RUNS[name].task, field)


def people(trials: Mapping[str, Trials], notes: Notes) -> tuple[str, ...]:
    """Who belongs to the cohort; whoever did a second run alone is noted as left out."""
    subjects_of_runs = {name: set(run.subject.tolist()) for name, run in trials.items()}
    members = people_with_trials(subjects_of_runs)
    for subject in sorted(set().union(*subjects_of_runs.values()) - {*members}):
        notes.reject(
            subject,
            table_error("tasks", "no_first_run", "only a second run is there", "a first run", ""),
        )
    return members


def note_others(path: Path, subjects: Sequence[str], notes: Notes) -> None:
    """Note who is in only one of the table of participants and the cohort."""
    listed = {plain_id(name): name for name in read_names(path, SUBJECT_COLUMNS, "subjects")}
    for subject in subjects:
        if listed.pop(plain_id(subject), None) is None:
            notes.flag(subject, "not_in_participants")
    for subject in listed.values():
        notes.reject(subject, table_error("tasks", "no_trials", "no run was done", "trials", ""))
