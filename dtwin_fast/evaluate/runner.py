"""Training and summarising predictors over the folds of one split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..cohort import Cohort
from ..tasks.schedule import Schedule
from .baselines.targets import mean_over_people
from .bold import median_region_r
from .contrasts import contrast_effects
from .metric import Metric
from .metrics_table import METRICS
from .observe import observe
from .observed import Observed
from .predicted import Predicted
from .predictor import Predictor
from .reliability import map_ceilings, split_half_ceilings
from .splits import Fold, Split, blank, halves, training_run
from .statistics import ROUNDING, correlation_over_people

Array = npt.NDArray[Any]
Factory = Callable[[], Predictor]
Summarise = Callable[[Predicted, Observed], Array]
Scores = dict[tuple[str, Summarise], Array]
"""Run and summary -> (repeats,S,m), NaN for people who were not scored. Several metrics may
share a summary."""


_OVER_PEOPLE = (correlation_over_people, median_region_r)
"""What correlates over people summaries that are a half predicted and a half observed."""


@dataclass(frozen=True, eq=False)
class RunResult:
    """What the model said of S people in one run of one split, each person once.

    Attributes:
        subjects: S names.
        schedule: the run's trials.
        predicted, observed: of them; ``observed.reference`` is empty, as it differs by fold.
        rows: metric -> (S,m) summaries.
    """

    subjects: tuple[str, ...]
    schedule: Schedule
    predicted: Predicted
    observed: Observed
    rows: dict[str, Array]


class Runner:
    """Trains on every fold of a split, predicts the blank test people and summarises.

    Attributes:
        runs: names of the test runs.
        flags: what observing the truth brought up.

    Args:
        cohort: the people who were split.
        split: their folds.
        seed: each fold and null has its own seed from it; predictors share them.
        tick: is told what was trained.
    """

    def __init__(
        self, cohort: Cohort, split: Split, seed: int, tick: Callable[[str], None]
    ) -> None:
        self.runs = tuple(split.folds[0].test.tasks)
        self.flags: list[str] = []
        self._folds = split.folds
        self._shape = (1 + max(fold.repeat for fold in split.folds), len(cohort))
        self._seed = seed
        self._tick = tick
        self._observed: list[dict[str, Observed]] = []
        for fold in self._first_repeat():
            truth = {run: observe(fold.test, fold.train, run) for run in self.runs}
            self._observed.append({run: observed for run, (observed, _) in truth.items()})
            self.flags += [f"{fold.split}: {note}" for _, notes in truth.values() for note in notes]

    def rows(self, scores: Scores, run: str, metric: Metric) -> Array:
        """(repeats,S,m) what the metric combines.

        Correlations over the people of several folds are of deviations from the mean of their
        fold, predicted and observed. Without that a training group's mean, which is high where
        the people left out are low, would give a prediction that tells nobody apart a negative
        correlation. People alone in their fold cannot be scored so, unless everyone is.
        """
        rows = scores[run, metric.summarise]
        sizes = {len(fold.people) for fold in self._folds}
        if metric.combine not in _OVER_PEOPLE or len(self._first_repeat()) == 1 or sizes == {1}:
            return rows
        rest = np.full_like(rows, np.nan)
        for fold in self._folds:
            own = rows[fold.repeat, fold.people]
            alone = np.isfinite(own).sum(axis=0) < 2
            rest[fold.repeat, fold.people] = np.where(alone, np.nan, own - mean_over_people(own))
        rest[np.abs(rest) <= ROUNDING * np.abs(rows)] = 0
        return rest

    def scores(self, name: str, factory: Factory) -> Scores:
        """Summaries of a predictor, trained anew on every fold."""
        scores: Scores = {}
        for number, fold in enumerate(self._folds):
            predictor, people, _ = self._trained(factory, number)
            self._summarise(scores, number, predictor.predict(people))
            self._tick(f"{fold.split} {fold.name}: {name}")
        return scores

    def null_scores(self, name: str, factory: Factory, number: int) -> Scores:
        """Summaries of training ``number`` (from 1) of a null, on the first repeat alone."""
        scores: Scores = {}
        for k, fold in enumerate(self._first_repeat()):
            predictor, people, _ = self._trained(factory, k, number)
            self._summarise(scores, k, predictor.predict(people))
            self._tick(f"{fold.split} {fold.name}: {name} {number}")
        return scores

    def model_scores(
        self, name: str, factory: Factory, n_swaps: int
    ) -> tuple[Scores, list[Scores], dict[str, RunResult]]:
        """Summaries, those with connectomes exchanged, and the predictions of the first repeat.

        In each of the ``n_swaps`` exchanges everyone in a fold of two people or more has another
        test person's connectome.
        """
        scores: Scores = {}
        swapped: list[Scores] = [{} for _ in range(n_swaps)]
        kept: list[Mapping[str, Predicted]] = []
        for number, fold in enumerate(self._folds):
            predictor, people, rng = self._trained(factory, number)
            predictions = predictor.predict(people)
            self._summarise(scores, number, predictions)
            if fold.repeat == 0:
                kept.append(predictions)
                for exchange in swapped if len(people) > 1 else ():
                    others = predictor.predict(exchanged(people, rng))
                    self._summarise(exchange, number, others)
            self._tick(f"{fold.split} {fold.name}: {name}")
        return scores, swapped, {run: self._result(run, scores, kept) for run in self.runs}

    def ceilings(self, run: str) -> dict[str, float]:
        """Metric -> the score that the data's reliability allows.

        Maps are compared with those of the training run where training and test people are the
        same, else those of the two halves of the run: the ceiling of half the data then.
        """
        folds = self._first_repeat()
        observed = self._observed_of(run)
        ceilings = split_half_ceilings(observed)
        if observed.contrasts is not None:
            pairs = [_two_measurements(fold, run) for fold in folds]
            first, second = (np.concatenate(part) for part in zip(*pairs, strict=True))
            means = [truth[run].reference.get("contrasts_mean") for truth in self._observed]
            if known := [mean for mean in means if mean is not None]:
                ceilings |= map_ceilings(first, second, np.mean(known, axis=0))
        return ceilings

    def _trained(
        self, factory: Factory, number: int, null: int = 0
    ) -> tuple[Predictor, Cohort, np.random.Generator]:
        fold = self._folds[number]
        rng = np.random.default_rng([self._seed, ord(fold.split), number, null])
        predictor = factory()
        predictor.fit(fold.train, int(rng.integers(2**31)))
        return predictor, blank(fold.test), rng

    def _summarise(self, scores: Scores, number: int, predictions: Mapping[str, Predicted]) -> None:
        fold = self._folds[number]
        for run in self.runs:
            # Only one repeat's truth is kept: BOLD of every repeat would be much.
            is_kept = number < len(self._observed)
            observed = (
                self._observed[number][run] if is_kept else observe(fold.test, fold.train, run)[0]
            )
            for summarise in {metric.summarise for metric in METRICS.values()}:
                rows = summarise(predictions[run], observed)
                unknown = np.full((*self._shape, rows.shape[1]), np.nan)
                scores.setdefault((run, summarise), unknown)[fold.repeat, fold.people] = rows

    def _first_repeat(self) -> list[Fold]:
        return [fold for fold in self._folds if fold.repeat == 0]

    def _observed_of(self, run: str) -> Observed:
        return joined([replace(truth[run], reference={}) for truth in self._observed])

    def _result(
        self, run: str, scores: Scores, kept: Sequence[Mapping[str, Predicted]]
    ) -> RunResult:
        folds = self._first_repeat()
        people = np.concatenate([fold.people for fold in folds])
        return RunResult(
            tuple(s for fold in folds for s in fold.test.connectomes.subjects),
            folds[0].test.tasks[run].schedule,
            joined([predictions[run] for predictions in kept]),
            self._observed_of(run),
            {name: scores[run, m.summarise][0, people] for name, m in METRICS.items()},
        )


def exchanged(people: Cohort, rng: np.random.Generator) -> Cohort:
    """Everyone with the connectome of the next in a random circle, never their own."""
    order = rng.permutation(len(people))
    other = np.empty_like(order)
    other[order] = np.roll(order, 1)
    fc = people.connectomes
    return replace(
        people, connectomes=replace(fc, edges=fc.edges[other], missing=fc.missing[other])
    )


def _two_measurements(fold: Fold, run: str) -> tuple[Array, Array]:
    """(S,K,R) contrasts of the test people, twice."""
    second = contrast_effects(fold.test, run)[0]
    assert second is not None
    first = None
    if fold.train.connectomes.subjects == fold.test.connectomes.subjects:
        names = {name: name for name in fold.train.tasks}
        name = training_run(names, run, fold.test.tasks[run].schedule.task)
        if name is not None:
            first = contrast_effects(fold.train, name)[0]
    else:
        first, second = (contrast_effects(half, run)[0] for half in halves(fold.test))
        assert second is not None
    return np.full_like(second, np.nan) if first is None else first, second


Part = TypeVar("Part", Predicted, Observed)


def joined(parts: Sequence[Part]) -> Part:
    """Person after person; what some part lacks is lacking."""
    joined: dict[str, Any] = {}
    for item in fields(parts[0]):
        values = [getattr(part, item.name) for part in parts]
        if all(isinstance(value, np.ndarray) for value in values):
            joined[item.name] = np.concatenate(values)
        elif any(isinstance(value, np.ndarray) for value in values):
            joined[item.name] = None
    return replace(parts[0], **joined)
