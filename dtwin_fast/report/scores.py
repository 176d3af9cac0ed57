"""What ``dtwin evaluate --out`` wrote, read back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..cohort import NOT_MEASURED
from ..evaluate.report_files import SCORES_FILE
from .reading import Columns, Fields, Float64, read_columns, read_fields, report_error

HELD_OUT = "B"
"""The split of held-out people, which figures are of where it was asked for."""

_NAMES_OF_ROWS = 3


@dataclass(frozen=True, eq=False)
class Trials:
    """Trials of test people, a row each; (n,) arrays.

    Attributes:
        people: ids as the cohort has them.
        condition: names.
        rt_s: observed reaction time, NaN without a press.
        predicted_s: expected reaction time, NaN where none is predicted.
    """

    people: npt.NDArray[np.str_]
    condition: npt.NDArray[np.str_]
    rt_s: Float64
    predicted_s: Float64

    @cached_property
    def _rows(self) -> dict[str, npt.NDArray[np.int64]]:
        order = np.argsort(self.people, kind="stable")
        people, first = np.unique(self.people[order], return_index=True)
        return dict(zip(people.tolist(), np.split(order, first[1:]), strict=True))

    def of(self, person: str) -> Trials:
        """The trials of one person, none if they have none."""
        rows = self._rows.get(person, np.empty(0, np.int64))
        return Trials(
            self.people[rows], self.condition[rows], self.rt_s[rows], self.predicted_s[rows]
        )


@dataclass(frozen=True, eq=False)
class Maps:
    """Maps of one contrast, measured and predicted.

    Attributes:
        contrast: name.
        regions: R names.
        people: S ids as the cohort has them.
        measured, predicted: (S,R) effects, NaN where there is none.
    """

    contrast: str
    regions: tuple[str, ...]
    people: tuple[str, ...]
    measured: Float64
    predicted: Float64

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {person: row for row, person in enumerate(self.people)}

    def row(self, person: str) -> int | None:
        """The row of a person; None if they have no maps."""
        return self._rows.get(person)


@dataclass(frozen=True, eq=False)
class Run:
    """The first repeat's predictions of one run under one split."""

    split: str
    name: str
    trials: Trials | None
    maps: list[Maps]
    figures: dict[str, Path]


@dataclass(frozen=True, eq=False)
class Scores:
    """One evaluation.

    Attributes:
        about: scores.json.
        rows: the table, as of :class:`dtwin_fast.evaluate.table.Row`.
        runs: of the split whose predictions are shown.
        people: ids of everybody in ``runs``.
    """

    about: Fields
    rows: list[Fields]
    runs: list[Run]
    people: tuple[str, ...]


def read_scores(folder: Path) -> Scores:
    """Read a folder of ``dtwin evaluate --out``.

    Raises:
        DTwinInputError: a file is damaged or has other columns (code ``report`` and those of
            :mod:`dtwin_fast.readers.tables`).
    """
    about = read_fields(folder / SCORES_FILE)
    rows = about.rows("rows")
    keys = list(dict.fromkeys((row.text("split"), row.text("task")) for row in rows))
    splits = [split for split, _ in keys]
    shown = HELD_OUT if HELD_OUT in splits else next(iter(splits), "")
    # Names from a file make no path of their own: they must be those of files that are there.
    files = {path.name: path for path in (folder / "predictions").glob("*.tsv")}
    figures = {path.name: path for path in (folder / "figures").glob("*.png")}
    runs = []
    for split, name in keys:
        if split != shown:
            continue
        stem = f"{split}_{name}"
        trials, contrasts = files.get(f"{stem}_trials.tsv"), files.get(f"{stem}_contrasts.tsv")
        drawn = {
            kind: figures[f"{stem}_{kind}.png"]
            for kind in ("delta", "calibration")
            if f"{stem}_{kind}.png" in figures
        }
        runs.append(
            Run(
                split,
                name,
                None if trials is None else _trials(read_columns(trials)),
                [] if contrasts is None else _maps(read_columns(contrasts)),
                drawn,
            )
        )
    people: dict[str, None] = {}
    for run in runs:
        if run.trials is not None:
            people.update(dict.fromkeys(run.trials.people.tolist()))
        for maps in run.maps:
            people.update(dict.fromkeys(maps.people))
    return Scores(about, rows, runs, tuple(sorted(people)))


def _trials(table: Columns) -> Trials:
    measured = table.numbers("choice") != NOT_MEASURED
    return Trials(
        np.array(table.text("participant_id"), str)[measured],
        np.array(table.text("trial_type"), str)[measured],
        table.numbers("response_time")[measured],
        table.numbers("predicted_response_time")[measured],
    )


def _maps(table: Columns) -> list[Maps]:
    table.require("participant_id", "contrast", "map")
    regions = table.titles[_NAMES_OF_ROWS:]
    if table.titles[:_NAMES_OF_ROWS] != ("participant_id", "contrast", "map") or not regions:
        raise report_error(
            table.where,
            "this is no table of maps",
            "participant_id, contrast, map, then regions",
            ", ".join(table.titles),
            "Write the folder again",
        )
    effects = np.column_stack([table.numbers(region) for region in regions])
    people, contrasts = table.text("participant_id"), table.text("contrast")
    kinds = table.text("map")
    found = []
    for contrast in dict.fromkeys(contrasts):
        own = [i for i, name in enumerate(contrasts) if name == contrast]
        ids = tuple(dict.fromkeys(people[i] for i in own))
        row = {person: k for k, person in enumerate(ids)}
        both = {kind: np.full((len(ids), len(regions)), np.nan) for kind in _KINDS}
        for i in own:
            if kinds[i] not in both:
                raise report_error(
                    f"{table.where}: map", "no such map", _KINDS, kinds[i], "Write it again"
                )
            both[kinds[i]][row[people[i]]] = effects[i]
        found.append(Maps(contrast, regions, ids, both["measured"], both["predicted"]))
    return found


_KINDS: Sequence[str] = ("measured", "predicted")
