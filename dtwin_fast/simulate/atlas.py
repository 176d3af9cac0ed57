"""Regions of a simulated brain: names, networks, positions, and where BOLD is taken."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import DTwinInputError
from ..networks import NETWORKS, network_of
from ..spec import BOLD_REGIONS_20

__all__ = ["NETWORKS", "Atlas", "make_atlas"]

# Networks in which to look for each BOLD region, best first.
_HOMES: dict[str, tuple[str, ...]] = {
    "aPFC": ("ContA", "ContB", "DefaultB"),
    "VLPFC": ("ContB", "SalVentAttnB", "DefaultB"),
    "premotor": ("DorsAttnB", "SalVentAttnA"),
    "M1": ("SomMotA",),
    "S1": ("SomMotA", "SomMotB"),
    "SPL": ("DorsAttnA", "DorsAttnB"),
    "auditory": ("SomMotB", "TempPar"),
    "HVC": ("VisCent", "DorsAttnA"),
    "V1": ("VisPeri", "VisCent"),
    "amygdala": ("MTL", "LimbicB", "LimbicA"),
}


@dataclass(frozen=True, eq=False)
class Atlas:
    """R regions.

    Attributes:
        regions: R unique names.
        network: (R,) int64 index into ``NETWORKS``.
        position_mm: (R,3) float64 made-up positions, left hemisphere at negative x.
        bold_home: for each BOLD region, the region that stands for it.
    """

    regions: tuple[str, ...]
    network: npt.NDArray[np.int64]
    position_mm: npt.NDArray[np.float64]
    bold_home: npt.NDArray[np.int64]


def make_atlas(
    n_regions: int,
    region_names: Sequence[str] | None,
    bold_regions: Sequence[str],
    rng: np.random.Generator,
) -> Atlas:
    """An atlas with the given names, or with made ones such as ``LH_VisCent_1``.

    Made names keep the proportions of ``NETWORKS`` in each hemisphere. A given name belongs to
    the network it contains; names without one are spread over the networks in blocks.

    Raises:
        DTwinInputError: repeated names, or other than R (code ``regions``).
    """
    if region_names is None:
        regions, network = _made_names(n_regions)
    else:
        regions = tuple(region_names)
        if len(regions) != n_regions or len(set(regions)) != n_regions:
            raise DTwinInputError(
                "regions",
                "these names do not name the regions",
                field="region_names",
                wanted=f"{n_regions} different names",
                got=f"{len(regions)} names, {len(set(regions))} different",
                fix="Give one name per region, or leave region_names out",
            )
        network = _guess_networks(regions)
    left = np.array([_hemisphere(name) != "R" for name in regions])
    centre = rng.uniform((15, -90, -30), (60, 60, 65), (len(NETWORKS), 3))
    position = centre[network] + rng.normal(0, 10, (n_regions, 3))
    position[:, 0] = np.where(left, -1, 1) * np.abs(position[:, 0])
    return Atlas(regions, network, position, _find_homes(regions, network, bold_regions))


def _made_names(n_regions: int) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    regions: list[str] = []
    network: list[int] = []
    for hemisphere, n in (("LH", n_regions - n_regions // 2), ("RH", n_regions // 2)):
        for index, (name, count) in enumerate(zip(NETWORKS, _shares(n), strict=True)):
            regions += [f"{hemisphere}_{name}_{k + 1}" for k in range(count)]
            network += [index] * count
    return tuple(regions), np.array(network, np.int64)


def _shares(n: int) -> list[int]:
    # Largest remainders: the counts add up to n and stay within one of the exact share.
    exact = n * np.array(list(NETWORKS.values())) / sum(NETWORKS.values())
    counts = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: n - counts.sum()]] += 1
    return [int(c) for c in counts]


def _guess_networks(regions: tuple[str, ...]) -> npt.NDArray[np.int64]:
    names = list(NETWORKS)
    network = np.full(len(regions), -1, np.int64)
    for r, known in enumerate(network_of(regions)):
        # A name that tells the group alone stands for the group's first network.
        network[r] = next((i for i, name in enumerate(names) if name.startswith(known)), -1)
    unknown = np.flatnonzero(network < 0)
    network[unknown] = np.repeat(np.arange(len(names)), _shares(len(unknown)))
    return network


def _hemisphere(region: str) -> str:
    found = re.search(r"(?:^|[_\W])([lr])(?:h|eft|ight)?(?:$|[_\W])", region, re.IGNORECASE)
    return found.group(1).upper() if found else ""


def _find_homes(
    regions: tuple[str, ...], network: npt.NDArray[np.int64], bold_regions: Sequence[str]
) -> npt.NDArray[np.int64]:
    names = list(NETWORKS)
    hemisphere = np.array([_hemisphere(region) for region in regions])
    free = np.array([region not in bold_regions for region in regions])
    homes = np.empty(len(bold_regions), np.int64)
    for b, bold_region in enumerate(bold_regions):
        if bold_region not in BOLD_REGIONS_20:
            raise DTwinInputError(
                "regions",
                "BOLD of this region cannot be simulated",
                field="bold_regions",
                wanted=f"names among {', '.join(BOLD_REGIONS_20)}",
                got=repr(bold_region),
                fix="Leave bold_regions out, or name some of these",
            )
        side, area = bold_region[0], bold_region.split("_")[1]
        if bold_region in regions:
            homes[b] = regions.index(bold_region)
            continue
        wishes = [(network == names.index(n)) & (hemisphere == side) for n in _HOMES[area]]
        wishes += [hemisphere == side, np.ones(len(regions), bool)]
        # With fewer regions than BOLD names, regions serve more than once.
        found = next((w & free for w in wishes if (w & free).any()), wishes[-1])
        homes[b] = np.flatnonzero(found)[0]
        free[homes[b]] = False
    return homes
