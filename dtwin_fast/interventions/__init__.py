"""In-silico interventions: what of a connectome would change what a twin does.

In silico, not clinical.
"""

from __future__ import annotations

from .constraints import Constraint, listed_edges, network_edges, site_edges
from .gradients import TargetGradients, target_gradients
from .targets import (
    TARGETS,
    Accuracy,
    BoldVariability,
    Contrast,
    Function,
    ReactionTime,
    Said,
    Target,
    find_target,
)

__all__ = [
    "TARGETS",
    "Accuracy",
    "BoldVariability",
    "Constraint",
    "Contrast",
    "Function",
    "ReactionTime",
    "Said",
    "Target",
    "TargetGradients",
    "find_target",
    "listed_edges",
    "network_edges",
    "site_edges",
    "target_gradients",
]
