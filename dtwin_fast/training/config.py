"""How to train: the settings of each recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from ..errors import DTwinInputError


@dataclass(frozen=True)
class StagedConfig:
    """The default recipe, see ``dtwin_fast.training.staged``.

    Attributes:
        n_steps: optimiser steps of the stage that fits people.
        group_steps, bold_steps: of the stages before and after it.
        learning_rate: peak, of the network that turns latent numbers into weights.
        group_learning_rate: peak in the group stage.
        latent_learning_rate: peak, of the people's latent numbers.
        batch_subjects, batch_segments: people and segments of each in a batch; a person's
            weights are generated once for all their segments.
        n_latents: at most this many latent numbers a person.
        prior: weight of their mean square in the loss.
        personal_share: share of the generated weights' variance that differs between people
            at the start.
        weight_decay: of what the latent numbers change, times the learning rate per step.
        ridge: of the map from connectomes to latent numbers, see ``encoder.interpolate``.
        seed: of everything that is drawn.
    """

    n_steps: int = 1500
    group_steps: int = 700
    bold_steps: int = 200
    learning_rate: float = 1e-3
    group_learning_rate: float = 5e-3
    latent_learning_rate: float = 0.02
    batch_subjects: int = 12
    batch_segments: int = 16
    n_latents: int = 16
    prior: float = 1e-3
    personal_share: float = 0.01
    weight_decay: float = 0.1
    ridge: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        check_numbers(self, may_be_zero=("prior", "weight_decay", "seed"))


@dataclass(frozen=True)
class TrainConfig:
    """Gradient descent through all layers at once, for any cell and head.

    Attributes:
        n_steps: optimiser steps.
        learning_rate: peak of a schedule for AdamW, at the last layer.
        batch_subjects, batch_segments: people and segments of each in a batch; a person's
            weights are generated once for all their segments.
        bold_weight: weight of the BOLD loss beside the action loss.
        weight_decay: of the weight matrices, times the learning rate per step.
        max_grad_norm: gradients are clipped to this norm.
        init: a key of ``dtwin_fast.training.INITIALISERS``.
        seed: of the initialisation, the batches and dropout.
    """

    n_steps: int = 900
    learning_rate: float = 3e-3
    batch_subjects: int = 12
    batch_segments: int = 16
    bold_weight: float = 3.0
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0
    init: str = "hyperfan"
    seed: int = 0

    def __post_init__(self) -> None:
        check_numbers(self, may_be_zero=("bold_weight", "weight_decay", "seed"))


def check_numbers(config: StagedConfig | TrainConfig, may_be_zero: tuple[str, ...]) -> None:
    """Check that every number is one and positive, or zero where that is fine.

    Raises:
        DTwinInputError: code ``train_config``.
    """
    for setting in fields(config):
        name, value, kind = setting.name, getattr(config, setting.name), setting.type
        least = 0 if name in may_be_zero else 1
        if kind == "int" and (type(value) is not int or value < least):
            raise _config_error(name, f"an integer of at least {least}", value)
        if kind == "float":
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not (0 < value < math.inf or (least == 0 and value == 0)):
                raise _config_error(name, "a positive number", value)


def _config_error(field: str, wanted: str, got: object) -> DTwinInputError:
    return DTwinInputError(
        "train_config",
        "training cannot be done like this",
        field=field,
        wanted=wanted,
        got=repr(got),
        fix="Start from StagedConfig() or TrainConfig(), which have working values",
    )
