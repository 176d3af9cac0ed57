"""Predictions against data: scores beside floors, reaction times, person means."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...files import check_regular_file
from ...readers.request import parsing
from ..reading import Fields, Float64
from ..scores import Run, Trials
from ..words import number
from .canvas import (
    N_COLOURS,
    OBSERVED,
    OWN,
    PIXELS_PER_INCH,
    PREDICTED,
    Image,
    Stage,
    as_png,
    panels,
    plain,
    png_source,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import StepPatch

ON_ONE_SCALE = (
    "concordance",
    "error-rate r",
    "RT person-mean r",
    "RT trial r",
    "RT within-person r",
    "RT condition-effect r",
    "BOLD group-pattern r",
    "BOLD individual r",
    "BOLD mean-removed r",
    "BOLD identification AUC",
)
"""Scores from about 0 to 1, the more the better, which can be drawn on one scale."""
MAX_FIGURE_BYTES = 8 * 2**20
MAX_FIGURE_PIXELS = 4_000_000
_N_BINS = 24
_SCORE_COLOURS, _SCORE_DPI = 24, 120
_FEWEST_FOR_MEAN = 5


def draw_scores(rows: list[Fields]) -> Image | None:
    """Model, floor, ceiling and null of the scores that share a scale, a panel a split and task."""
    chosen = [row for row in rows if row.text("metric") in ON_ONE_SCALE]
    keys = list(dict.fromkeys((row.text("split"), row.text("task")) for row in chosen))
    if not keys:
        return None
    names = [name for name in ON_ONE_SCALE if any(row.text("metric") == name for row in chosen)]
    n_columns = min(2, len(keys))
    n_rows = -(-len(keys) // n_columns)
    figure, axes = panels(
        n_rows, n_columns, 7.2, 0.6 + n_rows * (0.45 + 0.21 * len(names)), sharex=True, sharey=True
    )
    better, known = 0, 0
    for panel, (split, task) in zip(axes, keys, strict=False):
        own = {
            r.text("metric"): r
            for r in chosen
            if (r.text("split"), r.text("task")) == (split, task)
        }
        at = [i for i, name in enumerate(names) if name in own]
        score = {
            kind: np.array([own[names[i]].number(kind) for i in at])
            for kind in ("model", "low", "high", "floor", "ceiling", "null_mean")
        }
        panel.axvline(0, color="0.8", linewidth=0.8)
        panel.hlines(at, score["low"], score["high"], color=PREDICTED, linewidth=1.5)
        panel.plot(score["model"], at, "o", color=PREDICTED, markersize=5, label="model, 95 %")
        panel.plot(
            score["floor"],
            at,
            "|",
            color="#d55e00",
            markersize=10,
            markeredgewidth=2.2,
            label="floor",
        )
        panel.plot(score["ceiling"], at, ">", color="#777777", markersize=4.5, label="ceiling")
        panel.plot(score["null_mean"], at, "x", color="#cc79a7", markersize=5, label="null")
        panel.set_title(plain(f"{task}, split {split}"))
        better += sum(own[names[i]].number("diff_low") > 0 for i in at)
        known += len(at)
    for panel in axes[len(keys) :]:
        panel.set_axis_off()
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return Stage(figure, (), n_colours=_SCORE_COLOURS, dpi=_SCORE_DPI).image(
        f"Scores of the model beside floor, ceiling and null. Of {known} scores {better} are "
        "better than the floor with the whole 95 % interval; the table has the numbers.",
        "The model (dot, 95 % interval) beside the best trivial baseline (orange bar), what the "
        "data's reliability allows (grey triangle) and models trained on connectomes exchanged "
        "between people (cross).",
    )


def draw_times(run: Run) -> Image | None:
    """Observed and predicted reaction times of everybody, a panel a condition; None without any."""
    if run.trials is None:
        return None
    times = _by_condition(run.trials)
    if not times:
        return None
    figure, steps, lines = _time_panels(times, _bins(times))
    for k, both in enumerate(times.values()):
        _show_times(steps[k], lines[k], both)
    n_people = len(np.unique(run.trials.people))
    return as_png(figure, _told_times(run, times), _caption(run, f"{n_people} people together"))


class OwnTimes:
    """Reaction times of one person, on the same scale for everybody.

    Raises:
        ValueError: there are no times.
    """

    def __init__(self, run: Run) -> None:
        if run.trials is None or not (times := _by_condition(run.trials)):
            raise ValueError("there are no reaction times")
        self._run, self._trials, self._conditions = run, run.trials, list(times)
        bins = _bins(times)
        figure, self._steps, self._lines = _time_panels(times, bins)
        self._stage = Stage(figure, [a for pair in (*self._steps, *self._lines) for a in pair])

    def draw(self, person: str) -> Image | None:
        """The figure of a person; None if they have no times."""
        own = _by_condition(self._trials.of(person))
        if not own:
            return None
        nothing = (np.empty(0), np.empty(0))
        for steps, lines, name in zip(self._steps, self._lines, self._conditions, strict=True):
            _show_times(steps, lines, own.get(name, nothing))
        return self._stage.image(_told_times(self._run, own), _caption(self._run, "this person"))


def draw_person_means(runs: list[Run]) -> Image | None:
    """Predicted and observed mean reaction time, a point a person, a panel a run."""
    found = _means_of(runs)
    if not found:
        return None
    figure, _ = _mean_panels(found)
    return as_png(figure, _told_means(found), _MEANS_CAPTION)


class OwnMeans:
    """Everybody's mean reaction times with one person's marked."""

    def __init__(self, runs: list[Run]) -> None:
        self._found = _means_of(runs)
        if not self._found:
            return
        figure, axes = _mean_panels(self._found)
        own: Any = {"color": OWN, "marker": "D", "markersize": 8, "markeredgecolor": "white"}
        self._marks = []
        for panel, (_, predicted, observed) in zip(axes, self._found.values(), strict=True):
            self._marks += panel.plot(predicted[:1], observed[:1], linestyle="", **own)
        self._stage = Stage(figure, self._marks)

    def draw(self, person: str) -> Image | None:
        """The figure of a person; None if they have no means."""
        told = []
        for mark, (name, (people, predicted, observed)) in zip(
            self._marks if self._found else (), self._found.items(), strict=True
        ):
            at = [people[person]] if person in people else []
            mark.set_data(predicted[at], observed[at])
            told += [
                f"{name} predicted {number(predicted[i], 3)} s, observed {number(observed[i], 3)} s"
                for i in at
            ]
        if not told:
            return None
        return self._stage.image(
            f"Mean reaction times of everybody, {person} marked. " + "; ".join(told) + ".",
            f"{_MEANS_CAPTION} The diamond is this person.",
        )


def person_means(trials: Trials) -> tuple[dict[str, int], Float64, Float64]:
    """Row of each person, predicted mean over the trials they had, observed mean over presses.

    Who pressed fewer than five times has none.
    """
    people, index = np.unique(trials.people, return_inverse=True)
    predicted = _mean_by(index, trials.predicted_s, len(people), fewest=1)
    observed = _mean_by(index, trials.rt_s, len(people), fewest=_FEWEST_FOR_MEAN)
    known = np.isfinite(predicted) & np.isfinite(observed)
    rows = {person: row for row, person in enumerate(people[known].tolist())}
    return rows, predicted[known], observed[known]


def embed(path: Path, alt: str, caption: str) -> Image:
    """A figure that ``dtwin evaluate`` drew, in fewer colours.

    Raises:
        DTwinInputError: no picture that can be read, or too large a one.
    """
    from PIL import Image as Pillow

    check_regular_file(path, field=str(path), max_bytes=MAX_FIGURE_BYTES)
    with (
        parsing(path, Pillow.DecompressionBombError, SyntaxError),
        Pillow.open(path, formats=["PNG"]) as picture,
    ):
        if picture.width * picture.height > MAX_FIGURE_PIXELS:
            raise ValueError(f"{picture.width} by {picture.height} pixels are too many")
        source = png_source(picture, N_COLOURS)
        dpi = float(picture.info.get("dpi", (150, 150))[0]) or 150.0
        width, height = (round(side * PIXELS_PER_INCH / dpi) for side in picture.size)
    return Image(source, width, height, alt, caption)


_Times = dict[str, tuple[Float64, Float64]]
_Means = dict[str, tuple[dict[str, int], Float64, Float64]]
_MEANS_CAPTION = "Mean reaction time, a point a person; on the line both are the same."


def _by_condition(trials: Trials) -> _Times:
    """Observed and predicted times of each condition that was responded to."""
    times = {}
    for name in dict.fromkeys(trials.condition.tolist()):
        own = trials.condition == name
        observed = _finite(trials.rt_s[own])
        if len(observed):
            times[name] = (observed, _finite(trials.predicted_s[own]))
    return times


def _bins(times: _Times) -> Float64:
    every = np.concatenate([part for both in times.values() for part in both])
    return np.linspace(0, 1.02 * float(np.quantile(every, 0.999)), _N_BINS)


def _time_panels(
    times: _Times, bins: Float64
) -> tuple[Figure, list[tuple[StepPatch, StepPatch]], list[tuple[Line2D, Line2D]]]:
    """Panels with empty histograms and lines at their means, observed and predicted."""
    figure, axes = panels(1, len(times), 3.4 * len(times), 2.3, sharex=True, sharey=True)
    empty = np.zeros(len(bins) - 1)
    steps, lines = [], []
    for panel, name in zip(axes, times, strict=True):
        steps.append(
            (
                panel.stairs(empty, bins, fill=True, color=OBSERVED, alpha=0.4, label="observed"),
                panel.stairs(empty, bins, color=PREDICTED, linewidth=1.6, label="predicted"),
            )
        )
        lines.append(
            (
                panel.axvline(0, color=OBSERVED, linewidth=1.2),
                panel.axvline(0, color=PREDICTED, linewidth=1.2, linestyle="--"),
            )
        )
        panel.set(title=plain(name), xlabel="reaction time (s)", ylim=(0, 1.05))
    axes[0].set(ylabel="share of the highest bar", yticks=[0, 1])
    axes[0].legend(loc="best")
    return figure, steps, lines


def _show_times(
    steps: tuple[StepPatch, StepPatch],
    lines: tuple[Line2D, Line2D],
    both: tuple[Float64, Float64],
) -> None:
    for step, line, times in zip(steps, lines, both, strict=True):
        bins = step.get_data()[1]
        counts, _ = np.histogram(np.minimum(times, bins[-1]), bins)
        step.set_data(counts / max(counts.max(), 1))
        line.set_xdata([float(times.mean()) if len(times) else np.nan])


def _told_times(run: Run, times: _Times) -> str:
    parts = [
        f"{name}: {len(observed)} presses, observed mean {number(observed.mean(), 3)} s, predicted "
        f"{number(predicted.mean(), 3) if len(predicted) else 'n/a'} s"
        for name, (observed, predicted) in times.items()
    ]
    return f"Reaction times in {run.name}. " + "; ".join(parts) + "."


def _caption(run: Run, whose: str) -> str:
    return (
        f"{run.name}, split {run.split}: reaction times of {whose}. Predicted are expected times, "
        "one a trial, which vary less than times do; lines are means."
    )


def _means_of(runs: list[Run]) -> _Means:
    means = {run.name: person_means(run.trials) for run in runs if run.trials is not None}
    return {name: found for name, found in means.items() if found[0]}


def _mean_panels(means: _Means) -> tuple[Figure, list[Axes]]:
    figure, axes = panels(1, len(means), 3.4 * len(means), 3.0)
    for panel, (name, (_, predicted, observed)) in zip(axes, means.items(), strict=True):
        panel.axline((observed.mean(), observed.mean()), slope=1, color="0.6", linewidth=1)
        panel.scatter(predicted, observed, s=13, color=PREDICTED, alpha=0.55, linewidths=0)
        panel.set(title=plain(name), xlabel="predicted mean (s)", ylabel="observed mean (s)")
    return figure, axes


def _told_means(means: _Means) -> str:
    parts = [f"{name}: {len(people)} people" for name, (people, _, _) in means.items()]
    return "Observed against predicted mean reaction times. " + "; ".join(parts) + "."


def _mean_by(index: npt.NDArray[np.intp], values: Float64, n: int, *, fewest: int) -> Float64:
    known = np.isfinite(values)
    count = np.bincount(index[known], minlength=n)
    total = np.bincount(index[known], values[known], minlength=n)
    return np.where(count >= fewest, total / np.maximum(count, 1), np.nan)


def _finite(values: Float64) -> Float64:
    return values[np.isfinite(values)]
