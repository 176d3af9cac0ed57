"""The recipes by name: which settings belong to which way of training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from ..cohort import Cohort
from ..errors import DTwinInputError
from ..hypernetwork import Layer
from ..spec import TwinSpec
from .config import PaperConfig, StagedConfig, TrainConfig
from .descent import Descent
from .gradient import train_gradient
from .paper import train_paper
from .segments import Segments
from .staged import stages, train_staged

Config = StagedConfig | TrainConfig | PaperConfig

RECIPES: dict[str, type[Config]] = {
    "staged": StagedConfig,
    "gradient": TrainConfig,
    "paper": PaperConfig,
}


def recipe_name(config: Config) -> str:
    """The key of ``RECIPES`` that these settings belong to."""
    return next(name for name, kind in RECIPES.items() if isinstance(config, kind))


def default_config(spec: TwinSpec) -> Config:
    """The staged recipe, or gradient descent for a cell or head that it does not know."""
    return StagedConfig() if _fits_staged(spec) else TrainConfig()


def count_steps(config: Config, segments: Segments, spec: TwinSpec) -> int:
    """Optimiser steps of all stages; 0 for the paper's recipe, which cuts its own segments."""
    if isinstance(config, PaperConfig):
        return 0
    if isinstance(config, TrainConfig):
        return config.n_steps
    return sum(stages(config, segments, spec).values())


def train_layers(
    cohort: Cohort,
    segments: Segments,
    x: npt.NDArray[np.float32],
    spec: TwinSpec,
    config: Config,
    device: torch.device,
    descent: Descent,
) -> tuple[Layer, ...]:
    """The layers of a hypernetwork that turns features into weights, trained.

    Args:
        cohort: S people.
        segments: the same people's data, cut.
        x: (S,F) float32 features: edges, or whatever else is to be known of a person.
        spec: sizes of the main RNN and the hidden layers; its number of regions is not used.
        config: settings; their type names the recipe.
        device: where gradients are taken.
        descent: counts the steps and keeps the checkpoints.

    Raises:
        DTwinInputError: the staged recipe for another cell than ``rnn`` or another head than
            ``hazard``, or the paper's for another head than ``sigmoid`` (code ``train_config``).
        FloatingPointError: the loss is no longer a finite number.
    """
    if isinstance(config, TrainConfig):
        return train_gradient(segments, x, spec, config, device, descent)
    if isinstance(config, PaperConfig):
        if spec.head != "sigmoid":
            raise _does_not_train("paper", "head sigmoid", spec)
        return train_paper(cohort, segments, x, spec, config, device, descent)
    if not _fits_staged(spec):
        raise _does_not_train("staged", "cell rnn, head hazard", spec)
    mean = x.mean(axis=0)
    first, *others = train_staged(cohort, segments, x - mean, spec, config, device, descent)
    return (replace(first, bias=first.bias - first.weight @ mean), *others)


def _fits_staged(spec: TwinSpec) -> bool:
    return (spec.cell, spec.head) == ("rnn", "hazard")


def _does_not_train(recipe: str, wanted: str, spec: TwinSpec) -> DTwinInputError:
    return DTwinInputError(
        "train_config",
        f"the recipe {recipe} does not train such a twin",
        field="config",
        wanted=wanted,
        got=f"cell {spec.cell}, head {spec.head}",
        fix="Give settings of another recipe, or another spec",
    )
