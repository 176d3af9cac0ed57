"""Scores of predicted BOLD: contrast maps of K contrasts x R regions, and time courses.

A map row of a summary holds the predicted map and then the observed one, NaN in both where one
of them is not known. Maps less the training group's mean ask for what is a person's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .observed import Observed
from .predicted import Predicted
from .statistics import ROUNDING, CountedScore, complete, correlation, person_rows

Array = npt.NDArray[Any]


def maps(predicted: Predicted, observed: Observed) -> Array:
    """(S,2KR) predicted and observed contrast maps."""
    return _map_rows(*_contrasts(predicted, observed))


def own_maps(predicted: Predicted, observed: Observed) -> Array:
    """(S,2KR) predicted and observed contrast maps less the training group's mean map.

    A prediction that is the group's mean but for rounding is exactly 0.
    """
    return _map_rows(*(_less_mean(part, observed) for part in _contrasts(predicted, observed)))


def map_r(predicted: Predicted, observed: Observed) -> Array:
    """(S,1) correlation of a person's predicted and observed map."""
    return person_rows(_rows_r(*_halves(maps(predicted, observed))))


def map_r_gain(predicted: Predicted, observed: Observed) -> Array:
    """(S,1) :func:`map_r` less the correlation that the training group's mean map has."""
    rows = maps(predicted, observed)
    seen = _halves(rows)[1]
    group = np.broadcast_to(_mean_map(observed, seen.shape[1]), seen.shape)
    group = np.where(np.isnan(seen), np.nan, group)
    group_r = _rows_r(*_halves(_map_rows(group, seen)))
    return person_rows(_rows_r(*_halves(rows)) - group_r)


def own_map_r(predicted: Predicted, observed: Observed) -> Array:
    """(S,1) correlation of a person's maps, both less the training group's mean map."""
    return person_rows(_rows_r(*_halves(own_maps(predicted, observed))))


def _group_pattern_r(rows: Array, counts: Array) -> Array:
    predicted, observed = (_Moments.of(half, counts) for half in _halves(rows))
    is_same = predicted.is_constant.any(axis=1, keepdims=True)
    return _rows_r(np.where(is_same, predicted.mean, predicted.t), observed.t)


group_pattern_r = CountedScore(_group_pattern_r)
"""r over contrasts x regions of the predicted and the observed one-sample t over people.

Takahashi et al. 2026. Where some prediction is the same for everyone its t is infinite, and
predicted means stand for predicted t.
"""


def _group_mean_r(rows: Array, counts: Array) -> Array:
    predicted, observed = (_Moments.of(half, counts) for half in _halves(rows))
    return _rows_r(predicted.mean, observed.mean)


group_mean_r = CountedScore(_group_mean_r)
"""r over contrasts x regions of the predicted and the observed mean over people."""


def region_r(rows: Array, counts: Array) -> Array:
    """(B,KR) r over people at each place of the maps, for B draws of people.

    0 where the prediction is constant; NaN where the observation is, or for fewer than three
    people.
    """
    predicted, observed = (_Moments.of(half, counts) for half in _halves(rows))
    product = counts @ (predicted.centred * observed.centred)
    product -= predicted.n * predicted.shift * observed.shift
    with np.errstate(invalid="ignore", divide="ignore"):
        r = product / np.sqrt(predicted.squares * observed.squares)
    r = np.where(predicted.is_constant, 0.0, r)
    return np.where((observed.n < 3) | observed.is_constant, np.nan, r)


def _median_region_r(rows: Array, counts: Array) -> Array:
    known = (r[np.isfinite(r)] for r in region_r(rows, counts))
    return np.array([np.median(r) if len(r) else np.nan for r in known])


median_region_r = CountedScore(_median_region_r)
"""Median over contrasts x regions of r over people; a constant prediction has 0."""


def course_squares(predicted: Predicted, observed: Observed) -> Array:
    """(S,2) sums of squares of the residual and of the observed time courses.

    Over the measured volumes and regions, each course less its mean over them.
    """
    seen, guess = _courses(observed, observed.bold, predicted.bold)
    return person_rows(_squares(seen - guess), _squares(seen))


def course_gain_squares(predicted: Predicted, observed: Observed) -> Array:
    """(S,3) as :func:`course_squares`, between them the residual of the group's mean course.

    Over what the training group was measured on too: NaN for volumes on which nobody was.
    """
    group = observed.reference.get("bold_mean")
    if group is not None:
        group = np.broadcast_to(group, (len(observed.choice), *group.shape))
    seen, guess, mean = _courses(observed, observed.bold, predicted.bold, group)
    return person_rows(_squares(seen - guess), _squares(seen - mean), _squares(seen))


def explained_squares(rows: Array) -> float:
    """R2 = 1 - SSE / SST, squares summed over people."""
    sse, sst = complete(rows).sum(axis=0)
    return float(1 - sse / sst) if sst > 0 else float("nan")


def explained_more(rows: Array) -> float:
    """R2 of the prediction less R2 of the training group's mean course."""
    sse, group_sse, sst = complete(rows).sum(axis=0)
    return float((group_sse - sse) / sst) if sst > 0 else float("nan")


def _contrasts(predicted: Predicted, observed: Observed) -> tuple[Array, Array]:
    """(S,KR) each, NaN where not known."""
    n_people = len(observed.choice)
    known = [c for c in (observed.contrasts, predicted.contrasts) if c is not None]
    nothing = np.full((n_people, known[0][0].size if known else 1), np.nan)
    guess, seen = (
        nothing if c is None else c.reshape(n_people, -1).astype(np.float64)
        for c in (predicted.contrasts, observed.contrasts)
    )
    return guess, seen


def _map_rows(predicted: Array, observed: Array) -> Array:
    unknown = np.isnan(predicted) | np.isnan(observed)
    both = (np.where(unknown, np.nan, part) for part in (predicted, observed))
    return np.concatenate(list(both), axis=1)


def _halves(rows: Array) -> tuple[Array, Array]:
    half = rows.shape[1] // 2
    return rows[:, :half], rows[:, half:]


def _mean_map(observed: Observed, n_places: int) -> Array:
    mean = observed.reference.get("contrasts_mean")
    return np.full(n_places, np.nan) if mean is None else mean.ravel().astype(np.float64)


def _less_mean(contrasts: Array, observed: Observed) -> Array:
    mean = _mean_map(observed, contrasts.shape[1])
    own = contrasts - mean
    largest = np.nanmax(np.abs(mean), initial=0.0)
    is_rounding = ~(np.abs(own) > ROUNDING * largest).any(axis=1)
    own[is_rounding[:, None] & ~np.isnan(own)] = 0
    return own


def _rows_r(predicted: Array, observed: Array) -> Array:
    return np.array([correlation(p, o) for p, o in zip(predicted, observed, strict=True)])


@dataclass(frozen=True, eq=False)
class _Moments:
    """Sums over people at each of X places, for B draws of people; all (B,X) but ``centred``.

    Attributes:
        centred: (S,X) values less their mean over all people, 0 where not known.
        n: how many people were drawn and known.
        shift: mean of ``centred``.
        mean: of the values.
        squares: sum of squared deviations from the mean.
        is_constant: whether people differ by no more than rounding.
    """

    centred: Array
    n: Array
    shift: Array
    mean: Array
    squares: Array
    is_constant: Array

    @classmethod
    def of(cls, values: Array, counts: Array) -> _Moments:
        known = ~np.isnan(values)
        n = counts @ known
        with np.errstate(invalid="ignore"):  # nobody: 0/0
            middle = np.where(known, values, 0).sum(axis=0) / known.sum(axis=0)
            centred = np.where(known, values - middle, 0)
            shift = counts @ centred / n
        squares = np.maximum(counts @ centred**2 - n * shift**2, 0)
        size = np.abs(np.where(known, values, 0)).max(axis=0, initial=0)
        is_constant = squares <= n * (ROUNDING * size) ** 2
        return cls(centred, n, shift, middle + shift, squares, is_constant)

    @property
    def t(self) -> Array:
        """One-sample t over people; NaN where it is infinite or there are fewer than two."""
        with np.errstate(invalid="ignore", divide="ignore"):
            t = self.mean / np.sqrt(self.squares / (self.n - 1) / self.n)
        return np.where(self.is_constant | (self.n < 2), np.nan, t)


def _courses(observed: Observed, *bold: Array | None) -> list[Array]:
    """(S,V,R) each, NaN where one of them is, less the mean over the other volumes."""
    nothing = (len(observed.choice), 1, 1)
    shape = next((part.shape for part in bold if part is not None), nothing)
    known = [np.full(shape, np.nan) if part is None else part.astype(np.float64) for part in bold]
    unknown = np.isnan(known).any(axis=0)
    n = (~unknown).sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):  # no volume: 0/0
        return [
            np.where(unknown, np.nan, part - np.where(unknown, 0, part).sum(1, keepdims=True) / n)
            for part in known
        ]


def _squares(bold: Array) -> Array:
    """(S,) sums of squares; NaN where nothing is known."""
    some = (~np.isnan(bold)).any(axis=(1, 2))
    return np.where(some, np.nansum(bold**2, axis=(1, 2)), np.nan)
