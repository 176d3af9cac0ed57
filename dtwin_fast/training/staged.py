"""The staged recipe: first what everyone shares, then what makes a person, then the connectome.

1. ``group``: one RNN for all, from the presses of everybody added up. The sum of the people's
   log-likelihoods under shared weights needs only how many pressed what at each step, so a step
   sees the whole cohort for the cost of one person. Where BOLD will be read, its states are also
   asked for the conditions, as the regressors of a GLM are: presses alone hardly need them.
2. ``people``: each person has a few latent numbers, which a small network turns into changes of
   the weights; numbers and network are fitted to the presses together.
3. Haemodynamic chains, their BOLD readout, and what the latent numbers change in it, by
   regression (``haemodynamics``).
4. The first layer, from connectomes to latent numbers, by kernel regression (``encoder``).

Nothing here costs more with more edges but the last stage, one product of the cohort's edges.
The result is the hypernetwork of the paper, layer by layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..cohort import Cohort
from ..hypernetwork import Layer
from ..spec import TwinSpec
from ..torch import rollout
from ..weights import count_weights, join_flat, split_flat
from . import haemodynamics
from .config import StagedConfig
from .descent import Descent, Group, Losses, draw_batch
from .device import seeded
from .encoder import kernel_ridge
from .losses import hazard_loss, press_log_prob
from .mish import linears, mish_layers
from .persons import first_latents
from .segments import NOT_AT_RISK, Segments
from .units import fast_start, n_chains, n_fast, places, whole

_DRAWS = 5
"""Draws of ``Segments.vary`` that BOLD's regressions must hold in."""


class Decoder(nn.Module):
    """Latent numbers (S,D) -> Mish layers -> weights: base + rows (h(z) - h(0))."""

    def __init__(
        self, n_latents: int, widths: Sequence[int], base: npt.NDArray[np.float32]
    ) -> None:
        super().__init__()
        sizes = pairwise((n_latents, *widths))
        self.layers = nn.ModuleList(nn.Linear(n_in, n_out) for n_in, n_out in sizes)
        self.base = nn.Parameter(torch.from_numpy(base.copy()))
        self.rows = nn.Parameter(torch.zeros(len(base), widths[-1]))

    def linears(self) -> list[nn.Linear]:
        """The layers, first to last."""
        return linears(self.layers)

    def hidden(self, z: Tensor) -> Tensor:
        """(S,D) latents -> (S,widths[-1]) last hidden layer."""
        return mish_layers(self.linears(), z)

    def features(self, z: Tensor) -> Tensor:
        """(S,D) latents -> (S,widths[-1]) last hidden layer, less what it is at z = 0."""
        return self.hidden(z) - self.hidden(torch.zeros_like(z[:1]))

    def forward(self, z: Tensor) -> Tensor:
        """(S,D) latents -> (S,P) flat weights."""
        return self.base + self.features(z) @ self.rows.T

    def groups(
        self, z: Tensor, learning_rate: float, latent_learning_rate: float, weight_decay: float
    ) -> list[Group]:
        """What is learnt of people: their latents (S,D) and all of this.

        What everyone shares is nearly found when people are learnt, and moves more slowly; only
        what latents change in it decays.
        """
        layers = {name: p for name, p in self.named_parameters() if name.startswith("layers")}
        return [
            Group({"z": z}, latent_learning_rate),
            Group(layers, learning_rate),
            Group({"rows": self.rows}, learning_rate, weight_decay),
            Group({"base": self.base}, 0.3 * learning_rate),
        ]


@dataclass
class _Training:
    """What the stages share."""

    spec: TwinSpec
    config: StagedConfig
    segments: Segments
    device: torch.device
    descent: Descent

    @property
    def fast_spec(self) -> TwinSpec:
        """The fast units as a network of their own."""
        return replace(self.spec, n_hidden=n_fast(self.spec), bold_regions=())

    def put(self, array: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def draw(
        self, rng: np.random.Generator, chosen: npt.NDArray[np.int64] | slice = slice(None)
    ) -> tuple[Tensor, Tensor]:
        """Varied inputs (M,T,I), and the outputs (M,T,A) that stand for the actions."""
        inputs, actions = self.segments.vary(rng, self.spec.dt_s)
        return self.put(inputs[chosen]), self.put(actions[chosen])


def stages(config: StagedConfig, segments: Segments, spec: TwinSpec) -> dict[str, int]:
    """Steps of each stage that descends; without presses people differ in BOLD's readout alone."""
    found = {}
    has_presses = bool((segments.press != NOT_AT_RISK).any())
    if has_presses or _tells_conditions(config, segments, spec):
        found["group"] = config.group_steps
    if has_presses:
        found["people"] = config.n_steps
    return found


def _reads_bold(segments: Segments, spec: TwinSpec) -> bool:
    # Fewer than eight units have no chain, and say of BOLD that it is at its mean.
    return segments.bold is not None and n_chains(spec) > 0


def _tells_conditions(config: StagedConfig, segments: Segments, spec: TwinSpec) -> bool:
    return _reads_bold(segments, spec) and config.condition_weight > 0


def train_staged(
    cohort: Cohort,
    segments: Segments,
    x: npt.NDArray[np.float32],
    spec: TwinSpec,
    config: StagedConfig,
    device: torch.device,
    descent: Descent,
) -> tuple[Layer, ...]:
    """The layers of the hypernetwork, trained.

    Args:
        cohort: S people.
        segments: the same people's data, cut.
        x: (S,F) features of the people with mean 0, the input of the first layer.
        spec: sizes; the cell must be ``rnn`` and the head ``hazard``.
        config: settings of the stages.
        device: where gradients are taken.
        descent: counts the steps and keeps the checkpoints.
    """
    training = _Training(spec, config, segments, device, descent)
    start = fast_start(spec, np.random.default_rng(config.seed))
    base = join_flat(start)
    descends = stages(config, segments, spec)
    if "group" in descends:
        base = _group(training, base)
    z = torch.nn.Parameter(
        training.put(first_latents(cohort, segments, config.n_latents).astype(np.float32))
    )
    with seeded(config.seed, device):
        decoder = Decoder(z.shape[1], spec.hyper_hidden, base).to(device)
        if "people" in descends:
            _start_rows(training, decoder, z.shape[1])
    if "people" in descends:
        _people(training, decoder, z)
    with torch.no_grad():
        base = decoder.base.cpu().numpy()
    fast = split_flat(base[None], training.fast_spec)
    flat = whole(spec, {name: part[0] for name, part in fast.items()}, _mixtures(training, base))
    reads_bold = _reads_bold(segments, spec)
    bold_rows = _read_bold(training, decoder, z, flat) if reads_bold else None
    return _layers(training, decoder, flat, bold_rows, x, z.detach().cpu().numpy())


def _group(training: _Training, base: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    segments, config, spec = training.segments, training.config, training.fast_spec
    n_codes = 1 + 2 * spec.n_actions
    codes = np.stack([(segments.press == code).sum(axis=0) for code in range(n_codes)], axis=-1)
    after = slice(segments.n_warm_up, None)
    n_at_risk = max(codes[:, after].sum(), 1)
    count = training.put((codes / n_at_risk).astype(np.float32))[:, after]
    flat = torch.nn.Parameter(training.put(base)[None])
    learnt: dict[str, Tensor] = {"flat": flat}
    shown = _conditions(training)
    if shown is not None:
        shown = shown[:, after]
        learnt["tell"] = torch.nn.Parameter(flat.new_zeros(shown.shape[-1], spec.n_hidden))
        learnt["tell_bias"] = torch.nn.Parameter(flat.new_zeros(shown.shape[-1]))

    def loss(rng: np.random.Generator) -> Losses:
        inputs, actions = training.draw(rng)
        weights = split_flat(flat, spec)
        rolled = rollout(spec.cell, weights, inputs, return_states=shown is not None)
        log_prob = press_log_prob(rolled.outputs[0].gather(-1, actions)[:, after])
        # A wrong button of a task with two is impossible, and nobody pressed it: 0 x -inf.
        action = -torch.where(count > 0, count * log_prob, 0.0).sum()
        total = action
        if shown is not None:
            assert rolled.states is not None
            told = rolled.states[0, :, after] @ learnt["tell"].T + learnt["tell_bias"]
            total = action + config.condition_weight * ((told - shown) ** 2).mean()
        return Losses(total, action, torch.zeros_like(action))

    rate = config.group_learning_rate * min(1.0, (32 / spec.n_hidden) ** 0.5)
    training.descent.run("group", [Group(learnt, rate)], loss, config.group_steps, max_norm=0.5)
    trained: npt.NDArray[np.float32] = flat.detach().cpu().numpy()[0]
    return trained


def _conditions(training: _Training) -> Tensor | None:
    """(M,T,C) conditions with mean 0 and variance 1, or None where nothing asks for them."""
    if not _tells_conditions(training.config, training.segments, training.spec):
        return None
    shown = haemodynamics.conditions(training.spec, training.segments)
    sd = shown.std(axis=(0, 1))
    standard = (shown - shown.mean(axis=(0, 1))) / np.where(sd > 0, sd, 1.0)
    return training.put(standard.astype(np.float32))


@torch.no_grad()
def _start_rows(training: _Training, decoder: Decoder, n_latents: int) -> None:
    """Rows that give every matrix ``personal_share`` of the variance that its fan-in asks for.

    After Chang, Flokas and Lipson 2020 (Principled weight initialization for hypernetworks).
    """
    z = torch.randn(256, n_latents, device=training.device)
    spread = float(decoder.features(z).var(dim=0).mean()) * decoder.rows.shape[1]
    for part in split_flat(decoder.rows.T, training.fast_spec).values():
        if part.dim() == 3:
            fan_in = part.shape[2]
            part.normal_(0, (training.config.personal_share / fan_in / spread) ** 0.5)


def _people(training: _Training, decoder: Decoder, z: Tensor) -> None:
    segments, config, spec = training.segments, training.config, training.fast_spec
    press = training.put(segments.press)
    after = slice(segments.n_warm_up, None)
    wanted = (config.batch_subjects, config.batch_segments)

    def loss(rng: np.random.Generator) -> Losses:
        people, chosen = draw_batch(rng, wanted, press.shape[:2])
        inputs, actions = training.draw(rng, chosen)
        drawn = z[training.put(people)]
        outputs = rollout(spec.cell, split_flat(decoder(drawn), spec), inputs).outputs
        outputs = outputs.gather(-1, actions.expand(len(people), -1, -1, -1))
        presses = press[training.put(people)][:, training.put(chosen)]
        action = hazard_loss(outputs[:, :, after], presses[:, :, after])
        prior = config.prior * (drawn**2).mean()
        return Losses(action + prior, action, torch.zeros_like(action))

    groups = decoder.groups(
        z, config.learning_rate, config.latent_learning_rate, config.weight_decay
    )
    training.descent.run("people", groups, loss, config.n_steps)


@torch.no_grad()
def _states(
    training: _Training, spec: TwinSpec, flat: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """(D,M,T,H) states of the RNN with these weights over the draws."""
    weights = split_flat(training.put(flat)[None], spec)
    states = []
    for draw in range(_DRAWS):
        inputs, _ = training.draw(np.random.default_rng([training.config.seed, draw]))
        rolled = rollout(spec.cell, weights, inputs, return_states=True)
        assert rolled.states is not None
        states.append(rolled.states[0].cpu().numpy())
    return np.stack(states)


def _mixtures(training: _Training, base: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    if training.segments.bold is None:
        return np.empty((0, n_fast(training.spec)))
    states = _states(training, training.fast_spec, base)
    return haemodynamics.mixtures(training.spec, training.segments, states)


@torch.no_grad()
def _read_bold(
    training: _Training, decoder: Decoder, z: Tensor, parts: dict[str, npt.NDArray[np.float32]]
) -> npt.NDArray[np.float32]:
    """Put the group's readout of BOLD into ``parts``.

    Returns:
        (BOLD weights, last hidden) what the hidden layer changes in it.
    """
    spec, segments = training.spec, training.segments
    n_actions, n_units = spec.n_actions, n_fast(spec)
    flat = join_flat(parts)
    slow = _states(training, spec, flat)[..., n_units:]
    weight, bias = haemodynamics.readout(spec, segments, slow)
    parts["w_out"][n_actions:, n_units:] = weight
    parts["b_out"][n_actions:] = bias
    hidden = decoder.features(z)
    left, size, right = torch.linalg.svd(hidden.double(), full_matrices=False)
    n_traits = min(z.shape[1], int((size > 1e-3 * size[0]).sum()))
    scale = len(z) ** 0.5
    traits = (left[:, :n_traits] * scale).cpu().numpy()
    changes = haemodynamics.personal_readout(
        segments, _slow_states(training, decoder, hidden, flat), traits, weight, bias
    )
    per_trait = np.concatenate([change.reshape(n_traits, -1) for change in changes], axis=1)
    loads = (right[:n_traits] * (scale / size[:n_traits, None])).cpu().numpy()
    rows: npt.NDArray[np.float32] = (per_trait.T @ loads).astype(np.float32)
    return rows


@torch.no_grad()
def _slow_states(
    training: _Training, decoder: Decoder, hidden: Tensor, flat: npt.NDArray[np.float32]
) -> Iterator[npt.NDArray[np.float32]]:
    """Each person's (M,volumes,chain units) at the scored volumes."""
    spec, segments = training.spec, training.segments
    shared, inputs = training.put(flat), training.put(segments.inputs)
    volumes, at_fast = training.put(segments.scored_volume_steps), training.put(places(spec)[0])
    for some in hidden.split(training.config.batch_subjects):
        weights = shared.repeat(len(some), 1)
        weights[:, at_fast] = decoder.base + some @ decoder.rows.T
        rolled = rollout(spec.cell, split_flat(weights, spec), inputs, return_states=True)
        assert rolled.states is not None
        yield from rolled.states[:, :, volumes, n_fast(spec) :].cpu().numpy()


@torch.no_grad()
def _layers(
    training: _Training,
    decoder: Decoder,
    parts: dict[str, npt.NDArray[np.float32]],
    bold_rows: npt.NDArray[np.float32] | None,
    x: npt.NDArray[np.float32],
    z: npt.NDArray[np.float32],
) -> tuple[Layer, ...]:
    spec = training.spec
    encode, mean = kernel_ridge(x, z.astype(np.float64), training.config.ridge)
    first, *others = (
        (layer.weight.cpu().numpy(), layer.bias.cpu().numpy()) for layer in decoder.linears()
    )
    weight, bias = first
    layers = [Layer(weight @ encode, (bias + weight @ mean).astype(np.float32))]
    layers += [Layer(w.copy(), b.copy()) for w, b in others]
    rows = np.zeros((count_weights(spec), decoder.rows.shape[1]), np.float32)
    fast_places, bold_places = places(spec)
    rows[fast_places] = decoder.rows.cpu().numpy()
    if bold_rows is not None:
        rows[bold_places] = bold_rows
    flat = join_flat(parts)
    # The decoder's features are 0 at z = 0; the hypernetwork's hidden layer is not.
    at_zero = decoder.hidden(torch.zeros(1, z.shape[1], device=training.device))[0]
    last_bias = flat - rows @ at_zero.cpu().numpy()
    return (*layers, Layer(rows, last_bias.astype(np.float32)))
