"""Ways to initialise the hypernetwork's last layer, the scale of everything it generates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from ..spec import TwinSpec
from ..weights import spec_weight_shapes
from .mish import mish_layers

PERSONAL_SHARE = 0.001
"""Share of the generated weights' variance that differs between people at the start."""

_SAMPLE_PEOPLE = 64


def default(layers: Sequence[nn.Linear], spec: TwinSpec) -> None:
    """torch's own initialisation, as in the authors' code: nothing to do."""


@torch.no_grad()
def hyperfan(layers: Sequence[nn.Linear], spec: TwinSpec) -> None:
    """Give every generated matrix the variance that its own fan-in asks for.

    After Chang, Flokas and Lipson 2020 (Principled weight initialization for
    hypernetworks): a generated weight is bias + row . h with h the last hidden layer, so
    Var = Var(bias) + fan_in(last) Var(row) Var(h), the second part over people. The total
    is 1 / fan_in of the MAIN network's matrix. The bias carries most of it, an RNN shared
    by everyone, and the rows the rest (``PERSONAL_SHARE``), what differs between people.
    Recurrent units get leaks of different time constants, up to the response time of BOLD.
    """
    last = layers[-1]
    spread = _spread_between_people(layers)
    start = 0
    for name, shape in spec_weight_shapes(spec).items():
        stop = start + math.prod(shape)
        rows, bias = last.weight[start:stop], last.bias[start:stop]
        if len(shape) == 1:
            rows.zero_()
            bias.zero_()
        else:
            variance = 1 / shape[1]
            personal = PERSONAL_SHARE * variance / (last.in_features * spread)
            rows.normal_(0, math.sqrt(personal))
            bias.normal_(0, math.sqrt((1 - PERSONAL_SHARE) * variance))
        if name == "w_hh" and spec.cell == "rnn":
            _spread_time_constants(bias.view(shape), spec.dt_s)
        start = stop


def _spread_between_people(layers: Sequence[nn.Linear]) -> float:
    # Variance of the last hidden layer over people with independent standardised edges.
    h = mish_layers(layers[:-1], torch.randn(_SAMPLE_PEOPLE, layers[0].in_features))
    return float(h.var(dim=0).mean())


def _spread_time_constants(w_hh: torch.Tensor, dt_s: float) -> None:
    # A tanh unit with self-weight a forgets with time constant -dt / log(a). BOLD needs
    # seconds, which random matrices find slowly.
    tau_s = torch.logspace(math.log10(dt_s), math.log10(8.0), w_hh.shape[0])
    w_hh.mul_(0.5).fill_diagonal_(0).add_(torch.diag(torch.exp(-dt_s / tau_s)))


INITIALISERS: dict[str, Callable[[Sequence[nn.Linear], TwinSpec], None]] = {
    "default": default,
    "hyperfan": hyperfan,
}
