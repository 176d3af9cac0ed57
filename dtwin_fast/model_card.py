"""The text that travels with a model: what it is, what it was trained on, its limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .hypernetwork import count_parameters
from .spec import TwinSpec
from .weights import count_weights


def model_card(spec: TwinSpec, training: dict[str, Any], tasks: Sequence[str]) -> str:
    """MODEL_CARD.md of a twin."""
    facts = "\n".join(
        f"- {key}: {value}" for key, value in training.items() if not isinstance(value, list)
    )
    return f"""# Digital twin brain `{spec.name}`

**In silico, not clinical.** Predictions are simulations of a model; they are no basis for
the diagnosis or treatment of any person.

## What it is

A hypernetwork ({count_parameters(spec):,} parameters) that turns a resting-state functional
connectome of {spec.n_regions} regions ({spec.n_edges:,} edges, Fisher z) into the
{count_weights(spec):,} weights of a {spec.cell} network with {spec.n_hidden} hidden units.
That network is rolled out over the tasks {", ".join(tasks)} at {spec.dt_s} s a step and gives
choices and reaction times (head: {spec.head}) and the BOLD of {len(spec.bold_regions)} regions.

## Training

{facts or "- not recorded"}

## Limits

- Regions are matched by name; input from another parcellation is refused.
- It knows the people, scanner and preprocessing of its training cohort only.
- Connectomes identify people. So do the weights generated from them: handle both as
  personal data.
"""
