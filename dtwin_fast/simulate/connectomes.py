"""Simulated connectomes: a block model plus factors, a person's own part, session and noise.

In Fisher z: person = mean + sum of z x factor pattern + own part + session + error. Every stage
is a valid correlation matrix: the factors are added to the mean and clipped to positive
eigenvalues; the own part and the session mix the matrix with the correlations of a few random
samples drawn from it; the error is that of estimating it from 488 autocorrelated volumes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from .atlas import NETWORKS, Atlas

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]

STABLE_SD, FACTOR_SHARE = 0.12, 0.30
"""SD over people of an edge's stable part, and the factors' share of its variance."""
SESSION_SD = 0.08
REST_VOLUMES, REST_AR = 488, 0.80
"""Length of the TCP resting run; at this AR(1) the error of an edge has SD 0.10."""
SITE_SHIFT = 0.03
MOTION_SLOPE, MOTION_RANGE_MM = 0.15, 50.0
"""Bias of an edge per mm of mean FD between regions that touch, and how it fades."""

# A stage of SD s mixes in a share of the correlations of this many random samples,
# whose SD is 1/sqrt(samples).
_STAGE_SAMPLES = 25
_MIN_EIGENVALUE = 0.02

_FAMILY = ("Vis", "SomMot", "DorsAttn", "SalVentAttn", "Limbic", "Cont", "Default", "MTL")
_OPPOSED = (("Default", "DorsAttn", -0.45), ("Default", "SalVentAttn", -0.35))


@dataclass(frozen=True, eq=False)
class ConnectomeModel:
    """What everyone's connectome is made from.

    Attributes:
        mean_z: (R,R) mean, Fisher z with a zero diagonal.
        patterns: (factors,E) float32 change of every edge per unit of each factor, Fisher z.
        site_pattern, motion_pattern: (R,R) changes per site step and per mm of mean FD.
    """

    mean_z: Float64
    patterns: Float32
    site_pattern: Float64
    motion_pattern: Float64


def make_model(atlas: Atlas, n_factors: int, rng: np.random.Generator) -> ConnectomeModel:
    """Draw the block model, the factor patterns and the confounds' patterns."""
    n_regions = len(atlas.regions)
    loading = rng.uniform(0.74, 0.97, n_regions)
    scale = np.arange(1, n_factors + 1) ** -0.5
    scale *= STABLE_SD * np.sqrt(FACTOR_SHARE) / np.linalg.norm(scale)
    edges = np.triu_indices(n_regions, 1)
    patterns = np.empty((n_factors, len(edges[0])), np.float32)
    for k in range(n_factors):
        pattern = _block_pattern(atlas, loading, rng)[edges]
        patterns[k] = scale[k] * pattern / np.sqrt(np.mean(pattern**2))
    site = _block_pattern(atlas, loading, rng)
    distance = np.linalg.norm(atlas.position_mm[:, None] - atlas.position_mm, axis=2)
    return ConnectomeModel(
        _mean_z(atlas, loading, rng),
        patterns,
        SITE_SHIFT * site / np.sqrt(np.mean(site[edges] ** 2)),
        MOTION_SLOPE * np.exp(-distance / MOTION_RANGE_MM),
    )


def stable_correlation(
    model: ConnectomeModel, z: Float64, site_step: float, motion_mm: float, rng: np.random.Generator
) -> Float64:
    """(R,R) a person's own correlation matrix: mean, factors z, confounds and own part."""
    n_regions = len(model.mean_z)
    fisher_z = np.zeros_like(model.mean_z)
    fisher_z[np.triu_indices(n_regions, 1)] = z @ model.patterns
    fisher_z += fisher_z.T
    fisher_z += model.mean_z + site_step * model.site_pattern + motion_mm * model.motion_pattern
    return _vary(_nearest_valid(np.tanh(fisher_z)), STABLE_SD * np.sqrt(1 - FACTOR_SHARE), rng)


def scan(stable: Float64, rng: np.random.Generator) -> Float32:
    """(E,) float32 Pearson r of one resting run of a person with this stable matrix."""
    session = _vary(stable, SESSION_SD, rng)
    white = rng.standard_normal((REST_VOLUMES, len(session)))
    series = ar1_root(REST_VOLUMES, REST_AR) @ white @ np.linalg.cholesky(session).T
    series -= series.mean(axis=0)
    series /= np.linalg.norm(series, axis=0)
    r = (series.T @ series)[np.triu_indices(len(session), 1)]
    clipped: Float32 = np.clip(r, -1, 1).astype(np.float32)
    return clipped


@lru_cache(maxsize=8)
def ar1_root(n: int, phi: float) -> Float64:
    """(n,n) lower triangular L with L L' = the correlations phi^|i-j| of an AR(1) series."""
    lag = np.subtract.outer(np.arange(n), np.arange(n))
    root: Float64 = np.where(lag >= 0, np.sqrt(1 - phi**2) * phi ** np.maximum(lag, 0), 0.0)
    root[:, 0] = phi ** np.arange(n)
    root.flags.writeable = False
    return root


def _mean_z(atlas: Atlas, loading: Float64, rng: np.random.Generator) -> Float64:
    between = _networks_correlation(rng)
    r = np.outer(loading, loading) * between[np.ix_(atlas.network, atlas.network)]
    np.fill_diagonal(r, 0)
    return np.arctanh(r)


def _networks_correlation(rng: np.random.Generator) -> Float64:
    names = list(NETWORKS)
    r = rng.normal(0.12, 0.24, (len(names), len(names)))
    r = np.triu(r, 1) + np.triu(r, 1).T
    family = np.array([next((f for f in _FAMILY if n.startswith(f)), n) for n in names])
    r[(family[:, None] == family) & ~np.eye(len(names), dtype=bool)] = 0.6
    for one, other, value in _OPPOSED:
        pair = (family[:, None] == one) & (family == other)
        r[pair | pair.T] = value
    np.fill_diagonal(r, 1)
    return _nearest_valid(r)


def _block_pattern(atlas: Atlas, loading: Float64, rng: np.random.Generator) -> Float64:
    # Four networks against four: blocks whose edges move together, up and down.
    sides = []
    for _ in range(2):
        strength = np.zeros(len(NETWORKS))
        present = np.unique(atlas.network)
        chosen = rng.choice(present, min(4, len(present)), replace=False)
        strength[chosen] = rng.choice([-1.0, 1.0], len(chosen)) * rng.uniform(0.6, 1.4, len(chosen))
        sides.append(strength[atlas.network] * loading)
    return np.outer(*sides) + np.outer(*sides[::-1])


def _vary(correlation: Float64, sd: float, rng: np.random.Generator) -> Float64:
    root = np.linalg.cholesky(correlation)
    sample = root @ rng.standard_normal((len(root), _STAGE_SAMPLES))
    sample /= np.linalg.norm(sample, axis=1, keepdims=True)
    share = sd * np.sqrt(_STAGE_SAMPLES)
    varied: Float64 = (1 - share) * correlation + share * (sample @ sample.T)
    return varied


def _nearest_valid(symmetric: Float64) -> Float64:
    np.fill_diagonal(symmetric, 1)
    values, vectors = np.linalg.eigh(symmetric)
    clipped: Float64 = (vectors * np.maximum(values, _MIN_EIGENVALUE)) @ vectors.T
    sd = np.sqrt(np.diag(clipped))
    clipped /= np.outer(sd, sd)
    return clipped
