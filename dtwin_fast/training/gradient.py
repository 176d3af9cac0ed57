"""Gradient descent through all layers at once, for any cell and head."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..hypernetwork import Layer
from ..spec import TwinSpec
from ..torch import rollout
from .config import TrainConfig
from .descent import Descent, Group, Losses, draw_batch
from .device import seeded
from .losses import HEAD_LOSSES, bold_loss
from .network import HyperNetwork
from .segments import Segments


def train_gradient(
    segments: Segments,
    x: npt.NDArray[np.float32],
    spec: TwinSpec,
    config: TrainConfig,
    device: torch.device,
    descent: Descent,
) -> tuple[Layer, ...]:
    """The layers of the hypernetwork, trained; arguments as of ``staged.train_staged``."""
    with seeded(config.seed, device):
        network = HyperNetwork(spec, config.init, n_features=x.shape[1]).to(device)
    features = torch.from_numpy(x).to(device)
    inputs = _beside(features, segments.inputs)
    press = _beside(features, segments.press)
    bold = None if segments.bold is None else _beside(features, segments.bold)
    volumes = _beside(features, segments.scored_volume_steps)
    scored = slice(-len(volumes), None)
    steps = slice(segments.n_warm_up, None)
    wanted = (config.batch_subjects, config.batch_segments)

    def loss(rng: np.random.Generator) -> Losses:
        drawn = draw_batch(rng, wanted, (len(x), len(segments)))
        people, runs = (_beside(features, chosen) for chosen in drawn)
        outputs = rollout(spec.cell, network.weights(features[people]), inputs[runs]).outputs
        actions, predicted = outputs.split([spec.n_actions, len(spec.bold_regions)], dim=-1)
        presses = press[people][:, runs]
        action = HEAD_LOSSES[spec.head](actions[:, :, steps], presses[:, :, steps])
        error = torch.zeros_like(action)
        if bold is not None:
            series = bold[people][:, runs][:, :, scored]
            error = bold_loss(predicted[:, :, volumes], series)
        return Losses(action + config.bold_weight * error, action, error)

    descent.run(
        "gradient", _groups(network, config), loss, config.n_steps, max_norm=config.max_grad_norm
    )
    return network.numpy_layers()


def _beside(tensor: Tensor, array: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(array).to(tensor.device)


def _groups(network: HyperNetwork, config: TrainConfig) -> list[Group]:
    # Adam moves every weight by about the learning rate, so a layer's output moves with
    # its fan-in: 4,950 edges would swamp 64 units. Rates go as 1 / fan_in, relative to the
    # last layer (Yang et al. 2022, Tensor Programs V).
    layers = network.linears()
    biases = {f"{i}.bias": layer.bias for i, layer in enumerate(layers)}
    return [
        Group(biases, config.learning_rate),
        *(
            Group(
                {f"{i}.weight": layer.weight},
                config.learning_rate * layers[-1].in_features / layer.in_features,
                config.weight_decay,
            )
            for i, layer in enumerate(layers)
        ),
    ]
