"""People drawn again: intervals, nulls, reliabilities, and what metrics need to be drawn so.

A summary is (S,m) float64, a row a person; a row wholly NaN is a person who cannot be scored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import MissingExtraError
from ..metrics import pearson

Array = npt.NDArray[Any]
Combine = Callable[[Array], float]
Scores = Callable[[Array], Array]

N_RESAMPLES = 2000
LEVEL = 0.95
ROUNDING = 1e-6
"""Spread, as a share of the numbers, that float32 predictions have where they mean none."""

_NUMBERS_AT_ONCE = 4_000_000
"""Draws x columns that are held at once, 32 MB."""


@dataclass(frozen=True)
class Interval:
    """A score with its bootstrap interval; ``note`` says what was not as usual."""

    value: float
    low: float
    high: float
    note: str = ""


@dataclass(frozen=True)
class CountedScore:
    """A ``Metric.combine`` that scores many draws of people at once.

    Attributes:
        score: rows (S,m) of people who can be scored, and how often each is drawn, (B,S)
            float64 -> (B,) scores.
    """

    score: Callable[[Array, Array], Array]

    def __call__(self, rows: Array) -> float:
        """The score of everybody, drawn once; NaN of nobody."""
        return float(self.of_draws(rows, np.ones((1, len(rows))))[0])

    def of_draws(self, rows: Array, counts: Array) -> Array:
        """(B,) scores of draws, in which people who cannot be scored do not count."""
        known = ~np.isnan(rows).all(axis=1)
        if not known.any():
            return np.full(len(counts), np.nan)
        return self.score(rows[known], counts[:, known])


def mean_over_repeats(combine: Combine, n_repeats: int) -> Combine:
    """The mean of a score over repeats that stand beside each other, (S,n_repeats*m)."""
    if isinstance(combine, CountedScore):
        of_draws = combine.of_draws
        return CountedScore(
            lambda rows, counts: np.asarray(
                np.mean([of_draws(part, counts) for part in np.hsplit(rows, n_repeats)], axis=0)
            )
        )
    return lambda rows: float(np.mean([combine(part) for part in np.hsplit(rows, n_repeats)]))


def person_rows(*columns: Array) -> Array:
    """(S,m) float64 summary from m columns (S,); a person with a NaN is wholly NaN."""
    rows: Array = np.stack(columns, axis=1).astype(np.float64)
    rows[np.isnan(rows).any(axis=1)] = np.nan
    return rows


def mean_where(values: Array, counted: Array) -> Array:
    """(S,) means over the counted of (S,N) values; NaN where one of them is, or there is none."""
    total = np.where(counted, values, 0).sum(axis=1, dtype=np.float64)
    with np.errstate(invalid="ignore"):  # nothing counted: 0/0
        mean: Array = total / counted.sum(axis=1)
    return mean


def complete(rows: Array) -> Array:
    """The rows without NaN."""
    return rows[~np.isnan(rows).any(axis=1)]


def n_scored(rows: Array) -> int:
    """How many people have something in their row."""
    return int((~np.isnan(rows)).any(axis=1).sum())


def mean_over_people(rows: Array) -> float:
    """Mean of the first column over the people without NaN; NaN without any."""
    scored = complete(rows)[:, 0]
    return float(scored.mean()) if len(scored) else float("nan")


def correlation(predicted: Array, observed: Array) -> float:
    """Pearson's r over the places where both are finite; 0 where the prediction is constant.

    What is the same everywhere explains no difference. NaN, as in ``metrics.pearson``, with
    fewer than three places or a constant observation.
    """
    both = np.isfinite(predicted) & np.isfinite(observed)
    predicted, observed = predicted[both], observed[both]
    if np.isnan(pearson(observed, observed)):
        return float("nan")
    r = pearson(predicted, observed)
    return 0.0 if np.isnan(r) else r


def correlation_over_people(rows: Array) -> float:
    """:func:`correlation` of two columns, predicted and observed."""
    rows = complete(rows)
    return correlation(rows[:, 0], rows[:, 1])


def area_under_curve(positive: Array, negative: Array) -> float:
    """Share of pairs in which the positive is larger, equal ones counted half (ROC area)."""
    if len(positive) == 0 or len(negative) == 0:
        return float("nan")
    ordered = np.sort(positive)
    at_most = np.searchsorted(ordered, negative, "left") + np.searchsorted(
        ordered, negative, "right"
    )
    return float(1 - at_most.mean() / (2 * len(positive)))


def bootstrap_interval(
    rows: Array, combine: Combine, *, n: int = N_RESAMPLES, level: float = LEVEL, seed: int = 0
) -> Interval:
    """Interval of a score when people are drawn again (BCa; Efron 1987).

    People who cannot be scored are not drawn. Where BCa is degenerate, or would leave out the
    score itself, the interval is a percentile one, and ``note`` says so.

    Args:
        rows: (S,m) summary.
        combine: (S,m) -> score.
        n: resamples.
        level: coverage.
        seed: the same seed and number of people draw the same people.
    """
    rows = rows[~np.isnan(rows).all(axis=1)]
    return _interval(_scores(rows, combine), len(rows), n, level, seed)


def difference_interval(
    rows: Array,
    other: Array,
    combine: Combine,
    *,
    higher_is_better: bool = True,
    n: int = N_RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """Interval of how much better ``rows`` score than ``other``: positive is better.

    Both are scored on the same people, those whom both can be scored on, in every resample.

    Args:
        rows, other: (S,m) summaries of the same S people by two predictors.
        combine, n, level, seed: as in :func:`bootstrap_interval`.
        higher_is_better: False turns the difference round.
    """
    unknown = np.isnan(rows) | np.isnan(other)
    both = ~unknown.all(axis=1)
    first, second = (np.where(unknown, np.nan, part)[both] for part in (rows, other))
    score_first, score_second = _scores(first, combine), _scores(second, combine)
    sign = 1 if higher_is_better else -1
    return _interval(
        lambda drawn: sign * (score_first(drawn) - score_second(drawn)),
        len(first),
        n,
        level,
        seed,
    )


def _scores(rows: Array, combine: Combine) -> Scores:
    """(B,P) people drawn -> (B,) scores."""
    if combine is mean_over_people and rows.shape[1] == 1:
        return lambda drawn: np.asarray(rows[drawn, 0].mean(axis=1))
    if isinstance(combine, CountedScore):
        score = combine.of_draws
        at_once = max(1, _NUMBERS_AT_ONCE // max(rows.shape))
        return lambda drawn: np.concatenate(
            [
                score(rows, _counts(drawn[i : i + at_once], len(rows)))
                for i in range(0, len(drawn), at_once)
            ]
        )
    return lambda drawn: np.array([combine(rows[index]) for index in drawn])


def _counts(drawn: Array, n_people: int) -> Array:
    """(B,P) people drawn -> (B,S) how often each."""
    place = drawn + n_people * np.arange(len(drawn))[:, None]
    counts = np.bincount(place.ravel(), minlength=len(drawn) * n_people)
    return counts.reshape(len(drawn), n_people).astype(np.float64)


def _interval(scores: Scores, n_people: int, n: int, level: float, seed: int) -> Interval:
    if n_people == 0:
        return Interval(np.nan, np.nan, np.nan, "nobody can be scored")
    everyone = np.arange(n_people)
    value = float(scores(everyone[None])[0])
    if np.isnan(value):
        return Interval(value, np.nan, np.nan, "the score is not defined on these people")
    if n_people < 3:
        return Interval(value, np.nan, np.nan, "fewer than three people: no interval")
    replicates = scores(np.random.default_rng(seed).integers(0, n_people, (n, n_people)))
    notes = []
    if undefined := int(np.isnan(replicates).sum()):
        notes.append(f"{undefined} of {n} resamples could not be scored")
    replicates = replicates[np.isfinite(replicates)]
    if 2 * len(replicates) < n:
        return Interval(value, np.nan, np.nan, notes[0])
    without_one = scores(np.stack([np.delete(everyone, i) for i in everyone]))
    central = ((1 - level) / 2, (1 + level) / 2)
    shares = _bca_shares(replicates, value, without_one, central)
    if shares is None:
        notes.append("percentile interval: BCa is degenerate")
    low, high = np.quantile(replicates, shares or central)
    slack = ROUNDING * abs(value)
    if not low - slack <= value <= high + slack:
        # A score of a mean over people is noisier when people are drawn twice. BCa is not made
        # for resamples that lie to one side, and would leave the score itself out.
        median = np.median(replicates)
        low, high = np.quantile(replicates, central) + (value - median)
        notes.append(f"resamples are biased (median {median:.3f}): percentile interval, moved")
    return Interval(value, float(low), float(high), "; ".join(notes))


def _bca_shares(
    replicates: Array, value: float, without_one: Array, central: tuple[float, float]
) -> tuple[float, float] | None:
    """The two quantiles to read, Efron 1987 eq. 6.1 and 6.6; None where they are not defined."""
    below = ((replicates < value).mean() + (replicates <= value).mean()) / 2
    deviation = without_one.mean() - without_one
    spread = (deviation**2).sum()
    if not 0 < below < 1 or not spread > (ROUNDING**2) * (value**2 + np.ptp(replicates) ** 2):
        return None
    normal = NormalDist()
    bias = normal.inv_cdf(float(below))
    acceleration = float((deviation**3).sum() / (6 * spread**1.5))
    low, high = (
        bias + (bias + z) / (1 - acceleration * (bias + z)) for z in map(normal.inv_cdf, central)
    )
    return normal.cdf(low), normal.cdf(high)


def permutation_p(observed: float, null: Array, *, higher_is_better: bool = True) -> float:
    """(1 + #null at least as good) / (1 + n) over the n finite null scores (Phipson 2010)."""
    null = null[np.isfinite(null)]
    if np.isnan(observed) or len(null) == 0:
        return float("nan")
    as_good = null >= observed if higher_is_better else null <= observed
    return float((1 + as_good.sum()) / (1 + len(null)))


def spearman_brown(r: float) -> float:
    """Reliability of the whole from the correlation of its halves, 2r / (1 + r)."""
    return float("-inf") if r <= -1 else 2 * r / (1 + r)


def icc_3_1(scores: Array) -> float:
    """Consistency of k measurements of S people, (S,k): ICC(3,1) of Shrout & Fleiss 1979.

    People with NaN are left out; NaN with fewer than two people or measurements, and where
    nothing varies.
    """
    scores = complete(np.asarray(scores, np.float64))
    n_people, k = scores.shape
    if n_people < 2 or k < 2:
        return float("nan")
    people, measurements = scores.mean(axis=1), scores.mean(axis=0)
    rest = scores - people[:, None] - measurements + scores.mean()
    between = k * people.var(ddof=1)
    error = (rest**2).sum() / ((n_people - 1) * (k - 1))
    total = between + (k - 1) * error
    return float((between - error) / total) if total > 0 else float("nan")


def benjamini_hochberg(p: Array) -> Array:
    """Adjusted p values (false discovery rate), same shape; NaN stay NaN and do not count.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    try:
        from scipy.stats import false_discovery_control
    except ImportError as error:
        raise MissingExtraError("scipy", "evaluate", "The false discovery rate") from error
    adjusted = np.full(np.shape(p), np.nan)
    known = np.isfinite(p)
    if known.any():
        adjusted[known] = false_discovery_control(np.asarray(p)[known])
    return adjusted
