"""From edges to the weights of the main RNN as ONNX nodes, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..connectome import FISHER_CLIP
from ..connectome_checks import R_TOLERANCE
from ..twin import Twin
from ..weights import count_weights, spec_weight_shapes
from .nodes import Nodes


@dataclass
class HyperNodes:
    """Writes a twin's hypernetwork into ``g``; its layers are initialisers, named once.

    Attributes:
        initialisers: name -> array of what was written so far.
    """

    g: Nodes
    twin: Twin
    initialisers: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    _slopes: list[str] = field(default_factory=list)

    def forward(self, edges: str, *, slopes: bool = False) -> str:
        """(S,P) flat weights of (S,E) Pearson r, NaN of people whose edges are no correlations.

        Args:
            edges: name of the edges.
            slopes: keep what :meth:`backward` needs.
        """
        g = self.g
        clip = [g.constant(sign * FISHER_CLIP, np.float32) for sign in (-1, 1)]
        # What readers refuse becomes NaN, which marks the person diverged: a file cannot raise, and
        # Fisher z that are clipped would predict something plausible. Not LessOrEqual, as the limit
        # is rounded up to float32.
        limit, nan = (g.constant(value, np.float32) for value in (1 + R_TOLERANCE, np.nan))
        is_r = g("Less", g("Abs", edges), limit)
        x = g("Atanh", g("Where", is_r, g("Clip", edges, *clip), nan))
        if self.twin.spec.standardize:
            mean, sd = self._array("edge_mean"), self._array("edge_sd")
            x = g("Div", g("Sub", x, mean), sd)
        for i in range(len(self.twin.layers)):
            if i:
                if slopes:
                    self._slopes.append(_mish_slope(g, x))
                x = _mish(g, x)
            x = g("Gemm", x, self._layer(i, "weight"), self._layer(i, "bias"), transB=1)
        return x

    def backward(self, edges: str, d_flat: str) -> str:
        """(S,E) gradient of edges of ``d_flat`` (S,P); after ``forward(..., slopes=True)``."""
        g = self.g
        d = d_flat
        for i in reversed(range(len(self.twin.layers))):
            d = g("MatMul", d, self._layer(i, "weight"))
            if i:
                d = g("Mul", d, self._slopes[i - 1])
        if self.twin.spec.standardize:
            d = g("Div", d, self._array("edge_sd"))
        one, zero = (g.constant(value, np.float32) for value in (1, 0))
        square = g("Mul", g("Sub", one, edges), g("Add", one, edges))
        clip = g.constant(FISHER_CLIP, np.float32)
        inside = g("LessOrEqual", g("Abs", edges), clip)
        return g("Where", inside, g("Div", d, square), zero)

    def weights(self, flat: str) -> list[str]:
        """The weights of ``weights.WEIGHT_NAMES`` of flat ones."""
        g, shapes = self.g, spec_weight_shapes(self.twin.spec)
        sizes = [int(np.prod(shape)) for shape in shapes.values()]
        parts = g.many("Split", flat, g.constant(sizes), n_outputs=len(sizes), axis=1)
        return [g("Reshape", part, g.constant([0, *shape]))
                for part, shape in zip(parts, shapes.values(), strict=True)]  # fmt: skip

    def flat(self, weights: Sequence[str]) -> str:
        """(S,P), the inverse of :meth:`weights`."""
        g, n = self.g, count_weights(self.twin.spec)
        parts = [g("Reshape", name, g.constant([0, -1])) for name in weights]
        return g("Reshape", g("Concat", *parts, axis=1), g.constant([0, n]))

    def _array(self, name: str) -> str:
        self.initialisers[name] = getattr(self.twin, name)
        return name

    def _layer(self, i: int, part: str) -> str:
        name = f"hyper.{i}.{part}"  # as in the model folder
        self.initialisers[name] = getattr(self.twin.layers[i], part)
        return name


def _mish(g: Nodes, u: str) -> str:
    """:func:`dtwin_fast.hypernetwork.mish`."""
    n = _grown(g, g("Exp", g("Min", u, g.constant(20, np.float32))))
    return g("Mul", u, g("Div", n, g("Add", n, g.constant(2, np.float32))))


def _mish_slope(g: Nodes, u: str) -> str:
    """:func:`dtwin_fast.hypernetwork.mish_slope`."""
    one, two, four = (g.constant(value, np.float32) for value in (1, 2, 4))
    capped = g("Min", u, g.constant(22, np.float32))
    e = g("Exp", capped)
    n = _grown(g, e)
    below = g("Add", n, two)
    product = g("Mul", g("Mul", four, e), g("Add", one, e))
    second = g("Mul", capped, g("Div", g("Div", product, below), below))
    return g("Add", g("Div", n, below), second)


def _grown(g: Nodes, e: str) -> str:
    return g("Mul", e, g("Add", e, g.constant(2, np.float32)))
