"""Figures of an evaluation. Each function draws one and writes it as a PNG file."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import MissingExtraError
from ..files import write_atomic
from .reaction_time import QUANTILES, DeltaPlot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]

STATEMENT = "In silico, not clinical"
_OBSERVED: dict[str, Any] = {"color": "black", "marker": "o", "label": "observed"}
_PREDICTED: dict[str, Any] = {
    "color": "#0072b2",
    "marker": "s",
    "linestyle": "--",
    "label": "predicted",
}

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "black")
_MARKERS = "os^vDPX*"
"""Colours that the colour-blind tell apart (Okabe & Ito 2008), and marks for grey prints."""
_MOST_MARKS = 30
_MOST_TICKS = 8


def draw_delta(path: Path, delta: DeltaPlot, title: str) -> None:
    """The condition effect against the mean reaction time, quantile by quantile.

    Raises:
        MissingExtraError: matplotlib is not installed; as all functions here.
    """
    figure, axes = _figure(title)
    axes.axhline(0, color="0.8", linewidth=1)
    axes.plot(1000 * delta.observed_mean_s, 1000 * delta.observed_delta_s, **_OBSERVED)
    if np.isfinite(delta.predicted_delta_s).any():
        axes.plot(1000 * delta.predicted_mean_s, 1000 * delta.predicted_delta_s, **_PREDICTED)
    axes.set(xlabel="mean of the two conditions (ms)", ylabel="condition effect (ms)")
    axes.legend(frameon=False)
    _write(figure, path)


def draw_calibration(path: Path, shares: Array, title: str) -> None:
    """Share of observed times below the predicted quantiles.

    Args:
        path: PNG file.
        shares: (Q,) means over people of ``reaction_time.quantile_shares``.
        title: what is shown.
    """
    figure, axes = _figure(title)
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="calibrated")
    axes.plot(QUANTILES, shares, **_PREDICTED)
    axes.set(
        xlabel="predicted quantile",
        ylabel="share of observed times below",
        xlim=(0, 1),
        ylim=(0, 1),
        aspect="equal",
    )
    axes.legend(frameon=False, loc="upper left")
    _write(figure, path)


def draw_person_means(path: Path, means_s: Array, title: str) -> None:
    """Predicted against observed mean reaction time, a point a person, and the identity line.

    Args:
        path: PNG file.
        means_s: (S,2) predicted and observed, seconds, from ``reaction_time.person_means``.
        title: what is shown.
    """
    figure, axes = _figure(title)
    ms = 1000 * means_s[~np.isnan(means_s).any(axis=1)]
    if len(ms):
        axes.axline((ms.mean(), ms.mean()), slope=1, color="0.6", linewidth=1, label="identity")
        margin = 0.05 * max(np.ptp(ms), 1.0)
        limits = (ms.min() - margin, ms.max() + margin)
        axes.set(xlim=limits, ylim=limits)
    axes.scatter(ms[:, 0], ms[:, 1], s=14, color="#0072b2", alpha=0.6, linewidths=0, label="person")
    axes.legend(frameon=False)
    axes.set(
        xlabel="predicted mean reaction time (ms)",
        ylabel="observed mean reaction time (ms)",
        aspect="equal",
    )
    _write(figure, path)


def draw_curves(
    path: Path, curves: Mapping[str, tuple[Array, Array]], title: str, x: str, y: str
) -> None:
    """Learning or loss curves: name -> x and y values of a line.

    The x axis is logarithmic where the numbers span more than a factor of 20 without 0.
    """
    figure, axes = _figure(title)
    figure.set_size_inches(6.4, 4.0)
    for i, (name, (at, values)) in enumerate(curves.items()):
        marker = _MARKERS[i % len(_MARKERS)] if len(at) <= _MOST_MARKS else None
        colour = _COLOURS[i % len(_COLOURS)]
        axes.plot(at, values, label=name, color=colour, marker=marker, markersize=4)
    if curves:
        places = np.unique(np.concatenate([at for at, _ in curves.values()]))
        if places[0] > 0 and places[-1] > 20 * places[0]:
            axes.set_xscale("log")
            if len(places) <= _MOST_TICKS:
                axes.set_xticks(places, [f"{place:g}" for place in places])
                axes.minorticks_off()
        figure.legend(frameon=False, loc="outside right upper")
    axes.set(xlabel=x, ylabel=y)
    _write(figure, path)


def _figure(title: str) -> tuple[Figure, Axes]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "report", "A figure") from error
    figure = Figure(figsize=(4.8, 4.0), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize="medium", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(STATEMENT, fontsize="x-small", color="0.4")
    return figure, axes


def _write(figure: Figure, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=150)
    write_atomic(path, image.getvalue())
