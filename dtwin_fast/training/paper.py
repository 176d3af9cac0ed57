"""The recipe of Takahashi et al. 2026 (Methods; the rest from their published code).

Batches of segments, each of a random person and a random stretch of a run; binary
cross-entropy of the presses plus mean squared error of BOLD, over all steps; Adam at a
constant rate; a random fifth of the segments judges every epoch, and the best weights are kept.
Their BOLD outputs are then put into the units of a twin.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from ..cohort import Cohort
from ..errors import DTwinInputError
from ..hypernetwork import Layer
from ..spec import TwinSpec
from ..torch import rollout
from ..weights import join_flat, split_flat
from .config import PaperConfig
from .descent import Descent, Group, Losses
from .device import seeded
from .losses import bold_loss
from .network import HyperNetwork
from .paper_segments import NOT_KNOWN, PaperSegments, cut_paper_segments
from .segments import Segments

_BETAS = (0.9, 0.999)
_HOLD_OUT_STREAM, _ORDER_STREAM = 1, 2
_WORST = float(np.finfo(np.float32).max)


def train_paper(
    cohort: Cohort,
    segments: Segments,
    x: npt.NDArray[np.float32],
    spec: TwinSpec,
    config: PaperConfig,
    device: torch.device,
    descent: Descent,
) -> tuple[Layer, ...]:
    """The layers of the hypernetwork, trained; arguments as of ``staged.train_staged``.

    Of ``segments`` the units of BOLD alone are taken: this recipe cuts its own.

    Raises:
        DTwinInputError: too few segments to keep some for validation (code ``cohort``).
        MissingExtraError: there is BOLD and SciPy is not installed.
        FloatingPointError: the loss is no longer a finite number.
    """
    data = cut_paper_segments(cohort, spec, config.press)
    with seeded(config.seed, device):
        network = HyperNetwork(spec, "default", n_features=x.shape[1]).to(device)
    training = _Training(network, torch.from_numpy(x).to(device), data, spec, config)
    descent.n_steps = config.max_epochs * training.epoch_steps
    descent.run(
        "paper",
        [Group(dict(network.named_parameters()), config.learning_rate)],
        lambda rng: training.loss(training.batch),
        descent.n_steps,
        max_norm=config.max_grad_norm,
        betas=_BETAS,
        schedule=lambda step, n_steps: 1.0,
        kept=training.kept(),
        goes_on=training.goes_on,
    )
    training.validate()
    network.load_state_dict(training.best)
    *others, last = network.numpy_layers()
    return (*others, _rescale_bold(last, spec, data.bold_sd / segments.bold_sd))


def hold_out(
    pairs: npt.NDArray[np.int64], share: float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows of ``pairs`` to train on and to validate with, drawn at random.

    Raises:
        DTwinInputError: nothing is left for one of them (code ``cohort``).
    """
    n_held_out = max(1, round(share * len(pairs)))
    if n_held_out >= len(pairs):
        raise DTwinInputError(
            "cohort",
            "there are too few segments to keep some for validation",
            field="validation_share",
            wanted="a segment for training and one for validation",
            got=f"{len(pairs)} segments, {share:g} of them for validation",
            fix="Take more people or tasks, or a smaller share",
        )
    drawn = np.random.default_rng([seed, _HOLD_OUT_STREAM]).permutation(len(pairs))
    return pairs[drawn[n_held_out:]], pairs[drawn[:n_held_out]]


class _Training:
    """Batches in shuffled epochs, their loss, and the best weights on the validation segments."""

    def __init__(
        self,
        network: HyperNetwork,
        x: Tensor,
        data: PaperSegments,
        spec: TwinSpec,
        config: PaperConfig,
    ) -> None:
        self.network, self.x, self.spec, self.config = network, x, spec, config
        self.inputs = torch.from_numpy(data.inputs).to(x.device)
        self.action = torch.from_numpy(data.action).to(x.device)
        self.bold = None if data.bold is None else torch.from_numpy(data.bold).to(x.device)
        self.pairs, self.held_out = hold_out(data.pairs, config.validation_share, config.seed)
        self.batch = self.pairs[:0]
        self.best = {name: p.clone() for name, p in network.state_dict().items()}
        # Best validation loss, and epochs since then.
        self.watch = torch.tensor([_WORST, 0.0])

    @property
    def epoch_steps(self) -> int:
        """Batches of an epoch, the last one smaller."""
        return -(-len(self.pairs) // self.config.batch_size)

    def kept(self) -> dict[str, Tensor]:
        """What goes into the checkpoint beside the weights."""
        return {"watch": self.watch, **{f"best.{name}": p for name, p in self.best.items()}}

    def goes_on(self, step: int) -> bool:
        """Take the batch of this step, or stop for want of patience."""
        epoch, place = divmod(step, self.epoch_steps)
        if place == 0 and epoch > 0:
            self.validate()
            if self.watch[1] >= self.config.patience:
                return False
        rng = np.random.default_rng([self.config.seed, _ORDER_STREAM, epoch])
        chosen = rng.permutation(len(self.pairs))[place * self.config.batch_size :]
        self.batch = self.pairs[chosen[: self.config.batch_size]]
        return True

    def loss(self, pairs: npt.NDArray[np.int64]) -> Losses:
        """Mean loss of person-segments (n,2): every one has its own draw of dropout."""
        people, stretches = torch.from_numpy(pairs).to(self.x.device).T
        weights = split_flat(self.network(self.x[people]), self.spec)
        outputs = rollout(self.spec.cell, weights, self.inputs[stretches][:, None]).outputs[:, 0]
        actions, predicted = outputs.split([self.spec.n_actions, len(self.spec.bold_regions)], -1)
        action = press_loss(actions, self.action[people, stretches])
        error = torch.zeros_like(action)
        if self.bold is not None:
            error = bold_loss(predicted, self.bold[people, stretches])
        return Losses(action + error, action, error)

    @torch.no_grad()
    def validate(self) -> None:
        """Keep the weights if they are better than all before."""
        self.network.eval()
        size = self.config.batch_size
        parts = [self.held_out[i : i + size] for i in range(0, len(self.held_out), size)]
        losses = torch.stack([len(part) * self.loss(part).total for part in parts])
        self.network.train()
        mean = losses.sum().cpu() / len(self.held_out)
        self.watch[1] += 1
        if mean < self.watch[0]:
            self.watch[0], self.watch[1] = mean, 0
            for name, parameter in self.network.state_dict().items():
                self.best[name].copy_(parameter)


def press_loss(actions: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy, mean over actions and the steps whose target is known.

    Args:
        actions: (n,T,A) outputs before the sigmoid.
        target: (n,T) codes of ``PaperSegments.action``.
    """
    n_actions = actions.shape[-1]
    known = target != NOT_KNOWN
    pressed = functional.one_hot(target.clamp(min=0).long(), n_actions + 1)[..., 1:]
    losses = functional.binary_cross_entropy_with_logits(
        actions, pressed.to(actions.dtype), reduction="none"
    )
    return torch.where(known, losses.mean(dim=-1), 0.0).sum() / known.sum().clamp(min=1)


def _rescale_bold(last: Layer, spec: TwinSpec, ratio: npt.NDArray[np.floating]) -> Layer:
    """The last layer with the BOLD outputs of the RNN times ``ratio`` (regions,)."""
    gain = split_flat(np.ones((1, len(last.bias)), np.float32), spec)
    gain["w_out"][0, spec.n_actions :] *= ratio[:, None]
    gain["b_out"][0, spec.n_actions :] *= ratio
    flat = join_flat(gain)
    return Layer(last.weight * flat[:, None], last.bias * flat)
