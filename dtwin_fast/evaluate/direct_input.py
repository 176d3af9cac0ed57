"""The direct-input RNN: one RNN for everybody, to which a connectome is one more input.

The additive alternative to a hypernetwork (Takahashi et al. 2026). It starts from the RNN that
the recipe trains for people of whom nothing is known, and learns with all its weights what to
make of the connectome's first principal components, which it is given at every step.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from ..cohort import Cohort
from ..dispatch import RolloutResult, rollout
from ..hypernetwork import generate_weights
from ..spec import TwinSpec
from ..torch import rollout as differentiable_rollout
from ..training.descent import Descent, Group, Losses, draw_batch
from ..training.losses import HEAD_LOSSES, bold_loss
from ..training.recipes import Config, count_steps, train_layers
from ..training.segments import Segments
from ..weights import RNNWeights, split_flat
from .baselines.features import Reader, principal_components
from .twin_predictor import TwinPredictor

Float32 = npt.NDArray[np.float32]

N_COMPONENTS = 16
LEARNING_RATE = 1e-3
BATCH_PEOPLE, BATCH_SEGMENTS = 8, 8
N_STEPS = 900
"""Where the recipe counts none."""


def components(train: Cohort) -> Reader:
    """(S,16) scores on the first principal components of the edges, in SD of the first."""
    read = principal_components(train)
    return lambda people: read(people)[:, :N_COMPONENTS]


class DirectInput(TwinPredictor):
    """A twin whose features are inputs of one RNN; they take as many steps as the RNN did."""

    def _train(self, train: Cohort, segments: Segments, config: Config) -> None:
        spec, x = self._spec, self._read(train)
        nothing = np.zeros((len(x), 1), np.float32)
        n_steps = count_steps(config, segments, spec) or N_STEPS
        descent = Descent(2 * n_steps, config.seed)
        layers = train_layers(train, segments, nothing, spec, config, self._device, descent)
        shared = RNNWeights.from_flat(generate_weights(layers, nothing[:1]), spec)
        unused = np.zeros((1, shared.w_ih.shape[1], x.shape[1]), np.float32)
        start = replace(shared, w_ih=np.concatenate([shared.w_ih, unused], axis=2))
        self._wide = replace(spec, n_inputs=spec.n_inputs + x.shape[1])
        flat = torch.nn.Parameter(torch.from_numpy(start.to_flat()).to(self._device))
        _descend(descent, flat, x, segments, self._wide, n_steps)
        self._flat = flat.detach().cpu().numpy()

    def _roll(self, x: Float32, run: Float32) -> RolloutResult:
        weights = RNNWeights.from_flat(self._flat, self._wide)
        inputs = np.stack([_beside(run[None], person)[0] for person in x])
        rolled = rollout(weights, inputs)  # people are the sequences of one RNN
        outputs = np.moveaxis(rolled.outputs, 0, 1)
        diverged = np.asarray(~np.isfinite(outputs).all(axis=(1, 2, 3)))
        return replace(rolled, outputs=outputs, diverged=diverged)


def _descend(
    descent: Descent,
    flat: torch.nn.Parameter,
    x: Float32,
    segments: Segments,
    spec: TwinSpec,
    n_steps: int,
) -> None:
    """Follow the sum of the losses of presses and BOLD, weighed 1 to 1, in place."""
    after, volumes = slice(segments.n_warm_up, None), segments.scored_volume_steps

    def put(array: npt.NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(flat.device)

    def loss(rng: np.random.Generator) -> Losses:
        people, chosen = draw_batch(rng, (BATCH_PEOPLE, BATCH_SEGMENTS), segments.press.shape[:2])
        stimuli, actions = segments.vary(rng, spec.dt_s)
        inputs = np.concatenate([_beside(stimuli[chosen], x[person]) for person in people])
        rolled = differentiable_rollout(spec.cell, split_flat(flat, spec), put(inputs))
        outputs = rolled.outputs[0].unflatten(0, (len(people), len(chosen)))
        pressed = outputs.gather(-1, put(actions[chosen]).expand(len(people), -1, -1, -1))
        pick = np.ix_(people, chosen)
        presses = put(segments.press[pick])
        action = HEAD_LOSSES[spec.head](pressed[:, :, after], presses[:, :, after])
        error = torch.zeros_like(action)
        if segments.bold is not None:
            predicted = outputs[:, :, put(volumes), spec.n_actions :]
            error = bold_loss(predicted, put(segments.bold[pick][:, :, -len(volumes) :]))
        return Losses(action + error, action, error)

    group = Group({"flat": flat}, LEARNING_RATE)
    descent.run("direct", [group], loss, n_steps, max_norm=0.5)


def _beside(runs: Float32, person: Float32) -> Float32:
    """(B,T,I) inputs and (k,) of a person, at every step: (B,T,I+k)."""
    constant = np.broadcast_to(person, (*runs.shape[:2], len(person)))
    return np.concatenate([runs, constant], axis=2)
