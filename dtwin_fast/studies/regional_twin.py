"""A twin of a battery: a hypernetwork shared by all parcels writes the readout of an RNN.

With a handful of people there are too few examples to learn weights for every pair of an edge
and a parcel. Every parcel of every person, however, is an example of one rule: what a parcel does
comes from its connections times what they bring (activity flow, Cole et al. 2016). So the
hypernetwork gives parcel r of person i the readout W0_r + (C_i,r - mean of C_r) A, with C_i,r the
parcel's row of connections (R,) and A (R,H) the same for all parcels and people. The RNN itself is
shared; it holds a condition's code for a few steps and is read at the last.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..dispatch import rollout
from ..weights import RNNWeights
from .battery import shuffled_folds, splits
from .reading import as_matrices
from .scores import row_r

Array = npt.NDArray[Any]

N_HIDDEN, N_STEPS = 64, 8
FC_PENALTIES = (0.3, 1.0, 3.0)
"""Of the regressions of each parcel's resting series on all others', on top of unit variances."""
PENALTIES = np.logspace(-1, 3, 9)
"""Of A, in units of the mean eigenvalue of the connections' covariance."""
N_INNER_FOLDS = 5


@dataclass(frozen=True, eq=False)
class RegionalTwin:
    """A fitted twin of R parcels.

    Attributes:
        shared: w_ih (H,C), w_hh (H,H), b_ih and b_hh (H,) of everybody's RNN.
        inputs: (M,T,C) sequences of the conditions.
        w_out: (R,H) the group's readout W0.
        centre: (R,R) mean connections of the training people.
        sources: (R,H) A.
        fc_penalty: of the connections.
    """

    shared: tuple[Array, ...]
    inputs: Array
    w_out: Array
    centre: Array
    sources: Array
    fc_penalty: float

    def weights(self, x: Array) -> RNNWeights:
        """(S,E) Fisher z -> the RNN of each person."""
        w_out = self.w_out + (connections(x, self.fc_penalty) - self.centre) @ self.sources
        shared = [np.broadcast_to(part, (len(x), *part.shape)) for part in self.shared]
        b_out = np.zeros(w_out.shape[:2])
        return RNNWeights("rnn", *(np.asarray(p, np.float32) for p in (*shared, w_out, b_out)))

    def predict(self, x: Array) -> Array:
        """(S,E) Fisher z -> (S,M,R) activations."""
        outputs = rollout(self.weights(x), self.inputs, time_projection=_last_step()).outputs
        predicted: Array = outputs[:, :, 0].astype(np.float64)
        return predicted


def regional_twin(x: Array, codes: Array, targets: Array, *, seed: int) -> RegionalTwin:
    """Fit in closed form: W0 gives the group's mean, A the deviations from it.

    The states of the conditions at the last step are linearly independent, so A stands for any
    map B (R,M) from connections to deviations. B is a multiple of the group's activations plus
    what ridge regression over parcels and people finds in the rest. The penalties of connections
    and of B are those with the best correlation of deviations over training people left out.
    """
    shared, inputs = _shared_rnn(codes, np.random.default_rng([seed, 0xBA7]))
    targets = np.asarray(targets, np.float64)
    folds = shuffled_folds(len(x), min(N_INNER_FOLDS, len(x)), 1, seed)[0]
    candidates = {penalty: connections(x, penalty) for penalty in FC_PENALTIES}
    scores = np.stack([_left_out_r(c, targets, folds) for c in candidates.values()])
    which, penalty = np.unravel_index(scores.argmax(), scores.shape)
    fc_penalty = FC_PENALTIES[which]
    every = _Regression(candidates[fc_penalty], targets)
    states = _states(shared, inputs)
    to_weights = np.linalg.pinv(states).T
    return RegionalTwin(
        shared,
        inputs,
        every.mean.T @ to_weights,
        every.centre,
        every.sources(PENALTIES[penalty]) @ to_weights,
        fc_penalty,
    )


def connections(x: Array, penalty: float) -> Array:
    """(S,E) Fisher z -> (S,R,R) float64 weights of every parcel on all others, diagonal 0.

    Those of the ridge regression of a parcel's standardised series on the others', from the
    inverse P of (FC + penalty I) as -P_rs / P_rr.
    """
    fc = as_matrices(np.tanh(np.asarray(x, np.float64)), diagonal=1 + penalty)
    precision = np.linalg.inv(fc)
    weights: Array = -precision / np.diagonal(precision, axis1=1, axis2=2)[:, :, None]
    parcel = np.arange(weights.shape[1])
    weights[:, parcel, parcel] = 0
    return weights


class _Regression:
    """Deviations (S,R,M) on deviations of connections (S,R,R), for all penalties at once."""

    def __init__(self, connected: Array, targets: Array) -> None:
        self.mean = targets.mean(axis=0)
        self.centre = connected.mean(axis=0)
        deviation = (targets - self.mean).transpose(0, 2, 1)
        changed = connected - self.centre
        flow = changed @ self.mean.T
        self.gain = float((flow * deviation).sum() / ((flow**2).sum() or 1.0))
        rows = changed.reshape(-1, changed.shape[2])
        left = (deviation - self.gain * flow).reshape(len(rows), -1)
        values, self.vectors = np.linalg.eigh(rows.T @ rows)
        self.values = np.maximum(values, 0)
        self.product = self.vectors.T @ (rows.T @ left)

    def sources(self, penalty: float) -> Array:
        """(R,M) B."""
        found: Array = self.gain * self.mean.T + self.vectors @ self._rest(penalty)
        return found

    def predictions(self, connected: Array) -> Iterator[Array]:
        """(S,M,R) deviations of people, penalty by penalty."""
        changed = connected - self.centre
        flow, turned = self.gain * (changed @ self.mean.T), changed @ self.vectors
        for penalty in PENALTIES:
            yield (flow + turned @ self._rest(penalty)).transpose(0, 2, 1)

    def _rest(self, penalty: float) -> Array:
        shrunk: Array = self.product / (
            self.values[:, None] + penalty * (self.values.mean() or 1.0)
        )
        return shrunk


def _left_out_r(connected: Array, targets: Array, folds: Array) -> Array:
    """(penalties,) mean correlation of predicted and true deviations of people left out."""
    total = np.zeros(len(PENALTIES))
    for train, test in splits(folds):
        fitted = _Regression(connected[train], targets[train])
        observed = targets[test] - fitted.mean
        total += [row_r(p, observed).sum() for p in fitted.predictions(connected[test])]
    return total / len(folds)


def _shared_rnn(codes: Array, rng: np.random.Generator) -> tuple[tuple[Array, ...], Array]:
    """Random weights that keep the states of different codes apart, and (M,T,C) sequences."""
    n_codes = codes.shape[1]
    w_ih = rng.standard_normal((N_HIDDEN, n_codes))
    w_hh = 0.5 * np.linalg.qr(rng.standard_normal((N_HIDDEN, N_HIDDEN)))[0]
    b_ih = 0.5 * rng.standard_normal(N_HIDDEN)
    inputs = np.repeat(codes[:, None], N_STEPS, axis=1).astype(np.float32)
    return (w_ih, w_hh, b_ih, np.zeros(N_HIDDEN)), inputs


def _last_step() -> Array:
    return np.eye(N_STEPS)[-1:]


def _states(shared: tuple[Array, ...], inputs: Array) -> Array:
    """(M,H) float64 states at the last step."""
    parts = [np.asarray(part, np.float32)[None] for part in shared]
    readout = [np.eye(N_HIDDEN, dtype=np.float32)[None], np.zeros((1, N_HIDDEN), np.float32)]
    weights = RNNWeights("rnn", *parts, *readout)
    outputs = rollout(weights, inputs, time_projection=_last_step()).outputs
    states: Array = outputs[0, :, 0].astype(np.float64)
    return states
