"""The result table: model beside floor, ceiling, null and paper, on the same trials."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtraError
from ..tables import Cell, write_csv, write_tsv

if TYPE_CHECKING:
    from rich.console import RenderableType

STATEMENT = "In silico, not clinical."


@dataclass(frozen=True, kw_only=True)
class Row:
    """One metric of one run under one split. NaN = not known; the table says n/a.

    Attributes:
        split, task, domain, metric, unit: names.
        model, low, high: score and its 95 % interval over people.
        floor, floor_name: the best trivial baseline.
        diff, diff_low, diff_high: how much better the model is than the floor, and the 95 %
            interval; positive is better, whichever way the metric goes.
        ceiling: what the reliability of the data allows.
        null_mean, null_p: scores of models trained on permuted connectomes, and p.
        paper: what Takahashi et al. 2026 report.
        n_people: who could be scored.
        note: what was not as usual.
        baselines: name -> score of every baseline.
    """

    split: str
    task: str
    domain: str
    metric: str
    model: float
    unit: str = ""
    low: float = math.nan
    high: float = math.nan
    floor: float = math.nan
    floor_name: str = ""
    diff: float = math.nan
    diff_low: float = math.nan
    diff_high: float = math.nan
    ceiling: float = math.nan
    null_mean: float = math.nan
    null_p: float = math.nan
    paper: float = math.nan
    n_people: int = 0
    note: str = ""
    baselines: dict[str, float] = field(default_factory=dict)

    @property
    def beats_floor(self) -> bool:
        """Whether the interval of the difference lies above 0."""
        return self.diff_low > 0

    @property
    def verdict(self) -> str:
        """A mark and words: where the interval of the difference to the floor lies."""
        if math.isnan(self.diff_low) or math.isnan(self.diff_high):
            return "? no verdict"
        if self.beats_floor:
            return "+ beats floor"
        return "- below floor" if self.diff_high < 0 else "= no better than floor"


def to_rich(rows: Sequence[Row]) -> RenderableType:
    """The table for a terminal.

    Raises:
        MissingExtraError: rich is not installed.
    """
    try:
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text
    except ImportError as error:
        raise MissingExtraError("rich", "evaluate", "The result table") from error
    parts: list[RenderableType] = []
    for (split, task), own in _sections(rows):
        title = Text(f"{split}: {task}", style="bold")
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
        table.show_edge, table.pad_edge, table.padding = False, False, (0, 1, 0, 0)
        for name in _COLUMNS:
            # In a narrow terminal words may be broken, numbers not.
            table.add_column(
                Text(name),
                justify="right" if name in _NUMBERS else "left",
                no_wrap=name in _NUMBERS and "[" not in name,
                overflow="fold",
            )
        for row in own:
            style = "" if row.beats_floor else "yellow"
            table.add_row(*(Text(text, style=style) for text in _printed(row)))
        parts += [table, Text()]
    parts += [Text(line) for line in _below(rows)]
    return Group(*parts)


def to_markdown(rows: Sequence[Row]) -> str:
    """The table for documents: one for each split and task."""
    lines: list[str] = []
    for (split, task), own in _sections(rows):
        lines += [f"**{split}: {task}**", ""]
        lines += [_pipes(_COLUMNS), _pipes("--:" if c in _NUMBERS else "---" for c in _COLUMNS)]
        lines += [_pipes(_printed(row)) for row in own]
        lines.append("")
    lines += [f"{line}  " for line in _below(rows)]
    return "\n".join(lines).rstrip() + "\n"


def to_dict(rows: Sequence[Row]) -> dict[str, Any]:
    """Plain JSON form; what is not known is null."""
    return {"statement": STATEMENT, "rows": [_row_dict(row) for row in rows]}


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows as a table, a column for every baseline: commas for ``.csv``, else tabs."""
    names = list(dict.fromkeys(name for row in rows for name in row.baselines))
    own = [part.name for part in fields(Row) if part.name != "baselines"]
    own += ["beats_floor", "verdict"]
    cells: list[list[Cell]] = [
        [getattr(row, name) for name in own]
        + [row.baselines.get(name, math.nan) for name in names]
        + [STATEMENT]
        for row in rows
    ]
    write = write_csv if path.suffix == ".csv" else write_tsv
    write(path, [*own, *(f"baseline:{name}" for name in names), "statement"], cells)


_COLUMNS = (
    "metric",
    "model [95 %]",
    "floor",
    "floor is",
    "model vs floor [95 %]",
    "ceiling",
    "null p",
    "paper",
    "n",
)
_NUMBERS = {"model [95 %]", "floor", "ceiling", "null p", "paper", "n"}


def _sections(rows: Sequence[Row]) -> Iterator[tuple[tuple[str, str], list[Row]]]:
    keys = dict.fromkeys((row.split, row.task) for row in rows)
    for key in keys:
        yield key, [row for row in rows if (row.split, row.task) == key]


def _printed(row: Row) -> list[str]:
    unit = f" ({row.unit})" if row.unit and row.unit != "r" else ""
    difference = f" {row.diff:+.3f} {_interval(row.diff_low, row.diff_high)}"
    is_known = not row.verdict.startswith("?")
    return [
        row.metric + unit,
        f"{_number(row.model)} {_interval(row.low, row.high)}".rstrip(),
        _number(row.floor),
        row.floor_name,
        row.verdict + (difference if is_known else ""),
        _number(row.ceiling),
        _number(row.null_p),
        _number(row.paper, digits=2),
        str(row.n_people),
    ]


def _below(rows: Sequence[Row]) -> list[str]:
    """The lines under the table: notes of rows, what the marks mean, the statement."""
    notes = [f"{row.split}, {row.task}, {row.metric}: {row.note}" for row in rows if row.note]
    return [
        *notes,
        "model vs floor: how much better the model is on the same people; positive is better.",
        "+ the 95 % interval is above 0; = it holds 0; - it is below; ? there is none.",
        STATEMENT,
    ]


def _number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "n/a"


def _interval(low: float, high: float) -> str:
    return f"[{low:.3f}, {high:.3f}]" if math.isfinite(low) and math.isfinite(high) else ""


def _pipes(cells: Iterator[str] | Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _row_dict(row: Row) -> dict[str, Any]:
    values = {**asdict(row), "beats_floor": row.beats_floor, "verdict": row.verdict}
    values["baselines"] = {name: _or_null(score) for name, score in row.baselines.items()}
    return {name: _or_null(value) for name, value in values.items()}


def _or_null(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
