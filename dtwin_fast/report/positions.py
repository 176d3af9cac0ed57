"""Where on a glass brain the BOLD regions are drawn."""

from __future__ import annotations

import numpy as np

from .reading import Float64

_LEFT_MM: dict[str, tuple[float, float, float]] = {
    "aPFC": (-32, 54, 8),
    "VLPFC": (-50, 26, 8),
    "premotor": (-28, -4, 60),
    "M1": (-38, -20, 58),
    "S1": (-52, -24, 46),
    "SPL": (-24, -62, 58),
    "auditory": (-54, -20, 8),
    "HVC": (-44, -70, -8),
    "V1": (-10, -92, 2),
    "amygdala": (-22, -4, -18),
}
"""Approximate centres in MNI space, mm, of the areas in ``spec.BOLD_REGIONS_20``, left: rounded
from where these areas are commonly reported, to draw them, not to measure anything. The paper's
own parcels are not public."""


def region_position(region: str) -> tuple[float, float, float] | None:
    """Approximate centre of ``LH_<area>`` or ``RH_<area>``, MNI mm; None for other names."""
    side, _, area = region.partition("_")
    if side not in ("LH", "RH") or area not in _LEFT_MM:
        return None
    x, y, z = _LEFT_MM[area]
    return (x if side == "LH" else -x, y, z)


def drawn_regions(regions: tuple[str, ...]) -> tuple[list[int], Float64]:
    """Indices of the regions that have a position, and the (n,3) positions in mm."""
    places = {i: place for i, name in enumerate(regions) if (place := region_position(name))}
    return list(places), np.array(list(places.values()), np.float64).reshape(-1, 3)
