"""Scores of predicted BOLD: contrast maps of K contrasts x R regions, and time courses.

A map row of a summary holds the predicted map and then the observed one, NaN in both where one
of them is not known. Maps less the training group's mean ask for what is a person's own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .observed import Observed
from .predicted import Predicted
from .statistics import ROUNDING, area_under_curve, complete, correlation, person_rows

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
    return person_rows(_row_r(maps(predicted, observed)))


def map_r_gain(predicted: Predicted, observed: Observed) -> Array:
    """(S,1) :func:`map_r` less the correlation that the training group's mean map has."""
    rows = maps(predicted, observed)
    seen = _halves(rows)[1]
    group = np.broadcast_to(_mean_map(observed, seen.shape[1]), seen.shape)
    group_r = _row_r(_map_rows(np.where(np.isnan(seen), np.nan, group), seen))
    return person_rows(_row_r(rows) - group_r)


def own_map_r(predicted: Predicted, observed: Observed) -> Array:
    """(S,1) correlation of a person's maps, both less the training group's mean map."""
    return person_rows(_row_r(own_maps(predicted, observed)))


def group_pattern_r(rows: Array) -> float:
    """r over contrasts x regions of the predicted and the observed one-sample t over people.

    Takahashi et al. 2026. Where some prediction is the same for everyone its t is infinite, and
    predicted means stand for predicted t.
    """
    predicted, observed = _halves(rows)
    pattern = _mean(predicted) if _constant(predicted).any() else _one_sample_t(predicted)
    return correlation(pattern, _one_sample_t(observed))


def group_mean_r(rows: Array) -> float:
    """r over contrasts x regions of the predicted and the observed mean over people."""
    predicted, observed = _halves(rows)
    return correlation(_mean(predicted), _mean(observed))


def median_region_r(rows: Array) -> float:
    """Median over contrasts x regions of r over people; a constant prediction has 0."""
    r = region_r(rows)
    r = r[np.isfinite(r)]
    return float(np.median(r)) if len(r) else float("nan")


def region_r(rows: Array) -> Array:
    """(KR,) r over people at each place of the maps; NaN with fewer than three people."""
    predicted, observed = _halves(rows)
    n = (~np.isnan(observed)).sum(axis=0)
    p, o = predicted - _mean(predicted), observed - _mean(observed)
    pp, oo, po = (np.nansum(part, axis=0) for part in (p * p, o * o, p * o))
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.where(_constant(predicted), 0.0, po / np.sqrt(pp * oo))
    r[(n < 3) | _constant(observed)] = np.nan
    return r


def top_1(rows: Array) -> float:
    """Share of people whose predicted map is most like their own observed one.

    A tie of k maps counts 1/k. As for all scores of identification, maps are those of
    :func:`own_maps`, likeness is r, and a person who was drawn several times is no other to
    themselves.
    """
    similarity, is_own = _similarities(rows)
    if similarity is None:
        return float("nan")
    own = np.diag(similarity)[:, None]
    beaten = (~is_own & (similarity > own)).any(axis=1)
    ties = (~is_own & (similarity == own)).sum(axis=1)
    return float(np.where(beaten, 0.0, 1 / (1 + ties)).mean())


def normalised_rank(rows: Array) -> float:
    """Mean share of the others whose observed map is less like the prediction; chance is 1/2."""
    similarity, is_own = _similarities(rows)
    if similarity is None:
        return float("nan")
    own = np.diag(similarity)[:, None]
    less = (similarity < own) + 0.5 * (similarity == own)
    return float(((less * ~is_own).sum(axis=1) / (~is_own).sum(axis=1)).mean())


def diagonality(rows: Array) -> float:
    """(mean likeness to one's own map - mean to others') / mean to one's own.

    0 where both are; NaN where people's own maps are on average not like the prediction, for
    which the ratio means nothing.
    """
    similarity, is_own = _similarities(rows)
    if similarity is None:
        return float("nan")
    own, others = np.diag(similarity).mean(), similarity[~is_own].mean()
    if own <= 0:
        return 0.0 if own == others == 0 else float("nan")
    return float((own - others) / own)


def own_area(rows: Array) -> float:
    """ROC area of likeness for telling own from others' maps, over all pairs."""
    similarity, is_own = _similarities(rows)
    if similarity is None:
        return float("nan")
    return area_under_curve(np.diag(similarity), similarity[~is_own])


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
    if observed.contrasts is None:
        return np.full(n_places, np.nan)
    mean: Array = np.asarray(observed.reference["contrasts_mean"], np.float64).ravel()
    return mean


def _less_mean(contrasts: Array, observed: Observed) -> Array:
    mean = _mean_map(observed, contrasts.shape[1])
    own = contrasts - mean
    largest = np.nanmax(np.abs(mean), initial=0.0)
    is_rounding = ~(np.abs(own) > ROUNDING * largest).any(axis=1)
    own[is_rounding[:, None] & ~np.isnan(own)] = 0
    return own


def _row_r(rows: Array) -> Array:
    return np.array([correlation(p, o) for p, o in zip(*_halves(rows), strict=True)])


def _mean(values: Array) -> Array:
    """(X,) means over people, NaN without any."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        mean: Array = np.where(known, values, 0).sum(axis=0) / known.sum(axis=0)
    return mean


def _one_sample_t(values: Array) -> Array:
    """(X,) mean over its standard error; NaN where that is 0 or there are fewer than two."""
    n = (~np.isnan(values)).sum(axis=0)
    mean = _mean(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.sqrt(np.nansum((values - mean) ** 2, axis=0) / (n - 1) / n)
        return np.where(_constant(values) | (n < 2), np.nan, mean / error)


def _constant(values: Array) -> Array:
    """(X,) bool, places where people differ by no more than rounding."""
    known = ~np.isnan(values)
    highest = np.where(known, values, -np.inf).max(axis=0, initial=-np.inf)
    lowest = np.where(known, values, np.inf).min(axis=0, initial=np.inf)
    some = known.any(axis=0)
    size = np.maximum(np.abs(highest), np.abs(lowest))
    constant: Array = some & ~(highest - lowest > ROUNDING * size)
    return constant


def _similarities(rows: Array) -> tuple[Array | None, Array]:
    """(S,S) r of predicted map i with observed map j, and whether j is the person of i.

    A place that was not measured stands at the group's mean. None where there are no two
    people to tell apart.
    """
    rows = rows[~np.isnan(rows).all(axis=1)]
    numbers: dict[bytes, int] = {}
    person = np.array([numbers.setdefault(row.tobytes(), len(numbers)) for row in rows], int)
    is_own = person[:, None] == person
    if len(numbers) < 2:
        return None, is_own
    first = np.unique(person, return_index=True)[1]
    measured = ~np.isnan(rows[first]).all(axis=0)
    predicted, observed = _halves(np.nan_to_num(rows[first][:, measured]))
    similarity = _unit_rows(predicted) @ _unit_rows(observed).T
    return similarity[np.ix_(person, person)], is_own


def _unit_rows(values: Array) -> Array:
    centred = values - values.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    is_constant = length <= ROUNDING * np.abs(values).max(axis=1, keepdims=True)
    unit: Array = np.divide(centred, length, out=np.zeros_like(centred), where=~is_constant)
    return unit


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
