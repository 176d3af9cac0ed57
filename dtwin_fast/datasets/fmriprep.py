"""A run as fMRIPrep leaves it: confounds, events, and series cleaned of the confounds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import MissingExtraError
from ..files import as_path
from ..readers.request import subject_of
from .bold import has_signal
from .columns import Float64, Table, numbers, read_table, require, table_error
from .runs import Run, Trials, run_of

MOTION = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
TISSUES = ("csf", "white_matter")
COMPONENTS = tuple(f"a_comp_cor_{number:02d}" for number in range(5))
DISPLACEMENT = "framewise_displacement"
GLOBAL_SIGNAL = "global_signal"

STROOP_CONDITIONS = {"Con": ("red", "red"), "InCon": ("green", "red")}
"""Word and ink that stand for a condition where the table does not name them."""
SCORES = {"1": "1", "0": "0", "no-response": "0", "unintelligible": "n/a"}
"""What ``response_accuracy`` says of a spoken response -> accuracy."""


@dataclass(frozen=True, eq=False)
class Confounds:
    """The nuisance columns of a run of V volumes.

    Attributes:
        names: C columns.
        values: (V,C) float64.
        fd_mm: (V,) float64 framewise displacement (Power), mm; NaN in the first volume.
    """

    names: tuple[str, ...]
    values: Float64
    fd_mm: Float64

    @property
    def mean_fd_mm(self) -> float:
        """Mean framewise displacement, mm."""
        return float(np.nanmean(self.fd_mm))

    def high_motion(self, threshold_mm: float) -> npt.NDArray[np.bool_]:
        """(V,) whether the head moved by more than ``threshold_mm`` from the volume before."""
        is_high: npt.NDArray[np.bool_] = self.fd_mm > threshold_mm
        return is_high


def read_confounds(path: str | Path, *, global_signal: bool = False) -> Confounds:
    """Confounds of ``*_desc-confounds_timeseries.tsv`` (before fMRIPrep 20: ``_regressors``).

    Columns taken: six of motion, ``csf``, ``white_matter``, ``a_comp_cor_00`` to ``04``, all
    ``cosine*``, and the global signal if asked for. Volumes without a value at the start of a
    column take its first value.

    Raises:
        DTwinInputError: as ``read_table``; columns missing (``table_column``), text or later
            gaps (``table_number``), no measured displacement (``table_number``).
    """
    path = as_path(path, field="path")
    table = read_table(path)
    names = (*MOTION, *TISSUES, *COMPONENTS, *((GLOBAL_SIGNAL,) if global_signal else ()))
    require(table, (*names, DISPLACEMENT), path.name)
    names = (*names, *sorted(title for title in table if title.startswith("cosine")))
    values = np.stack([_without_gaps(table, name, path.name) for name in names], axis=1)
    fd_mm = numbers(table, DISPLACEMENT, path.name)
    if np.isnan(fd_mm[1:]).any() or len(fd_mm) < 2:
        raise table_error(
            path.name, "table_number", "displacements are missing", "all but the first", "n/a"
        )
    return Confounds(names, values, fd_mm)


def clean_series(
    series: npt.NDArray[Any],
    confounds: Confounds,
    *,
    tr_s: float,
    max_fd_mm: float | None = None,
) -> npt.NDArray[np.float32]:
    """(V,R) float32 residuals of region series after the confounds, through nilearn.

    The drift is in the cosine columns, so nothing else is filtered. Regions without signal are
    NaN, and so are the volumes above ``max_fd_mm``, which take no part in the regression.

    Args:
        series: (V,R) region means.
        tr_s: repetition time, seconds.

    Raises:
        DTwinInputError: another number of volumes (``bold``), or no more volumes left than
            there are confounds (``too_short``).
        MissingExtraError: nilearn is not installed.
    """
    n_volumes, n_confounds = confounds.values.shape
    if series.ndim != 2 or len(series) != n_volumes:
        raise table_error(
            "series", "bold", "series and confounds are of other runs",
            f"({n_volumes}, R)", series.shape,
        )  # fmt: skip
    kept = np.ones(n_volumes, bool)
    if max_fd_mm is not None:
        kept = ~confounds.high_motion(max_fd_mm)
    if kept.sum() <= n_confounds + 1:
        raise table_error(
            "series", "too_short", "too few volumes are left to fit the confounds",
            f"more than {n_confounds + 1}", int(kept.sum()),
        )  # fmt: skip
    try:
        from nilearn.signal import clean
    except ImportError as error:
        raise MissingExtraError("nilearn", "neuro", "cleaning series") from error
    alive = has_signal(series[kept])
    cleaned = np.full(series.shape, np.nan, np.float32)
    if alive.any():
        cleaned[np.ix_(kept, alive)] = clean(
            series[:, alive].astype(np.float64),
            confounds=confounds.values,
            sample_mask=None if kept.all() else np.flatnonzero(kept),
            t_r=tr_s,
            detrend=False,
            standardize=None,
            standardize_confounds=True,
        )
    return cleaned


def read_stroop_events(path: str | Path, *, run_s: float) -> Run:
    """The Stroop run of one person, from an events table of spoken responses.

    Columns: onset, duration, trial_type (``Con``, ``InCon``), response_time, response_accuracy
    (``1``, ``0``, ``no-response``, ``unintelligible``). The table names no colours, so each
    trial has the inks and words of ``STROOP_CONDITIONS``, of which red is the right answer:
    errors are ``WRONG_BUTTON``, a missing response is ``NO_RESPONSE``, and a response that
    nobody understood is ``NOT_MEASURED``. A response counts until the next onset.

    Args:
        run_s: length of the run, seconds: volumes times TR.

    Raises:
        DTwinInputError: as ``read_table`` and ``Trials.from_table``; other words (``trial``).
    """
    path = as_path(path, field="path")
    table = read_table(path)
    titles = ("onset", "duration", "trial_type", "response_time", "response_accuracy")
    require(table, titles, path.name)
    _refuse_words(table, "trial_type", tuple(STROOP_CONDITIONS), path.name)
    _refuse_words(table, "response_accuracy", tuple(SCORES), path.name)
    onset_s = numbers(table, "onset", path.name)
    n_trials = len(onset_s)
    score = table["response_accuracy"]
    was_understood = (score == "1") | (score == "0")
    word, ink = np.array([STROOP_CONDITIONS[kind] for kind in table["trial_type"]]).T
    subject = subject_of(path)
    trials = Trials.from_table(
        {
            "subject": np.full(n_trials, subject),
            "trial": np.arange(1, n_trials + 1).astype(str),
            "onset": table["onset"],
            "duration": table["duration"],
            "window": np.diff(onset_s, append=run_s).astype(str),
            "rt": np.where(was_understood, table["response_time"], "n/a"),
            "accuracy": np.array([SCORES[word] for word in score]),
            "word": word,
            "ink": ink,
        },
        "stroop",
        path.name,
    )
    return run_of(trials, "stroop", (subject,), run_s)


def _without_gaps(table: Table, name: str, field: str) -> Float64:
    values = numbers(table, name, field)
    measured = np.flatnonzero(~np.isnan(values))
    if measured.size == 0 or np.isnan(values[measured[0] :]).any():
        raise table_error(field, "table_number", f"{name} has gaps", "a value a volume", "n/a")
    values[: measured[0]] = values[measured[0]]
    return values


def _refuse_words(table: Table, title: str, known: tuple[str, ...], field: str) -> None:
    if other := sorted({*table[title].tolist()} - {*known}):
        raise table_error(field, "trial", f"{title} has other words", ", ".join(known), other)
