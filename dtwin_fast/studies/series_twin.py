"""A twin of BOLD: fast units, haemodynamic chains, and a readout of the chains of one's own.

The RNN is that of ``dtwin_fast.training.units`` and the same for everybody. What a person has of
their own is how the regions read the chains: the group's readout, changed along the few mixtures
of chains that the group's response is made of. That change is latent numbers; people of the
training run have theirs, others get them from their features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..dispatch import rollout
from ..spec import TwinSpec
from ..training.haemodynamics import whitening
from ..training.units import fast_start, n_fast, whole
from ..weights import RNNWeights
from .latent import Encoder, fit_encoder

Array = npt.NDArray[Any]

UNITS_PER_INPUT = 8
"""A chain of five and three fast units."""
N_COMPONENTS = 4
"""Mixtures of chains in which people differ: with the group's, few hold nearly all."""
RIDGES = np.logspace(-3, 4, 15)
"""Of a readout, in squared SDs of the mean predictor per volume."""
N_FOLDS = 5


@dataclass(frozen=True, eq=False)
class SeriesTwin:
    """A fitted twin of R regions, the outputs after the first, which is not used.

    Attributes:
        base: weights of the group's RNN by name, (1 + R) outputs.
        rows: (D,R,H) what each latent number adds to the readout.
        own: latent numbers (D,) of the people of the training run.
        encoder: features to latent numbers, for others.
        steps_per_volume: steps of the RNN per volume.
    """

    base: Mapping[str, Array]
    rows: Array
    own: Mapping[str, Array]
    encoder: Encoder
    steps_per_volume: int

    def weights(self, people: Array, x: Array) -> RNNWeights:
        """Names (S,) and features (S,F) -> the RNN of each person."""
        from_x = self.encoder(x)
        z = np.stack([self.own.get(p, of_x) for p, of_x in zip(people, from_x, strict=True)])
        parts = {name: np.repeat(part[None], len(z), axis=0) for name, part in self.base.items()}
        parts["w_out"][:, 1:] += np.tensordot(z, self.rows, axes=1)
        return RNNWeights("rnn", **parts)

    def predict(self, people: Array, x: Array, inputs: Array) -> Array:
        """Names (S,), features (S,F), inputs (S,T,I) -> BOLD (S,V,R)."""
        n_steps = inputs.shape[1]
        at_volumes = np.eye(n_steps, dtype=np.float32)[:: self.steps_per_volume]
        rolled = rollout(self.weights(people, x), _with_flag(inputs), time_projection=at_volumes)
        predicted: Array = rolled.outputs[:, 0, :, 1:].astype(np.float64)
        return predicted


def series_twin(
    people: Array,
    x: Array,
    inputs: Array,
    targets: Array,
    drifts: Array,
    *,
    dt_s: float,
    tr_s: float,
    seed: int,
) -> SeriesTwin:
    """Fit in closed form; ridges are chosen by stretches of the run that are left out.

    Args:
        people: (S,) names.
        x: (S,F) features.
        inputs: (S,T,I) at ``dt_s``.
        targets: (S,V,R) at ``tr_s``.
        drifts: (V,C) what is taken out of every series and predictor first.
        dt_s, tr_s: seconds.
        seed: of the fast units.
    """
    spec = TwinSpec(
        "series",
        2,
        hyper_hidden=(1,),
        n_hidden=UNITS_PER_INPUT * inputs.shape[2],
        bold_regions=tuple(map(str, range(targets.shape[2]))),
        n_inputs=inputs.shape[2] + 1,
        n_actions=1,
        dt_s=dt_s,
        tr_s=tr_s,
    )
    every = round(tr_s / dt_s)
    base = _shared_rnn(spec, inputs, seed)
    residual = np.eye(len(drifts)) - drifts @ np.linalg.pinv(drifts)
    slow = residual @ _states(base, inputs)[:, ::every, n_fast(spec) :].astype(np.float64)
    series = residual @ targets.astype(np.float64)

    whiten = whitening(slow.reshape(-1, slow.shape[2]))
    readout = whiten @ _group_readout(slow @ whiten, series)
    # Chains -> components of the group's response, each of the size it has in that response.
    left, size, _ = np.linalg.svd(np.linalg.pinv(whiten) @ readout, full_matrices=False)
    components = (whiten @ left * size)[:, :N_COMPONENTS]
    changes = _own_changes(slow @ components, series - slow @ readout)

    z, kept, rows = np.linalg.svd(changes.reshape(len(changes), -1), full_matrices=False)
    z = z * kept
    encoder, _ = fit_encoder(x, z)
    regions = rows.reshape(len(rows), *changes.shape[1:]).transpose(0, 2, 1)
    personal = np.zeros((len(rows), targets.shape[2], spec.n_hidden), np.float32)
    personal[:, :, n_fast(spec) :] = regions @ components.T
    base["w_out"][1:, n_fast(spec) :] = readout.T
    return SeriesTwin(base, personal, dict(zip(people, z, strict=True)), encoder, every)


def _shared_rnn(spec: TwinSpec, inputs: Array, seed: int) -> dict[str, Array]:
    """Random fast units, and one chain for every input, which takes what tells it best."""
    fast_spec = replace(spec, n_hidden=n_fast(spec), bold_regions=())
    start = fast_start(fast_spec, np.random.default_rng([seed, 0x5E1]))
    states = _states(start, inputs).reshape(-1, n_fast(spec)).astype(np.float64)
    states = states - states.mean(axis=0)
    shown = inputs.reshape(len(states), -1).astype(np.float64)
    mixtures = np.linalg.lstsq(states, shown - shown.mean(axis=0), rcond=1e-3)[0]
    sd = (states @ mixtures).std(axis=0)
    return whole(spec, start, (mixtures / np.where(sd > 0, sd, 1.0)).T)


def _states(base: Mapping[str, Array], inputs: Array) -> Array:
    """(S,T,H) states of one RNN over everybody's inputs (S,T,I)."""
    one = RNNWeights("rnn", **{name: part[None] for name, part in base.items()})
    states = rollout(one, _with_flag(inputs)[:, 0], return_states=True).states
    assert states is not None
    return np.asarray(states[0])


def _with_flag(inputs: Array) -> Array:
    """(S,1,T,I+1): the last input of the fast units is a flag that never changes."""
    return np.pad(inputs, ((0, 0), (0, 0), (0, 1)), constant_values=1)[:, None].astype(np.float32)


def _group_readout(predictors: Array, series: Array) -> Array:
    """(directions,R) ridge over everybody's volumes, tried on stretches of the run left out.

    Not on people left out: all saw much the same, so what is by chance at a time of the run
    would hold in others too.
    """
    stretches = np.array_split(np.arange(predictors.shape[1]), N_FOLDS)
    moments = [_moments(predictors[:, part], series[:, part]) for part in stretches]
    xx, xy = (np.stack([m[i].sum(axis=0) for m in moments]) for i in range(2))
    errors = np.zeros(len(RIDGES))
    for k in range(N_FOLDS):
        found = _solve(xx.sum(axis=0) - xx[k], xy.sum(axis=0) - xy[k])
        errors += [_error(b, xx[k], xy[k]) for b in found]
    readout: Array = _solve(xx.sum(axis=0), xy.sum(axis=0))[int(errors.argmin())]
    return readout


def _own_changes(predictors: Array, left: Array) -> Array:
    """(S,components,R) each person's ridge on what the group leaves, tried on the other half."""
    middle = predictors.shape[1] // 2
    halves = [_moments(predictors[:, p], left[:, p]) for p in (slice(middle), slice(middle, None))]
    errors = np.zeros(len(RIDGES))
    for (xx, xy), (xx_other, xy_other) in (halves, halves[::-1]):
        for i in range(len(xx)):
            # A half has half the volumes, so a ridge weighs as much there as in the whole.
            found = _solve(2 * xx[i], 2 * xy[i])
            errors += [_error(b, xx_other[i], xy_other[i]) for b in found]
    best = int(errors.argmin())
    xx, xy = _moments(predictors, left)
    return np.stack([_solve(*pair)[best] for pair in zip(xx, xy, strict=True)])


def _moments(predictors: Array, series: Array) -> tuple[Array, Array]:
    """Per person: predictors' products with themselves and with the series."""
    turned = predictors.transpose(0, 2, 1)
    return turned @ predictors, turned @ series


def _solve(xx: Array, xy: Array) -> list[Array]:
    """Slopes for every ridge."""
    unit = np.trace(xx) / len(xx) or 1.0
    return [np.linalg.solve(xx + ridge * unit * np.eye(len(xx)), xy) for ridge in RIDGES]


def _error(slope: Array, xx: Array, xy: Array) -> float:
    """Squared error, less what does not depend on the slope."""
    return float(np.sum(slope * (xx @ slope)) - 2 * np.sum(slope * xy))
