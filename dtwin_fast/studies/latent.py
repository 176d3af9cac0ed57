"""A person in a few latent numbers: from features to them, and from them to RNN weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..training.encoder import kernel_ridge
from .linear import unit_rows

Array = npt.NDArray[Any]

RIDGES = np.logspace(-3, 3, 13)
"""Of the encoder, in units of its kernel's mean diagonal."""


@dataclass(frozen=True, eq=False)
class Encoder:
    """Features (S,F) -> latents (S,D) = mean + (u - centre) weight', u the rows of unit length.

    So that nobody's latents are extreme because their features are large, as in a noisy scan.
    """

    centre: Array
    weight: Array
    mean: Array

    def __call__(self, x: Array) -> Array:
        """(S,F) -> (S,D)."""
        latents: Array = self.mean + (unit_rows(x) - self.centre) @ self.weight.T
        return latents


def fit_encoder(x: Array, z: Array) -> tuple[Encoder, float]:
    """The encoder of (S,F) features to (S,D) latents with the ridge of least left-out error.

    The error of a person left out follows from the hat matrix L of kernel ridge with intercept,
    as (z_i - zhat_i) / (1 - L_ii).

    Returns:
        The encoder, and its left-out mean squared error.
    """
    unit = unit_rows(x)
    centre = unit.mean(axis=0)
    centred = (unit - centre).astype(np.float32)
    kernel = (centred @ centred.T).astype(np.float64)
    values, vectors = np.linalg.eigh(kernel / (np.trace(kernel) / len(x) or 1.0))
    deviation = z - z.mean(axis=0)
    errors = []
    for ridge in RIDGES:
        hat = (vectors * (np.maximum(values, 0) / (np.maximum(values, 0) + ridge))) @ vectors.T
        leverage = 1 / len(x) + np.diag(hat)
        left_out = (deviation - hat @ deviation) / (1 - leverage)[:, None]
        errors.append(float((left_out**2).mean()))
    best = int(np.argmin(errors))
    return Encoder(centre, *kernel_ridge(centred, z, RIDGES[best])), errors[best]
