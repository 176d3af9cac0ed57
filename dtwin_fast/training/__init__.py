"""Training in torch: the hypernetwork as a module, losses, and fit()."""

from __future__ import annotations

from ..errors import MissingExtraError

try:
    from .config import StagedConfig, TrainConfig
    from .descent import TrainStep
    from .fit import fit
    from .initialise import INITIALISERS
    from .network import HyperNetwork
    from .segments import Segments, cut_segments
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise MissingExtraError("torch", "torch", "Training") from error

__all__ = [
    "INITIALISERS",
    "HyperNetwork",
    "Segments",
    "StagedConfig",
    "TrainConfig",
    "TrainStep",
    "cut_segments",
    "fit",
]
