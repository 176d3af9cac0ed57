"""Edges as matrices whose regions stand by network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .reading import Float64

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Arrangement:
    """The order in which regions are drawn.

    Attributes:
        order: (R,) regions by network, networks as they first appear.
        spans: network, and the places from and to (exclusive) that it takes.
    """

    order: Int64
    spans: list[tuple[str, int, int]]


def arrange(networks: Sequence[str]) -> Arrangement:
    """Regions by network; within one as before."""
    names = list(dict.fromkeys(networks))
    index = np.array([names.index(name) for name in networks], np.int64)
    order = np.argsort(index, kind="stable")
    bounds = np.concatenate([[0], np.cumsum(np.bincount(index, minlength=len(names)))]).tolist()
    return Arrangement(order, list(zip(names, bounds[:-1], bounds[1:], strict=True)))


def as_matrix(edges: npt.NDArray[np.floating], ends: Int64, order: Int64) -> Float64:
    """(R,R) symmetric matrix of (E,) edges with the (2,E) ``ends``; NaN on the diagonal."""
    matrix = np.full((len(order), len(order)), np.nan)
    matrix[ends[0], ends[1]] = edges
    matrix[ends[1], ends[0]] = edges
    return matrix[np.ix_(order, order)]


def strongest(values: npt.NDArray[np.floating], n: int) -> Int64:
    """Indices of the n values that are farthest from 0, the farthest first; 0 and NaN never."""
    size = np.nan_to_num(np.abs(values))
    first = np.argsort(-size, kind="stable")[:n]
    chosen: Int64 = first[size[first] > 0]
    return chosen
