"""The protocol: every predictor on the same people and trials, beside floors and nulls.

Nothing of a test person is seen before they are scored: predictors get their blank, and what a
score refers to is the training people's of the same fold.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..cohort import Cohort
from ..errors import DTwinInputError
from .baselines import BASELINES
from .metric import Metric
from .metrics_table import METRICS
from .runner import Factory, Runner, RunResult, Scores
from .splits import Split, make_split, usable
from .statistics import (
    N_RESAMPLES,
    ROUNDING,
    Combine,
    bootstrap_interval,
    difference_interval,
    mean_over_people,
    mean_over_repeats,
    n_scored,
    permutation_p,
)
from .table import Row

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Information:
    """Whether a person's own connectome tells more than another's.

    Attributes:
        split, task, metric: names.
        own: score with everyone's own connectome.
        others: mean score with connectomes exchanged at prediction.
        gain: how much better own is; positive is better, whichever way the metric goes.
        p: (1 + exchanges at least as good) / (1 + exchanges).
        n: exchanges; none leaves anybody their own connectome.
    """

    split: str
    task: str
    metric: str
    own: float
    others: float
    gain: float
    p: float
    n: int


@dataclass(frozen=True, eq=False)
class Report:
    """The result of :func:`evaluate`.

    Attributes:
        rows: the table.
        information: own against others' connectomes.
        flags: what a reader should know of data and splits.
        settings: what was asked for.
        runs: split, run -> the model's predictions of the first repeat.
    """

    rows: list[Row]
    information: list[Information]
    flags: list[str]
    settings: dict[str, Any]
    runs: dict[tuple[str, str], RunResult] = field(default_factory=dict)


def evaluate(
    cohort: Cohort,
    predictors: Mapping[str, Factory],
    *,
    model: str,
    null: str | None = None,
    floors: Collection[str] = tuple(BASELINES),
    splits: Sequence[str] = ("A", "B"),
    n_folds: int = 10,
    n_repeats: int = 1,
    n_nulls: int = 20,
    n_swaps: int = 20,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
) -> Report:
    """Train and score every predictor on every fold of every split.

    The floor of a metric is the best of ``floors`` on the same people; as it is chosen by its
    score, it flatters no model. A score over several folds is that of all people together (see
    :meth:`Runner.rows` for correlations), and over several repeats the mean. Nulls and exchanged
    connectomes are of the first repeat.

    Args:
        cohort: people with their data.
        predictors: name -> factory; the model, baselines, controls, a null.
        model: whose rows the table has.
        null: the predictor that is trained ``n_nulls`` times with seeds of its own, such as the
            model on permuted connectomes.
        floors: the names among ``predictors`` that may be the floor.
        splits: keys of ``SPLITS``.
        n_folds, n_repeats: of split B.
        n_nulls: trainings of the null.
        n_swaps: exchanges of connectomes among the test people of each fold.
        n_resamples: bootstrap samples of people.
        seed: of splits, trainings and resamples.
        progress: is told trainings done, their number, and what was trained; before the first,
            0, their number, and what they will be.

    Raises:
        DTwinInputError: a predictor that is not there (code ``predictor``), a split that cannot
            be made (``split``).
        MissingExtraError: BOLD without nilearn.
    """
    for name in filter(None, (model, null)):
        if name not in predictors:
            raise DTwinInputError(
                "predictor",
                "there is no such predictor",
                field="predictors",
                wanted=" | ".join(predictors),
                got=name,
                fix="Name one of these",
            )
    people, flags = usable(cohort)
    made = {
        name: make_split(name, people, n_folds=n_folds, n_repeats=n_repeats, seed=seed)
        for name in dict.fromkeys(splits)
    }
    if people.connectomes.n_edges == 0:
        n_swaps = 0
    compared = [name for name in predictors if name != null]
    ticks = _Ticks(progress, _n_trainings(made, len(compared), n_nulls if null else 0))
    n_folds_of = ", ".join(f"{name} {len(split.folds)}" for name, split in made.items())
    ticks.announce(
        f"folds {n_folds_of}; predictors {len(compared)}; nulls {n_nulls if null else 0}"
    )
    report = Report(
        rows=[],
        information=[],
        flags=flags,
        settings={
            "model": model,
            "null": null,
            "splits": list(made),
            "folds": n_folds,
            "repeats": n_repeats,
            "nulls": n_nulls if null else 0,
            "swaps": n_swaps,
            "resamples": n_resamples,
            "seed": seed,
            "people": len(people),
            "predictors": list(predictors),
        },
    )
    for name, split in made.items():
        report.flags.extend(split.flags)
        runner = Runner(people, split, seed, ticks)
        report.flags.extend(runner.flags)
        scored = {p: runner.scores(p, predictors[p]) for p in compared if p != model}
        own, swapped, results = runner.model_scores(model, predictors[model], n_swaps)
        chosen = [f for f in floors if f in scored]
        table = _Table(name, runner.rows, own, scored, chosen, n_resamples, seed)
        for i in range(n_nulls if null else 0):
            table.add_null(runner.null_scores(str(null), predictors[str(null)], i + 1))
        rows = [row for run in runner.runs for row in table.rows(run, runner.ceilings(run))]
        report.rows.extend(rows)
        report.flags.extend(_silent(name, rows))
        for run in runner.runs:
            report.information.extend(table.information(run, swapped))
            report.runs[name, run] = results[run]
    report.flags[:] = dict.fromkeys(report.flags)
    return report


def _silent(split: str, rows: Sequence[Row]) -> list[str]:
    """A flag for the predictors that have no score in a split."""
    names = dict.fromkeys(name for row in rows for name in row.baselines)
    silent = [n for n in names if not any(np.isfinite(row.baselines[n]) for row in rows)]
    return [f"{split}: nothing is predicted by {', '.join(silent)}"] if silent else []


def _n_trainings(splits: Mapping[str, Split], n_predictors: int, n_nulls: int) -> int:
    return sum(
        n_predictors * len(split.folds) + n_nulls * sum(f.repeat == 0 for f in split.folds)
        for split in splits.values()
    )


@dataclass(eq=False)
class _Ticks:
    """Counts trainings."""

    progress: Callable[[int, int, str], None] | None
    total: int
    done: int = 0

    def __call__(self, note: str) -> None:
        self.done += 1
        self.announce(note)

    def announce(self, note: str) -> None:
        """Tell how far it is, without a training."""
        if self.progress is not None:
            self.progress(self.done, self.total, note)


class _Table:
    """Turns summaries of one split into rows."""

    def __init__(
        self,
        split: str,
        rows_of: Callable[[Scores, str, Metric], Array],
        model: Scores,
        others: Mapping[str, Scores],
        floors: Sequence[str],
        n_resamples: int,
        seed: int,
    ) -> None:
        self._split = split
        self._rows_of = rows_of
        self._model = model
        self._others = others
        self._floors = floors
        self._draw = {"n": n_resamples, "seed": seed}
        self._nulls: list[dict[tuple[str, str], float]] = []

    def add_null(self, scores: Scores) -> None:
        """Take note of the scores of a null; its summaries are not kept."""
        runs = dict.fromkeys(run for run, _ in scores)
        self._nulls.append(
            {
                (run, name): self._first_score(scores, run, m)
                for run in runs
                for name, m in METRICS.items()
            }
        )

    def rows(self, run: str, ceilings: Mapping[str, float]) -> list[Row]:
        """One row for each metric that the model or another predictor has a score of."""
        rows = [self._row(run, metric, ceilings) for metric in METRICS.values()]
        return [r for r in rows if np.isfinite([r.model, *r.baselines.values()]).any()]

    def information(self, run: str, swapped: Sequence[Scores]) -> list[Information]:
        """Own against others' connectomes, where both have a score."""
        found = []
        for metric in METRICS.values():
            own = self._first_score(self._model, run, metric)
            with_others = [self._first_score(s, run, metric) for s in swapped if s]
            others = np.array([score for score in with_others if np.isfinite(score)])
            if np.isfinite(own) and len(others):
                mean = float(others.mean())
                found.append(
                    Information(
                        self._split,
                        run,
                        metric.name,
                        own,
                        mean,
                        own - mean if metric.higher_is_better else mean - own,
                        permutation_p(own, others, higher_is_better=metric.higher_is_better),
                        len(others),
                    )
                )
        return found

    def _row(self, run: str, metric: Metric, ceilings: Mapping[str, float]) -> Row:
        repeats = self._rows_of(self._model, run, metric)
        model, combine = _flat(repeats, metric), _over_repeats(metric, len(repeats))
        summaries = {
            name: _flat(self._rows_of(scores, run, metric), metric)
            for name, scores in self._others.items()
        }
        interval = bootstrap_interval(model, combine, **self._draw)
        others = {name: _score(rows, combine) for name, rows in summaries.items()}
        null_mean, null_p = self._null(run, metric)
        row = Row(
            split=self._split,
            task=run,
            domain=metric.domain,
            metric=metric.name,
            unit=metric.unit,
            model=interval.value,
            low=interval.low,
            high=interval.high,
            ceiling=ceilings.get(metric.name, np.nan),
            paper=metric.paper.get(run, np.nan) if self._split == "A" else np.nan,
            n_people=n_scored(model),
            note=interval.note,
            baselines=others,
            null_mean=null_mean,
            null_p=null_p,
        )
        floors = [name for name in self._floors if np.isfinite(others[name])]
        if not floors:
            return row
        sign = 1 if metric.higher_is_better else -1
        floor = max(floors, key=lambda name: sign * others[name])
        difference = difference_interval(
            model,
            summaries[floor],
            combine,
            higher_is_better=metric.higher_is_better,
            **self._draw,
        )
        return replace(
            row,
            floor=others[floor],
            floor_name=floor,
            diff=_beyond_rounding(difference.value, others[floor]),
            diff_low=_beyond_rounding(difference.low, others[floor]),
            diff_high=_beyond_rounding(difference.high, others[floor]),
        )

    def _null(self, run: str, metric: Metric) -> tuple[float, float]:
        """Mean score of the nulls and the p value, NaN without any."""
        null = np.array([scores[run, metric.name] for scores in self._nulls])
        if not np.isfinite(null).any():
            return np.nan, np.nan
        own = self._first_score(self._model, run, metric)
        p = permutation_p(own, null, higher_is_better=metric.higher_is_better)
        return float(np.nanmean(null)), p

    def _first_score(self, scores: Scores, run: str, metric: Metric) -> float:
        """The score of the first repeat."""
        return _score(self._rows_of(scores, run, metric)[0], metric.combine)


def _flat(rows: Array, metric: Metric) -> Array:
    """(repeats,S,m) -> (S,repeats*m), the form in which people are drawn.

    A metric that is a mean over people needs only everyone's mean over repeats, (S,1).
    """
    if metric.combine is mean_over_people:
        return np.asarray(rows[:, :, :1].mean(axis=0))
    return rows.transpose(1, 0, 2).reshape(rows.shape[1], -1)


def _over_repeats(metric: Metric, n_repeats: int) -> Combine:
    """The score of :func:`_flat` rows, a mean over repeats."""
    if n_repeats == 1 or metric.combine is mean_over_people:
        return metric.combine
    return mean_over_repeats(metric.combine, n_repeats)


def _beyond_rounding(difference: float, score: float) -> float:
    """The difference, 0 where it is only the rounding of float32 predictions."""
    return 0.0 if abs(difference) <= ROUNDING * abs(score) else difference


def _score(rows: Array, combine: Combine) -> float:
    return combine(rows) if n_scored(rows) else float("nan")
