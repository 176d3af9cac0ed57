"""Baselines that predict what a person is like, and from that what they do in every trial."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ...cohort import Cohort
from ..predicted import Predicted
from ..splits import training_run
from .responses import Responses
from .targets import RunTargets, mean_over_people, run_targets
from .time_course import group_time_course

Array = npt.NDArray[Any]


class Regression(Protocol):
    """From people to rows of P targets, NaN where unknown."""

    is_own: bool
    """Whether it knows a person's own numbers, so that only trials differ from them."""

    def fit(self, train: Cohort, rows: Array, weights: Array) -> None:
        """Learn (S,P) rows that rest on (S,P) trials, infinitely many if they are no shares."""
        ...

    def predict(self, people: Cohort) -> Array:
        """(S,P) rows of people, NaN where nothing can be said."""
        ...


class PersonLevel:
    """A regression to a person's mean RT and error rates by condition and to their contrasts.

    Targets are in seconds, shares and units of BOLD, not in logarithms or logits: their means
    stay means, so a group's error rate is that of its trials.

    Args:
        name: what tables call it.
        make: makes the regression.
        with_items: reaction times differ by trial, as they did among the training people.
        with_course: predict the group's BOLD time course.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Regression],
        *,
        with_items: bool = True,
        with_course: bool = False,
    ) -> None:
        self.name = name
        self._regression = make()
        self._with_items = with_items
        self._with_course = with_course
        self._runs: dict[str, _Run] = {}

    def fit(self, train: Cohort, seed: int) -> None:
        """Learn; nothing is drawn, so ``seed`` does not matter."""
        self._runs, rows, weights, start = {}, [], [], 0
        for run in train.tasks:
            targets = run_targets(train, run)
            rows.append(targets.rows())
            weights.append(targets.weights())
            stop = start + rows[-1].shape[1]
            self._runs[run] = _Run(targets, self._responses(targets), slice(start, stop))
            start = stop
        self._regression.fit(train, np.hstack(rows), np.hstack(weights))

    def predict(self, people: Cohort) -> dict[str, Predicted]:
        """Predictions of every run; one that was not learnt is predicted from the task's first."""
        rows = self._regression.predict(people)
        predictions = {}
        for name, data in people.tasks.items():
            run = training_run(self._runs, name, data.schedule.task)
            if run is None:
                predictions[name] = Predicted()
                continue
            predicted = run.responses.predicted(data.schedule, rows[:, run.columns])
            if self._with_course:
                predicted = replace(predicted, bold=_course(run, people, name))
            predictions[name] = predicted
        return predictions

    def _responses(self, targets: RunTargets) -> Responses:
        expected_s = targets.rt_s
        if not self._regression.is_own:
            expected_s = np.broadcast_to(mean_over_people(targets.rt_s), targets.rt_s.shape)
        return Responses(targets, expected_s, with_items=self._with_items)


@dataclass(frozen=True, eq=False)
class _Run:
    targets: RunTargets
    responses: Responses
    columns: slice


def _course(run: _Run, people: Cohort, name: str) -> npt.NDArray[np.float32] | None:
    course = group_time_course(run.targets.data, people.tasks[name].schedule, people.tr_s)
    return None if course is None else np.broadcast_to(course, (len(people), *course.shape))
