"""The release of the Transdiagnostic Connectome Project, OpenNeuro ds005237.

::

    participants.tsv                         participant_id, age, sex, Site, Group
    sub-NDARINVX/func/sub-NDARINVX_task-<hammerAP|stroopAP|stroopPA>_run-01_events.tsv
    fMRI_timeseries_clean_denoised_GSR_parcellated/NDAR_INVX/
        task-<restAP|hammerAP|...>_run-01_bold*.h5     434 regions by volumes
    motion_FD/TCP_FD_rest_AP_1.csv           a row a person, a column a frame, mm
    phenotype/TABLE.tsv                      999 = missing
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..cohort import Cohort
from ..connectome import Connectomes, stack
from ..connectome_checks import check_cohort_size, check_regions
from ..errors import DTwinInputError
from ..files import as_path
from ..readers.request import subject_of
from ..readers.tables import REGION_COLUMNS, read_names
from ..readers.tcp_hdf5 import N_REGIONS, read_tcp_series
from ..readers.timeseries import connectome_of_series
from .assemble import Notes, assemble, check_runs
from .bold import Averages, averages, run_bold
from .columns import read_table, require, table_error
from .participants import read_mean_fd, read_participants, read_phenotype
from .runs import Run, Trials, run_of
from .runs import stack as stack_trials
from .tcp_trials import DEFAULT_RUNS, PARTICIPANT_TITLES, RUNS, TR_S, note_others, people, tcp_run

SERIES_FOLDER = "fMRI_timeseries_clean_denoised_GSR_parcellated"
REST, REST_VOLUMES = "restAP", 488
MOTION_FILE = Path("motion_FD", "TCP_FD_rest_AP_1.csv")

HAMMER_TITLES = {"stimLeft": "stim_left", "stimTop": "stim_top", "stimRight": "stim_right"}
STROOP_TITLES = {"stimulus_text": "stim_text", "stimulus_color": "stim_color"}
EVENT_TITLES = {
    "response_time": "rt",
    "accuracy_binarized": "accuracy",
    "trial_type": "condition",
    **HAMMER_TITLES,
    **STROOP_TITLES,
}
BoldRegions = Mapping[str, Sequence[str]] | Literal["all"] | None


def read_tcp_release(
    folder: str | Path,
    *,
    tasks: Sequence[str] = DEFAULT_RUNS,
    regions: Sequence[str] | str | Path | None = None,
    bold_regions: BoldRegions = None,
    phenotype: Sequence[str] = (),
) -> Cohort:
    """The cohort of a copy of the release, whole or in part.

    People are those with events of a first run (:func:`assemble.people_with_trials`): 228 in the
    whole release, as in Takahashi et al. 2026. Who has no trial that can be used is left out;
    so is who has no resting run, unless nobody has one, when the cohort is of behaviour alone.
    Both are listed in ``connectomes.rejected``. ``connectomes.flags`` has what should be known
    of the others, run by run: see ``runs.Run`` and ``bold.run_bold``, and
    ``events_unreadable:RUN:CODE``, ``bold_missing:RUN``, ``bold_unreadable:RUN:CODE``,
    ``short_rest:T/488``, ``not_in_participants``.

    ``participants`` has ``age_years``, ``sex``, ``site``, ``group`` and, with the motion table,
    ``mean_fd_mm`` of the resting run.

    Args:
        tasks: some of ``faces``, ``stroop``, ``stroop_run-2``.
        regions: names of the rows of the series, or a table of them; default 434 unnamed rows.
        bold_regions: BOLD region -> names of the rows of which it is the mean, or ``"all"`` rows
            under their own names, or None for no BOLD.
        phenotype: columns to add, ``TABLE:TITLE``.

    Raises:
        DTwinInputError: no events (``folder_files``), no people left, tables or names that
            cannot be used. One person's bad file is flagged or leads to ``rejected`` instead.
        MissingExtraError: h5py or nilearn are needed and absent.
    """
    check_runs(tasks, tuple(RUNS))
    folder = as_path(folder, field="folder")
    names = _region_names(regions)
    of = None
    if bold_regions is not None:
        of = averages(None if bold_regions == "all" else bold_regions, names)
    notes = Notes()
    trials, unreadable = _read_events(folder, tasks, notes)
    subjects = people(trials, notes)
    for subject, error in unreadable.items():
        if subject not in subjects:
            notes.reject(subject, error)
    runs = {n: run_of(run, n, subjects, RUNS[n].run_s) for n, run in trials.items()}
    participants = {
        **read_participants(folder / "participants.tsv", subjects, PARTICIPANT_TITLES),
        **read_phenotype(folder / "phenotype", phenotype, subjects),
    }
    note_others(folder / "participants.tsv", subjects, notes)
    if (folder / MOTION_FILE).is_file():
        participants["mean_fd_mm"] = read_mean_fd(folder / MOTION_FILE, subjects)
    bold = {}
    if of is not None:
        n_rows = len(names or ())
        bold = {n: _read_bold(folder, n, runs[n], subjects, of, n_rows, notes) for n in tasks}
    return assemble(
        subjects,
        runs,
        connectomes=_read_connectomes(folder, subjects, names, notes),
        notes=notes,
        tr_s=TR_S,
        participants=participants,
        bold=bold,
        bold_regions=tuple(of or ()),
    )


def _region_names(regions: Sequence[str] | str | Path | None) -> tuple[str, ...] | None:
    if regions is None:
        return None
    if isinstance(regions, (str, Path)):
        return read_names(regions, REGION_COLUMNS, "regions")
    return check_regions(regions, field="regions")


def _read_events(
    folder: Path, tasks: Sequence[str], notes: Notes
) -> tuple[dict[str, Trials], dict[str, DTwinInputError]]:
    """Trials run by run, and somebody's first table that could not be read."""
    trials: dict[str, Trials] = {}
    unreadable: dict[str, DTwinInputError] = {}
    for name in tasks:
        pattern = f"sub-*/**/*_task-{RUNS[name].code}_run-01_events.tsv"
        parts: list[Trials] = []
        for subject, path in _files(folder, pattern).items():
            try:
                parts.append(_events_of(path, subject, name))
            except DTwinInputError as error:
                notes.flag(subject, f"events_unreadable:{name}:{error.code}")
                unreadable.setdefault(subject, error)
        if not parts:
            raise DTwinInputError(
                "folder_files",
                f"there are no events of the run {name} that can be read",
                field=str(folder),
                wanted=pattern,
                got="; ".join(map(str, list(unreadable.values())[:1])) or "none",
                fix="Name the folder of the release, or other tasks",
            )
        trials[name] = stack_trials(parts)
    return trials, unreadable


def _files(folder: Path, pattern: str) -> dict[str, Path]:
    """The file of each person, in name order.

    Raises:
        DTwinInputError: two files of one person (code ``subject_duplicate``).
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.glob(pattern)):
        subject = subject_of(path)
        if subject in files:
            raise table_error(
                path.name, "subject_duplicate", "there are two such files", "one", "two", subject
            )
        files[subject] = path
    return files


def _events_of(path: Path, subject: str, name: str) -> Trials:
    table = read_table(path)
    titles = {
        **{title: title for title in ("onset", "duration")},
        **{title: own for title, own in EVENT_TITLES.items() if title in table},
    }
    require(table, list(titles), path.name)
    n_rows = len(table["onset"])
    return tcp_run(
        {
            **{own: table[title] for title, own in titles.items()},
            "subject": np.full(n_rows, subject),
            "trial": np.arange(1, n_rows + 1).astype(str),
        },
        name,
        path.name,
    )


def _series_files(folder: Path, code: str) -> dict[str, Path]:
    return _files(folder, f"{SERIES_FOLDER}/*/task-{code}_run-01_bold*.h5")


def _read_connectomes(
    folder: Path, subjects: Sequence[str], names: tuple[str, ...] | None, notes: Notes
) -> Connectomes | None:
    """Connectomes of the resting runs; None when there is not one file."""
    files = _series_files(folder, REST)
    n_regions = N_REGIONS if names is None else len(names)
    check_cohort_size(len(files), n_regions, field=str(folder))
    parts: list[Connectomes] = []
    errors: list[DTwinInputError] = []
    for subject in subjects:
        if subject not in files:
            continue
        path = files[subject]
        try:
            series = read_tcp_series(path, n_regions)
            fc = connectome_of_series(series, path)[None]
            parts.append(
                Connectomes.from_arrays(fc, regions=names, subjects=[subject], field=path.name)
            )
        except DTwinInputError as error:
            notes.reject(subject, error)
            errors.append(error)
            continue
        if len(series) < REST_VOLUMES:
            notes.flag(subject, f"short_rest:{len(series)}/{REST_VOLUMES}")
    if errors and not parts:
        raise errors[0]
    return stack(parts) if parts else None


def _read_bold(
    folder: Path,
    name: str,
    run: Run,
    subjects: Sequence[str],
    of: Averages,
    n_rows: int,
    notes: Notes,
) -> npt.NDArray[np.float32]:
    files = _series_files(folder, RUNS[name].code)
    n_volumes = run.data.schedule.n_volumes(TR_S)
    bold = np.full((len(subjects), n_volumes, len(of)), np.nan, np.float32)
    for index, subject in enumerate(subjects):
        if subject not in files:
            notes.flag(subject, f"bold_missing:{name}")
        elif run.is_as_scheduled[index]:
            try:
                series = read_tcp_series(files[subject], n_rows)
            except DTwinInputError as error:
                notes.flag(subject, f"bold_unreadable:{name}:{error.code}")
                continue
            bold[index], flags = run_bold(series, n_volumes, of)
            notes.flag(subject, *(flag.replace(":", f":{name}:", 1) for flag in flags))
    return bold
