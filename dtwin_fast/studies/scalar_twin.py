"""A twin with one number to say: features -> a latent number -> RNN weights -> the last step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..dispatch import rollout
from ..hypernetwork import Layer, generate_weights
from ..spec import TwinSpec
from ..weights import RNNWeights, join_flat, spec_weight_shapes, split_flat
from .latent import Encoder, fit_encoder

Array = npt.NDArray[Any]
View = Callable[[Array], Array]

N_STEPS = 8
SPEC = TwinSpec(
    "scalar", 2, hyper_hidden=(1,), n_hidden=16, bold_regions=(), n_inputs=1, n_actions=1
)
"""The number is the one output; the sizes of the hypernetwork are not used."""


@dataclass(frozen=True, eq=False)
class ScalarTwin:
    """A fitted twin.

    Attributes:
        view: features (S,F) as they are given -> as they are used.
        encoder: to the latent number, the person's target in SDs from the mean.
        decoder: (S,1) latents -> (S,P) weights; a single layer, as the latent is one number.
    """

    view: View
    encoder: Encoder
    decoder: Layer

    def predict(self, x: Array) -> Array:
        """(S,F) -> (S,1,1)."""
        z = self.encoder(self.view(x)).astype(np.float32)
        weights = RNNWeights.from_flat(generate_weights((self.decoder,), z), SPEC)
        outputs = rollout(weights, _SHOWN, time_projection=np.eye(N_STEPS)[-1:]).outputs
        predicted: Array = outputs[:, :, 0].astype(np.float64)
        return predicted


def scalar_twin(
    x: Array, codes: Array, targets: Array, *, seed: int, views: Sequence[View] = (np.asarray,)
) -> ScalarTwin:
    """Fit one condition and output; the view and ridge have the least error when left out."""
    y = np.asarray(targets, np.float64).reshape(len(x), 1)
    mean, sd = y.mean(), y.std() or 1.0
    fitted = [(view, *fit_encoder(view(x), (y - mean) / sd)) for view in views]
    view, encoder, _ = min(fitted, key=lambda found: found[2])
    return ScalarTwin(view, encoder, _decoder(mean, sd, np.random.default_rng([seed, 0x5CA])))


_SHOWN = np.ones((1, N_STEPS, 1), np.float32)


def _decoder(mean: float, sd: float, rng: np.random.Generator) -> Layer:
    """A random RNN for everybody, whose readout moves by one SD of the target per latent."""
    shapes = spec_weight_shapes(SPEC)
    parts = {
        name: rng.standard_normal(shape) / np.sqrt(shape[-1]) for name, shape in shapes.items()
    }
    parts |= {"w_out": np.zeros(shapes["w_out"]), "b_out": np.array([mean])}
    base = join_flat(parts).astype(np.float32)
    rolled = rollout(RNNWeights.from_flat(base[None], SPEC), _SHOWN, return_states=True)
    assert rolled.states is not None
    state = rolled.states[0, 0, -1]
    rows = np.zeros((1, len(base)), np.float32)
    split_flat(rows, SPEC)["w_out"][:] = sd * state / (state @ state)
    return Layer(rows.T, base)
