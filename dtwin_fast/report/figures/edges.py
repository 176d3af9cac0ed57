"""Maps of edges: matrices by network, and the strongest edges around a circle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..intervention import Intervention
from ..networks import Arrangement, arrange, as_matrix, strongest
from ..reading import Float64
from ..words import method_name, significant
from .canvas import DIVERGING, Image, Stage, as_svg, panels, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import LineCollection
    from matplotlib.path import Path

SHOWN_QUANTILE = 0.995
"""Colours end at this quantile of the edges' sizes, so that a few do not hide the others."""
CIRCLE_EDGES = 60
N_STEPS = 15
"""Colours of a matrix."""
_DPI = 120
_ARC_POINTS = 12
_PEOPLE_FOR_LIMIT = 20
_LABEL_GAP = 0.031
"""Least distance of two labels beside a matrix, as a share of its height."""


def draw_matrices(run: Intervention, method: str) -> Image:
    """A method's mean maps as matrices whose regions stand by network."""
    edges = run.edges[method]
    both = {"mean gradient": edges.gradient, "mean change (Fisher z)": edges.change}
    maps = {title: values for title, values in both.items() if values is not None}
    limits = [_limit(values) for values in maps.values()]
    matrices = Matrices(run, tuple(maps), limits)
    return matrices.draw(list(maps.values()), f"{method_name(method)}, mean over people")


class Matrices:
    """Edges as matrices, one beside the other, coloured anew for every person.

    Args:
        run: whose regions and networks they are.
        titles: of the matrices.
        limits: where the colours of each end.
    """

    def __init__(self, run: Intervention, titles: tuple[str, ...], limits: list[float]) -> None:
        from matplotlib import colormaps

        self._run, self._titles = run, titles
        self._arrangement = arrange(run.networks)
        figure, axes = panels(1, len(titles), 1.0 + 3.3 * len(titles), 3.05)
        nothing = np.zeros((len(run.regions), len(run.regions)))
        # Steps, not a continuum: noise of 200,000 cells in every shade fills a megabyte.
        colours = colormaps[DIVERGING].resampled(N_STEPS)
        self._images, moving = [], []
        for panel, title, limit in zip(axes, titles, limits, strict=True):
            image = panel.imshow(nothing, cmap=colours, vmin=-limit, vmax=limit)
            figure.colorbar(image, ax=panel, shrink=0.75, pad=0.02, format="%.2g")
            panel.set_title(title)
            lines = _networks(panel, self._arrangement, labels=panel is axes[0])
            self._images.append(image)
            moving += [image, lines]
        self._stage = Stage(figure, moving, dpi=_DPI)

    def draw(self, maps: Sequence[npt.NDArray[np.floating]], whose: str) -> Image:
        """The (E,) maps, one for each title."""
        blocks = []
        for title, image, edges in zip(self._titles, self._images, maps, strict=True):
            matrix = as_matrix(edges, self._run.ends, self._arrangement.order)
            image.set_data(matrix)
            blocks.append(f"{title}: {_strongest_block(matrix, self._arrangement)}")
        n = len(self._run.regions)
        return self._stage.image(
            f"Matrices of {n} by {n} regions, ordered by network. " + " ".join(blocks),
            f"{whose}: every edge, regions ordered by network. Red: above 0, blue: below.",
        )


def own_limit(run: Intervention, method: str, kind: str) -> float:
    """Where colours end in the maps of single people: the same for everybody."""
    rows = np.unique(np.linspace(0, len(run.labels) - 1, _PEOPLE_FOR_LIMIT).round().astype(int))
    return _limit(np.concatenate([run.person_map(method, kind, int(row)) for row in rows]))


def draw_circle(run: Intervention, method: str, what: str) -> Image:
    """The strongest edges of a method as lines between regions around a circle."""
    from matplotlib.collections import PathCollection

    arrangement = arrange(run.networks)
    values = run.edges[method].strength
    chosen = strongest(values, CIRCLE_EDGES)
    n = len(run.regions)
    figure, (panel,) = panels(1, 1, 4.6, 4.6)
    panel.set_axis_off()
    panel.set(aspect="equal", xlim=(-1.42, 1.42), ylim=(-1.42, 1.42))
    place = np.empty(n)
    place[arrangement.order] = _angle((np.arange(n) + 0.5) / n)
    for k, (name, start, stop) in enumerate(arrangement.spans):
        gap = min(0.15, 0.2 * (stop - start))
        around = _angle(np.linspace(start + gap, stop - gap, _ARC_POINTS) / n)
        colour = ("#3b4a59", "#a9b4bf")[k % 2]
        panel.plot(np.cos(around), np.sin(around), color=colour, linewidth=5, solid_capstyle="butt")
        middle = float(_angle((start + stop) / 2 / n))
        _radial_label(panel, plain(name), middle)
    largest = np.abs(values[chosen]).max(initial=0) or 1.0
    share = np.abs(values[chosen]) / largest
    curves = [_curve(*place[run.ends[:, edge]]) for edge in chosen]
    colours = np.where(values[chosen] > 0, "#b2182b", "#2166ac")
    # The strongest lie on top.
    panel.add_collection(
        PathCollection(
            curves[::-1],
            facecolors="none",
            edgecolors=list(colours[::-1]),
            linewidths=(0.4 + 2.2 * share)[::-1],
            alpha=0.75,
        )
    )
    up = int((values[chosen] > 0).sum())
    return as_svg(
        figure,
        f"The {len(chosen)} edges with the largest {what} as lines inside a circle of regions: "
        f"{up} above 0, {len(chosen) - up} below. The tables name the first of them.",
        f"The {len(chosen)} edges with the largest mean {what}, regions around the circle by "
        "network. Red: above 0, blue: below; the thicker, the larger.",
    )


def _networks(panel: Axes, arrangement: Arrangement, *, labels: bool) -> LineCollection:
    """Lines between networks, which are returned, and their names."""
    from matplotlib.collections import LineCollection

    n = len(arrangement.order)
    ends = (-0.5, n - 0.5)
    starts = [start - 0.5 for _, start, _ in arrangement.spans[1:]]
    across = [[(ends[0], start), (ends[1], start)] for start in starts]
    along = [[(start, ends[0]), (start, ends[1])] for start in starts]
    lines = LineCollection([*across, *along], colors="0.55", linewidths=0.3)
    panel.add_collection(lines)
    panel.set(xticks=[], yticks=[], xlim=ends, ylim=ends[::-1])
    if not labels:
        return lines
    middles = np.array([(start + stop) / 2 - 0.5 for _, start, stop in arrangement.spans])
    for (name, _, _), middle, at in zip(
        arrangement.spans, middles, _apart(middles, _LABEL_GAP * n, n), strict=True
    ):
        panel.annotate(
            plain(name),
            xy=(-0.5, middle),
            xytext=(-0.06 * n, at),
            ha="right",
            va="center",
            fontsize=6.5,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": "0.5", "shrinkA": 1,
                        "shrinkB": 0},
        )  # fmt: skip
    return lines


def _apart(middles: Float64, gap: float, n: int) -> Float64:
    """Places as near to the middles as leaves ``gap`` between neighbours, inside the matrix."""
    gap = min(gap, n / max(len(middles), 1))
    places = middles.copy()
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + gap)
    over = min(0.0, n - 0.5 - gap / 2 - places[-1])
    places[-1] += over
    for i in range(len(places) - 2, -1, -1):
        places[i] = min(places[i], places[i + 1] - gap)
    return places


def _strongest_block(matrix: Float64, arrangement: Arrangement) -> str:
    """The pair of networks whose mean edge is farthest from 0, in words."""
    best, text = 0.0, "no edge differs from 0."
    for i, (first, a, b) in enumerate(arrangement.spans):
        for second, c, d in arrangement.spans[i:]:
            part = matrix[a:b, c:d]
            known = part[np.isfinite(part)]
            if len(known) and abs(known.mean()) > best:
                best = abs(float(known.mean()))
                text = f"strongest on average {first} with {second}, {significant(known.mean())}."
    return text


def _limit(edges: npt.NDArray[np.floating]) -> float:
    sizes = np.abs(edges[np.isfinite(edges)])
    if not len(sizes):
        return 1.0
    # A change of few edges has its quantile at 0.
    limit = float(np.quantile(sizes, SHOWN_QUANTILE)) or float(sizes.max())
    return limit or 1.0


def _angle(share: npt.ArrayLike) -> Float64:
    """Clockwise from the top."""
    return np.asarray(np.pi / 2 - 2 * np.pi * np.asarray(share, np.float64))


def _curve(a: float, b: float) -> Path:
    """A quadratic curve between two places on the circle, drawn towards its middle."""
    from matplotlib.path import Path

    ends = 0.96 * np.array([[np.cos(a), np.sin(a)], [np.cos(b), np.sin(b)]])
    # Neighbours bend little, so that their line stays near the circle.
    middle = ends.mean(axis=0) * 0.35
    return Path([ends[0], middle, ends[1]], [Path.MOVETO, Path.CURVE3, Path.CURVE3])


def _radial_label(panel: Axes, text: str, angle: float) -> None:
    degrees = np.degrees(angle) % 360
    is_left = 90 < degrees < 270
    panel.text(
        1.05 * np.cos(angle),
        1.05 * np.sin(angle),
        text,
        rotation=degrees - 180 if is_left else degrees,
        rotation_mode="anchor",
        ha="right" if is_left else "left",
        va="center",
        fontsize=7,
    )
