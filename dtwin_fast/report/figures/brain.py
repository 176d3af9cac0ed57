"""Maps of BOLD regions on a glass brain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import MissingExtraError
from ..positions import drawn_regions
from ..reading import Float64
from .canvas import DIVERGING, Image, Stage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_VIEWS = "lzr"
_DOT = 46
_DPI = 100
_N_COLOURS = 128
"""Enough for the bar to look even."""
SHOWN_QUANTILE = 0.99
"""Colours end at this quantile of the effects' sizes."""


class GlassBrains:
    """Glass brains, one below the other, whose dots are coloured anew for every map.

    Args:
        regions: R names; those without a known position are not drawn.
        titles: of the brains, from the top.
        effects: whatever will be drawn: the scale of colours is the same for all of it.

    Raises:
        MissingExtraError: nilearn is not installed.
    """

    def __init__(
        self, regions: Sequence[str], titles: Sequence[str], effects: Sequence[Float64]
    ) -> None:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        self.drawn, _ = drawn_regions(tuple(regions))
        self._n_left_out = len(regions) - len(self.drawn)
        if not self.drawn:
            return
        sizes = np.concatenate([np.abs(part).ravel() for part in effects])
        sizes = sizes[np.isfinite(sizes)]
        limit = (float(np.quantile(sizes, SHOWN_QUANTILE)) if len(sizes) else 0.0) or 1.0
        self._scale = ScalarMappable(Normalize(-limit, limit), DIVERGING)
        outlines = _outlines(tuple(regions), len(titles))
        for label, title in zip(outlines.labels, titles, strict=True):
            label.set_text(title)
        outlines.bar.set_clim(-limit, limit)
        self._brains = outlines.brains
        moving = [dots for brain in self._brains for dots, _ in brain]
        self._stage = Stage(outlines.figure, moving, n_colours=_N_COLOURS, dpi=_DPI)

    def draw(self, maps: Sequence[Float64], alt: str, caption: str) -> Image | None:
        """The (R,) maps, one for each title; None if no region can be drawn."""
        if not self.drawn:
            return None
        for brain, effects in zip(self._brains, maps, strict=True):
            values = effects[self.drawn]
            colours = np.asarray(self._scale.to_rgba(np.nan_to_num(values)))
            colours[~np.isfinite(values)] = (0.6, 0.6, 0.6, 0.4)
            for dots, regions in brain:
                dots.set_facecolor(colours[regions])
        if self._n_left_out:
            caption += f" {self._n_left_out} regions have no known position and are left out."
        return self._stage.image(alt, caption)


@dataclass(frozen=True, eq=False)
class _Outlines:
    """Glass brains without colours.

    Attributes:
        figure: what they are drawn in.
        labels: texts above them.
        brains: of each brain, dots of every view and the indices of the regions they stand for.
        bar: what the colour bar shows.
    """

    figure: Figure
    labels: list[Any]
    brains: list[list[tuple[Any, Any]]]
    bar: Any


@cache
def _outlines(regions: tuple[str, ...], n_brains: int) -> _Outlines:
    """Made once: nilearn takes most of a second, and every map has the same ones."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    _, positions = drawn_regions(regions)
    figure = Figure(figsize=(6.6, 1.75 * n_brains))
    share = 1 / n_brains
    labels, brains = [], []
    for top in 1 - share * np.arange(n_brains):
        labels.append(figure.text(0.01, top - 0.03 * share, "", va="top", fontsize=9))
        brains.append(_dots(figure, positions, (0.0, top - share, 0.88, 0.9 * share)))
    bar = ScalarMappable(Normalize(-1, 1), DIVERGING)
    figure.colorbar(bar, cax=figure.add_axes((0.905, 0.15, 0.015, 0.7)), format="%.2g")
    return _Outlines(figure, labels, brains, bar)


def _dots(figure: Figure, positions: Float64, area: tuple[float, ...]) -> list[tuple[Any, Any]]:
    """Dots of each view of a new glass brain, and the indices of the regions they stand for."""
    try:
        from nilearn.plotting import plot_glass_brain
    except ImportError as error:
        raise MissingExtraError("nilearn", "report", "dtwin report") from error
    display = plot_glass_brain(None, display_mode=_VIEWS, figure=figure, axes=area, annotate=True)
    display.add_markers(
        positions,
        marker_color=np.ones((len(positions), 4)),
        marker_size=_DOT,
        edgecolors="0.3",
        linewidths=0.5,
    )
    sides = {"l": positions[:, 0] <= 0, "r": positions[:, 0] >= 0}
    everywhere = np.ones(len(positions), bool)
    return [
        (view.ax.collections[-1], np.flatnonzero(sides.get(name, everywhere)))
        for name, view in display.axes.items()
    ]
