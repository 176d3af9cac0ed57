"""Gradient descent in stages: what a step reports, learning rates, checkpoints to go on from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..files import write_atomic
from ..model_files import decode_safetensors, encode_safetensors
from .device import seeded

_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class TrainStep:
    """What one optimiser step reports; steps are counted over all stages."""

    step: int
    n_steps: int
    action_loss: float
    bold_loss: float
    stage: str = ""


class Losses(NamedTuple):
    """The loss that is followed, and its parts as they are reported."""

    total: Tensor
    action: Tensor
    bold: Tensor


class Group(NamedTuple):
    """Parameters by name that share a learning rate.

    Attributes:
        parameters: leaf tensors.
        learning_rate: the peak.
        weight_decay: share that a step at the peak takes off, divided by the rate (AdamW).
    """

    parameters: Mapping[str, Tensor]
    learning_rate: float
    weight_decay: float = 0.0


def one_cycle(step: int, n_steps: int) -> float:
    """Rises over the first tenth of the steps and falls to zero along a half cosine."""
    warm_up = max(1, n_steps // 10)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, n_steps - warm_up)))


def draw_batch(
    rng: np.random.Generator, wanted: Sequence[int], there_are: Sequence[int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """People, and segments (or stimuli) of each: as many as wanted, or all, none twice."""
    people, segments = (
        rng.choice(n, min(size, n), replace=False)
        for size, n in zip(wanted, there_are, strict=True)
    )
    return people, segments


@dataclass
class Descent:
    """Runs the stages of one training one after the other.

    What is drawn in a step depends on the seed, the stage and the step alone, and everything
    between stages follows from the parameters. A training that goes on from its checkpoint
    therefore ends with the same bits as one that was never stopped.

    Attributes:
        n_steps: of all stages together.
        seed: of everything that is drawn.
        on_step: called after every step.
        checkpoint: folder for the state of every stage, written every ``checkpoint_steps``
            steps and at the end of each; a folder with such files is gone on from.
    """

    n_steps: int
    seed: int
    on_step: Callable[[TrainStep], None] | None = None
    checkpoint: Path | None = None
    checkpoint_steps: int = 100
    history: list[TrainStep] = field(default_factory=list)

    def run(
        self,
        stage: str,
        groups: list[Group],
        loss: Callable[[np.random.Generator], Losses],
        n_steps: int,
        *,
        max_norm: float = 1.0,
        betas: tuple[float, float] = (0.9, 0.99),
        schedule: Callable[[int, int], float] = one_cycle,
        kept: Mapping[str, Tensor] | None = None,
        goes_on: Callable[[int], bool] = lambda done: True,
    ) -> None:
        """Follow the loss downhill with AdamW for ``n_steps`` steps, in place.

        Args:
            stage: name of the stage, the same in every run.
            groups: what to optimise.
            loss: the loss of one step, which takes its random numbers from the generator.
            n_steps: of this stage.
            max_norm: gradients are clipped to this norm.
            betas: of Adam's moments.
            schedule: (step, n_steps) -> share of the peak rate.
            kept: float32 tensors of the caller, by name, that belong to the checkpoint.
            goes_on: asked before every step, with the steps done; False ends the stage.

        Raises:
            FloatingPointError: the loss is no longer a finite number.
            DTwinInputError: a file of the checkpoint is damaged or of another training (codes
                ``model_file``, ``model_tensors``).
        """
        named = {name: p for group in groups for name, p in group.parameters.items()}
        optimiser = torch.optim.AdamW(
            [
                {"params": list(g.parameters.values()), "weight_decay": g.weight_decay}
                for g in groups
            ],
            lr=0.0,
            betas=betas,
        )
        kept = kept or {}
        done = self._go_on(stage, n_steps, named, kept, optimiser)
        device = next(iter(named.values())).device
        stage_number = sum(map(ord, stage))
        for step in range(done, n_steps):
            if not goes_on(step):
                break
            for group, settings in zip(groups, optimiser.param_groups, strict=True):
                settings["lr"] = group.learning_rate * schedule(step, n_steps)
            rng = np.random.default_rng([self.seed, stage_number, step])
            with seeded(int(rng.integers(2**62)), device):
                losses = loss(rng)
            # The one look at values of the device in a step: the host waits for it here.
            total, action, bold = torch.stack([*losses]).tolist()
            if not math.isfinite(total):
                raise FloatingPointError(
                    f"the loss is {total} at step {step + 1} of stage {stage!r}; lower the "
                    "learning rate, or look for extreme values in the cohort"
                )
            optimiser.zero_grad(set_to_none=True)
            losses.total.backward()
            torch.nn.utils.clip_grad_norm_(named.values(), max_norm)
            optimiser.step()
            self._report(stage, action, bold)
            is_last = step + 1 == n_steps
            if self.checkpoint and (is_last or (step + 1) % self.checkpoint_steps == 0):
                self._save(stage, step + 1, n_steps, named, kept, optimiser)

    def _report(self, stage: str, action: float, bold: float) -> None:
        self.history.append(TrainStep(len(self.history) + 1, self.n_steps, action, bold, stage))
        if self.on_step is not None:
            self.on_step(self.history[-1])

    def _path(self, stage: str) -> Path:
        assert self.checkpoint is not None
        return self.checkpoint / f"{stage}.safetensors"

    def _save(
        self,
        stage: str,
        done: int,
        n_steps: int,
        named: Mapping[str, Tensor],
        kept: Mapping[str, Tensor],
        optimiser: torch.optim.Optimizer,
    ) -> None:
        curve = np.zeros((n_steps, 2), np.float32)
        curve[:done] = [[s.action_loss, s.bold_loss] for s in self.history[-done:]]
        tensors = {"done": np.array([done], np.float32), "curve": curve}
        tensors |= {f"kept.{name}": tensor.cpu().numpy() for name, tensor in kept.items()}
        for name, parameter in named.items():
            state = optimiser.state[parameter]
            tensors[name] = parameter.detach().cpu().numpy()
            for moment in _MOMENTS:
                # A parameter that has had no gradient has no moments.
                value = state.get(moment, torch.zeros_like(parameter))
                tensors[f"{moment}.{name}"] = value.cpu().numpy()
        write_atomic(self._path(stage), encode_safetensors(tensors))

    def _go_on(
        self,
        stage: str,
        n_steps: int,
        named: Mapping[str, Tensor],
        kept: Mapping[str, Tensor],
        optimiser: torch.optim.Optimizer,
    ) -> int:
        """Steps of this stage that were done before; their result is put in place."""
        if self.checkpoint is None or not self._path(stage).exists():
            return 0
        shapes: dict[str, tuple[int, ...]] = {"done": (1,), "curve": (n_steps, 2)}
        shapes |= {f"kept.{name}": tuple(tensor.shape) for name, tensor in kept.items()}
        for name, parameter in named.items():
            for kind in ("", *(f"{moment}." for moment in _MOMENTS)):
                shapes[kind + name] = tuple(parameter.shape)
        tensors, _ = decode_safetensors(self._path(stage), shapes)
        done = int(tensors["done"][0])
        with torch.no_grad():
            for name, tensor in kept.items():
                tensor.copy_(torch.from_numpy(tensors[f"kept.{name}"]))
            for name, parameter in named.items():
                parameter.copy_(torch.from_numpy(tensors[name]))
                optimiser.state[parameter] = {
                    "step": torch.tensor(float(done)),
                    **{
                        m: torch.from_numpy(tensors[f"{m}.{name}"]).to(parameter.device)
                        for m in _MOMENTS
                    },
                }
        for action, bold in tensors["curve"][:done].tolist():
            self._report(stage, action, bold)
        return done
