"""Rows of a study's table: scores with bootstrap intervals over people, beside their floors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import bootstrap

Array = npt.NDArray[Any]
Combine = Callable[[Array], Array]
"""(...,S,m) numbers of people -> (...) scores."""

N_RESAMPLES = 2000


@dataclass(frozen=True)
class Row:
    """One score of one model, and what it gains on one floor.

    Attributes:
        study, split, metric: what was scored, and on whom.
        model: the model or floor that was scored; ``score`` with its 95 % interval
            ``low``-``high`` (BCa bootstrap over people).
        floor_name, floor: the trivial predictor it is compared with, and that one's score.
        gain, gain_low, gain_high: score minus floor on the same people, with its interval.
        p: permutation p value, where permutations were done.
        ceiling: what the measurement itself allows, where it could be measured.
        n: people scored.
        note: what a reader must know.
    """

    study: str
    split: str
    metric: str
    model: str
    score: float
    low: float
    high: float
    n: int
    floor_name: str = ""
    floor: float = math.nan
    gain: float = math.nan
    gain_low: float = math.nan
    gain_high: float = math.nan
    p: float = math.nan
    ceiling: float = math.nan
    note: str = ""


@dataclass(frozen=True, eq=False)
class Measure:
    """A metric of several entries on the same S people.

    Attributes:
        split, metric: as in :class:`Row`.
        values: entry -> (S,) or (S,m) numbers of each person; NaN = cannot be scored.
        combine: numbers of people -> score; the mean by default.
        ceiling, p, notes: as in :class:`Row`; ``p`` and ``notes`` by entry.
        note: of every entry.
    """

    split: str
    metric: str
    values: Mapping[str, Array]
    combine: Combine = field(default=lambda values: values.mean(axis=(-2, -1)))
    ceiling: float = math.nan
    p: Mapping[str, float] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


def rows_of(study: str, measures: Sequence[Measure], floors: Sequence[str], seed: int) -> list[Row]:
    """A row for each floor, compared with the first of them, and one a floor for each model.

    Comparisons are paired: the same people are drawn for both.
    """
    return [
        _row(study, measure, name, against, seed)
        for measure in measures
        for name in measure.values
        for against in _compared_with(name, [f for f in floors if f in measure.values])
    ]


def _compared_with(name: str, floors: Sequence[str]) -> Sequence[str]:
    if name not in floors:
        return floors or ("",)
    return ("",) if name == floors[0] else floors[:1]


def _row(study: str, measure: Measure, name: str, against: str, seed: int) -> Row:
    values = _columns(measure.values[name])
    score, low, high, n = _interval(values, measure.combine, seed)
    comparison = {}
    if against:
        floor = _columns(measure.values[against])
        split_at = values.shape[1]

        def difference(both: Array) -> Array:
            first, second = both[..., :split_at], both[..., split_at:]
            gain: Array = measure.combine(first) - measure.combine(second)
            return gain

        gain, gain_low, gain_high, _ = _interval(np.hstack([values, floor]), difference, seed)
        floor_score = float(measure.combine(_usable(floor)))
        comparison = {
            "floor_name": against,
            "floor": floor_score,
            "gain": gain,
            "gain_low": gain_low,
            "gain_high": gain_high,
        }
    return Row(
        study=study,
        split=measure.split,
        metric=measure.metric,
        model=name,
        score=score,
        low=low,
        high=high,
        n=n,
        p=measure.p.get(name, math.nan),
        ceiling=measure.ceiling,
        note="; ".join(filter(None, (measure.notes.get(name, ""), measure.note))),
        **comparison,  # type: ignore[arg-type]
    )


def _columns(values: Array) -> Array:
    return np.asarray(values, np.float64).reshape(len(values), -1)


def _usable(values: Array) -> Array:
    return values[np.isfinite(values).all(axis=1)]


def _interval(values: Array, combine: Combine, seed: int) -> tuple[float, float, float, int]:
    """Score, its 95 % interval and the number of people; NaN where it is undefined."""
    values = _usable(values)
    n = len(values)
    if n < 3:
        return math.nan, math.nan, math.nan, n
    score = float(combine(values))
    if np.ptp(values, axis=0).max() == 0 or not math.isfinite(score):
        return score, math.nan, math.nan, n  # the bootstrap has nothing to vary
    with np.errstate(invalid="ignore", divide="ignore"):
        found = bootstrap(
            (np.arange(n),),
            lambda people, axis: combine(values[people]),
            n_resamples=N_RESAMPLES,
            vectorized=True,
            axis=-1,
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return score, float(found.low), float(found.high), n


def correlation(pairs: Array) -> Array:
    """(...,S,2+) -> (...) Pearson r over people of the first two columns; 0 if one is constant."""
    x, y = (pairs[..., k] - pairs[..., k].mean(axis=-1, keepdims=True) for k in (0, 1))
    product = np.sqrt((x**2).sum(axis=-1) * (y**2).sum(axis=-1))
    flat = product <= 1e-12 * np.abs(pairs[..., :2]).max(axis=(-2, -1)) ** 2
    r: Array = np.where(flat, 0.0, (x * y).sum(axis=-1) / np.where(flat, 1.0, product))
    return r


def explained(triples: Array) -> Array:
    """(...,S,3) predicted, observed, training mean -> (...) 1 - SSE / SSE of the training mean."""
    predicted, observed, mean = np.moveaxis(triples, -1, 0)
    sse = ((observed - predicted) ** 2).sum(axis=-1)
    share: Array = 1 - sse / ((observed - mean) ** 2).sum(axis=-1)
    return share


def absolute_error(triples: Array) -> Array:
    """(...,S,2+) predicted and observed -> (...) mean absolute error over people."""
    error: Array = np.abs(triples[..., 0] - triples[..., 1]).mean(axis=-1)
    return error


def as_dict(
    study: str,
    rows: Sequence[Row],
    *,
    people: int,
    flags: Sequence[str],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """What a study returns: JSON types only, None for numbers that are undefined."""
    return {
        "study": study,
        "people": people,
        "settings": dict(settings),
        "flags": list(flags),
        "rows": [{k: _json(v) for k, v in asdict(row).items()} for row in rows],
    }


def as_markdown(result: Mapping[str, Any]) -> str:
    """The tables of a study's dict, one for each split."""
    settings = ", ".join(f"{k} {v}" for k, v in result["settings"].items())
    lines = [f"## {result['study']}", "", f"{result['people']} people; {settings}.", ""]
    lines += [f"- {flag}" for flag in result["flags"]]
    for split in dict.fromkeys(row["split"] for row in result["rows"]):
        lines += ["", f"### {split}", "", _HEADER, "|" + "---|" * (_HEADER.count("|") - 1)]
        lines += [_line(row) for row in result["rows"] if row["split"] == split]
    return "\n".join(lines) + "\n"


_HEADER = "| metric | model | score [95 %] | minus floor [95 %] | floor | p | ceiling | n | note |"


def _line(row: Mapping[str, Any]) -> str:
    gain = _with_interval(row["gain"], row["gain_low"], row["gain_high"])
    floor = f"{row['floor_name']} {_number(row['floor'])}".strip()
    cells = (
        row["metric"],
        row["model"],
        _with_interval(row["score"], row["low"], row["high"]),
        gain if row["floor_name"] else "",
        floor if row["floor_name"] else "",
        _number(row["p"]),
        _number(row["ceiling"]),
        str(row["n"]),
        row["note"],
    )
    return "| " + " | ".join(cells) + " |"


def _with_interval(value: float | None, low: float | None, high: float | None) -> str:
    text = _number(value)
    return text if low is None else f"{text} [{_number(low)}, {_number(high)}]"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if abs(value) < 0.1 else f"{value:.3f}"


def _json(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
