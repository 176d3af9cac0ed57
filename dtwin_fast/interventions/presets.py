"""Fixed edits of connectomes, in the style of clinical questions.

``site``      adds to all edges of a region, as stimulation of it might
``network``   multiplies the edges of a network, or between two
``edges``     adds to listed edges
``receptor``  scales edges by how dense a receptor is in their two regions, as a drug might
``lesion``    takes all edges of a region away

In silico, not clinical: what an edit stands for is a picture, not a measured effect.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..connectome import vectorise
from ..connectome_checks import BoolArray, FloatArray, first_few, refuse_duplicates
from ..errors import DTwinInputError
from ..readers.tables import column_index, read_text_table
from .constraints import listed_edges, network_edges, site_edges


class Edit(Protocol):
    """A change of connectomes that is known beforehand."""

    @property
    def name(self) -> str:
        """For tables; as on the command line where it comes from there."""
        ...

    def change(self, z: FloatArray, regions: Sequence[str]) -> FloatArray:
        """(S,E) float32 change of Fisher z; 0 where ``z`` (S,E) is NaN.

        Raises:
            DTwinInputError: a region or network that is not there (code ``region``), or an edit
                that changes no edge or does not fit the regions (code ``edit``).
        """
        ...


@dataclass(frozen=True)
class Site:
    """``strength``, Fisher z, added to all edges that touch ``regions``."""

    name: str
    regions: tuple[str, ...]
    strength: float

    def change(self, z: FloatArray, regions: Sequence[str]) -> FloatArray:
        """See :class:`Edit`."""
        return _on_edges(z, site_edges(regions, self.regions), self.strength, self.name)


@dataclass(frozen=True)
class Network:
    """Fisher z of the edges of ``block``, see :func:`network_edges`, times ``gain``."""

    name: str
    block: str
    gain: float

    def change(self, z: FloatArray, regions: Sequence[str]) -> FloatArray:
        """See :class:`Edit`."""
        return _on_edges(z, network_edges(regions, self.block), (self.gain - 1) * z, self.name)


@dataclass(frozen=True, eq=False)
class Edges:
    """``strength``, Fisher z, added to an (E,) mask of edges, or to those of pairs of regions."""

    name: str
    edges: BoolArray | tuple[tuple[str, str], ...]
    strength: float

    def change(self, z: FloatArray, regions: Sequence[str]) -> FloatArray:
        """See :class:`Edit`."""
        mask = self.edges
        if isinstance(mask, tuple):
            mask = listed_edges(regions, mask)
        if mask.shape != z.shape[1:]:
            raise _refused(
                "edges", "this mask does not fit the edges", f"({z.shape[1]},)", str(mask.shape)
            )
        return _on_edges(z, mask, self.strength, self.name)


@dataclass(frozen=True, eq=False)
class Receptor:
    """Fisher z times 1 + ``gain`` times the mean ``density`` of an edge's two regions.

    Attributes:
        density: region -> 0 to 1.
    """

    name: str
    density: Mapping[str, float]
    gain: float

    def change(self, z: FloatArray, regions: Sequence[str]) -> FloatArray:
        """See :class:`Edit`; a region that the map lacks is refused, for nothing is known of it."""
        if absent := [region for region in regions if region not in self.density]:
            raise _refused(
                "density",
                f"{len(absent)} of {len(regions)} regions are not in the map",
                "every region of the connectomes, with 0 where there is no receptor",
                first_few(absent),
            )
        density = np.array([self.density[region] for region in regions])
        scale = vectorise((density[:, None] + density) / 2).astype(np.float32)
        return _on_edges(z, scale > 0, self.gain * scale * z, self.name)


@dataclass(frozen=True)
class Lesion:
    """All edges that touch ``regions`` become 0."""

    name: str
    regions: tuple[str, ...]

    def change(self, z: FloatArray, regions: Sequence[str]) -> FloatArray:
        """See :class:`Edit`."""
        return _on_edges(z, site_edges(regions, self.regions), -z, self.name)


Preset = Site | Network | Edges | Receptor | Lesion


def site(region: str | Iterable[str], strength: float) -> Site:
    """Stimulate or suppress a region, or several as one.

    Args:
        region: name or names.
        strength: added Fisher z.

    Raises:
        DTwinInputError: no region, or a strength that is 0 or no number (code ``edit``).
    """
    regions = _names(region)
    strength = _number("strength", strength, nothing=0)
    return Site(f"site:{','.join(regions)}:{strength:g}", regions, strength)


def network(block: str, gain: float) -> Network:
    """Strengthen or weaken a network, such as ``DefaultA``, or ``DefaultA:ContB`` between two.

    Raises:
        DTwinInputError: a gain that is 1 or no number (code ``edit``).
    """
    gain = _number("gain", gain, nothing=1)
    return Network(f"network:{block}:{gain:g}", block, gain)


def edges(mask: BoolArray | Iterable[tuple[str, str]], strength: float) -> Edges:
    """Strengthen or weaken chosen edges.

    Args:
        mask: (E,) bool, or pairs of region names.
        strength: added Fisher z.

    Raises:
        DTwinInputError: no edge, no mask and no pairs, or a strength that is 0 or no number (code
            ``edit``).
    """
    strength = _number("strength", strength, nothing=0)
    if isinstance(mask, np.ndarray) and mask.dtype == np.bool_ and mask.ndim == 1:
        chosen: BoolArray | tuple[tuple[str, str], ...] = mask.copy()
        n_chosen = int(mask.sum())
    else:
        chosen = tuple(_pair(pair) for pair in mask)
        n_chosen = len(chosen)
    if n_chosen == 0:
        raise _nothing("edges")
    return Edges(f"edges:{n_chosen} edges:{strength:g}", chosen, strength)


def receptor(density: Mapping[str, float], gain: float) -> Receptor:
    """Scale edges by a map of a receptor, or of anything else that regions have more or less of.

    Args:
        density: region -> value of at least 0 in any unit; divided by the largest.
        gain: added share of Fisher z where both regions have the largest density.

    Raises:
        DTwinInputError: negative or missing densities, none above 0, or a gain that is 0 or no
            number (code ``edit``).
    """
    gain = _number("gain", gain, nothing=0)
    values = {region: _number("density", value) for region, value in density.items()}
    if negative := [region for region, value in values.items() if value < 0]:
        raise _refused("density", "a density is negative", "at least 0", first_few(negative))
    largest = max(values.values(), default=0)
    if largest == 0:
        raise _nothing("density")
    scaled = {region: value / largest for region, value in values.items()}
    return Receptor(f"receptor:{len(values)} regions:{gain:g}", scaled, gain)


def lesion(region: str | Iterable[str]) -> Lesion:
    """Take away a region, or several.

    Raises:
        DTwinInputError: no region (code ``edit``).
    """
    regions = _names(region)
    return Lesion(f"lesion:{','.join(regions)}", regions)


def _parse_site(text: str) -> Preset:
    region, strength = _split(text)
    return site(region.split(","), _parse_number("strength", strength))


def _parse_network(text: str) -> Preset:
    block, gain = _split(text)
    return network(block, _parse_number("gain", gain))


def _parse_edges(text: str) -> Preset:
    path, strength = _split(text)
    return edges(read_pairs(Path(path)), _parse_number("strength", strength))


def _parse_receptor(text: str) -> Preset:
    path, gain = _split(text)
    rows = _columns(Path(path), "region", "density")
    refuse_duplicates([region for region, _ in rows], path, "region")
    density = {region: _parse_number(f"{path}, {region}", value) for region, value in rows}
    return receptor(density, _parse_number("gain", gain))


def _parse_lesion(text: str) -> Preset:
    return lesion(text.split(","))


EDITS: dict[str, Callable[[str], Preset]] = {
    "site": _parse_site,
    "network": _parse_network,
    "edges": _parse_edges,
    "receptor": _parse_receptor,
    "lesion": _parse_lesion,
}
"""Name -> parser of what follows the name on the command line."""

EDIT_FORMS = (
    "site:REGION[,REGION]:STRENGTH",
    "network:BLOCK:GAIN",
    "edges:FILE:STRENGTH",
    "receptor:FILE:GAIN",
    "lesion:REGION[,REGION]",
)
"""What :func:`parse_edit` reads. BLOCK is a network, or two with a colon between them; files are
tables with the columns region_1 and region_2, or region and density."""


def parse_edit(text: str) -> Edit:
    """The edit of a text such as ``site:lAMY-rh:-0.2``; see ``EDIT_FORMS``.

    Raises:
        DTwinInputError: no such form, or an edit that changes nothing (code ``edit``); files that
            cannot be read, or lack a column (codes of :func:`read_text_table`,
            ``names_column``).
    """
    kind, _, rest = text.partition(":")
    if kind not in EDITS or not rest:
        raise _no_form(text)
    return replace(EDITS[kind](rest), name=text)


def _on_edges(z: FloatArray, mask: BoolArray, change: npt.ArrayLike, name: str) -> FloatArray:
    """(S,E) a change where the mask allows and z is known."""
    if not mask.any():
        raise _nothing(name)
    dx: FloatArray = np.where(mask & ~np.isnan(z), change, 0).astype(np.float32)
    return dx


def _names(region: str | Iterable[str]) -> tuple[str, ...]:
    names = (region,) if isinstance(region, str) else tuple(region)
    if not names or not all(names):
        raise _refused("region", "no region is named", "names of regions", repr(names))
    return names


def _pair(pair: tuple[str, str]) -> tuple[str, str]:
    is_pair = isinstance(pair, tuple | list) and len(pair) == 2
    if not is_pair or not all(isinstance(region, str) for region in pair):
        raise _refused(
            "edges", "these are no edges", "an (E,) bool mask, or pairs of names", repr(pair)[:80]
        )
    return pair[0], pair[1]


def _number(field: str, value: float, *, nothing: float | None = None) -> float:
    """A finite number other than the one that changes nothing."""
    is_real = isinstance(value, float | int | np.floating | np.integer)
    if not is_real or isinstance(value, bool) or not math.isfinite(value):
        raise _refused(field, "this is no finite number", "a number", repr(value)[:80])
    if value == nothing:
        raise _refused(field, "this changes nothing", f"another number than {nothing:g}", "")
    return float(value)


def _parse_number(field: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise _refused(field, "this is no number", "a number", repr(text[:80])) from error


def _split(text: str) -> tuple[str, str]:
    """What is before the last colon, and the number after it."""
    before, _, number = text.rpartition(":")
    if not before or not number:
        raise _no_form(text)
    return before, number


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """Edges of a table, by the names of their regions in its columns region_1 and region_2.

    Raises:
        DTwinInputError: a file that cannot be read, or lacks a column (codes of
            :func:`read_text_table`, ``names_column``).
    """
    return _columns(path, "region_1", "region_2")


def _columns(path: Path, *titles: str) -> list[tuple[str, str]]:
    """The cells of two columns."""
    columns, rows = read_text_table(path)
    fix = f"Give a table with the columns {' and '.join(titles)}"
    one, other = [column_index(path, columns, (title,), fix=fix) for title in titles]
    return [(row[one], row[other]) for row in rows]


def _no_form(text: str) -> DTwinInputError:
    return _refused("edit", "this is no edit", " | ".join(EDIT_FORMS), repr(text[:80]))


def _nothing(field: str) -> DTwinInputError:
    return _refused(field, "this changes nothing", "at least one edge that changes", "none")


def _refused(field: str, what: str, wanted: str, got: str) -> DTwinInputError:
    return DTwinInputError("edit", what, field=field, wanted=wanted, got=got, fix="Change the edit")
