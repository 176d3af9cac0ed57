"""What an intervention did to people, and what to hold against it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..metrics import pearson
from .out_of_range import RangeScores
from .targets import Goal

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]

DOSES: Float64 = np.arange(-3.0, 3.5, 0.5)
"""Doses of a curve, SDs over people along the direction; the sign is towards the goal."""
LARGE = 0.8
"""The effect size that the paper draws a line at (Cohen 1988: large)."""
TOP_SHARE = 0.01
"""Of the edges whose overlap between two maps is told."""


@dataclass(frozen=True, eq=False)
class RandomDirections:
    """Effects of random directions as far away as the intervention's.

    Attributes:
        people: (P,) positions of the people they were tried on.
        effects: (D,P) improvements in SDs of all people before.
        drawn: what the directions are, in words.
    """

    people: npt.NDArray[np.intp]
    effects: Float64
    drawn: str


@dataclass(frozen=True, eq=False)
class Effect:
    """One way of intervening on S people.

    Attributes:
        method: ``connectome``, ``weights`` or the name of an edit.
        goal: which way is better.
        pre, post: (S,) the target, simulated.
        predicted: (S,) the change that the gradient promises, the target's unit; NaN in weights.
        gradient: (S,E) float32 per unit of Fisher z, at the connectome as it was: of the target,
            or SmoothGrad of the score z1 in weights.
        change: (S,E) float32 of Fisher z, or None in weights, where no connectome changes.
        outcomes_pre, outcomes_post: (K,S) of the intervention's ``outcomes``.
        curve: (doses,S) the target at ``DOSES``.
        random: directions to compare with.
        range_before, range_after: of the connectomes; ``range_after`` is None in weights.
        facts: other controls, as intervention.json has them.
    """

    method: str
    goal: Goal
    pre: Float64
    post: Float64
    predicted: Float64
    gradient: Float32
    change: Float32 | None
    outcomes_pre: Float64
    outcomes_post: Float64
    curve: Float64
    random: RandomDirections
    range_before: RangeScores
    range_after: RangeScores | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def effect(self) -> Float64:
        """(S,) improvements in SDs over people before: (pre - post) / SD where less is better."""
        return improvement(self.pre, self.post, self.goal)

    def moved(self, k: int) -> Float64:
        """(S,) changes of the k-th outcome, in SDs over people before."""
        return improvement(self.outcomes_pre[k], self.outcomes_post[k], "up")

    def summary(self) -> dict[str, Any]:
        """Everything about it that is one number, NaN where it does not exist."""
        effect, random = self.effect, self.random
        own = effect[random.people]
        means, spreads = random.effects.mean(axis=1), _sd(random.effects, axis=1)
        return {
            "mean_effect": _mean(effect),
            "sd_effect": float(_sd(effect)),
            "share_improved": _mean(np.where(np.isnan(effect), np.nan, effect > 0)),
            "share_above_0.8": _mean(np.where(np.isnan(effect), np.nan, effect > LARGE)),
            "mean_change_in_unit": _mean(self.post - self.pre),
            "predicted_r": pearson(self.predicted, self.post - self.pre),
            "monotone_share": monotone_share(self.curve, self.goal),
            "random": {
                "n": len(random.effects),
                "people": len(random.people),
                "drawn": random.drawn,
                **_against("mean_effect", "", _mean(own), means),
                "sd_of_intervention": float(_sd(own)),
                **_against("sd_effect_mean", "sd_", float(_sd(own)), spreads),
            },
            "regression_to_mean_r": pearson(effect, self.pre),
            **({"range": self._range()} if self.range_after is not None else {}),
            **self.facts,
        }

    def _range(self) -> dict[str, Any]:
        assert self.range_after is not None
        return {
            "flagged_before": sum(map(bool, self.range_before.flags())),
            "flagged_after": sum(map(bool, self.range_after.flags())),
            "median_deviation_before": float(np.median(self.range_before.deviation)),
            "median_deviation_after": float(np.median(self.range_after.deviation)),
        }


def improvement(pre: Float64, post: Float64, goal: Goal) -> Float64:
    """(...,S) changes towards the goal in SDs of ``pre`` (S,) over people; NaN without any."""
    sd = _sd(pre)
    change = post - pre if goal == "up" else pre - post
    with np.errstate(invalid="ignore", divide="ignore"):
        effect: Float64 = change / (sd if sd > 0 else np.nan)
    return effect


def monotone_share(curve: Float64, goal: Goal) -> float:
    """Share of people whose target never turns back along the doses, (doses,S)."""
    steps = np.diff(curve, axis=0) * (1 if goal == "up" else -1)
    known = ~np.isnan(steps).any(axis=0)
    return float((steps[:, known] >= 0).all(axis=0).mean()) if known.any() else float("nan")


def overlap(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> tuple[float, float]:
    """How alike two maps (E,) are: r over edges, and Dice of their ``TOP_SHARE`` largest |edge|."""
    count = max(1, round(TOP_SHARE * len(one)))
    tops = [set(np.argsort(-np.abs(m), kind="stable")[:count].tolist()) for m in (one, other)]
    return pearson(one, other), len(tops[0] & tops[1]) / count


def _against(name: str, prefix: str, own: float, null: Float64) -> dict[str, float]:
    """The null's mean, z of the own value, and p: the share at least as large, itself counted."""
    null = null[np.isfinite(null)]
    spread = float(_sd(null))
    known = len(null) > 0 and np.isfinite(own)
    return {
        name: _mean(null),
        f"{prefix}z": (own - _mean(null)) / spread if known and spread > 0 else float("nan"),
        f"{prefix}p": float((1 + (null >= own).sum()) / (1 + len(null))) if known else float("nan"),
    }


def _mean(values: npt.NDArray[Any]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _sd(values: npt.NDArray[Any], axis: int | None = None) -> Any:
    """SD with n - 1; NaN of fewer than two."""
    n = values.size if axis is None else values.shape[axis]
    return values.std(axis=axis, ddof=1) if n > 1 else np.full(values.sum(axis=axis).shape, np.nan)
