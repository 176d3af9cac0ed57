"""Exact draws from the drift-diffusion model, from uniform numbers.

Inverting the distribution function, rather than stepping a random walk, makes a response a
smooth function of the parameters for given uniform numbers: with the numbers kept, a change of
parameters has its own effect and no noise (common random numbers), and there is no error of
discretisation.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

_MAX_DRIFT = 24.0
_DRIFTS = np.linspace(0, _MAX_DRIFT, 193)
_LOGITS = np.linspace(-12, 12, 481)
_TIMES = np.geomspace(2e-3, 6.0, 3000)
_TERMS = 80


def respond(
    drift: Float64, boundary: Float64, uniform_choice: Float64, uniform_time: Float64
) -> tuple[npt.NDArray[np.bool_], Float64]:
    """Whether the upper boundary is hit first, and the decision time in seconds.

    Unit noise, start half-way. P(upper) = 1 / (1 + exp(-drift * boundary)) (Bogacz et al. 2006,
    eq. A8), and from half-way the decision time does not depend on which boundary is hit. With
    time in units of boundary^2 it depends on |drift| * boundary alone; its quantiles are
    interpolated in a table of the distribution function. |drift| * boundary above 24 counts as 24.
    """
    strength = drift * boundary
    upper = uniform_choice < 1 / (1 + np.exp(-np.clip(strength, -700, 700)))
    row = np.minimum(np.abs(strength), _MAX_DRIFT) / (_DRIFTS[1] - _DRIFTS[0])
    logit = np.log(uniform_time) - np.log1p(-uniform_time)
    column = (np.clip(logit, _LOGITS[0], _LOGITS[-1]) - _LOGITS[0]) / (_LOGITS[1] - _LOGITS[0])
    i = np.minimum(row.astype(np.int64), len(_DRIFTS) - 2)
    j = np.minimum(column.astype(np.int64), len(_LOGITS) - 2)
    row, column = row - i, column - j
    table = _log_quantiles()
    log_time = (1 - row) * ((1 - column) * table[i, j] + column * table[i, j + 1]) + row * (
        (1 - column) * table[i + 1, j] + column * table[i + 1, j + 1]
    )
    return upper, boundary**2 * np.exp(log_time)


@lru_cache(maxsize=1)
def _log_quantiles() -> Float64:
    """(drifts, logits) log time at which the distribution function reaches a probability."""
    table = np.empty((len(_DRIFTS), len(_LOGITS)))
    k = np.arange(1, 2 * _TERMS, 2)
    sign = np.where(k % 4 == 1, 1.0, -1.0)
    decay = np.exp(-np.outer(k**2 * np.pi**2 / 2, _TIMES))
    for d, drift in enumerate(_DRIFTS):
        # Survival of Brownian motion with drift between 0 and 1, started at 1/2
        # (Feller 1968, XIV.6), integrated over the time of the first passage.
        term = sign * k * np.pi / ((drift**2 + k**2 * np.pi**2) / 2)
        survival = 2 * np.cosh(drift / 2) * np.exp(-(drift**2) / 2 * _TIMES) * (term @ decay)
        reached = np.maximum.accumulate(1 - survival)
        inside = (reached > 1e-9) & (reached < 1 - 1e-9)
        table[d] = np.interp(
            _LOGITS,
            np.log(reached[inside]) - np.log1p(-reached[inside]),
            np.log(_TIMES[inside]),
        )
    table.flags.writeable = False
    return table
