"""Ceilings: what even a perfect predictor could reach, from the observed test data alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..cohort import NOT_MEASURED
from ..metrics import pearson
from . import bold, identification
from .observed import Observed
from .predicted import Predicted
from .reaction_time import observed_effects, observed_means
from .statistics import mean_over_people, mean_where, spearman_brown

Array = npt.NDArray[Any]


def split_half_ceilings(observed: Observed) -> dict[str, float]:
    """Metric name -> the r that a perfect predictor of the person would have.

    sqrt(reliability) with Spearman-Brown's reliability of odd and even trials within condition;
    0 where the halves do not agree, NaN where they cannot be compared.
    """
    halves = [_only(observed, trials) for trials in _odd_and_even(observed)]
    return {
        name: _ceiling(*(of_person(half) for half in halves))
        for name, of_person in _OF_PERSON.items()
    }


def map_ceilings(first: Array, second: Array, group_mean: Array) -> dict[str, float]:
    """Metric name -> the score of one measurement of people's maps as a prediction of another.

    Args:
        first, second: (S,K,R) contrasts of two halves of a run, or of two runs.
        group_mean: (K,R) the training group's mean map.
    """
    n_people = len(first)
    nobody = np.zeros((n_people, 0))
    observed = Observed(
        choice=nobody.astype(np.int8),
        rt_s=nobody.astype(np.float32),
        correct=nobody.astype(np.int64),
        condition=nobody.astype(np.str_),
        contrasts=second,
        reference={"contrasts_mean": group_mean},
    )
    predicted = Predicted(contrasts=first)
    own = bold.own_maps(predicted, observed)
    return {
        "BOLD individual r": mean_over_people(bold.map_r(predicted, observed)),
        "BOLD mean-removed r": mean_over_people(bold.own_map_r(predicted, observed)),
        "BOLD region r": bold.median_region_r(bold.maps(predicted, observed)),
        "BOLD identification top-1": identification.top_1(own),
        "BOLD identification rank": identification.normalised_rank(own),
        "BOLD identification diagonality": identification.diagonality(own),
        "BOLD identification AUC": identification.own_area(own),
    }


def _error_rate(observed: Observed) -> Array:
    return mean_where(observed.choice != observed.correct, observed.choice != NOT_MEASURED)


_OF_PERSON: dict[str, Callable[[Observed], Array]] = {
    "error-rate r": _error_rate,
    "RT person-mean r": observed_means,
    "RT condition-effect r": observed_effects,
}


def _ceiling(first: Array, second: Array) -> float:
    reliability = spearman_brown(pearson(first, second))
    return float(np.sqrt(np.maximum(reliability, 0)))


def _odd_and_even(observed: Observed) -> tuple[Array, Array]:
    """(S,N) bool, measured trials in turn within a condition."""
    measured = observed.choice != NOT_MEASURED
    turn = np.zeros(measured.shape, np.int64)
    for condition in np.unique(observed.condition):
        own = measured & (observed.condition == condition)
        turn += np.where(own, own.cumsum(axis=1), 0)
    return turn % 2 == 1, measured & (turn % 2 == 0)


def _only(observed: Observed, trials: Array) -> Observed:
    return replace(
        observed,
        choice=np.where(trials, observed.choice, NOT_MEASURED).astype(np.int8),
        rt_s=np.where(trials, observed.rt_s, np.nan).astype(np.float32),
    )
