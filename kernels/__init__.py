"""Triton kernels; installs as ``dtwin_fast.kernels``. Imports torch and triton when first run.

Weight-stationary: a subject's W_hh is loaded once and stays on the chip for all time steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# A relative import fails loudly where the folder is imported as a top-level package.
from .. import spec as spec
from .limits import why_not

if TYPE_CHECKING:
    from .launch import rollout, rollout_vjp

__all__ = ["rollout", "rollout_vjp", "why_not"]


def __getattr__(name: str) -> Any:
    if name not in ("rollout", "rollout_vjp"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import launch

    return getattr(launch, name)
