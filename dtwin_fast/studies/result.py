"""Rows of a study's table: scores with bootstrap intervals over people, beside their floors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    """The tables of a study's dict, one for each split.

    A line is an entry, a model or a floor; beside a floor stands how much better each model is.
    What a floor gains on the first floor is in the rows alone.
    """
    settings = ", ".join(f"{k} {v}" for k, v in result["settings"].items())
    lines = [f"## {result['study']}", "", f"{result['people']} people; {settings}.", ""]
    lines += [f"- {flag}" for flag in result["flags"]]
    notes: list[str] = []
    for split in dict.fromkeys(row["split"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["split"] == split]
        lines += ["", f"### {split}", "", *_table(rows, notes)]
    if notes:
        lines += ["", *(f"{i}. {note}" for i, note in enumerate(notes, 1))]
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Mapping[str, Any]], notes: list[str]) -> Iterator[str]:
    """Lines of Markdown; ``notes`` grows by those that are new."""
    floors = {row["floor_name"] for row in rows}
    compared = dict.fromkeys(row["model"] for row in rows if row["floor_name"])
    models = [name for name in compared if name not in floors]
    header = ("metric", "", "score [95 %]", "p", "ceiling", "n")
    yield _line((*header, *(f"{name} better by [95 %]" for name in models)))
    yield "|" + "---|" * (len(header) + len(models))
    for metric in dict.fromkeys(row["metric"] for row in rows):
        of_metric = [row for row in rows if row["metric"] == metric]
        gains = {(row["floor_name"], row["model"]): row for row in of_metric}
        entries = {row["model"]: row for row in reversed(of_metric)}
        named = dict.fromkeys(
            name for row in of_metric for name in (row["model"], row["floor_name"])
        )
        for name in filter(None, named):
            row = entries.get(name)
            yield _line(
                (
                    metric,
                    name,
                    *(_own_cells(row, notes) if row else _floor_cells(name, of_metric)),
                    *(_gain(gains.get((name, model))) for model in models),
                )
            )


def _own_cells(row: Mapping[str, Any], notes: list[str]) -> tuple[str, ...]:
    score = _with_interval(row["score"], row["low"], row["high"])
    p = "<0.001" if row["p"] is not None and row["p"] < 0.001 else _number(row["p"])
    return score + _marks(row, notes), p, _number(row["ceiling"]), str(row["n"])


def _marks(row: Mapping[str, Any], notes: list[str]) -> str:
    """Numbers of a row's notes; ``notes`` grows by those that are new."""
    own = [note for note in row["note"].split("; ") if note]
    notes += [note for note in dict.fromkeys(own) if note not in notes]
    return "".join(f" ({notes.index(note) + 1})" for note in own)


def _floor_cells(name: str, rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Of a floor that has no row of its own."""
    return _number(next(row["floor"] for row in rows if row["floor_name"] == name)), "", "", ""


def _gain(row: Mapping[str, Any] | None) -> str:
    return "" if row is None else _with_interval(row["gain"], row["gain_low"], row["gain_high"])


def _line(cells: Iterable[str]) -> str:
    escaped = (cell.replace("|", r"\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def _with_interval(value: float | None, low: float | None, high: float | None) -> str:
    text = _number(value)
    return text if low is None else f"{text} [{_number(low)}, {_number(high)}]"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}".replace("-0.000", "0.000")


def _json(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
