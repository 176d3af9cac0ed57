"""fit: train a twin on a cohort with torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..cohort import Cohort
from ..errors import DTwinInputError
from ..provenance import input_digest, package_version
from ..spec import N_ACTIONS, N_INPUTS, TwinSpec
from ..tasks import TASKS
from ..tasks.design import contrast_projection
from ..torch import rollout
from ..twin import Twin
from .device import describe, find_device, seeded
from .losses import HEAD_LOSSES, bold_loss
from .network import HyperNetwork
from .segments import Segments, cut_segments

MIN_EDGE_SD = 0.05
"""Smallest SD an edge is divided by, in Fisher z: half the sampling SD of a six-minute scan.
An edge that hardly varies in the training cohort would swamp the others in a new person."""


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
        n_steps: optimiser steps.
        learning_rate: peak of a one-cycle schedule for AdamW, at the last layer.
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
        least = {"n_steps": 1, "batch_subjects": 1, "batch_segments": 1, "seed": 0}
        for name, smallest in least.items():
            if type(getattr(self, name)) is not int or getattr(self, name) < smallest:
                raise _config_error(name, f"an integer of at least {smallest}", getattr(self, name))
        for name in ("learning_rate", "max_grad_norm", "bold_weight", "weight_decay"):
            value = getattr(self, name)
            zero_is_fine = name in ("bold_weight", "weight_decay")
            is_number = isinstance(value, int | float)
            if not is_number or not (0 < value < math.inf or (zero_is_fine and value == 0)):
                raise _config_error(name, "a positive number", value)


@dataclass(frozen=True)
class TrainStep:
    """What one optimiser step reports."""

    step: int
    n_steps: int
    action_loss: float
    bold_loss: float


def fit(
    cohort: Cohort,
    spec: TwinSpec,
    config: TrainConfig | None = None,
    *,
    device: str = "cpu",
    on_step: Callable[[TrainStep], None] | None = None,
) -> Twin:
    """Train a hypernetwork on a cohort and return the twin.

    Scalers (edge mean and SD, BOLD SD) come from this cohort alone, so a cohort of
    training people leaks nothing of the people held out. Missing edges are filled with the
    mean of the people who have them.

    The network starts from the same weights and draws the same batches on every device.
    Sums are rounded differently on CUDA, and dropout draws other numbers there, so a seed
    gives another twin than on the CPU, where it gives the same bits every time.

    Args:
        cohort: S people with connectomes with region names and task data.
        spec: sizes; ``n_regions``, ``bold_regions`` and ``tr_s`` must be the cohort's.
        config: None takes the defaults.
        device: "cpu", "cuda", "cuda:N", or "auto" (cuda where torch has a CUDA device, else
            cpu). ``Twin.training["device"]`` says what ran: "cpu", or "cuda: " and the GPU.
        on_step: called after every optimiser step.

    Raises:
        DTwinInputError: a cohort that does not fit the spec (code ``cohort``), no such device
            (``device``), or one whose memory is too small (``too_large``).
        BackendUnavailableError: the named device is not here.
        FloatingPointError: the loss is no longer a finite number.
    """
    config = config or TrainConfig()
    place = find_device(device)
    _check(cohort, spec)
    segments = cut_segments(cohort, spec)
    z = cohort.connectomes.fisher_z().astype(np.float32)
    edge_mean = np.nanmean(z, axis=0)
    edge_sd = np.maximum(np.nanstd(z, axis=0), np.float32(MIN_EDGE_SD))
    z = np.where(np.isnan(z), edge_mean, z)
    x = torch.from_numpy((z - edge_mean) / edge_sd if spec.standardize else z)

    with seeded(config.seed, place):
        network = HyperNetwork(spec, config.init)
        # The twin is made, and so checked, before the time is spent on training it.
        untrained = _twin(network, cohort, segments, edge_mean, edge_sd)
        try:
            history = _optimise(network.to(place), x.to(place), segments, config, on_step)
        except torch.OutOfMemoryError as error:
            raise DTwinInputError(
                "too_large",
                "the memory of the device has no room for this training",
                field="device",
                got=describe(place),
                fix="Lower TrainConfig.batch_subjects or batch_segments, or train on the CPU",
            ) from error
    return replace(
        untrained,
        layers=network.numpy_layers(),
        training={
            **asdict(config),
            "people": len(cohort),
            "input_sha256": input_digest(cohort.connectomes),
            "dtwin_fast": package_version(),
            "torch": torch.__version__,
            "device": describe(place),
            "action_loss": [round(step.action_loss, 6) for step in history],
            "bold_loss": [round(step.bold_loss, 6) for step in history],
        },
    )


def _twin(
    network: HyperNetwork,
    cohort: Cohort,
    segments: Segments,
    edge_mean: npt.NDArray[np.float32],
    edge_sd: npt.NDArray[np.float32],
) -> Twin:
    spec = network.spec
    contrasts = {name: TASKS[name].contrasts for name in cohort.tasks}
    schedules = {name: data.schedule for name, data in cohort.tasks.items()}
    return Twin(
        spec=spec,
        regions=cohort.connectomes.regions or (),
        layers=network.numpy_layers(),
        edge_mean=edge_mean,
        edge_sd=edge_sd,
        bold_sd=segments.bold_sd,
        schedules=schedules,
        projections={
            name: contrast_projection(
                schedules[name], contrasts[name], tr_s=spec.tr_s, dt_s=spec.dt_s
            )
            for name in schedules
        },
        contrasts={name: tuple(contrasts[name]) for name in schedules},
    )


def _optimise(
    network: HyperNetwork,
    x: Tensor,
    segments: Segments,
    config: TrainConfig,
    on_step: Callable[[TrainStep], None] | None,
) -> list[TrainStep]:
    spec = network.spec
    inputs = _beside(x, segments.inputs)
    press = _beside(x, segments.press)
    bold = None if segments.bold is None else _beside(x, segments.bold)
    volumes = _beside(x, segments.volume_steps[segments.volume_steps >= segments.n_warm_up])
    scored = slice(-len(volumes), None)
    optimiser, schedule = _optimiser(network, config)
    batches = _Batches(len(x), len(inputs), config)
    history: list[TrainStep] = []
    for step in range(1, config.n_steps + 1):
        people, runs = (_beside(x, drawn) for drawn in batches.draw())
        weights = network.weights(x[people])
        outputs = rollout(spec.cell, weights, inputs[runs]).outputs
        actions, predicted = outputs.split([spec.n_actions, len(spec.bold_regions)], dim=-1)
        presses = press[people][:, runs]
        steps = slice(segments.n_warm_up, None)
        action_loss = HEAD_LOSSES[spec.head](actions[:, :, steps], presses[:, :, steps])
        loss = action_loss
        series_loss = action_loss.new_zeros(())
        if bold is not None:
            series = bold[people][:, runs][:, :, scored]
            series_loss = bold_loss(predicted[:, :, volumes], series)
            loss = action_loss + config.bold_weight * series_loss
        # The one look at values of the device in a step: the host waits for it here.
        total, of_actions, of_bold = torch.stack([loss, action_loss, series_loss]).tolist()
        if not math.isfinite(total):
            raise FloatingPointError(
                f"the loss is {total} at step {step}; lower TrainConfig.learning_rate "
                f"({config.learning_rate}), or look for extreme values in the cohort"
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.max_grad_norm)
        optimiser.step()
        schedule.step()
        history.append(TrainStep(step, config.n_steps, of_actions, of_bold))
        if on_step is not None:
            on_step(history[-1])
    return history


def _beside(tensor: Tensor, array: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(array).to(tensor.device)


def _optimiser(
    network: HyperNetwork, config: TrainConfig
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    # Adam moves every weight by about the learning rate, so a layer's output moves with
    # its fan-in: 4,950 edges would swamp 64 units. Rates go as 1 / fan_in, relative to the
    # last layer (Yang et al. 2022, Tensor Programs V).
    *hidden, last = network.linears()
    groups: list[dict[str, object]] = [{"params": [layer.bias for layer in network.linears()]}]
    rates = [config.learning_rate]
    for layer in (*hidden, last):
        groups.append({"params": [layer.weight], "weight_decay": config.weight_decay})
        rates.append(config.learning_rate * last.in_features / layer.in_features)
    optimiser = torch.optim.AdamW(groups, weight_decay=0.0)
    return optimiser, torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rates, total_steps=config.n_steps
    )


class _Batches:
    """Batches of people in shuffled epochs, each with a random set of segments."""

    def __init__(self, n_people: int, n_segments: int, config: TrainConfig) -> None:
        self._rng = np.random.default_rng(config.seed)
        self._n_people = n_people
        self._n_segments = n_segments
        self._size = (min(config.batch_subjects, n_people), min(config.batch_segments, n_segments))
        self._queue = np.empty(0, np.int64)

    def draw(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        n_people, n_segments = self._size
        if len(self._queue) < n_people:
            self._queue = self._rng.permutation(self._n_people)
        people, self._queue = self._queue[:n_people], self._queue[n_people:]
        return people, self._rng.choice(self._n_segments, n_segments, replace=False)


def _check(cohort: Cohort, spec: TwinSpec) -> None:
    fc = cohort.connectomes
    bold_regions = cohort.measured_bold_regions
    nobody = int(fc.missing.all(axis=0).sum())
    named = f"{fc.n_regions}" + ("" if fc.regions else " without names")
    checks = [
        ("people", "at least 2", len(cohort), len(cohort) >= 2),
        (
            "regions",
            f"{spec.n_regions} named regions",
            named,
            fc.n_regions == spec.n_regions and bool(fc.regions),
        ),
        ("regions", "regions that somebody has", f"{nobody} that nobody has", nobody == 0),
        (
            "bold_regions",
            ", ".join(spec.bold_regions) or "none",
            ", ".join(bold_regions) or "no BOLD",
            spec.bold_regions == bold_regions,
        ),
        ("tr_s", spec.tr_s, cohort.tr_s, spec.tr_s == cohort.tr_s),
        ("n_inputs", N_INPUTS, spec.n_inputs, spec.n_inputs == N_INPUTS),
        ("n_actions", N_ACTIONS, spec.n_actions, spec.n_actions == N_ACTIONS),
        ("tasks", "at least one", len(cohort.tasks), len(cohort.tasks) > 0),
    ]
    for field, wanted, got, good in checks:
        if not good:
            raise DTwinInputError(
                "cohort",
                "this cohort does not fit the spec of the twin",
                field=field,
                wanted=str(wanted),
                got=str(got),
                fix="Take a preset with these sizes, or replace its fields (dataclasses.replace)",
            )


def _config_error(field: str, wanted: str, got: object) -> DTwinInputError:
    return DTwinInputError(
        "train_config",
        "training cannot be done like this",
        field=field,
        wanted=wanted,
        got=repr(got),
        fix="Start from TrainConfig(), which has working values",
    )
