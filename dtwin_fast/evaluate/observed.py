"""What people did in one run of a task, and the training group's means, as metrics need them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Observed:
    """S people in one run of N trials, V volumes, K contrasts.

    Attributes:
        choice: (S,N) int8, codes as in ``TaskData.choice``.
        rt_s: (S,N) float32 seconds, NaN without a press.
        correct: (S,N) int64 action channel of the correct response.
        condition: (S,N) names of conditions.
        contrasts: (S,K,R) float32 effects of the task's contrasts from BOLD at TR; NaN where
            not measured; None without BOLD.
        bold: (S,V,R) float32 demeaned over the measured volumes, NaN elsewhere; or None.
        reference: what the training people are like, the zero of several scores:
            ``error_rate`` condition -> share of trials without a correct press,
            ``no_response`` condition -> share, ``contrasts_mean`` (K,R), ``bold_mean`` (V,R)
            group-mean time course.
    """

    choice: npt.NDArray[np.int8]
    rt_s: npt.NDArray[np.float32]
    correct: npt.NDArray[np.int64]
    condition: npt.NDArray[np.str_]
    contrasts: npt.NDArray[np.float32] | None = None
    bold: npt.NDArray[np.float32] | None = None
    reference: dict[str, Any] = field(default_factory=dict)
