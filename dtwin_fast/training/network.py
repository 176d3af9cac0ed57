"""The hypernetwork as a torch module; ``dtwin_fast.hypernetwork`` is its numpy twin."""

from __future__ import annotations

from torch import Tensor, nn

from ..errors import DTwinInputError
from ..hypernetwork import Layer, layer_sizes
from ..spec import TwinSpec
from ..weights import split_flat
from .initialise import INITIALISERS
from .mish import linears, mish_layers


class HyperNetwork(nn.Module):
    """Edges -> dropout -> Linear, Mish, ... -> Linear -> weights of the main RNN.

    The architecture of Takahashi et al. 2026 for the presets ``tcp446`` and ``tcp434``.

    Args:
        spec: sizes and dropout rate.
        init: a key of ``INITIALISERS``.
        n_features: length of the input; None takes the edges of the spec.

    Raises:
        DTwinInputError: no such initialiser (code ``init``) or cell (code ``cell``).
    """

    def __init__(
        self, spec: TwinSpec, init: str = "hyperfan", n_features: int | None = None
    ) -> None:
        super().__init__()
        if init not in INITIALISERS:
            raise DTwinInputError(
                "init",
                "there is no such initialiser",
                field="init",
                wanted=" | ".join(INITIALISERS),
                got=repr(init),
                fix="Name one of the initialisers",
            )
        self.spec = spec
        self.dropout = nn.Dropout(spec.dropout)
        (n_edges, n_first), *others = layer_sizes(spec)
        sizes = [(n_edges if n_features is None else n_features, n_first), *others]
        self.layers = nn.ModuleList(nn.Linear(n_in, n_out) for n_in, n_out in sizes)
        INITIALISERS[init](self.linears(), spec)

    def linears(self) -> list[nn.Linear]:
        """The layers, first to last."""
        return linears(self.layers)

    def forward(self, x: Tensor) -> Tensor:
        """Standardised edges (S,E) -> flat weights (S,P)."""
        *hidden, last = self.linears()
        out: Tensor = last(mish_layers(hidden, self.dropout(x)))
        return out

    def weights(self, x: Tensor) -> dict[str, Tensor]:
        """Standardised edges (S,E) -> named RNN weights, shapes as in RNNWeights."""
        return split_flat(self(x), self.spec)

    def numpy_layers(self) -> tuple[Layer, ...]:
        """Copies of the parameters for inference in numpy."""
        return tuple(
            Layer(
                layer.weight.detach().cpu().numpy().copy(),
                layer.bias.detach().cpu().numpy().copy(),
            )
            for layer in self.linears()
        )
