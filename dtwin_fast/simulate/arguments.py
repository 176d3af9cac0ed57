"""Arguments of the simulations as plain values."""

from __future__ import annotations

import operator
from typing import SupportsIndex


def whole_number(value: object, least: int, most: int) -> int | None:
    """An integer of any integer type (numpy's too) as an int; None for anything else.

    A bool is not taken for a number.
    """
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        return None
    try:
        number = operator.index(value)
    except TypeError:  # an array of several numbers
        return None
    return number if least <= number <= most else None


def names(value: object) -> tuple[str, ...] | None:
    """A sequence of text (an array of text too) as a tuple; None for anything else."""
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        return None
    entries = tuple(value)
    return tuple(map(str, entries)) if all(isinstance(e, str) for e in entries) else None
