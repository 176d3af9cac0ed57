"""Training in torch: the hypernetwork as a module, losses, and fit()."""

from __future__ import annotations

from .fit import TrainConfig, TrainStep, fit
from .initialise import INITIALISERS
from .network import HyperNetwork
from .segments import Segments, cut_segments

__all__ = [
    "INITIALISERS",
    "HyperNetwork",
    "Segments",
    "TrainConfig",
    "TrainStep",
    "cut_segments",
    "fit",
]
