"""A score in two parts, so that people can be drawn again without predicting them again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy.typing as npt

from .observed import Observed
from .predicted import Predicted

Array = npt.NDArray[Any]
Domain = Literal["choice", "rt", "bold"]


@dataclass(frozen=True)
class Metric:
    """One row of the table.

    Attributes:
        name, domain, unit: as printed.
        higher_is_better: which way is good.
        summarise: predictions and observations of S people -> (S,m) numbers a person;
            a row with NaN is a person who cannot be scored.
        combine: (S,m) -> the score; leaves people out whose row has NaN, and is NaN when too
            few are left.
        paper: task -> the number that Takahashi et al. 2026 report, where they do.
    """

    name: str
    domain: Domain
    unit: str
    higher_is_better: bool
    summarise: Callable[[Predicted, Observed], Array]
    combine: Callable[[Array], float]
    paper: Mapping[str, float] = field(default_factory=dict)
