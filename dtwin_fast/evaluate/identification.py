"""Is a person's predicted map most like their own observed one?

Rows are those of ``bold.own_maps``: (S,2X) predicted and observed maps less the training group's
mean map; a place that was not measured stands at the mean. Likeness is Pearson's r, 0 for a map
without differences. A person who is drawn several times is no other to themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from .statistics import ROUNDING, CountedScore

Array = npt.NDArray[Any]


def _of_pairs(score: Callable[[Array, Array], Array]) -> CountedScore:
    """A score of maps from one of likeness (U,U), predicted i with observed j, and counts (B,U).

    Undefined for draws of a single person.
    """

    def of_maps(rows: Array, counts: Array) -> Array:
        likeness, person = _likeness(rows)
        drawn = counts @ np.eye(len(likeness))[person]
        several = (drawn > 0).sum(axis=1) > 1
        scores = np.full(len(drawn), np.nan)
        scores[several] = score(likeness, drawn[several])
        return scores

    return CountedScore(of_maps)


def _top_1(likeness: Array, counts: Array) -> Array:
    own = np.diag(likeness)[:, None]
    is_tie = (likeness == own) & ~np.eye(len(own), dtype=bool)
    is_beaten = counts @ (likeness > own).T > 0
    hit = np.where(is_beaten, 0, 1 / (1 + counts @ is_tie.T))
    return _mean(hit, counts)


def _rank(likeness: Array, counts: Array) -> Array:
    own = np.diag(likeness)[:, None]
    less = (likeness < own) + 0.5 * (likeness == own)
    np.fill_diagonal(less, 0)
    others = counts.sum(axis=1, keepdims=True) - counts
    return _mean(counts @ less.T / np.maximum(others, 1), counts)


def _diagonality(likeness: Array, counts: Array) -> Array:
    own = counts @ np.diag(likeness) / counts.sum(axis=1)
    apart = likeness - np.diag(np.diag(likeness))
    others = _mean(counts @ apart.T, counts) * counts.sum(axis=1) / _n_pairs(counts)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = (own - others) / own
    return np.where(own > 0, share, np.where((own == 0) & (others == 0), 0, np.nan))


def _area(likeness: Array, counts: Array) -> Array:
    own = np.diag(likeness)
    order = np.argsort(own)
    pairs = ~np.eye(len(own), dtype=bool)
    # How many of the own, in order, a pair of strangers is above; half for those it equals.
    below, upto = (np.searchsorted(own[order], likeness[pairs], side) for side in ("left", "right"))
    areas = np.empty(len(counts))
    for b, count in enumerate(counts):
        beaten = np.concatenate([[0], count[order].cumsum()])
        weight = np.outer(count, count)[pairs]
        areas[b] = 1 - weight @ (beaten[below] + beaten[upto]) / (2 * beaten[-1] * weight.sum())
    return areas


top_1 = _of_pairs(_top_1)
"""Share of people whose own observed map is the likest; a tie of k maps counts 1/k."""

normalised_rank = _of_pairs(_rank)
"""Mean share of the others whose observed map is less like the prediction; chance is 1/2."""

diagonality = _of_pairs(_diagonality)
"""(mean likeness to one's own map - mean to others') / mean to one's own.

0 where both are; NaN where the predictions are on average not like people's own maps, for which
the ratio means nothing.
"""

own_area = _of_pairs(_area)
"""ROC area of likeness for telling own from others' maps, over all pairs."""


def _likeness(rows: Array) -> tuple[Array, Array]:
    """(U,U) r between the maps of different people, and (S,) which of them each row is."""
    numbers: dict[bytes, int] = {}
    person = np.array([numbers.setdefault(row.tobytes(), len(numbers)) for row in rows], np.int64)
    maps = rows[np.unique(person, return_index=True)[1]]
    maps = np.nan_to_num(maps[:, ~np.isnan(maps).all(axis=0)])
    predicted, observed = np.split(maps, 2, axis=1)
    return _unit_rows(predicted) @ _unit_rows(observed).T, person


def _unit_rows(maps: Array) -> Array:
    centred = maps - maps.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    differs = length > ROUNDING * np.abs(maps).max(axis=1, keepdims=True, initial=0)
    unit: Array = np.divide(centred, length, out=np.zeros_like(centred), where=differs)
    return unit


def _mean(values: Array, counts: Array) -> Array:
    """(B,) means over the people drawn of (B,U) values."""
    return np.asarray((values * counts).sum(axis=1) / counts.sum(axis=1))


def _n_pairs(counts: Array) -> Array:
    """(B,) pairs of draws that are not the same person."""
    return np.asarray(counts.sum(axis=1) ** 2 - (counts**2).sum(axis=1))
