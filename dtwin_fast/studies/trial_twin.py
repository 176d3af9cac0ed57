"""A twin of choices and reaction times to a set of stimuli, trained as in ``training.staged``.

First one RNN for everybody, then latent numbers of each person and a small network that turns
them into changes of the weights, by the likelihood of discrete-time competing risks; then an
encoder from features to the latent numbers, for people without trials.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .. import readouts
from ..dispatch import rollout
from ..spec import TwinSpec
from ..torch import rollout as rollout_tensors
from ..training.descent import Descent, Group, Losses, draw_batch
from ..training.device import seeded
from ..training.losses import press_log_prob
from ..training.staged import Decoder
from ..training.units import fast_start
from ..weights import RNNWeights, join_flat, split_flat
from .latent import Encoder, fit_encoder

Array = npt.NDArray[Any]
Vary = Callable[[np.random.Generator], tuple[Array, Array]]

N_HIDDEN, WIDTHS, N_LATENTS = 32, (16, 16), 2
GROUP_STEPS, PEOPLE_STEPS = 1500, 250
GROUP_RATE, PEOPLE_RATE, LATENT_RATE = 5e-3, 1e-3, 0.02
WEIGHT_DECAY = 30.0
"""A person's trials are few: settings that told best of one half of a run from the other."""
BATCH_PEOPLE, BATCH_STIMULI = 12, 16


@dataclass(frozen=True, eq=False)
class TrialTwin:
    """A fitted twin.

    Attributes:
        spec: sizes of the RNN.
        inputs: (M,T,I) sequences of the stimuli.
        decoder: latent numbers to weights.
        own: latent numbers (D,) of the people whose trials trained it.
        encoder: features to latent numbers, for others.
    """

    spec: TwinSpec
    inputs: Array
    decoder: Decoder
    own: Mapping[str, Array]
    encoder: Encoder

    def predict(self, people: Array, x: Array) -> tuple[Array, Array]:
        """Names (S,), features (S,F) -> P(action) (S,M,A), mean reaction time (S,M) in seconds."""
        from_x = self.encoder(x)
        z = np.stack([self.own.get(p, of_x) for p, of_x in zip(people, from_x, strict=True)])
        with torch.no_grad():
            flat = self.decoder(torch.from_numpy(z.astype(np.float32))).numpy()
        outputs = rollout(RNNWeights.from_flat(flat, self.spec), self.inputs).outputs
        n_subjects, n_stimuli, n_steps, n_actions = outputs.shape
        responses = readouts.hazard(
            outputs.reshape(-1, n_steps, n_actions),
            np.array([[0, n_steps]]),
            np.zeros(1),
            self.spec.dt_s,
        )
        shape = (n_subjects, n_stimuli)
        return responses.choice_prob.reshape(*shape, n_actions), responses.rt_s.reshape(shape)


def trial_twin(
    people: Array, x: Array, inputs: Array, counts: Array, vary: Vary, *, dt_s: float, seed: int
) -> TrialTwin:
    """Train on presses.

    Args:
        people: (S,) names.
        x: (S,F) features.
        inputs: (M,T,I) float32 sequences of the stimuli; the last input is a flag.
        counts: (S,M,T,1 + 2A) how often each code of ``Segments.press`` was there at a step,
            over the person's trials with the stimulus.
        vary: draws sequences that ask the same of other stimuli, and the (A,) outputs that then
            stand for the actions, so that what is learnt holds of stimuli never shown.
        dt_s: seconds per step.
        seed: of first weights and batches.
    """
    spec = TwinSpec(
        "trials",
        2,
        hyper_hidden=WIDTHS,
        n_hidden=N_HIDDEN,
        bold_regions=(),
        n_inputs=inputs.shape[2],
        n_actions=counts.shape[3] // 2,
        dt_s=dt_s,
        tr_s=dt_s,
    )
    descent = Descent(GROUP_STEPS + PEOPLE_STEPS, seed)
    presses = torch.from_numpy(counts.astype(np.float32))
    start = fast_start(spec, np.random.default_rng([seed, 0x57]))
    flat = torch.nn.Parameter(torch.from_numpy(join_flat(start))[None])

    def group_loss(rng: np.random.Generator) -> Losses:
        return _losses(_nll(spec, flat, vary(rng), presses.sum(dim=0)[None]))

    descent.run("group", [Group({"flat": flat}, GROUP_RATE)], group_loss, GROUP_STEPS, max_norm=0.5)

    z = torch.nn.Parameter(torch.from_numpy(_first_latents(counts).astype(np.float32)))
    with seeded(seed, flat.device):
        decoder = Decoder(z.shape[1], WIDTHS, flat.detach().numpy()[0])
    steps_of_one = float(counts.sum()) / len(counts)

    def people_loss(rng: np.random.Generator) -> Losses:
        who, what = draw_batch(rng, (BATCH_PEOPLE, BATCH_STIMULI), (len(z), len(inputs)))
        shown, order = vary(rng)
        drawn = z[who]
        loss = _nll(spec, decoder(drawn), (shown[what], order), presses[who][:, what])
        # Latent numbers are standard normal before the trials.
        prior = 0.5 * (drawn**2).sum(dim=1).mean() / steps_of_one
        return _losses(loss, prior)

    groups = decoder.groups(z, PEOPLE_RATE, LATENT_RATE, WEIGHT_DECAY)
    descent.run("people", groups, people_loss, PEOPLE_STEPS)
    latents = z.detach().numpy().astype(np.float64)
    encoder, _ = fit_encoder(x, latents)
    return TrialTwin(spec, inputs, decoder, dict(zip(people, latents, strict=True)), encoder)


def _nll(
    spec: TwinSpec, flat: torch.Tensor, shown: tuple[Array, Array], counts: torch.Tensor
) -> torch.Tensor:
    """Mean negative log-likelihood per step at risk, of counts (S,M,T,1 + 2A)."""
    inputs, order = shown
    outputs = rollout_tensors(spec.cell, split_flat(flat, spec), torch.from_numpy(inputs)).outputs
    log_prob = press_log_prob(outputs[..., torch.from_numpy(order)])
    return -(counts * log_prob).sum() / counts.sum().clamp(min=1)


def _losses(loss: torch.Tensor, prior: torch.Tensor | float = 0.0) -> Losses:
    return Losses(loss + prior, loss, torch.zeros_like(loss))


def _first_latents(counts: Array) -> Array:
    """(S,D) principal components, of unit variance, of mean log steps to a press by stimulus."""
    pressed = counts[..., 1:].sum(axis=3)
    n_presses = pressed.sum(axis=2)
    total = pressed @ np.log(np.arange(counts.shape[2]) + 0.5)
    mean = np.divide(total, n_presses, out=np.full(total.shape, np.nan), where=n_presses > 0)
    of_stimulus = np.divide(np.nansum(mean, axis=0), np.isfinite(mean).sum(axis=0).clip(min=1))
    left = np.linalg.svd(np.nan_to_num(mean - of_stimulus), full_matrices=False)[0]
    latents: Array = np.sqrt(len(left)) * left[:, :N_LATENTS]
    return latents
