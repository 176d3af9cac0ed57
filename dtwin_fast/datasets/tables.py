"""A cohort from tables of one's own.

Trials, a row each:

==========  ======================================================================
subject     name, as in the connectomes
task        ``faces`` or ``stroop``; further runs ``stroop_run-2``
trial       1, 2, ...; the same order of trials for everyone
onset       s from the start of the run
duration    s that the stimulus stays on
window      s from the onset in which a response counts
rt          s from the onset; empty or ``n/a`` without a press
accuracy    1 correct, 0 wrong or no response, empty not recorded
choice      instead of accuracy, or before it: the action (``left``, ``right``; ``red``,
            ``green``, ``blue``), ``wrong`` if it is not known which, ``none``
condition   faces: ``face`` or ``shape``
left, top,  faces: names of the pictures; the right one is the one on top
right
word, ink   Stroop: ``red``, ``green`` or ``blue``
==========  ======================================================================

A column that only the other task needs may be empty in a task's rows. Participants: a row a
person, ids in the first of the columns subject, participant_id, id; all other columns are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..cohort import Cohort, is_run_of
from ..connectome import Connectomes
from ..connectome_checks import refuse_duplicates
from ..files import as_path
from ..readers import read_connectomes
from ..readers.request import plain_id
from ..spec import MAX_TR_S
from ..tasks import TASKS
from .assemble import Notes, assemble
from .columns import read_table, require, table_error
from .participants import read_participants
from .runs import Trials, run_of


def read_tables(
    trials: str | Path,
    *,
    participants: str | Path | None = None,
    connectomes: Connectomes | str | Path | None = None,
    regions: Sequence[str] | str | Path | None = None,
    is_fisher_z: bool = False,
    tr_s: float = 0.8,
) -> Cohort:
    """The cohort of a long table of trials, a table of participants and connectomes.

    Whoever has no measured trial, or no connectome where there are any, is left out; these
    people are listed in ``connectomes.rejected``, and ``connectomes.flags`` says what should be
    known of the others.

    Args:
        trials: TSV or CSV, ``.gz`` or not, with the columns above.
        participants: TSV or CSV.
        connectomes: checked ones, or whatever ``read_connectomes`` reads; None for behaviour
            alone. ``01`` and ``sub-01`` are one person.
        regions, is_fisher_z: as in ``read_connectomes``.
        tr_s: repetition time of the scans that belong to the trials, seconds.

    Raises:
        DTwinInputError: as ``read_table``, ``Trials.from_table``, ``run_of`` and
            ``read_connectomes``; a run of no task (``task``), connectomes of other people
            (``subject_mismatch``).
    """
    if not 0 < tr_s < MAX_TR_S:
        raise table_error("tr_s", "argument", "this is no TR", f"seconds below {MAX_TR_S}", tr_s)
    path = as_path(trials, field="trials")
    table = read_table(path)
    require(table, ("subject", "task"), path.name)
    subjects = tuple(dict.fromkeys(table["subject"].tolist()))
    runs = {}
    for name in dict.fromkeys(table["task"].tolist()):
        task = next((task for task in TASKS if is_run_of(name, task)), None)
        if task is None:
            raise table_error(
                path.name, "task", "there is no such task", f"{', '.join(TASKS)}, TASK_run-N", name
            )
        is_run = table["task"] == name
        of_run = {title: cells[is_run] for title, cells in table.items()}
        runs[name] = run_of(Trials.from_table(of_run, task, path.name), name, subjects)
    notes = Notes()
    columns = {}
    if participants is not None:
        columns = read_participants(as_path(participants, field="participants"), subjects)
    return assemble(
        subjects,
        runs,
        connectomes=_named(connectomes, subjects, regions, is_fisher_z, notes),
        notes=notes,
        tr_s=float(tr_s),
        participants=columns,
    )


def _named(
    source: Connectomes | str | Path | None,
    subjects: Sequence[str],
    regions: Sequence[str] | str | Path | None,
    is_fisher_z: bool,
    notes: Notes,
) -> Connectomes | None:
    """Connectomes under the names that the trials use."""
    if source is None:
        return None
    if not isinstance(source, Connectomes):
        source = read_connectomes(
            source, regions=regions, is_fisher_z=is_fisher_z, bad_subjects="drop"
        )
    names = {plain_id(name): name for name in subjects}
    refuse_duplicates([plain_id(name) for name in subjects], "trials", "subject")
    for error in source.rejected:
        if error.subject is not None:
            notes.reject(names.get(plain_id(error.subject), error.subject), error)
    is_known = np.array([plain_id(name) in names for name in source.subjects])
    if not is_known.any():
        raise table_error(
            "connectomes", "subject_mismatch", "the connectomes are of other people",
            ", ".join(subjects[:3]), ", ".join(source.subjects[:3]),
        )  # fmt: skip
    for name in np.array(source.subjects)[~is_known].tolist():
        notes.reject(name, table_error("trials", "no_trials", "no run was done", "trials", ""))
    own = source.select(is_known)
    refuse_duplicates([plain_id(name) for name in own.subjects], "connectomes", "subject")
    return replace(own, subjects=tuple(names[plain_id(name)] for name in own.subjects))
