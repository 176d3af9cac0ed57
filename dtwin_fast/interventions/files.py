"""An intervention on disk: tables, maps and one JSON file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..connectome_checks import triangle
from ..files import write_npy
from ..networks import network_of
from ..prediction_files import NOTICE, bids_labels, write_json
from ..tables import Cell, write_tsv
from .effect import DOSES, Effect
from .intervene import Intervention

INTERVENTION_FILE = "intervention.json"
Table = tuple[list[str], Iterator[list[Cell]]]


def write_intervention(done: Intervention, folder: Path) -> None:
    """Write an intervention.

    ::

        effects.tsv        participant_id source_id method pre post effect predicted flags
        targets.tsv        participant_id outcome unit method pre post
        doses.tsv          participant_id method dose value
        off_target.tsv     method outcome unit mean_change sd_change n; SDs of people before
        random.tsv         method direction mean_effect sd_effect
        range.tsv          participant_id when deviation beyond_share mahalanobis min_eigenvalue
                           flags
        edges.tsv          region_1 region_2, METHOD_gradient and its SD over people,
                           METHOD_change: means over people
        regions.tsv        name network, the same as means over a region's edges: a value for each
                           parcel in the order of the atlas, as images take them
        networks.tsv       method network_1 network_2 n_edges mean_gradient mean_change
        maps/METHOD_gradient.npy, maps/METHOD_change.npy  (S,E) float32, by Fisher z
        connectomes.npy    (S,E) float32 Pearson r, changed; with regions.tsv an input of
                           ``dtwin predict``
        rejected.tsv       people left out: source_id, code, reason, the way out
        intervention.json  all that is one number, settings, provenance; last

    Numbers that do not exist are ``n/a``, in JSON null.

    Raises:
        DTwinInputError: two subject ids give the same BIDS label (code ``subject_label``).
    """
    labels = bids_labels(done.subjects)
    (folder / INTERVENTION_FILE).unlink(missing_ok=True)
    # Those that not every method has must not be an earlier one's.
    (folder / "connectomes.npy").unlink(missing_ok=True)
    for name in ("*_gradient.npy", "*_change.npy"):
        for path in (folder / "maps").glob(name):
            path.unlink()
    for name, table in {
        "effects": _effects(done, labels),
        "targets": _targets(done, labels),
        "doses": _doses(done, labels),
        "off_target": _off_target(done),
        "random": _random(done),
        "range": _range(done, labels),
        "edges": _edges(done),
        "regions": _regions(done),
        "networks": _networks(done),
        "rejected": _rejected(done),
    }.items():
        write_tsv(folder / f"{name}.tsv", *table)
    for method, effect in done.effects.items():
        write_npy(folder / "maps" / f"{method}_gradient.npy", effect.gradient)
        if effect.change is not None:
            write_npy(folder / "maps" / f"{method}_change.npy", effect.change)
    if done.changed is not None:
        write_npy(folder / "connectomes.npy", done.changed.edges)
    write_json(folder / INTERVENTION_FILE, as_json(done))


def as_json(done: Intervention) -> dict[str, Any]:
    """Plain JSON form of everything that is one number."""
    connectomes = done.connectomes
    values = {
        "notice": NOTICE,
        "target": {
            "name": done.target,
            "unit": done.unit,
            "goal": done.goal,
            "tasks": list(done.tasks),
        },
        "people": len(done.subjects),
        "rejected": len(connectomes.rejected),
        "flagged": sum(map(bool, _flags(done, next(iter(done.effects.values()))))),
        "methods": {method: effect.summary() for method, effect in done.effects.items()},
        "flags": list(done.notes),
        "settings": done.settings,
        "provenance": done.provenance,
    }
    plain: dict[str, Any] = _plain(values)
    return plain


def _flags(done: Intervention, effect: Effect) -> list[tuple[str, ...]]:
    """For each person, those of the input and of being outside the training range.

    Of the connectome that the method leaves: in weights, the one that was given.
    """
    scores = effect.range_after or effect.range_before
    given = done.connectomes.flags
    return [(*own, *more) for own, more in zip(given, scores.flags(), strict=True)]


def _effects(done: Intervention, labels: list[str]) -> Table:
    flags = {method: _flags(done, effect) for method, effect in done.effects.items()}
    rows: Iterator[list[Cell]] = (
        [
            labels[i],
            done.subjects[i],
            method,
            float(effect.pre[i]),
            float(effect.post[i]),
            float(effect.effect[i]),
            float(effect.predicted[i]),
            ",".join(flags[method][i]) or "n/a",
        ]
        for method, effect in done.effects.items()
        for i in range(len(labels))
    )
    header = ["participant_id", "source_id", "method", "pre", "post", "effect", "predicted"]
    return [*header, "flags"], rows


def _targets(done: Intervention, labels: list[str]) -> Table:
    rows: Iterator[list[Cell]] = (
        [
            label,
            outcome,
            done.outcome_units[k],
            method,
            float(effect.outcomes_pre[k, i]),
            float(effect.outcomes_post[k, i]),
        ]
        for method, effect in done.effects.items()
        for i, label in enumerate(labels)
        for k, outcome in enumerate(done.outcomes)
    )
    return ["participant_id", "outcome", "unit", "method", "pre", "post"], rows


def _doses(done: Intervention, labels: list[str]) -> Table:
    rows: Iterator[list[Cell]] = (
        [label, method, float(dose), float(effect.curve[d, i])]
        for method, effect in done.effects.items()
        for i, label in enumerate(labels)
        for d, dose in enumerate(DOSES)
    )
    return ["participant_id", "method", "dose", "value"], rows


def _off_target(done: Intervention) -> Table:
    def rows() -> Iterator[list[Cell]]:
        for method, effect in done.effects.items():
            for k, outcome in enumerate(done.outcomes[1:], start=1):
                change = effect.moved(k)
                spread = float(change.std(ddof=1)) if len(change) > 1 else math.nan
                unit = done.outcome_units[k]
                yield [method, outcome, unit, float(change.mean()), spread, len(change)]

    return ["method", "outcome", "unit", "mean_change", "sd_change", "n"], rows()


def _random(done: Intervention) -> Table:
    rows: Iterator[list[Cell]] = (
        [method, d, float(row.mean()), float(row.std(ddof=1)) if len(row) > 1 else math.nan]
        for method, effect in done.effects.items()
        for d, row in enumerate(effect.random.effects)
    )
    return ["method", "direction", "mean_effect", "sd_effect"], rows


def _range(done: Intervention, labels: list[str]) -> Table:
    names = ["deviation", "beyond_share", "mahalanobis", "min_eigenvalue"]

    def rows() -> Iterator[list[Cell]]:
        effects = list(done.effects.values())
        after = [e.range_after for e in effects if e.range_after is not None]
        for when, all_scores in (("before", [effects[0].range_before]), ("after", after)):
            for scores in all_scores:
                for i, (label, flags) in enumerate(zip(labels, scores.flags(), strict=True)):
                    numbers = [float(getattr(scores, name)[i]) for name in names]
                    yield [label, when, *numbers, ",".join(flags) or "n/a"]

    return ["participant_id", "when", *names, "flags"], rows()


def _maps(done: Intervention) -> dict[str, npt.NDArray[np.float64]]:
    """Column -> (E,) mean over people."""
    maps = {}
    for method, effect in done.effects.items():
        maps[f"{method}_gradient"] = effect.gradient.mean(axis=0, dtype=np.float64)
        spread = effect.gradient.std(axis=0, dtype=np.float64, ddof=len(effect.gradient) > 1)
        maps[f"{method}_gradient_sd"] = spread
        if effect.change is not None:
            maps[f"{method}_change"] = effect.change.mean(axis=0, dtype=np.float64)
    return maps


def _regions_of(done: Intervention) -> tuple[str, ...]:
    assert done.connectomes.regions is not None  # a twin's connectomes have its regions
    return done.connectomes.regions


def _edges(done: Intervention) -> Table:
    regions, maps = _regions_of(done), _maps(done)
    first, second = triangle(len(regions))
    columns = [column.tolist() for column in maps.values()]
    names = ([regions[i] for i in first], [regions[i] for i in second])
    rows = (list(row) for row in zip(*names, *columns, strict=True))
    return ["region_1", "region_2", *maps], rows


def _regions(done: Intervention) -> Table:
    regions = _regions_of(done)
    maps = {name: m for name, m in _maps(done).items() if not name.endswith("_sd")}
    first, second = triangle(len(regions))
    columns = []
    for edges in maps.values():
        total = np.bincount(first, edges, len(regions)) + np.bincount(second, edges, len(regions))
        columns.append((total / (len(regions) - 1)).tolist())
    rows = (list(row) for row in zip(regions, network_of(regions), *columns, strict=True))
    return ["name", "network", *maps], rows


def _networks(done: Intervention) -> Table:
    regions = _regions_of(done)
    networks = list(dict.fromkeys(network_of(regions)))
    place = np.array([networks.index(name) for name in network_of(regions)])
    first, second = triangle(len(regions))
    low, high = np.minimum(place[first], place[second]), np.maximum(place[first], place[second])
    block = low * len(networks) + high
    size = np.bincount(block, minlength=len(networks) ** 2)

    def mean(edges: npt.NDArray[Any] | None) -> npt.NDArray[np.float64]:
        if edges is None:
            return np.full(len(size), np.nan)
        total = np.bincount(block, edges.mean(axis=0, dtype=np.float64), len(size))
        return np.asarray(total / np.maximum(size, 1))

    def rows() -> Iterator[list[Cell]]:
        for method, effect in done.effects.items():
            gradient, change = mean(effect.gradient), mean(effect.change)
            for b in np.flatnonzero(size).tolist():
                one, other = networks[b // len(networks)], networks[b % len(networks)]
                yield [method, one, other, int(size[b]), float(gradient[b]), float(change[b])]

    header = ["method", "network_1", "network_2", "n_edges", "mean_gradient", "mean_change"]
    return header, rows()


def _rejected(done: Intervention) -> Table:
    rejected = done.connectomes.rejected
    rows: Iterator[list[Cell]] = ([e.subject or "n/a", e.code, e.what, e.fix] for e in rejected)
    return ["source_id", "code", "reason", "fix"], rows


def _plain(value: Any) -> Any:
    """The same with null for what is no finite number."""
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
