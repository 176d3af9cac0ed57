"""From a long table of trials to what a cohort holds of one run."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from ..cohort import NO_RESPONSE, NOT_MEASURED, WRONG_BUTTON, TaskData
from ..errors import DTwinInputError
from ..tasks import TASKS
from ..tasks.schedule import Schedule
from .columns import MISSING, Float64, Table, Text, numbers, require, table_error
from .stimuli import ENCODINGS

MIN_RT_S = 0.15
"""Nobody sees, decides and presses faster: earlier presses, and those with a negative time,
belong to no decision about the trial."""
MAX_ONSET_DIFFERENCE_S = 1.0
"""A run whose trials begin further than this from the others' is not the same run."""
WINDOW_TOLERANCE_S = 1e-3

NO_PRESS, WRONG = "none", "wrong"
"""Words of the column ``choice`` beside the names of the task's actions."""


@dataclass(frozen=True, eq=False)
class Trials:
    """The trials of one run of some people, a row each.

    Attributes:
        subject: (rows,) names.
        trial: (rows,) int64 position in the run, from 0.
        onset_s, duration_s, window_s: (rows,) float64 stimulus onset, how long it stays on,
            and how long a response is taken from the onset on.
        rt_s: (rows,) float64 seconds from the onset, NaN without a press.
        accuracy: (rows,) float64 1 correct, 0 not, NaN unknown.
        choice: (rows,) the action's name, ``wrong``, ``none`` or empty; it goes before accuracy.
        shown: (rows, columns) text, the columns of ``ENCODINGS[task]``.
    """

    subject: Text
    trial: npt.NDArray[np.int64]
    onset_s: Float64
    duration_s: Float64
    window_s: Float64
    rt_s: Float64
    accuracy: Float64
    choice: Text
    shown: Text

    @classmethod
    def from_table(cls, table: Table, task: str, field: str) -> Trials:
        """Check a table of one run of ``task``.

        Columns: subject, trial (1, 2, ...), onset, duration, window, rt, accuracy or choice or
        both, and what was shown: condition, left, top, right for faces; word, ink for Stroop.

        Raises:
            DTwinInputError: columns missing (``table_column``), cells that are no numbers
                (``table_number``), numbers that cannot be (``trial``), a trial of a person
                twice (``trial_duplicate``).
        """
        shown = ENCODINGS[task].columns
        require(table, ("subject", "trial", "onset", "duration", "window", "rt", *shown), field)
        if "accuracy" not in table:
            require(table, ("choice",), field)
        n_rows = len(table["subject"])
        onset, duration, window, rt, number = (
            numbers(table, name, field) for name in ("onset", "duration", "window", "rt", "trial")
        )
        accuracy = (
            numbers(table, "accuracy", field) if "accuracy" in table else np.full(n_rows, np.nan)
        )
        choice = table.get("choice", np.full(n_rows, ""))
        choice = np.where(np.isin(choice, MISSING), "", choice)
        words = ["", NO_PRESS, WRONG, *TASKS[task].action_names]
        for name, fits, wanted in (
            ("trial", (number >= 1) & (number % 1 == 0) & (number < 1e5), "1, 2, 3, ..."),
            ("onset", onset >= 0, "seconds from the start of the run"),
            ("duration", duration > 0, "seconds"),
            ("window", window > 0, "seconds"),
            ("accuracy", np.isnan(accuracy) | np.isin(accuracy, (0, 1)), "1, 0 or n/a"),
            ("choice", np.isin(choice, words), ", ".join(words[1:])),
        ):
            if not fits.all():
                row = int(np.argmin(fits))
                raise table_error(
                    field, "trial", f"{name} cannot be this", wanted, table[name][row],
                    str(table["subject"][row]),
                )  # fmt: skip
        trials = cls(
            table["subject"],
            number.astype(np.int64) - 1,
            onset,
            duration,
            window,
            rt,
            accuracy,
            choice,
            np.stack([table[name] for name in shown], axis=1),
        )
        (subject, trial), count = Counter(
            zip(trials.subject.tolist(), number.tolist(), strict=True)
        ).most_common(1)[0]
        if count > 1:
            raise table_error(
                field, "trial_duplicate", "a trial is there twice", "once", f"{trial:g}", subject
            )
        return trials

    def select(self, rows: npt.NDArray[Any]) -> Trials:
        """Some rows."""
        return Trials(*(getattr(self, f.name)[rows] for f in fields(self)))


def stack(parts: Sequence[Trials]) -> Trials:
    """The trials of several tables as one."""
    return Trials(
        *(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Trials))
    )


@dataclass(frozen=True, eq=False)
class Run:
    """What a cohort holds of one run, and what its reader should know.

    Attributes:
        data: of S people, without BOLD.
        flags: S tuples of ``what:run`` or ``what:run:count``: ``not_done`` (no trial),
            ``other_trials`` (another order), ``other_onsets``, ``trials_missing``,
            ``early_responses``, ``late_responses`` (after the window), ``contradictory`` (pressed
            without a time, or a time without a press or a score). Trials flagged are not measured.
        is_as_scheduled: (S,) bool, False where the schedule is not that of the person's run.
    """

    data: TaskData
    flags: tuple[tuple[str, ...], ...]
    is_as_scheduled: npt.NDArray[np.bool_]


def run_of(trials: Trials, name: str, subjects: Sequence[str], run_s: float | None = None) -> Run:
    """One run of S people; the schedule is the one most of them share.

    Onsets and durations are medians over people, windows the longest. Trials that are not there
    of a person are not measured, and so is a whole run with other trials.

    Args:
        trials: rows of other people are left alone.
        name: task, or ``TASK_run-N``.
        subjects: S names.
        run_s: length of the run, seconds; by default to the end of the last window.

    Raises:
        DTwinInputError: no trials (``no_trials``), no order of them that most people share
            (``trial_order``), windows that overlap (``trial_window``), stimuli that cannot be
            shown (``stimulus``).
    """
    place = {subject: index for index, subject in enumerate(subjects)}
    trials = trials.select(np.isin(trials.subject, list(place)))
    if not len(trials.subject):
        raise table_error(name, "no_trials", "nobody did this run", "trials of somebody", "none")
    person = np.array([place[subject] for subject in trials.subject.tolist()], np.intp)
    kinds, kind = np.unique(trials.shown, axis=0, return_inverse=True)
    n_columns = int(trials.trial.max(initial=-1)) + 1

    def grid(values: npt.NDArray[Any], empty: float) -> npt.NDArray[Any]:
        cells = np.full((len(subjects), n_columns), empty, values.dtype)
        cells[person, trials.trial] = values
        return cells

    shown, onset = grid(kind.ravel(), -1), grid(trials.onset_s, np.nan)
    was_done = shown.max(axis=1) >= 0
    order = _shared_order(shown[was_done], name)
    same_trials = ((shown == order) | (shown < 0)).all(axis=1)
    apart_s = np.abs(onset - _median(onset[was_done & same_trials]))
    same_onsets = ~(same_trials & (apart_s > MAX_ONSET_DIFFERENCE_S).any(axis=1))
    is_as_scheduled: npt.NDArray[np.bool_] = same_trials & same_onsets
    fits = was_done & is_as_scheduled
    if not fits.any():
        raise _no_shared_order(name, "trials at other times")

    n_trials = int((order >= 0).sum())
    schedule = _schedule(
        name,
        kinds[order[:n_trials]],
        onset_s=_median(onset[fits][:, :n_trials]),
        duration_s=_median(grid(trials.duration_s, np.nan)[fits][:, :n_trials]),
        window_s=np.nanmax(grid(trials.window_s, np.nan)[fits][:, :n_trials], axis=0),
        run_s=run_s,
    )
    rows, who = trials.select(fits[person]), person[fits[person]]
    choice = np.full((len(subjects), n_trials), NOT_MEASURED, np.int8)
    rt_s = np.full((len(subjects), n_trials), np.nan, np.float32)
    choice[who, rows.trial], rt_s[who, rows.trial], problems = _code(rows, schedule)
    counts = {what: np.bincount(who[bad], minlength=len(place)) for what, bad in problems.items()}
    unmeasured = fits * (choice == NOT_MEASURED).sum(axis=1)
    flags = _flags(
        name,
        {"not_done": ~was_done, "other_trials": ~same_trials, "other_onsets": ~same_onsets},
        {"trials_missing": unmeasured - sum(counts.values()), **counts},
    )
    return Run(TaskData(schedule, choice, rt_s), flags, is_as_scheduled)


def _shared_order(shown: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """(columns,) what was shown trial by trial to most people, -1 behind the last trial."""
    orders, counts = np.unique(shown, axis=0, return_counts=True)
    # Of orders equally frequent the longest: people who broke off must not shorten the run.
    best = max(range(len(orders)), key=lambda i: (counts[i], (orders[i] >= 0).sum()))
    order: npt.NDArray[Any] = orders[best]
    n_trials = int((order >= 0).sum())
    n_same = int(((shown == order) | (shown < 0)).all(axis=1).sum())
    if (order[:n_trials] < 0).any() or 2 * n_same <= len(shown):
        raise _no_shared_order(name, f"{n_same} of {len(shown)} people")
    return order


def _no_shared_order(name: str, got: str) -> DTwinInputError:
    return table_error(
        name,
        "trial_order",
        "people did other trials, or in another order",
        "trials 1, 2, ... in one order, at the same times, for more than half of the people",
        got,
    )


def _schedule(
    name: str,
    shown: Text,
    *,
    onset_s: Float64,
    duration_s: Float64,
    window_s: Float64,
    run_s: float | None,
) -> Schedule:
    if ((onset_s + window_s)[:-1] > onset_s[1:] + WINDOW_TOLERANCE_S).any():
        raise table_error(
            name, "trial_window", "a trial begins within the window of the one before",
            "windows that end before the next onset", "longer ones",
        )  # fmt: skip
    task = name.partition("_run-")[0]
    encoding = ENCODINGS[task]
    stimuli = encoding.encode(shown)
    cue_onset_s, cue_duration_s, cue = encoding.cues(stimuli.condition, onset_s, duration_s)
    return Schedule(
        task=task,
        run_s=float(np.max(onset_s + np.maximum(window_s, duration_s))) if run_s is None else run_s,
        onset_s=onset_s,
        duration_s=duration_s,
        window_s=window_s,
        condition=stimuli.condition,
        correct=stimuli.correct,
        stimulus=stimuli.stimulus,
        item=stimuli.item,
        cue_onset_s=cue_onset_s,
        cue_duration_s=cue_duration_s,
        cue=cue,
    )


def _code(
    trials: Trials, schedule: Schedule
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32], dict[str, npt.NDArray[np.bool_]]]:
    """(rows,) choices, reaction times and, problem by problem, where it is."""
    correct = schedule.correct[trials.trial].astype(np.int8)
    is_binary = ENCODINGS[schedule.task].n_choices == 2
    wrong = 1 - correct if is_binary else np.full_like(correct, WRONG_BUTTON)
    choice = np.where(trials.accuracy == 1, correct, wrong)
    for channel, action in enumerate(TASKS[schedule.task].action_names):
        choice[trials.choice == action] = channel
    choice = np.where(trials.choice == WRONG, wrong, choice)

    is_named = trials.choice != ""
    has_time = ~np.isnan(trials.rt_s)
    is_scored = is_named | ~np.isnan(trials.accuracy)
    has_press = np.where(is_named, trials.choice != NO_PRESS, has_time & is_scored)
    claims_press = np.where(is_named, has_press, trials.accuracy == 1)
    problems = {"contradictory": (claims_press & ~has_time) | (has_time & ~has_press)}
    sound = has_time & ~problems["contradictory"]
    problems["early_responses"] = sound & (trials.rt_s < MIN_RT_S)
    is_late = trials.rt_s > schedule.window_s[trials.trial] + WINDOW_TOLERANCE_S
    problems["late_responses"] = sound & is_late & ~problems["early_responses"]

    choice[~has_time] = NO_RESPONSE
    choice[~is_scored | np.any(list(problems.values()), axis=0)] = NOT_MEASURED
    has_no_time = (choice == NO_RESPONSE) | (choice == NOT_MEASURED)
    return (
        choice,
        np.where(has_no_time, np.nan, trials.rt_s).astype(np.float32),
        problems,
    )


def _flags(
    name: str,
    of_runs: dict[str, npt.NDArray[np.bool_]],
    of_trials: dict[str, npt.NDArray[Any]],
) -> tuple[tuple[str, ...], ...]:
    n_people = len(next(iter(of_runs.values())))
    return tuple(
        (
            *(f"{what}:{name}" for what, is_so in of_runs.items() if is_so[person]),
            *(f"{what}:{name}:{n[person]}" for what, n in of_trials.items() if n[person]),
        )
        for person in range(n_people)
    )


def _median(values: Float64) -> Float64:
    """Median over people, NaN where nobody has a value."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        median: Float64 = np.nanmedian(values, axis=0)
    return median
