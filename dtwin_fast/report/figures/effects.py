"""Doses and effects of people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..intervention import Intervention
from ..reading import Float64
from ..words import LARGE_EFFECT, method_name, number, percent, significant
from .canvas import METHOD_COLOURS, OWN, Image, Stage, as_png, as_svg, panels, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INTERVENTION_DOSE = 2
"""The dose that is the intervention itself."""
MOST_CURVES = 200
"""More lines than this are a blot."""
_DOSE_DPI = 120
_PEOPLE = "#8a9aa8"


def draw_doses(run: Intervention) -> Image:
    """The target of each person along the doses, a panel a method."""
    figure, axes, shown = _dose_panels(run)
    for k, (method, panel) in enumerate(zip(run.methods, axes, strict=True)):
        mean = mean_of_known(run.curves[method])
        panel.plot(run.doses, mean, color=_colour(k), linewidth=2.5, label="mean")
        panel.legend(loc="upper right", frameon=True, framealpha=0.85, edgecolor="none")
    monotone = ", ".join(
        f"{method_name(m)} {percent(_summary(run, m).number('monotone_share'))}"
        for m in run.methods
    )
    return Stage(figure, (), dpi=_DOSE_DPI).image(
        f"The target against the dose, a line a person. Monotone curves: {monotone}.",
        f"Dose curves of {shown}: {_target_label(run)} at each dose; dotted: the intervention.",
    )


class OwnDoses:
    """Everybody's dose curves with one person's upon them."""

    def __init__(self, run: Intervention) -> None:
        self._run = run
        figure, axes, self._shown = _dose_panels(run)
        self._own = []
        for method, panel in zip(run.methods, axes, strict=True):
            mean = mean_of_known(run.curves[method])
            panel.plot(run.doses, mean, color="#333333", linewidth=1, label="mean")
            style: Any = {"color": OWN, "linewidth": 2.5, "marker": "o", "markersize": 3}
            self._own += panel.plot(run.doses, mean, label="this person", **style)
            panel.legend(loc="upper right", frameon=True, framealpha=0.85, edgecolor="none")
        self._stage = Stage(figure, self._own, dpi=_DOSE_DPI)

    def draw(self, person: int) -> Image:
        """The figure of the person in this row."""
        run = self._run
        for line, method in zip(self._own, run.methods, strict=True):
            line.set_ydata(run.curves[method][person])
        ends = ", ".join(
            f"{method_name(m)} {significant(run.curves[m][person, 0])} to "
            f"{significant(run.curves[m][person, -1])}"
            for m in run.methods
        )
        return self._stage.image(
            f"The target of {run.labels[person]} against the dose, from {run.doses[0]:g} to "
            f"{run.doses[-1]:g}: {ends}.",
            f"The person's own dose curve among those of {self._shown}: {_target_label(run)}; "
            "dotted: the intervention.",
        )


def draw_effects(run: Intervention) -> Image:
    """Histograms of people's effects, with the mean effects of random directions below."""
    figure, axes = panels(
        2, len(run.methods), _width(run), 3.2, sharex=True, height_ratios=(4, 1), sharey="row"
    )
    parts = []
    rng = np.random.default_rng(0)
    for k, method in enumerate(run.methods):
        above, below = axes[k], axes[len(run.methods) + k]
        effect = _finite(run.effects[method].effect)
        random = _finite(run.random.get(method, np.empty(0)))
        every = np.concatenate([effect, random, [0.0, LARGE_EFFECT]])
        above.hist(effect, bins=_bins(every), color=_colour(k), alpha=0.75)
        _marks(above)
        above.set_title(method_name(method))
        if len(effect):
            above.axvline(effect.mean(), color=_colour(k), linewidth=2)
            below.axvline(effect.mean(), color=_colour(k), linewidth=2)
        below.scatter(random, rng.uniform(-1, 1, len(random)), s=6, color="0.35", linewidths=0)
        below.set(xlabel="effect (SD of the people before)", yticks=[], ylim=(-2, 2))
        below.axvline(0, color="0.7", linewidth=0.8)
        among = np.mean(random >= effect.mean()) if len(random) and len(effect) else np.nan
        parts.append(
            f"{method_name(method)}: mean {number(_mean_of(effect))}, SD {number(_sd(effect))}, "
            f"{len(random)} random directions, {percent(float(among))} of them as strong"
        )
    axes[0].set_ylabel("people")
    axes[len(run.methods)].set_ylabel("random", rotation=0, ha="right", va="center")
    return as_png(
        figure,
        "Histograms of effects over people. " + ". ".join(parts) + ".",
        "Effects over people (bars; the thick line is their mean, dashed 0.8 SD) and, below, the "
        "mean effect of each matched random direction (a dot each).",
    )


def draw_pre_post(run: Intervention) -> Image:
    """The target after against before, a point a person."""
    figure, axes = panels(1, len(run.methods), _width(run), 3.0, sharex=True, sharey=True)
    parts = []
    for k, (method, panel) in enumerate(zip(run.methods, axes, strict=True)):
        effects = run.effects[method]
        known = np.isfinite(effects.pre) & np.isfinite(effects.post)
        pre, post = effects.pre[known], effects.post[known]
        if len(pre):
            panel.axline((pre.mean(), pre.mean()), slope=1, color="0.6", linewidth=1)
        panel.scatter(pre, post, s=14, color=_colour(k), alpha=0.65, linewidths=0)
        panel.set(title=method_name(method), xlabel="before")
        parts.append(f"{method_name(method)}: {int((post > pre).sum())} of {len(pre)} people go up")
    axes[0].set_ylabel("after")
    return as_png(
        figure,
        "The target after against before, a point a person. " + "; ".join(parts) + ".",
        f"{_target_label(run)} before and after, a point a person. On the line nothing changes.",
    )


class OwnPlace:
    """Everybody's effects with one person's marked."""

    def __init__(self, run: Intervention) -> None:
        self._run = run
        figure, (panel,) = panels(1, 1, 6.6, 0.75 + 0.55 * len(run.methods))
        rng = np.random.default_rng(0)
        own: Any = {"color": OWN, "marker": "D", "markersize": 8, "markeredgecolor": "white"}
        self._own = []
        for k, method in enumerate(run.methods):
            effect = run.effects[method].effect
            jitter = rng.uniform(-0.25, 0.25, len(effect))
            panel.scatter(effect, k + jitter, s=7, color=_PEOPLE, alpha=0.6, linewidths=0)
            self._own += panel.plot(mean_of_known(effect[:, None]), [k], **own)
        _marks(panel)
        panel.set_yticks(range(len(run.methods)), [method_name(m) for m in run.methods])
        panel.set(ylim=(len(run.methods) - 0.5, -0.5), xlabel="effect (SD of the people before)")
        self._stage = Stage(figure, self._own)

    def draw(self, person: int) -> Image:
        """The figure of the person in this row."""
        run = self._run
        for mark, method in zip(self._own, run.methods, strict=True):
            mark.set_xdata(run.effects[method].effect[[person]])
        effects = ", ".join(
            f"{method_name(m)} {number(float(run.effects[m].effect[person]))} SD"
            for m in run.methods
        )
        return self._stage.image(
            f"Effects of everybody, {run.labels[person]} marked: {effects}.",
            "The effect (diamond) among everybody's (dots); dashed 0.8 SD.",
        )


def draw_off_target(run: Intervention) -> Image | None:
    """Mean change of every other outcome, a row an outcome; None without any."""
    names = dict.fromkeys(
        row.outcome for method in run.methods for row in run.off_target.get(method, [])
    )
    if not names:
        return None
    place = {name: i for i, name in enumerate(names)}
    figure, (panel,) = panels(1, 1, 6.6, 1.1 + 0.26 * len(names))
    panel.axvline(0, color="0.7", linewidth=0.8)
    most = []
    for k, method in enumerate(run.methods):
        rows = run.off_target.get(method, [])
        if not rows:
            continue
        shift = 0.18 * (k - (len(run.methods) - 1) / 2)
        panel.errorbar(
            [row.mean for row in rows],
            [place[row.outcome] + shift for row in rows],
            xerr=[row.sd for row in rows],
            fmt="os^D"[k % 4],
            color=_colour(k),
            markersize=4,
            linewidth=1,
            label=method_name(method),
        )
        far = max(rows, key=lambda row: abs(np.nan_to_num(row.mean)))
        most.append(f"{method_name(method)}: {far.outcome} by {number(far.mean)} SD")
    panel.set_yticks(range(len(names)), [plain(name) for name in names])
    panel.set(
        ylim=(len(names) - 0.5, -0.5), xlabel="change after − before (SD of the people before)"
    )
    figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return as_svg(
        figure,
        "Changes of other outcomes. Farthest moved: " + "; ".join(most) + ".",
        "What else changes: mean and SD over people of every other outcome.",
    )


def _dose_panels(run: Intervention) -> tuple[Figure, list[Axes], str]:
    """Panels with a thin line a person, and whose lines they are."""
    from matplotlib.collections import LineCollection

    figure, axes = panels(1, len(run.methods), _width(run), 2.9, sharey=True)
    n_people = len(run.labels)
    rows = np.unique(np.linspace(0, n_people - 1, min(n_people, MOST_CURVES)).round().astype(int))
    for method, panel in zip(run.methods, axes, strict=True):
        lines = [np.column_stack([run.doses, curve]) for curve in run.curves[method][rows]]
        panel.add_collection(LineCollection(lines, colors=_PEOPLE, linewidths=0.6, alpha=0.45))
        panel.autoscale_view()
        panel.axvline(INTERVENTION_DOSE, color="0.5", linestyle=":", linewidth=1)
        panel.axvline(0, color="0.8", linewidth=0.8)
        panel.set(title=method_name(method), xlabel="dose (SD)")
    axes[0].set_ylabel(_target_label(run))
    drawn = "" if len(rows) == n_people else f", {len(rows)} of them drawn"
    return figure, axes, f"{n_people} people{drawn}"


def _marks(panel: Axes) -> None:
    panel.axvline(0, color="0.7", linewidth=0.8)
    panel.axvline(LARGE_EFFECT, color="0.4", linestyle="--", linewidth=0.8)


def _bins(values: Float64) -> list[float]:
    low, high = float(values.min()), float(values.max())
    return [float(edge) for edge in np.linspace(low, high, 25)]


def mean_of_known(values: Float64) -> Float64:
    """Mean over the first axis of what is known; NaN where nothing is."""
    known = np.isfinite(values)
    total = np.where(known, values, 0).sum(axis=0)
    mean: Float64 = np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)
    return mean


def _finite(values: Float64) -> Float64:
    return values[np.isfinite(values)]


def _mean_of(values: Float64) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _sd(values: Float64) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def _colour(k: int) -> str:
    return METHOD_COLOURS[k % len(METHOD_COLOURS)]


def _width(run: Intervention) -> float:
    return 3.6 if len(run.methods) == 1 else 3.4 * len(run.methods)


def _summary(run: Intervention, method: str) -> Any:
    return run.about.fields("methods").fields(method)


def _target_label(run: Intervention) -> str:
    target = run.about.fields("target")
    return f"{plain(target.text('name'))} ({plain(target.text('unit'))})"
