"""Tables of an intervention, of the cohort or of one person."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from .intervention import Block, EdgeMap, Intervention
from .networks import arrange, as_matrix, strongest
from .sections import Table
from .words import method_name, significant

TOP_EDGES, TOP_BLOCKS, TOP_REGIONS = 20, 12, 15


def edges_table(run: Intervention, method: str, maps: EdgeMap, whose: str) -> Table:
    """The strongest edges."""
    columns: dict[str, npt.NDArray[np.floating] | None] = {
        "change (Fisher z)": maps.change,
        "gradient": maps.gradient,
        "SD of the gradient": maps.gradient_sd,
    }
    known = {title: values for title, values in columns.items() if values is not None}
    rows = []
    for edge in strongest(maps.strength, TOP_EDGES):
        first, second = run.ends[:, edge]
        names = [run.regions[first], run.regions[second]]
        networks = f"{run.networks[first]} – {run.networks[second]}"
        rows.append([*names, networks, *(significant(float(v[edge])) for v in known.values())])
    return Table(
        f"{method_name(method)}: the {len(rows)} strongest edges, {whose}",
        ["region", "region", "networks", *known],
        rows,
        frozenset({1, 2}),
    )


def blocks_table(method: str, blocks: list[Block], whose: str, *, fold_rest: bool) -> list[Table]:
    """The network-by-network table: the strongest blocks, and all of them folded."""
    altered = any(np.isfinite(block.change) for block in blocks)
    titles = ["network", "network", "edges", *(["mean change"] if altered else []), "mean gradient"]

    def row(block: Block) -> list[str]:
        values = [block.change, block.gradient] if altered else [block.gradient]
        return [*block.networks, str(block.n_edges), *map(significant, values)]

    strength = np.array([block.change if altered else block.gradient for block in blocks])
    first = [row(blocks[i]) for i in strongest(strength, TOP_BLOCKS)]
    words = frozenset({1})
    caption = f"{method_name(method)}: the {len(first)} strongest blocks of networks, {whose}"
    tables = [Table(caption, titles, first, words)]
    if fold_rest and len(blocks) > len(first):
        every = f"All {len(blocks)} blocks of networks: {method_name(method)}"
        tables.append(
            Table(every, titles, [row(block) for block in blocks], words, every, "networks.tsv")
        )
    return tables


def regions_table(run: Intervention) -> list[Table]:
    """Every region: the mean over its edges under each method."""
    titles = ["region", "network"]
    columns = []
    for method in run.methods:
        maps = run.of_region[method]
        for what, values in (("change", maps.change), ("gradient", maps.gradient)):
            if values is not None:
                titles.append(f"{method_name(method)}: {what}")
                columns.append(values)
    rows = [
        [name, network, *(significant(float(column[r])) for column in columns)]
        for r, (name, network) in enumerate(zip(run.regions, run.networks, strict=True))
    ]
    top = strongest(run.of_region[run.methods[0]].strength, TOP_REGIONS)
    words = frozenset({1})
    every = f"All {len(rows)} regions"
    return [
        Table(
            f"The {len(top)} regions whose edges stand out most, {method_name(run.methods[0])}; "
            "means over the edges of a region",
            titles,
            [rows[r] for r in top],
            words,
        ),
        Table(every, titles, rows, words, every, "regions.tsv"),
    ]


def person_blocks(run: Intervention, maps: Mapping[str, npt.NDArray[np.floating]]) -> list[Block]:
    """Blocks of networks of one person's maps, by the titles ``gradient`` and ``change``."""
    arrangement = arrange(run.networks)
    matrices = {kind: as_matrix(m, run.ends, arrangement.order) for kind, m in maps.items()}
    blocks = []
    for i, (first, a, b) in enumerate(arrangement.spans):
        for second, c, d in arrangement.spans[i:]:
            n = (b - a) * (b - a - 1) // 2 if first == second else (b - a) * (d - c)
            if n:
                means = {kind: float(np.nanmean(m[a:b, c:d])) for kind, m in matrices.items()}
                both = (means.get(kind, float("nan")) for kind in ("gradient", "change"))
                blocks.append(Block((first, second), n, *both))
    return blocks
