"""In-silico interventions: what of a connectome would change what a twin does.

In silico, not clinical.
"""

from __future__ import annotations

from .constraints import Constraint, listed_edges, network_edges, site_edges
from .effect import Effect, RandomDirections
from .files import write_intervention
from .gradients import TargetGradients, target_gradients
from .intervene import Intervention, intervene
from .out_of_range import RangeScores, Reference, range_scores
from .presets import EDIT_FORMS, EDITS, Edit, edges, lesion, network, parse_edit, receptor, site
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
    "EDITS",
    "EDIT_FORMS",
    "TARGETS",
    "Accuracy",
    "BoldVariability",
    "Constraint",
    "Contrast",
    "Edit",
    "Effect",
    "Function",
    "Intervention",
    "RandomDirections",
    "RangeScores",
    "ReactionTime",
    "Reference",
    "Said",
    "Target",
    "TargetGradients",
    "edges",
    "find_target",
    "intervene",
    "lesion",
    "listed_edges",
    "network",
    "network_edges",
    "parse_edit",
    "range_scores",
    "receptor",
    "site",
    "site_edges",
    "target_gradients",
    "write_intervention",
]
