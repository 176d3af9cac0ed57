"""Self-contained HTML pages of an intervention and of scores: one a cohort, one a person."""

from __future__ import annotations

from .write import Written, write_report

__all__ = ["Written", "write_report"]
