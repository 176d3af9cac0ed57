"""Mish layers in torch, as ``dtwin_fast.hypernetwork`` has them in numpy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn


def linears(layers: Iterable[nn.Module]) -> list[nn.Linear]:
    """The linear layers among some, first to last; what a module list holds has no type."""
    return [layer for layer in layers if isinstance(layer, nn.Linear)]


def mish_layers(layers: Sequence[nn.Linear], h: Tensor) -> Tensor:
    """h through the layers, Mish after each."""
    for layer in layers:
        h = nn.functional.mish(layer(h))
    return h
