"""Losses of the two action heads and of BOLD, on one batch of segments."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from .segments import NOT_AT_RISK


def press_log_prob(actions: Tensor) -> Tensor:
    """Log-probabilities of everything a step can hold, in the codes of ``Segments.press``.

    Args:
        actions: (...,A) outputs; the logit of "none" is 0.

    Returns:
        (...,1 + 2A): no press, each action, any action but each (the marginal likelihood of
        a wrong button that is not known).
    """
    n_actions = actions.shape[-1]
    known = functional.log_softmax(functional.pad(actions, (1, 0)), dim=-1)
    itself = torch.eye(n_actions, dtype=torch.bool, device=actions.device)
    others = known[..., None, 1:].masked_fill(itself, -torch.inf)
    return torch.cat([known, torch.logsumexp(others, dim=-1)], dim=-1)


def hazard_loss(actions: Tensor, press: Tensor) -> Tensor:
    """Mean negative log-likelihood per step at risk, in nats; 0 where nobody is at risk.

    The likelihood of discrete-time competing risks, log lambda_c(t*) + sum_{t < t*}
    log(1 - sum_c lambda_c(t)), is the cross-entropy over {none, actions} of all steps at
    risk; a trial without a response is censored at the end of its window.

    Args:
        actions: (S,B,T,actions) outputs; the logit of "none" is 0.
        press: (S,B,T) integers, see ``Segments.press``.
    """
    at_risk = press != NOT_AT_RISK
    log_prob = press_log_prob(actions).gather(-1, press.clamp(min=0).long()[..., None])[..., 0]
    return -torch.where(at_risk, log_prob, 0.0).sum() / at_risk.sum().clamp(min=1)


def sigmoid_loss(actions: Tensor, press: Tensor) -> Tensor:
    """The paper's binary cross-entropy, mean over actions and all steps.

    A press is one step of 1 (its coding is not stated in the paper). A wrong button that is
    not known is left out of the mean, as a step.
    """
    n_actions = actions.shape[-1]
    target = functional.one_hot(press.clamp(0, n_actions).long(), n_actions + 1)[..., 1:]
    losses = functional.binary_cross_entropy_with_logits(
        actions, target.to(actions.dtype), reduction="none"
    )
    known = (press <= n_actions)[..., None].expand_as(losses)
    return torch.where(known, losses, 0.0).sum() / known.sum().clamp(min=1)


HEAD_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "hazard": hazard_loss,
    "sigmoid": sigmoid_loss,
}
"""One loss for each ``TwinSpec.head``."""


def bold_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of BOLD at the volumes measured, in SDs of the training cohort."""
    measured = ~torch.isnan(target)
    squares = torch.where(measured, predicted - torch.nan_to_num(target), 0.0) ** 2
    return squares.sum() / measured.sum().clamp(min=1)
