"""What one could know of simulated people at most: a predictor that knows their parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..cohort import Cohort
from ..evaluate.predicted import Predicted
from ..simulate import Truth
from ..simulate.behaviour import N_ACTIONS, behave
from ..simulate.population import trial_draws

Array = npt.NDArray[Any]

ORACLE = "oracle"
N_REPEATS = 50
"""Runs of the same people with the same parameters that the oracle is a mean of."""


class Oracle:
    """Knows everyone's parameters in the run, state of the day included, but not trial noise.

    What it says is the mean of ``N_REPEATS`` runs with other random numbers of the trials. It says
    nothing of BOLD.
    """

    name = ORACLE

    def __init__(self, truth: Truth) -> None:
        self._row = {name: i for i, name in enumerate(truth.observed.subjects)}
        self._expected = {task: _expected(truth, task) for task in truth.population.schedules}

    def fit(self, train: Cohort, seed: int) -> None:
        """There is nothing to learn."""

    def predict(self, people: Cohort) -> dict[str, Predicted]:
        """Expected reaction times and probabilities of choices."""
        rows = [self._row[name] for name in people.connectomes.subjects]
        return {
            task: Predicted(
                choice_prob=self._expected[task][0][rows], rt_s=self._expected[task][1][rows]
            )
            for task in people.tasks
        }


def _expected(truth: Truth, task: str) -> tuple[Array, Array]:
    """(S,N,A) probabilities, and (S,N) mean reaction times given a press."""
    population = truth.population
    schedule, responders = population.schedules[task], truth.responders(task)
    n_actions = N_ACTIONS[task]
    shape = (len(truth.z), schedule.n_trials)
    total, pressed = np.zeros(shape), np.zeros((*shape, n_actions))
    for repeat in range(1, N_REPEATS + 1):
        draws, _ = trial_draws(population, truth.people, task, repeat)
        choice, rt_s = behave(schedule, responders, population.item_effect_s[task], draws)
        total += np.nan_to_num(rt_s)
        pressed += choice[:, :, None] == np.arange(n_actions)
    n = pressed.sum(axis=2)
    # In a trial in which none of the repeats has a press: as long as in the person's others.
    usual = total.sum(axis=1, keepdims=True) / n.sum(axis=1, keepdims=True)
    rt_s = np.divide(total, n, out=np.broadcast_to(usual, shape).copy(), where=n > 0)
    return (pressed / N_REPEATS).astype(np.float32), rt_s.astype(np.float32)
