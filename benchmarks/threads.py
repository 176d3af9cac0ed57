"""The one number of threads that everything timed here gets."""

from __future__ import annotations

import os


def count_threads() -> int:
    """Cores that this process may use; ``taskset`` gives it fewer.

    The engine, torch and ONNX Runtime are told this number. XLA's and numpy's pools cannot be
    told once loaded: they read the same affinity mask when they start.
    """
    return len(os.sched_getaffinity(0))
