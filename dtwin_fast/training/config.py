"""How to train: the settings of each recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from ..errors import DTwinInputError

PRESSES = ("impulse", "hold")
"""Codings of a press that ``PaperConfig`` knows."""


@dataclass(frozen=True)
class StagedConfig:
    """The default recipe, see ``dtwin_fast.training.staged``.

    Attributes:
        n_steps: optimiser steps of the stage that fits people.
        group_steps: of the stage before it.
        learning_rate: peak, of the network that turns latent numbers into weights.
        group_learning_rate: peak in the group stage.
        condition_weight: in the group stage, weight of telling conditions from states, for BOLD.
        latent_learning_rate: peak, of the people's latent numbers.
        batch_subjects, batch_segments: people and segments of each in a batch; a person's
            weights are generated once for all their segments.
        n_latents: at most this many latent numbers a person.
        prior: weight of their mean square in the loss.
        personal_share: share of the generated weights' variance that differs between people
            at the start.
        weight_decay: of what the latent numbers change, times the learning rate per step.
        ridge: of the map from connectomes to latent numbers, see ``encoder.kernel_ridge``.
        seed: of everything that is drawn.
    """

    n_steps: int = 1200
    group_steps: int = 1000
    learning_rate: float = 1e-3
    group_learning_rate: float = 5e-3
    condition_weight: float = 0.1
    latent_learning_rate: float = 0.02
    batch_subjects: int = 12
    batch_segments: int = 16
    n_latents: int = 16
    prior: float = 1e-3
    personal_share: float = 0.01
    weight_decay: float = 0.1
    ridge: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        check_numbers(self, may_be_zero=("condition_weight", "prior", "weight_decay", "seed"))


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


@dataclass(frozen=True)
class PaperConfig:
    """The recipe of Takahashi et al. 2026, see ``dtwin_fast.training.paper``.

    Attributes:
        max_epochs: passes over the training segments, at most.
        patience: epochs without a better validation loss after which training stops; the
            paper does not state it.
        learning_rate: of Adam, constant.
        batch_size: segments in a batch, each of any person and any stretch of a run.
        validation_share: of the segments, drawn at random, that only judge.
        max_grad_norm: gradients are clipped to this norm.
        press: target of a press, which the paper does not state: ``impulse``, 1 in its step
            alone, or ``hold``, 1 from there to the end of the trial's response window.
        seed: of the initialisation, the validation segments, the batches and dropout.
    """

    max_epochs: int = 800
    patience: int = 20
    learning_rate: float = 1e-6
    batch_size: int = 50
    validation_share: float = 0.2
    max_grad_norm: float = 0.05
    press: str = "impulse"
    seed: int = 0

    def __post_init__(self) -> None:
        check_numbers(self, may_be_zero=("seed",))
        if self.validation_share >= 1:
            raise _config_error("validation_share", "a share below 1", self.validation_share)
        if self.press not in PRESSES:
            raise _config_error("press", " | ".join(PRESSES), self.press)


def check_numbers(
    config: StagedConfig | TrainConfig | PaperConfig, may_be_zero: tuple[str, ...]
) -> None:
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
        fix="Start from StagedConfig(), TrainConfig() or PaperConfig(), which have working values",
    )
