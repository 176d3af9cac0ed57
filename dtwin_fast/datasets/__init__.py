"""Data sets of real people as cohorts: releases, fMRIPrep derivatives, tables of one's own."""

from __future__ import annotations

from .fmriprep import Confounds, clean_series, read_confounds, read_stroop_events
from .tables import read_tables
from .tcp import read_tcp_release
from .tcp_trials import read_tcp_trials

__all__ = [
    "Confounds",
    "clean_series",
    "read_confounds",
    "read_stroop_events",
    "read_tables",
    "read_tcp_release",
    "read_tcp_trials",
]
