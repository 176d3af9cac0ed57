"""Screening: every person of a cohort, from their files to scores, in constant memory."""

from __future__ import annotations

from .config import DEFAULT_OUTPUTS, OUTPUTS, Config
from .engines import ENGINES
from .filters import Filters
from .people import People, open_people
from .results import Results, Summary, open_results
from .run import Run, merge_run, prepare, run
from .worker import Resources

__all__ = [
    "DEFAULT_OUTPUTS",
    "ENGINES",
    "OUTPUTS",
    "Config",
    "Filters",
    "People",
    "Resources",
    "Results",
    "Run",
    "Summary",
    "merge_run",
    "open_people",
    "open_results",
    "prepare",
    "run",
]
