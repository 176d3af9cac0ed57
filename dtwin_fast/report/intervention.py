"""What ``dtwin intervene`` wrote, read back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..files import check_regular_file
from ..interventions.files import INTERVENTION_FILE
from ..readers.request import parsing
from ..spec import n_edges
from .reading import Columns, Fields, Float64, read_columns, read_fields, report_error

Float32 = npt.NDArray[np.float32]
Floats = npt.NDArray[np.floating]

CONNECTOME, WEIGHTS = "connectome", "weights"
"""The methods that seek: one alters connectomes, the other moves generated weights. Every other
method is an edit of connectomes."""


@dataclass(frozen=True, eq=False)
class Effects:
    """What one method does to each person, (S,) each.

    Attributes:
        pre, post, predicted: the target before and after, and as its first-order term has it.
        effect: improvement in SDs of the people before.
        flags: of each person, empty without any.
    """

    pre: Float64
    post: Float64
    effect: Float64
    predicted: Float64
    flags: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class EdgeMap:
    """Means over people at each edge, or at each region; (E,) or (R,).

    Attributes:
        gradient: of the target by the connectome; None where it was not written.
        gradient_sd: over people; None for regions and for one person.
        change: of the connectome; None where none is altered.
    """

    gradient: Floats | None
    gradient_sd: Floats | None
    change: Floats | None

    @property
    def strength(self) -> Floats:
        """What edges are ranked by: the change, or the gradient where there is none."""
        if self.change is not None:
            return self.change
        assert self.gradient is not None
        return self.gradient


@dataclass(frozen=True)
class Block:
    """A block of the connectome between two networks, mean over its edges and people."""

    networks: tuple[str, str]
    n_edges: int
    gradient: float
    change: float


@dataclass(frozen=True)
class Outcome:
    """An outcome of one person under a method."""

    name: str
    unit: str
    method: str
    pre: float
    post: float


@dataclass(frozen=True)
class OffTarget:
    """How much an outcome moves on average, in SDs of the people before."""

    outcome: str
    unit: str
    mean: float
    sd: float
    n: int


@dataclass(frozen=True)
class InRange:
    """How far a connectome lies from those that the twin was trained on."""

    when: str
    deviation: float
    beyond_share: float
    mahalanobis: float
    min_eigenvalue: float
    flags: str


@dataclass(frozen=True, eq=False)
class Intervention:
    """One run of ``dtwin intervene``.

    Attributes:
        folder: where it lies.
        about: intervention.json.
        methods: names, in the order of intervention.json.
        labels, sources: S BIDS labels, and ids as the input has them.
        effects: method -> effects.
        doses: (D,) SDs along the direction.
        curves: method -> (S,D) the target at each dose.
        off_target: method -> outcomes.
        random: method -> (n,) mean effects of matched random directions.
        blocks: method -> blocks of networks.
        regions, networks: R names, and the network of each.
        ends: (2,E) the regions of each edge.
        edges, of_region: method -> map.
        in_range: label -> scores before and after.
        outcomes: label -> outcomes.
        rejected: id in the input, and why they were left out.
    """

    folder: Path
    about: Fields
    methods: tuple[str, ...]
    labels: tuple[str, ...]
    sources: tuple[str, ...]
    effects: dict[str, Effects]
    doses: Float64
    curves: dict[str, Float64]
    off_target: dict[str, list[OffTarget]]
    random: dict[str, Float64]
    blocks: dict[str, list[Block]]
    regions: tuple[str, ...]
    networks: tuple[str, ...]
    ends: npt.NDArray[np.int64]
    edges: dict[str, EdgeMap]
    of_region: dict[str, EdgeMap]
    in_range: dict[str, list[InRange]]
    outcomes: dict[str, list[Outcome]]
    rejected: list[tuple[str, str]]

    @property
    def is_edit(self) -> bool:
        """Whether what is done was known beforehand, not sought."""
        return not set(self.methods) & {CONNECTOME, WEIGHTS}

    def kinds_of_maps(self, method: str) -> tuple[str, ...]:
        """Which maps of single people were written: ``change``, ``gradient``, both or none."""
        kinds = ("change", "gradient")
        return tuple(kind for kind in kinds if self._map_path(method, kind).is_file())

    def person_map(self, method: str, kind: str, person: int) -> Float32:
        """(E,) one of :meth:`kinds_of_maps` of one person.

        Raises:
            DTwinInputError: no array, or one of another shape (code ``report`` and those of
                :func:`dtwin_fast.files.check_regular_file`).
        """
        path = self._map_path(method, kind)
        check_regular_file(path, field=str(path))
        with parsing(path):
            maps: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        wanted = (len(self.labels), self.ends.shape[1])
        if maps.shape != wanted or maps.dtype.kind != "f":
            raise report_error(
                str(path),
                "this array is of other people or edges",
                f"floats of shape {wanted}",
                f"{maps.dtype} {maps.shape}",
                "Write the folder again",
            )
        return np.array(maps[person], np.float32)

    def _map_path(self, method: str, kind: str) -> Path:
        return self.folder / "maps" / f"{method}_{kind}.npy"


def read_intervention(folder: Path) -> Intervention:
    """Read a folder of ``dtwin intervene``.

    Raises:
        DTwinInputError: a file is missing, damaged or does not fit the others (code ``report``
            and those of :mod:`dtwin_fast.readers.tables`).
    """
    about = read_fields(folder / INTERVENTION_FILE)
    methods = tuple(about.fields("methods").values)
    if not methods:
        raise _unfit(folder, INTERVENTION_FILE, "a method", "none")
    labels, sources, effects = _effects(read_columns(folder / "effects.tsv"), methods)
    doses, curves = _curves(read_columns(folder / "doses.tsv"), methods, labels)
    regions, networks, of_region = _regions(read_columns(folder / "regions.tsv"), methods)
    ends, edges = _edges(read_columns(folder / "edges.tsv"), methods, regions)
    return Intervention(
        folder,
        about,
        methods,
        labels,
        sources,
        effects,
        doses,
        curves,
        _off_target(read_columns(folder / "off_target.tsv")),
        _random(read_columns(folder / "random.tsv")),
        _blocks(read_columns(folder / "networks.tsv")),
        regions,
        networks,
        ends,
        edges,
        of_region,
        _in_range(read_columns(folder / "range.tsv")),
        _outcomes(read_columns(folder / "targets.tsv")),
        _rejected(read_columns(folder / "rejected.tsv")),
    )


def _effects(
    table: Columns, methods: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, Effects]]:
    people = list(zip(table.text("participant_id"), table.text("source_id"), strict=True))
    labels, sources = zip(*dict.fromkeys(people), strict=True) if people else ((), ())
    if not labels or len(set(labels)) < len(labels):
        raise _unfit(table.where, "participant_id", "people, each with one id", f"{labels[:3]}")
    row = {label: i for i, label in enumerate(labels)}
    columns = [table.numbers(name) for name in ("pre", "post", "effect", "predicted")]
    flags, of_method = table.text("flags"), table.text("method")
    effects = {}
    for method in methods:
        at = {row[people[i][0]]: i for i, name in enumerate(of_method) if name == method}
        if len(at) < len(labels):
            raise _unfit(table.where, method, f"{len(labels)} people", f"{len(at)}")
        order = [at[i] for i in range(len(labels))]
        pre, post, effect, predicted = (column[order] for column in columns)
        effects[method] = Effects(
            pre, post, effect, predicted, tuple(flags[i].replace(",", ", ") for i in order)
        )
    return labels, sources, effects


def _curves(
    table: Columns, methods: tuple[str, ...], labels: tuple[str, ...]
) -> tuple[Float64, dict[str, Float64]]:
    dose, value = table.numbers("dose"), table.numbers("value")
    doses, column = np.unique(dose, return_inverse=True)
    row = {label: i for i, label in enumerate(labels)}
    curves = {method: np.full((len(labels), len(doses)), np.nan) for method in methods}
    people = zip(table.text("participant_id"), table.text("method"), strict=True)
    for i, (label, method) in enumerate(people):
        if label not in row or method not in curves:
            raise _unfit(table.where, "participant_id, method", "as in effects.tsv", label)
        curves[method][row[label], column[i]] = value[i]
    return doses, curves


def _regions(
    table: Columns, methods: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, EdgeMap]]:
    regions = tuple(table.text("name"))
    if len(set(regions)) < len(regions) or len(regions) < 2:
        raise _unfit(table.where, "name", "two or more different regions", f"{len(regions)}")
    maps = {m: EdgeMap(table.numbers(f"{m}_gradient"), None, _change(table, m)) for m in methods}
    return regions, tuple(table.text("network")), maps


def _edges(
    table: Columns, methods: tuple[str, ...], regions: tuple[str, ...]
) -> tuple[npt.NDArray[np.int64], dict[str, EdgeMap]]:
    place = {name: i for i, name in enumerate(regions)}
    titles = ("region_1", "region_2")
    try:
        ends = np.array([[place[name] for name in table.text(t)] for t in titles], np.int64)
    except KeyError as error:
        raise _unfit(table.where, "region_1, region_2", "as in regions.tsv", error) from error
    if ends.shape[1] != n_edges(len(regions)):
        wanted = f"{n_edges(len(regions))} edges of {len(regions)} regions"
        raise _unfit(table.where, "rows", wanted, ends.shape[1])
    maps = {
        m: EdgeMap(
            table.numbers(f"{m}_gradient"), table.numbers(f"{m}_gradient_sd"), _change(table, m)
        )
        for m in methods
    }
    return ends, maps


def _change(table: Columns, method: str) -> Float64 | None:
    return None if method == WEIGHTS else table.numbers(f"{method}_change")


def _off_target(table: Columns) -> dict[str, list[OffTarget]]:
    found: dict[str, list[OffTarget]] = {}
    rows = zip(
        table.text("method"),
        table.text("outcome"),
        table.text("unit"),
        table.numbers("mean_change").tolist(),
        table.numbers("sd_change").tolist(),
        table.numbers("n").tolist(),
        strict=True,
    )
    for method, outcome, unit, mean, sd, n in rows:
        found.setdefault(method, []).append(OffTarget(outcome, unit, mean, sd, _count(n)))
    return found


def _random(table: Columns) -> dict[str, Float64]:
    of_method, mean = np.array(table.text("method"), str), table.numbers("mean_effect")
    return {str(name): mean[of_method == name] for name in np.unique(of_method)}


def _blocks(table: Columns) -> dict[str, list[Block]]:
    found: dict[str, list[Block]] = {}
    rows = zip(
        table.text("method"),
        table.text("network_1"),
        table.text("network_2"),
        table.numbers("n_edges").tolist(),
        table.numbers("mean_gradient").tolist(),
        table.numbers("mean_change").tolist(),
        strict=True,
    )
    for method, first, second, n, gradient, change in rows:
        block = Block((first, second), _count(n), gradient, change)
        found.setdefault(method, []).append(block)
    return found


def _in_range(table: Columns) -> dict[str, list[InRange]]:
    found: dict[str, list[InRange]] = {}
    names = ("deviation", "beyond_share", "mahalanobis", "min_eigenvalue")
    numbers = [table.numbers(name).tolist() for name in names]
    rows = zip(
        table.text("participant_id"), table.text("when"), *numbers, table.text("flags"), strict=True
    )
    for label, when, deviation, beyond, mahalanobis, eigenvalue, flags in rows:
        told = flags.replace(",", ", ")
        scores = InRange(when, deviation, beyond, mahalanobis, eigenvalue, told)
        found.setdefault(label, []).append(scores)
    return found


def _outcomes(table: Columns) -> dict[str, list[Outcome]]:
    found: dict[str, list[Outcome]] = {}
    rows = zip(
        table.text("participant_id"),
        table.text("outcome"),
        table.text("unit"),
        table.text("method"),
        table.numbers("pre").tolist(),
        table.numbers("post").tolist(),
        strict=True,
    )
    for label, *rest in rows:
        found.setdefault(label, []).append(Outcome(*rest))
    return found


def _rejected(table: Columns) -> list[tuple[str, str]]:
    return list(zip(table.text("source_id"), table.text("reason"), strict=True))


def _count(value: float) -> int:
    return 0 if math.isnan(value) else int(value)


def _unfit(where: object, field: str, wanted: str, got: object) -> Exception:
    return report_error(
        f"{where}: {field}", "this does not fit", wanted, got, "Write the folder again"
    )
