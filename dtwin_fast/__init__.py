"""dtwin_fast: digital twin brains, from a connectome to choices, reaction times and BOLD.

Importing this package needs numpy alone; torch, nilearn and the rest are imported by
the functions that use them.
"""

from __future__ import annotations

from .connectome import Connectomes
from .dispatch import RolloutGradients, RolloutResult, rollout, rollout_vjp, supports
from .errors import BackendUnavailableError, DTwinError, DTwinInputError, MissingExtraError
from .prediction import Prediction
from .provenance import package_version
from .readers import read_connectomes
from .spec import PRESETS, TwinSpec
from .twin import Twin
from .twin_files import load
from .weights import RNNWeights

__all__ = [
    "PRESETS",
    "BackendUnavailableError",
    "Connectomes",
    "DTwinError",
    "DTwinInputError",
    "MissingExtraError",
    "Prediction",
    "RNNWeights",
    "RolloutGradients",
    "RolloutResult",
    "Twin",
    "TwinSpec",
    "__version__",
    "load",
    "read_connectomes",
    "rollout",
    "rollout_vjp",
    "supports",
]


def __getattr__(name: str) -> str:
    # Reading the installed metadata takes longer than the rest of the import.
    if name == "__version__":
        return package_version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
