"""A run's BOLD from a file of region series: averaged, cut to the schedule, gaps as NaN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DTwinInputError
from ..readers.timeseries import CONSTANT

Averages = dict[str, tuple[int, ...]]
"""Name of a BOLD region -> columns of the series of which it is the mean."""


def averages(wanted: Mapping[str, Sequence[str]] | None, regions: Sequence[str] | None) -> Averages:
    """Where the regions to be averaged are; None wants every region under its own name.

    Raises:
        DTwinInputError: no names of regions (``regions_unnamed``), nothing to be averaged, or a
            region that is not there (``regions_missing``).
    """
    if regions is None:
        raise DTwinInputError(
            "regions_unnamed",
            "BOLD is taken by names of regions, and there are none",
            field="bold_regions",
            fix="Give regions= (--regions) with the names of the rows",
        )
    place = {name: column for column, name in enumerate(regions)}
    if wanted is None:
        return {name: (column,) for name, column in place.items()}
    for name, parts in (wanted or {"": ()}).items():
        absent = [part for part in parts if part not in place]
        if absent or not parts or isinstance(parts, str):
            raise DTwinInputError(
                "regions_missing",
                "a BOLD region is no mean of regions of the series",
                field=f"bold_regions[{name!r}]",
                wanted="names of rows",
                got=", ".join(absent)[:200] or "none",
                fix="Use the names in regions=",
            )
    return {name: tuple(place[part] for part in parts) for name, parts in wanted.items()}


def run_bold(
    series: npt.NDArray[np.float64], n_volumes: int, of: Averages
) -> tuple[npt.NDArray[np.float32], tuple[str, ...]]:
    """(V,regions) float32 of one run, and flags ``what:...``.

    A run broken off gets NaN volumes (``short_run:T/V``), a longer one is cut
    (``long_run:T/V``); a constant column, or one with values that are no numbers, is left out
    of the means (``dead_regions:N``), and a mean of none is NaN.

    Args:
        series: (T,R), T at least 1.
        n_volumes: V of the schedule.
    """
    n_measured = len(series)
    series = series[:n_volumes]
    columns = sorted({column for parts in of.values() for column in parts})
    is_dead = ~has_signal(series)
    bold = np.full((n_volumes, len(of)), np.nan, np.float32)
    for index, parts in enumerate(of.values()):
        alive = [column for column in parts if not is_dead[column]]
        if alive:
            bold[: len(series), index] = series[:, alive].mean(axis=1)
    flags = []
    if n_measured != n_volumes:
        word = "short_run" if n_measured < n_volumes else "long_run"
        flags.append(f"{word}:{n_measured}/{n_volumes}")
    if n_dead := int(is_dead[columns].sum()):
        flags.append(f"dead_regions:{n_dead}")
    return bold, tuple(flags)


def has_signal(series: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """(R,) bool whether a column of (T,R) varies and all its values are numbers of float32."""
    level = np.abs(series).max(axis=0)
    is_sound: npt.NDArray[np.bool_] = level < np.finfo(np.float32).max
    is_sound[is_sound] = np.ptp(series[:, is_sound], axis=0) > CONSTANT * level[is_sound]
    return is_sound
