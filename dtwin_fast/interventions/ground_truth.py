"""Interventions on simulated people beside what would truly have happened to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..connectome import Connectomes
from ..evaluate.statistics import (
    area_under_curve,
    bootstrap_interval,
    mean_over_people,
    mean_where,
    person_rows,
)
from ..metrics import pearson
from ..simulate import Truth
from .gradients import in_order

Float64 = npt.NDArray[np.float64]

TRAITS = {
    "speed": "speed",
    "speed-faces": "speed",
    "speed-stroop": "speed",
    "interference": "interference",
    "amygdala": "amygdala",
    "amygdala-left": "amygdala",
    "amygdala-right": "amygdala",
}
"""Targets by name -> the simulated trait that they are about; more of one is more of the other."""


def truth_of_map(
    truth: Truth,
    target: str,
    gradient: npt.NDArray[Any],
    regions: Sequence[str],
    seed: int = 0,
) -> dict[str, Any] | None:
    """How near people's maps (S,E) come to the true gradient of the target's trait.

    Args:
        truth: of the cohort.
        target: name of the target.
        gradient: (S,E) maps.
        regions: R names in the order of the maps, whatever that of the cohort.
        seed: of the intervals.

    Returns:
        Means over people with 95 % intervals (BCa over people): the cosine with the true
        gradient by Fisher z, and the area under the ROC curve of |map| for the causal edges, the
        5 % that move the trait most. None for a target that is about no trait.

    Raises:
        DTwinInputError: a region that the cohort does not have (code ``regions_missing``).
    """
    trait = TRAITS.get(target)
    if trait is None:
        return None
    own = truth.observed.regions or ()
    true = in_order(truth.gradient[truth.trait_names.index(trait)], own, regions)
    causal = in_order(truth.causal_edges(trait), own, regions) > 0
    lengths = np.linalg.norm(gradient, axis=1) * np.linalg.norm(true)
    cosine = np.divide(gradient @ true, lengths, out=np.full(len(gradient), np.nan),
                       where=lengths > 0)  # fmt: skip
    area = np.array([area_under_curve(m[causal], m[~causal]) for m in np.abs(gradient)])
    found: dict[str, Any] = {"trait": trait}
    for name, scores in (("cosine", cosine), ("auc", area)):
        interval = bootstrap_interval(person_rows(scores), mean_over_people, seed=seed)
        found |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return found


def truth_of_effect(
    truth: Truth, target: str, before: Connectomes, after: Connectomes, change: Float64
) -> dict[str, float]:
    """What the changed connectomes would have done, beside the (S,) change that a twin says.

    The people are simulated again with the same random numbers. In units of the target, but for
    BOLD, whose simulated amplitudes are in other units than a twin's.

    Returns:
        ``slope`` and ``slope_r`` of the twin's change over the true one, the share of people in
        whom both have the same sign, and the mean true change.
    """
    moved = _moved(truth.edited(before), truth.edited(after), target)
    known = np.isfinite(moved) & np.isfinite(change)
    moved, change = moved[known], change[known]
    late = moved - moved.mean()
    spread = float(late @ late)
    return {
        "true_change": float(moved.mean()),
        "slope": float(late @ change) / spread if spread > 0 else float("nan"),
        "slope_r": pearson(moved, change),
        "sign_accuracy": float((np.sign(moved) == np.sign(change)).mean()),
    }


def _moved(before: Truth, after: Truth, target: str) -> Float64:
    """(S,) how far the target of simulated people went."""
    if TRAITS[target] == "amygdala":
        names = before.population.bold_regions
        side = {"amygdala-left": "LH", "amygdala-right": "RH"}.get(target, "")
        columns = [r for r, n in enumerate(names) if "amygdala" in n and n.startswith(side)]
        moved = after.betas("faces") - before.betas("faces")
        response: Float64 = (moved[:, 0] - moved[:, 1])[:, columns].mean(axis=1)
        return response
    ends = before.tasks(with_bold=False), after.tasks(with_bold=False)
    # Over the trials with a press in both: they have the same random numbers.
    late_s = {task: ends[1][task].rt_s - run.rt_s for task, run in ends[0].items()}
    if target == "interference":
        condition = np.array(ends[0]["stroop"].schedule.condition)
        slower = [_mean(late_s["stroop"][:, condition == name]) for name in ("inc", "con")]
        longer: Float64 = slower[0] - slower[1]
        return longer
    tasks = {"speed-faces": ["faces"], "speed-stroop": ["stroop"]}.get(target, list(late_s))
    faster: Float64 = -np.mean([_mean(late_s[task]) for task in tasks], axis=0)
    return faster


def _mean(late_s: npt.NDArray[Any]) -> Float64:
    return mean_where(late_s, np.isfinite(late_s))
