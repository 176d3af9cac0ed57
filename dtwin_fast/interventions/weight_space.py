"""The paper's intervention: everyone's generated weights moved along one direction.

Takahashi et al., BME Frontiers 2026. With W (S,P) the generated weights, each column z-scored over
people, and s (S,) the z-scored target, the direction is the first weight vector of partial least
squares, v = W's / |W's|. A person's score is z1 = W v, and W + alpha v' is what an intervention
makes of the weights.

W is never formed. Generated weights are affine in the D units h of the hypernetwork's last hidden
layer, W = (h - mean) L' / sd with the layer's weight L (P,D), so with M = L' diag(sd)^-2 L and
q = (h - mean)'s

    |W's| = sqrt(q' M q),  z1 = (h - mean) u,  u = M q / |W's|,

and W + alpha v', in the units of the weights, is what the last layer makes of
h + alpha q / |W's|. Weights that are the same for everyone say nothing and are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..connectome import Connectomes, fill_missing_vjp
from ..errors import DTwinInputError
from ..hypernetwork import Layer, mish, mish_slope
from ..metrics import pearson
from ..twin import Twin

Float64 = npt.NDArray[np.float64]

FEWEST_PEOPLE = 10
"""A direction through the weights of fewer says nothing about people."""
N_DRAWS = 100
NOISE_SHARE = 0.1
"""SD of SmoothGrad's noise as a share of the SD of a person's edges (the paper's)."""

_BLOCK_ROWS = 8192
_SAME = 1e-6
"""Weights whose spread is below this share of the largest are the same for everyone."""


@dataclass(frozen=True, eq=False)
class WeightDirection:
    """A direction through the weights of S people.

    Attributes:
        mean: (D,) of the last hidden layer over people.
        score: (D,) u: z1 = (h - mean) @ u.
        shift: (D,) what one unit of z1 adds to the last hidden layer.
        sd: of z1 over people; the unit of doses.
    """

    mean: Float64
    score: Float64
    shift: Float64
    sd: float

    def scores(self, hidden: npt.NDArray[Any]) -> Float64:
        """(S,) z1 of hidden units (S,D)."""
        z1: Float64 = (hidden - self.mean) @ self.score
        return z1


@dataclass(frozen=True, eq=False)
class WeightSpace:
    """Generated weights of S people, z-scored over them, by their inner products alone.

    Attributes:
        hidden: (S,D) float64 last hidden layer, centred.
        mean: (D,) what was taken off.
        metric: (D,D) M.
    """

    hidden: Float64
    mean: Float64
    metric: Float64

    @classmethod
    def of(cls, last: Layer, hidden: npt.NDArray[Any]) -> WeightSpace:
        """From the hypernetwork's last layer and its input (S,D).

        Raises:
            DTwinInputError: fewer than ``FEWEST_PEOPLE``, or people whose weights are all the
                same (code ``too_few``).
        """
        if len(hidden) < FEWEST_PEOPLE:
            raise _too_few(f"{len(hidden)} people")
        if not np.ptp(hidden, axis=0).any():
            raise _too_few("the same weights for everyone")
        h = hidden.astype(np.float64)
        mean = h.mean(axis=0)
        h = h - mean
        values, vectors = np.linalg.eigh(h.T @ h / len(h))
        root = vectors * np.sqrt(np.maximum(values, 0))
        blocks = range(0, len(last.weight), _BLOCK_ROWS)
        parts = [last.weight[start : start + _BLOCK_ROWS].astype(np.float64) for start in blocks]
        sd = np.concatenate([np.linalg.norm(part @ root, axis=1) for part in parts])
        if not sd.max(initial=0) > 0:
            raise _too_few("the same weights for everyone")
        differs = sd > _SAME * sd.max()
        inverse = np.divide(1, sd, out=np.zeros_like(sd), where=differs)
        metric = np.zeros((h.shape[1], h.shape[1]))
        for start, part in zip(blocks, parts, strict=True):
            scaled = part * inverse[start : start + len(part), None]
            metric += scaled.T @ scaled
        return cls(h, mean, metric)

    def direction(self, s: Float64) -> WeightDirection:
        """Of a target (S,).

        Raises:
            DTwinInputError: a target that is the same for everyone (code ``too_few``).
        """
        pull = self.hidden.T @ standardised(s)
        norm = np.sqrt(pull @ self.metric @ pull)
        if not norm > 0:
            raise _too_few("a target that no weight goes with")
        score = self.metric @ pull / norm
        return WeightDirection(
            self.mean, score, pull / norm, float((self.hidden @ score).std(ddof=1))
        )

    @property
    def kernel(self) -> Float64:
        """(S,S) inner products of people's z-scored weights, K."""
        kernel: Float64 = self.hidden @ self.metric @ self.hidden.T
        return kernel

    def participation_ratio(self) -> float:
        """tr(K)^2 / tr(K^2): how many directions of about equal size people's weights fill."""
        kernel = self.kernel
        return float(np.trace(kernel) ** 2 / np.sum(kernel * kernel))

    def null_r(self) -> float:
        """sqrt(PR / S): about what the score correlates with a target of noise, in sample."""
        return float(np.sqrt(self.participation_ratio() / len(self.hidden)))

    def permutation_p(self, s: Float64, n: int, rng: np.random.Generator) -> float:
        """p of the in-sample correlation of z1 with s, over ``n`` shuffles of s."""
        shuffled = np.stack(
            [standardised(s), *(rng.permutation(standardised(s)) for _ in range(n))]
        )
        scores = shuffled @ self.kernel
        scores -= scores.mean(axis=1, keepdims=True)
        r = np.sum(scores * shuffled, axis=1) / (
            np.linalg.norm(scores, axis=1) * np.linalg.norm(shuffled, axis=1)
        )
        return float((1 + np.sum(r[1:] >= r[0] * (1 - 1e-9))) / (1 + n))


def cross_validated_r(
    last: Layer, hidden: npt.NDArray[Any], s: Float64, rng: np.random.Generator, n_folds: int = 10
) -> float:
    """r of s with scores of people whom neither the direction nor the z-scores have seen.

    Scores of a fold are divided by their training people's SD, the unit in which folds agree.
    NaN with fewer than ``FEWEST_PEOPLE`` in a training fold.
    """
    order = rng.permutation(len(s))
    scores = np.empty(len(s))
    for test in np.array_split(order, min(n_folds, len(s))):
        train = np.setdiff1d(order, test)
        if len(train) < FEWEST_PEOPLE:
            return float("nan")
        direction = WeightSpace.of(last, hidden[train]).direction(s[train])
        scores[test] = direction.scores(hidden[test].astype(np.float64)) / direction.sd
    return pearson(scores, s)


def smooth_gradients(
    twin: Twin,
    connectomes: Connectomes,
    direction: WeightDirection,
    rng: np.random.Generator,
    n_draws: int = N_DRAWS,
) -> npt.NDArray[np.float32]:
    """SmoothGrad of z1 (Smilkov et al. 2017): its gradient by edges, mean over noisy connectomes.

    The noise is white, its SD ``NOISE_SHARE`` of the SD of a person's edges. It reaches the
    first layer's sums alone, where it is Gaussian with the covariance of the layer's weights:
    it is drawn there, and the gradient goes back to the edges once, after the mean.

    Args:
        twin: the model.
        connectomes: S people as :meth:`Twin.prepare` returned them, in Fisher z; the regions
            that they lack are imputed.
        direction: through the weights.
        rng: of the noise.
        n_draws: for each person.

    Returns:
        (S,E) float32 per unit of Fisher z; 0 on missing edges.
    """
    first, *others = [
        (layer.weight.astype(np.float64), layer.bias.astype(np.float64))
        for layer in twin.layers[:-1]
    ]
    x = twin.hyper_input(connectomes, "impute")
    per_z = twin.layers[0].weight / (twin.edge_sd if twin.spec.standardize else 1)
    covariance = (per_z @ per_z.T).astype(np.float64)
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0))
    sigma = NOISE_SHARE * np.nanstd(connectomes.edges, axis=1, dtype=np.float64)
    clean = (x @ twin.layers[0].weight.T).astype(np.float64) + first[1]
    mean = np.empty_like(clean)
    for i, (sums, spread) in enumerate(zip(clean, sigma, strict=True)):
        u = sums + spread * rng.standard_normal((n_draws, len(root))) @ root.T
        slopes = [mish_slope(u)]
        for weight, bias in others:
            u = mish(u) @ weight.T + bias
            slopes.append(mish_slope(u))
        d = direction.score * slopes[-1]
        for (weight, _), slope in zip(reversed(others), reversed(slopes[:-1]), strict=True):
            d = (d @ weight) * slope
        mean[i] = d.mean(axis=0)
    gradients = mean.astype(np.float32) @ per_z
    return fill_missing_vjp(connectomes.edges, "impute", gradients)


def standardised(values: Float64) -> Float64:
    """(S,) with mean 0 and SD 1; zeros where all are the same."""
    late: Float64 = values - values.mean()
    spread = late.std()
    if not spread > 1e-9 * np.abs(values).max(initial=0):
        return np.zeros_like(late)
    late /= spread
    return late


def _too_few(got: str) -> DTwinInputError:
    return DTwinInputError(
        "too_few",
        "there is no direction through the weights of these people",
        field="fc",
        wanted=f"at least {FEWEST_PEOPLE} people who differ",
        got=got,
        fix="Give more people, or intervene on connectomes only: method='connectome'",
    )
