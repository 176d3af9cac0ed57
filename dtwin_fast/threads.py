"""How many threads a call of the engine may have."""

from __future__ import annotations

import os

MAX_THREADS = 1024
"""DTWIN_MAX_THREADS of csrc/dtwin.h."""


def usable_threads() -> int:
    """One for each core that this process may use, as many as the engine takes."""
    return min(len(os.sched_getaffinity(0)), MAX_THREADS)
