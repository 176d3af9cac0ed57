"""fit: train a twin on a cohort with torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ..cohort import Cohort
from ..errors import DTwinInputError
from ..hypernetwork import Layer, layer_sizes
from ..provenance import input_digest, package_version
from ..spec import N_ACTIONS, N_INPUTS, TwinSpec
from ..tasks import TASKS
from ..tasks.design import contrast_projection
from ..twin import Twin
from .checkpoint import open_checkpoint
from .config import StagedConfig
from .descent import Descent, TrainStep
from .device import describe, find_device
from .recipes import Config, count_steps, default_config, recipe_name, train_layers
from .segments import Segments, cut_segments

MIN_EDGE_SD = 0.05
"""Smallest SD an edge is divided by, in Fisher z: half the sampling SD of a six-minute scan.
An edge that hardly varies in the training cohort would swamp the others in a new person."""


def fit(
    cohort: Cohort,
    spec: TwinSpec,
    config: Config | None = None,
    *,
    device: str = "cpu",
    on_step: Callable[[TrainStep], None] | None = None,
    checkpoint: str | Path | None = None,
) -> Twin:
    """Train a hypernetwork on a cohort and return the twin.

    Scalers (edge mean and SD, BOLD SD) come from this cohort alone, so a cohort of
    training people leaks nothing of the people held out. Missing edges are filled with the
    mean of the people who have them. What was not measured (trials, volumes, whole runs of a
    person) carries no loss.

    The network starts from the same weights and draws the same batches on every device.
    Sums are rounded differently on CUDA, and dropout draws other numbers there, so a seed
    gives another twin than on the CPU, where it gives the same bits every time.

    Args:
        cohort: S people with connectomes with region names and task data.
        spec: sizes; ``n_regions``, ``bold_regions`` and ``tr_s`` must be the cohort's.
        config: settings of the recipe; None takes ``StagedConfig()``, or ``TrainConfig()`` for
            a cell or head that the staged recipe does not know.
        device: "cpu", "cuda", "cuda:N", or "auto" (cuda where torch has a CUDA device, else
            cpu). ``Twin.training["device"]`` says what ran: "cpu", or "cuda: " and the GPU.
        on_step: called after every optimiser step.
        checkpoint: a folder for the state of the training; a training that finds its own there
            goes on from it, and ends with the same bits as if never stopped.

    Raises:
        DTwinInputError: a cohort that does not fit the spec (code ``cohort``), no such device
            (``device``), one whose memory is too small (``too_large``), settings of a recipe
            that does not fit the spec (``train_config``), or a checkpoint of another training
            (``checkpoint``).
        BackendUnavailableError: the named device is not here.
        FloatingPointError: the loss is no longer a finite number.
    """
    config = config or default_config(spec)
    place = find_device(device)
    _check(cohort, spec)
    segments = cut_segments(cohort, spec)
    z = cohort.connectomes.fisher_z().astype(np.float32)
    edge_mean, edge_sd = edge_scale(z, config)
    z = np.where(np.isnan(z), edge_mean, z)
    x = (z - edge_mean) / edge_sd if spec.standardize else z
    # The twin is made, and so checked, before the time is spent on training it.
    untrained = _twin(spec, cohort, segments, edge_mean, edge_sd)
    descent = Descent(count_steps(config, segments, spec), config.seed, on_step)
    if checkpoint is not None:
        descent.checkpoint = open_checkpoint(checkpoint, cohort, spec, config, describe(place))
    try:
        layers = train_layers(cohort, segments, x, spec, config, place, descent)
    except torch.OutOfMemoryError as error:
        raise DTwinInputError(
            "too_large",
            "the memory of the device has no room for this training",
            field="device",
            got=describe(place),
            fix="Lower batch_subjects or batch_segments of the settings, or train on the CPU",
        ) from error
    return replace(
        untrained,
        layers=layers,
        training={
            "recipe": recipe_name(config),
            **asdict(config),
            "people": len(cohort),
            "input_sha256": input_digest(cohort.connectomes),
            "dtwin_fast": package_version(),
            "torch": torch.__version__,
            "device": describe(place),
            "stage": [step.stage for step in descent.history],
            "action_loss": [round(step.action_loss, 6) for step in descent.history],
            "bold_loss": [round(step.bold_loss, 6) for step in descent.history],
        },
    )


def edge_scale(
    z: npt.NDArray[np.float32], config: Config
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Mean and SD of every edge. The staged recipe takes one SD for all: its kernel regression
    weighs an edge by how much people differ in it."""
    sd = np.nanstd(z, axis=0)
    if isinstance(config, StagedConfig):
        sd = np.full_like(sd, np.sqrt(np.mean(sd.astype(np.float64) ** 2)))
    return np.nanmean(z, axis=0), np.maximum(sd, np.float32(MIN_EDGE_SD))


def _twin(
    spec: TwinSpec,
    cohort: Cohort,
    segments: Segments,
    edge_mean: npt.NDArray[np.float32],
    edge_sd: npt.NDArray[np.float32],
) -> Twin:
    # A second run of a task trains the same twin; the first one is what it predicts.
    schedules = {name: data.schedule for name, data in cohort.tasks.items() if name in TASKS}
    contrasts = {name: TASKS[name].contrasts for name in schedules}
    return Twin(
        spec=spec,
        regions=cohort.connectomes.regions or (),
        layers=tuple(
            Layer(np.zeros((n_out, n_in), np.float32), np.zeros(n_out, np.float32))
            for n_in, n_out in layer_sizes(spec)
        ),
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
