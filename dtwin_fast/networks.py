"""Functional networks of brain regions, as the regions' names tell them."""

from __future__ import annotations

from collections.abc import Sequence

NETWORKS: dict[str, int] = {
    "VisCent": 25,
    "VisPeri": 19,
    "SomMotA": 37,
    "SomMotB": 35,
    "DorsAttnA": 21,
    "DorsAttnB": 27,
    "SalVentAttnA": 36,
    "SalVentAttnB": 21,
    "LimbicA": 12,
    "LimbicB": 15,
    "ContA": 29,
    "ContB": 24,
    "ContC": 12,
    "DefaultA": 32,
    "DefaultB": 32,
    "DefaultC": 9,
    "TempPar": 14,
    "MTL": 8,
    "Striatum": 16,
    "Thalamus": 8,
    "Cerebellum": 2,
}
"""Regions per network of the 434-region atlas of the Transdiagnostic Connectome Project."""

GROUPS = ("Vis", "SomMot", "DorsAttn", "SalVentAttn", "Limbic", "Cont", "Default")
"""Networks that ``NETWORKS`` divides, as atlases of 7 networks name them."""

OTHER = "other"
"""The network of a region whose name tells none."""

# Spellings in region names, in the order in which they are looked for.
_SPELLINGS = (
    *((name.lower(), name) for name in NETWORKS),
    ("medial_temporal", "MTL"),
    ("amy", "MTL"),
    ("hip", "MTL"),
    ("put", "Striatum"),
    ("cau", "Striatum"),
    ("nac", "Striatum"),
    ("gp", "Striatum"),
    ("tha", "Thalamus"),
    ("cereb", "Cerebellum"),
    *((group.lower(), group) for group in GROUPS),
)


def network_of(regions: Sequence[str]) -> tuple[str, ...]:
    """The network of each region: a key of ``NETWORKS``, or one of ``GROUPS`` where the name
    tells no more than that, or ``OTHER``.
    """
    return tuple(
        next((name for text, name in _SPELLINGS if text in region.lower()), OTHER)
        for region in regions
    )


def belongs(network: str, name: str) -> bool:
    """Whether a network is the one of that name, or belongs to the group of that name."""
    return network == name or (name in GROUPS and network.startswith(name))
