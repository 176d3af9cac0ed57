"""Splits of a cohort into people and times to train on and to be judged on.

A within person   the first half of every run trains, the second tests (Takahashi et al. 2026)
B held-out people K folds of people, balanced over sites, whole families
C left-out site   every site in turn is tested by a model of the others
D cross-run       first runs train, later runs of the same tasks test
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..cohort import NOT_MEASURED, Cohort, TaskData, is_run_of
from ..errors import DTwinInputError

SPLITS = {
    "A": "within person, first half to second half",
    "B": "held-out people",
    "C": "left-out site",
    "D": "first run to later run",
}

_TIME_EPS_S = 1e-9
_FEWEST_TRAINED = 2

Mask = npt.NDArray[np.bool_]
Index = npt.NDArray[np.intp]
Run = TypeVar("Run")


@dataclass(frozen=True, eq=False)
class Fold:
    """One training and its test.

    Attributes:
        split: key of ``SPLITS``.
        name: which fold of the split, for reports.
        train: people with what may be learnt; the rest is NOT_MEASURED or NaN.
        test: people with the truth to score against; predictors get :func:`blank` of it.
        people: (S of ``test``,) their positions in the cohort that was split.
        repeat: folds of one repeat test each person at most once.
    """

    split: str
    name: str
    train: Cohort
    test: Cohort
    people: Index
    repeat: int = 0


@dataclass(frozen=True, eq=False)
class Split:
    """The folds of one split, and what a reader of its scores should know."""

    folds: tuple[Fold, ...]
    flags: tuple[str, ...]


def make_split(
    name: str, cohort: Cohort, *, n_folds: int = 10, n_repeats: int = 1, seed: int = 0
) -> Split:
    """The split of that name; see :func:`within_person` and the others for errors.

    Raises:
        DTwinInputError: no such split (code ``split``).
    """
    if name == "A":
        return within_person(cohort)
    if name == "B":
        return held_out_people(cohort, n_folds=n_folds, n_repeats=n_repeats, seed=seed)
    if name == "C":
        return left_out_sites(cohort)
    if name == "D":
        return cross_run(cohort)
    raise _error("split", "there is no such split", " | ".join(SPLITS), name, "Name one of these")


def blank(cohort: Cohort) -> Cohort:
    """The cohort with every choice, reaction time and volume unknown."""
    return replace(cohort, tasks={name: _blank(data) for name, data in cohort.tasks.items()})


def usable(cohort: Cohort) -> tuple[Cohort, list[str]]:
    """The people who can be trained on or scored, and flags for what was left out.

    A region whose series is constant in a run becomes NaN there; a person without any
    measured trial or volume is left out.

    Raises:
        DTwinInputError: nobody is left (code ``no_trials``).
    """
    tasks, flags = {}, []
    for name, data in cohort.tasks.items():
        bold = data.bold
        if bold is not None:
            constant = _is_constant(bold)
            people = np.asarray(constant.any(axis=1))
            if constant.any():
                flags.append(
                    f"{name}: {int(constant.sum())} constant BOLD series are left out, of "
                    + _names(cohort, people)
                )
                bold = np.where(constant[:, None], np.float32(np.nan), bold)
        tasks[name] = replace(data, bold=bold)
    cohort = replace(cohort, tasks=tasks)
    has_data = _has_data(cohort)
    if not has_data.any():
        raise DTwinInputError(
            "no_trials",
            "nobody has a trial or a volume",
            field="tasks",
            wanted="measured data",
            got="none",
            fix="Check the cohort",
        )
    if not has_data.all():
        flags.append(f"left out, no measured trial or volume: {_names(cohort, ~has_data)}")
        cohort = cohort.select(has_data)
    return cohort, flags


def within_person(cohort: Cohort, half_s: float | None = None) -> Split:
    """Split A. Training is [0, half), test [half, 2 half) seconds of each run.

    A trial belongs to a part when its response window lies within; one whose window crosses
    the border belongs to neither. A volume belongs where it starts.

    Args:
        half_s: default half of each run; 196.8 in Takahashi et al. 2026.

    Raises:
        DTwinInputError: nobody has data in both parts (code ``split``).
    """
    return _same_people("A", "second half", cohort, *halves(cohort, half_s))


def halves(cohort: Cohort, half_s: float | None = None) -> tuple[Cohort, Cohort]:
    """The cohort measured in one part of each run only, as :func:`within_person` says."""
    first, second = {}, {}
    for name, data in cohort.tasks.items():
        half = data.schedule.run_s / 2 if half_s is None else half_s
        first[name] = _part(data, cohort.tr_s, 0.0, half)
        second[name] = _part(data, cohort.tr_s, half, 2 * half)
    return replace(cohort, tasks=first), replace(cohort, tasks=second)


def held_out_people(
    cohort: Cohort, *, n_folds: int = 10, n_repeats: int = 1, seed: int = 0
) -> Split:
    """Split B. Folds of people, each tested once in a repeat.

    Families (``participants["family"]``) stay together and are dealt, the largest first and
    then by site, otherwise in random order, to the fold with the fewest people of their site
    (``participants["site"]``), of those to the smallest.

    Raises:
        DTwinInputError: fewer than two folds, or fewer families than folds (code ``split``).
    """
    site = cohort.participants.get("site", np.zeros(len(cohort)))
    _, site = np.unique(site, return_inverse=True)
    family = _families(cohort)
    n_families = len(np.unique(family))
    if not 2 <= n_folds <= n_families:
        raise _error(
            "folds",
            "so many folds cannot be made of these people",
            f"2 to {n_families} folds for {len(cohort)} people in {n_families} families",
            n_folds,
            "Take fewer folds",
        )
    flags = []
    if alone := _single_sites(cohort):
        flags.append(f"B: sites of one person, unseen in training: {', '.join(alone)}")
    folds = []
    for repeat in range(n_repeats):
        fold_of = _deal(family, site, n_folds, np.random.default_rng([seed, repeat]))
        for k in range(n_folds):
            name = f"repeat {repeat + 1} fold {k + 1}"
            folds.append(_by_people("B", name, cohort, fold_of == k, repeat))
    return Split(tuple(folds), (*flags, *_training_gaps(folds)))


def left_out_sites(cohort: Cohort) -> Split:
    """Split C. Sites of one person train, but are not tested; people without a site are left out.

    Raises:
        DTwinInputError: no ``participants["site"]``, or fewer than two sites with two people
            (code ``split``).
    """
    if "site" not in cohort.participants:
        raise _error(
            "participants['site']",
            "nobody's site is known",
            "a column site",
            ", ".join(cohort.participants) or "no columns",
            "Add the column, or leave split C out",
        )
    flags = []
    if (unknown := _is_missing(cohort.participants["site"])).any():
        flags.append(f"C: left out, site unknown: {_names(cohort, unknown)}")
    alone = _single_sites(cohort)
    if alone:
        flags.append(f"C: sites of one person, not tested: {', '.join(alone)}")
    site = cohort.participants["site"]
    folds = [
        _by_people("C", f"site {s}", cohort, site == s, candidates=~unknown)
        for s in np.unique(site[~unknown])
        if str(s) not in alone and (~unknown & (site != s)).sum() >= _FEWEST_TRAINED
    ]
    if len(folds) < 2:
        raise _error(
            "participants['site']",
            "a site can be left out only where another remains",
            "at least two sites with two people each",
            len(folds),
            "Leave split C out",
        )
    return Split(tuple(folds), (*flags, *_training_gaps(folds)))


def cross_run(cohort: Cohort) -> Split:
    """Split D. Trains on the first runs, tests on ``TASK_run-N``.

    The test cohort's runs keep their names, so a predictor that was trained on ``stroop`` must
    predict ``stroop_run-2``: it looks up what it learnt by ``schedule.task``.

    Raises:
        DTwinInputError: no later run of a task whose first is there (code ``split``).
    """
    later = {
        name: data
        for name, data in cohort.tasks.items()
        if name != data.schedule.task and data.schedule.task in cohort.tasks
    }
    if not later:
        raise _error(
            "tasks",
            "no task has a second run",
            "runs such as stroop and stroop_run-2",
            ", ".join(cohort.tasks) or "no tasks",
            "Leave split D out",
        )
    first = {name: data for name, data in cohort.tasks.items() if name == data.schedule.task}
    return _same_people(
        "D", "later runs", cohort, replace(cohort, tasks=first), replace(cohort, tasks=later)
    )


def training_run(runs: Mapping[str, Run], name: str, task: str) -> Run | None:
    """What was learnt of a run of that name, or else of the first run of its task, or None."""
    if name in runs:
        return runs[name]
    return next((runs[run] for run in runs if is_run_of(run, task)), None)


def _part(data: TaskData, tr_s: float, start_s: float, stop_s: float) -> TaskData:
    """What lies within a stretch of the run; the rest is not measured."""
    schedule = data.schedule
    end_s = schedule.onset_s + schedule.window_s
    inside = (schedule.onset_s >= start_s - _TIME_EPS_S) & (end_s <= stop_s + _TIME_EPS_S)
    bold = data.bold
    if bold is not None:
        volume_s = tr_s * np.arange(bold.shape[1])
        within = (volume_s >= start_s - _TIME_EPS_S) & (volume_s < stop_s - _TIME_EPS_S)
        bold = np.where(within[None, :, None], bold, np.float32(np.nan))
    return TaskData(
        schedule,
        np.where(inside, data.choice, np.int8(NOT_MEASURED)),
        np.where(inside, data.rt_s, np.float32(np.nan)),
        bold,
    )


def _blank(data: TaskData) -> TaskData:
    return TaskData(
        data.schedule,
        np.full_like(data.choice, NOT_MEASURED),
        np.full_like(data.rt_s, np.nan),
        None if data.bold is None else np.full_like(data.bold, np.nan),
    )


def _same_people(split: str, name: str, cohort: Cohort, seen: Cohort, unseen: Cohort) -> Split:
    """One fold whose people are trained on and tested."""
    in_both = _has_data(seen) & _has_data(unseen)
    if in_both.sum() < _FEWEST_TRAINED:
        raise _error(
            "tasks",
            "too few people have data in both parts of the split",
            f"at least {_FEWEST_TRAINED}",
            int(in_both.sum()),
            f"Leave split {split} out",
        )
    flags = []
    if not in_both.all():
        flags.append(f"{split}: left out, data in one part only: {_names(cohort, ~in_both)}")
    people = np.flatnonzero(in_both)
    fold = Fold(split, name, seen.select(people), unseen.select(people), people)
    return Split((fold,), (*flags, *_training_gaps([fold])))


def _by_people(
    split: str,
    name: str,
    cohort: Cohort,
    tested: Mask,
    repeat: int = 0,
    *,
    candidates: Mask | None = None,
) -> Fold:
    trained = ~tested if candidates is None else candidates & ~tested
    people = np.flatnonzero(tested)
    return Fold(split, name, cohort.select(trained), cohort.select(people), people, repeat)


def _deal(family: Index, site: Index, n_folds: int, rng: np.random.Generator) -> Index:
    """(S,) the fold of each person."""
    fold_of = np.full(len(family), -1, np.intp)
    members = [np.flatnonzero(family == f) for f in rng.permutation(np.unique(family))]
    for family_members in sorted(members, key=lambda m: (-len(m), site[m[0]])):
        is_dealt = fold_of >= 0
        of_site = is_dealt & (site == site[family_members[0]])
        n_of_site, n = (np.bincount(fold_of[m], minlength=n_folds) for m in (of_site, is_dealt))
        fold_of[family_members] = np.lexsort((n, n_of_site))[0]
    return fold_of


def _families(cohort: Cohort) -> Index:
    """(S,) numbers of families; a person of unknown family is one alone."""
    alone = np.arange(len(cohort))
    if "family" not in cohort.participants:
        return alone
    column = cohort.participants["family"]
    _, number = np.unique(column, return_inverse=True)
    return np.where(_is_missing(column), len(cohort) + alone, number)


def _single_sites(cohort: Cohort) -> list[str]:
    if "site" not in cohort.participants:
        return []
    column = cohort.participants["site"]
    sites, counts = np.unique(column[~_is_missing(column)], return_counts=True)
    return [str(s) for s in sites[counts == 1]]


def _training_gaps(folds: list[Fold]) -> Iterator[str]:
    """Flags for conditions and correct actions that a fold tests and never trains."""
    for fold in folds:
        for name, data in fold.test.tasks.items():
            taught = [t for t in fold.train.tasks.values() if t.schedule.task == data.schedule.task]
            for what in ("condition", "correct"):
                known = {v for t in taught for v in _values(t, what)}
                if lacking := sorted(map(str, _values(data, what) - known)):
                    label = {"condition": "condition", "correct": "correct action"}[what]
                    yield (
                        f"{fold.split} {fold.name}: no training trial of {name} "
                        f"with {label} {', '.join(lacking)}"
                    )


def _values(data: TaskData, what: str) -> set[Any]:
    values = np.asarray(getattr(data.schedule, what))
    return set(values[data.measured.any(axis=0)].tolist())


def _has_data(cohort: Cohort) -> Mask:
    """(S,) whether a person has a measured trial or volume."""
    found = np.zeros(len(cohort), np.bool_)
    for data in cohort.tasks.values():
        found |= data.measured.any(axis=1)
        if data.bold is not None:
            found |= np.isfinite(data.bold).any(axis=(1, 2))
    return found


def _is_constant(bold: npt.NDArray[np.float32]) -> Mask:
    """(S,R) whether the measured volumes, at least one, are all the same number."""
    known = np.isfinite(bold)
    highest = np.where(known, bold, -np.inf).max(axis=1, initial=-np.inf)
    lowest = np.where(known, bold, np.inf).min(axis=1, initial=np.inf)
    constant: Mask = known.any(axis=1) & (highest == lowest)
    return constant


def _is_missing(column: npt.NDArray[Any]) -> Mask:
    if column.dtype.kind == "f":
        return np.asarray(np.isnan(column))
    if column.dtype.kind == "U":
        return np.asarray(np.isin(column, ["", "n/a"]))
    return np.zeros(len(column), np.bool_)


def _names(cohort: Cohort, mask: Mask) -> str:
    chosen = [cohort.connectomes.subjects[i] for i in np.flatnonzero(mask)]
    shown = ", ".join(chosen[:5])
    return shown if len(chosen) <= 5 else f"{shown} and {len(chosen) - 5} more"


def _error(field: str, what: str, wanted: str, got: object, fix: str) -> DTwinInputError:
    return DTwinInputError("split", what, field=field, wanted=wanted, got=str(got), fix=fix)
