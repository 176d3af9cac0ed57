"""Traits of simulated people and the drift-diffusion parameters that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

HERITABILITY: dict[str, float] = {
    "speed": 0.60,
    "interference": 0.15,
    "amygdala": 0.15,
    "null": 0.0,
}
"""Share of each trait's variance that the connectome's factors hold, unless told otherwise.

speed: higher is faster, in both tasks; it makes up about half of the variance of a person's mean
reaction time, of which the connectome therefore holds about 0.3 (with age, where simulated).
interference: higher is a larger Stroop conflict. amygdala: higher is a larger response to
faces > shapes. null: no part in anything.
"""
TRAITS = tuple(HERITABILITY)
AGE_FACTOR = 0
"""The factor that is age where confounds are simulated; no trait loads on it."""

# Effects of age and motion on the general speed factor: they give r(age, RT) about .3 and
# r(motion, RT) about .1.
_AGE_ON_SPEED, _MOTION_ON_SPEED = -0.52, -0.15

_GENERAL, _OWN, _TASK = 0.55, 0.45, 0.60


@dataclass(frozen=True)
class _Parameter:
    mean: float
    sd: float
    speed_sign: float
    run: float


# Fitted with a random walk of 2 ms steps and a mean boundary of 1.48. Such a walk overshoots each
# boundary by 0.5826 sqrt(step) (Siegmund 1985); the exact model needs that in its boundary.
_PARAMETERS = {
    "drift": _Parameter(2.75, 0.50, 1.0, 0.15),
    "boundary": _Parameter(1.532, 0.28, -1.0, 0.25),
    "nondecision_s": _Parameter(0.505, 0.10, -1.0, 0.55),
}
_MIN_BOUNDARY, _MIN_NONDECISION_S = 0.5, 0.2
_STROOP_NONDECISION_SCALE = 1.25
_DISENGAGED = 0.03
_MAX_NO_RESPONSE = 0.5

N_PERSON_DRAWS = 15
"""Standard normal numbers drawn for a person besides the traits."""
N_RUN_DRAWS = 4
"""Standard normal numbers drawn for a person in one run of one task."""


def unit_loadings(n: int, n_factors: int, rng: np.random.Generator) -> Float64:
    """(n,factors) random unit vectors over the factors; nothing loads on the age factor."""
    loadings: Float64 = rng.standard_normal((n, n_factors))
    loadings[:, AGE_FACTOR] = 0
    loadings /= np.linalg.norm(loadings, axis=1, keepdims=True)
    return loadings


def general_speed(speed: Float64, age_z: Float64, motion_z: Float64) -> Float64:
    """(S,) unit-variance speed of responding: the trait (S,) with age and motion mixed in."""
    rest = np.sqrt(1 - _AGE_ON_SPEED**2 - _MOTION_ON_SPEED**2)
    general: Float64 = rest * speed + _AGE_ON_SPEED * age_z + _MOTION_ON_SPEED * motion_z
    return general


@dataclass(frozen=True, eq=False)
class Responders:
    """Drift-diffusion parameters of S people in one run of one task; arrays are (S,).

    ``drift``, ``boundary`` and ``nondecision_s`` map condition names to the values there.
    """

    drift: Mapping[str, Float64]
    boundary: Mapping[str, Float64]
    nondecision_s: Mapping[str, Float64]
    slope_s: Float64
    lapse: Float64
    no_response: Float64
    disengaged: npt.NDArray[np.bool_]


def responders(
    task: str,
    general: Float64,
    interference: Float64,
    person: Float64,
    engagement: Float64,
    run: Float64,
) -> Responders:
    """Parameters from a person's general speed, interference trait and own draws.

    Args:
        task: faces or stroop.
        general, interference: (S,) in SD units.
        person: (S, :data:`N_PERSON_DRAWS`) standard normal, the same in all runs.
        engagement: (S,) uniform in [0, 1); the lowest 3 % respond at random.
        run: (S, 4) standard normal, of this run of this task.
    """
    stroop = task == "stroop"
    own, tasks, rest = np.split(person, [3, 9], axis=1)
    base: dict[str, Float64] = {}
    for j, (name, p) in enumerate(_PARAMETERS.items()):
        share = np.array([_GENERAL, _OWN, _TASK, p.run])
        mix = (
            _GENERAL * p.speed_sign * general
            + _OWN * own[:, j]
            + _TASK * tasks[:, 2 * j + stroop]
            + p.run * run[:, j]
        ) / np.linalg.norm(share)
        sd = p.sd * (_STROOP_NONDECISION_SCALE if stroop and name == "nondecision_s" else 1.0)
        base[name] = p.mean + sd * mix
    v, a, t0 = base["drift"], base["boundary"], base["nondecision_s"]
    face, incongruent, faces_slope, stroop_slope, lapse, no_response = rest.T
    if stroop:
        conflict = np.exp(np.log(0.62) + 0.45 * interference)
        drift = {"con": v + 0.30, "inc": v + 0.30 - conflict - 0.05}
        boundary = {"con": a, "inc": a}
        t0 = t0 + 0.035
        nondecision = {
            "con": t0,
            "inc": t0 + 0.125 + 0.045 * (incongruent + run[:, 3]) / np.sqrt(2),
        }
        slope = -0.03 + 0.12 * stroop_slope
    else:
        drift = {"face": v, "shape": v + 0.18}
        boundary = {"face": a + 0.08, "shape": a - 0.08}
        nondecision = {"face": t0 + 0.045 + 0.075 * face, "shape": t0}
        slope = -0.07 + 0.085 * faces_slope
    return Responders(
        drift,
        {c: np.maximum(x, _MIN_BOUNDARY) for c, x in boundary.items()},
        {c: np.maximum(x, _MIN_NONDECISION_S) for c, x in nondecision.items()},
        slope,
        np.minimum(np.exp(np.log(0.012) + 1.2 * lapse), 1.0),
        np.minimum(np.exp(np.log(0.008) + 1.6 * no_response), _MAX_NO_RESPONSE),
        engagement < _DISENGAGED,
    )
