"""The people of the table: R regions of the twin ``tiny``, four people, the second one bad."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

R = 16
E = R * (R - 1) // 2
N = 4
BAD = 1
"""Position of the bad person in arrays of people; the others are good."""
NAMES = tuple(f"region_{i:02d}" for i in range(R))

Array = npt.NDArray[Any]


def matrices(n: int = N, n_regions: int = R) -> Array:
    """(n, R, R) float64 correlations."""
    series = np.random.default_rng(1).normal(size=(n, n_regions, 60))
    return np.stack([np.corrcoef(one) for one in series])


def edges(n: int = N, n_regions: int = R) -> Array:
    """(n, E) the same without the diagonal."""
    return matrices(n, n_regions)[:, *np.triu_indices(n_regions, 1)]


def fisher_z() -> Array:
    """(N, R, R) Fisher z, with the infinite diagonal of arctanh(1)."""
    made = matrices()
    made[:, range(R), range(R)] = 0
    made = np.arctanh(made)
    made[:, range(R), range(R)] = np.inf
    return made


def bad(change: Callable[[Array], Any], of: Callable[[], Array] = matrices) -> Array:
    """People of whom ``change`` has made one bad: it edits the array, or returns another one."""
    people = of()
    other = change(people[BAD])
    if other is not None:
        people[BAD] = other
    return people


def set_to(value: float, *at: Any, both: bool = True) -> Callable[[Array], None]:
    """A change of one value, of matrices in both triangles unless told."""

    def change(person: Array) -> None:
        person[at] = value
        if both and len(at) == 2:
            person[at[1], at[0]] = value

    return change


def diagonal(value: float) -> Callable[[Array], None]:
    """A change of the whole diagonal."""
    return set_to(value, range(R), range(R))
