"""Losses of the two action heads and of BOLD, on one batch of segments."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from .segments import NOT_AT_RISK


def hazard_loss(actions: Tensor, press: Tensor) -> Tensor:
    """Mean negative log-likelihood per step at risk, in nats.

    The likelihood of discrete-time competing risks, log lambda_c(t*) + sum_{t < t*}
    log(1 - sum_c lambda_c(t)), is the cross-entropy over {none, actions} of all steps at
    risk; a trial without a response is censored at the end of its window.

    Args:
        actions: (S,B,T,actions) outputs; the logit of "none" is 0.
        press: (S,B,T) integers, see ``Segments.press``.
    """
    logits = functional.pad(actions, (1, 0))
    return functional.cross_entropy(
        logits.flatten(0, -2), press.flatten().long(), ignore_index=NOT_AT_RISK
    )


def sigmoid_loss(actions: Tensor, press: Tensor) -> Tensor:
    """The paper's binary cross-entropy, mean over actions and all steps.

    A press is one step of 1 (its coding is not stated in the paper).
    """
    target = functional.one_hot(press.clamp(min=0).long(), actions.shape[-1] + 1)[..., 1:]
    return functional.binary_cross_entropy_with_logits(actions, target.to(actions.dtype))


HEAD_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "hazard": hazard_loss,
    "sigmoid": sigmoid_loss,
}
"""One loss for each ``TwinSpec.head``."""


def bold_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of BOLD at the volumes, in SDs of the training cohort."""
    return torch.mean((predicted - target) ** 2)
