"""Training in torch: the hypernetwork as a module, losses, and fit()."""

from __future__ import annotations

from ..errors import MissingExtraError

try:
    from .config import PaperConfig, StagedConfig, TrainConfig
    from .config_files import load_config
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
    "PaperConfig",
    "Segments",
    "StagedConfig",
    "TrainConfig",
    "TrainStep",
    "cut_segments",
    "fit",
    "load_config",
]
