"""Rows of a study's table: scores with bootstrap intervals over people, beside their floors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..evaluate.statistics import (
    N_RESAMPLES,
    Combine,
    Interval,
    bootstrap_interval,
    complete,
    difference_interval,
    mean_over_people,
    n_scored,
    person_rows,
)

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Row:
    """One score of one model, and what it gains on one floor.

    Attributes:
        study, split, metric: what was scored, and on whom.
        model: the model or floor that was scored; ``score`` with its 95 % interval
            ``low``-``high`` (BCa bootstrap over people).
        floor_name, floor: the trivial predictor it is compared with, and that one's score.
        gain, gain_low, gain_high: how much better than the floor on the same people, with its
            interval.
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
        values: entry -> (S,m) numbers of each person, or (S,); NaN = cannot be scored.
        combine: (S,m) -> score; the mean by default.
        higher_is_better: which way is good.
        ceiling, p, notes: as in :class:`Row`; ``p`` and ``notes`` by entry.
        note: of every entry.
    """

    split: str
    metric: str
    values: Mapping[str, Array]
    combine: Combine = mean_over_people
    higher_is_better: bool = True
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
    values = _rows(measure.values[name])
    found = bootstrap_interval(values, measure.combine, n=N_RESAMPLES, seed=seed)
    notes = [measure.notes.get(name, ""), measure.note, _note(found)]
    row = Row(
        study=study,
        split=measure.split,
        metric=measure.metric,
        model=name,
        score=found.value,
        low=found.low,
        high=found.high,
        n=n_scored(values),
        p=measure.p.get(name, math.nan),
        ceiling=measure.ceiling,
        note="; ".join(filter(None, notes)),
    )
    if not against:
        return row
    floor = _rows(measure.values[against])
    gain = difference_interval(
        values,
        floor,
        measure.combine,
        higher_is_better=measure.higher_is_better,
        n=N_RESAMPLES,
        seed=seed,
    )
    return replace(
        row,
        floor_name=against,
        floor=float(measure.combine(complete(floor))),
        gain=gain.value,
        gain_low=gain.low,
        gain_high=gain.high,
        note="; ".join(dict.fromkeys(filter(None, (row.note, _note(gain))))),
    )


def _note(interval: Interval) -> str:
    """What was not as usual; that a constant has no spread is as usual."""
    return interval.note if interval.low != interval.high else ""


def _rows(values: Array) -> Array:
    return person_rows(*np.reshape(values, (len(values), -1)).T)


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


_HEADER = (
    "| metric | model | score [95 %] | better than the floor by [95 %] | floor "
    "| p | ceiling | n | note |"
)


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
