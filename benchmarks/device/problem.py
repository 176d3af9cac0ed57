"""The tensors of a case, and the form in which every implementation is called."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...cells import CELLS
from ...weights import weight_shapes
from ..cases import Case
from ..problem import gradient_names

MAX_SETS = 8


@dataclass(frozen=True, eq=False)
class Problem:
    """Arguments of one rollout and its gradients, on one device.

    Attributes:
        case: sizes; ``case.S`` is the number of subjects here.
        weights: the six weights of S subjects by name.
        inputs: (S,B,T,I).
        h0: (h0,) or for an LSTM (h0, c0), each (S,B,H).
        projection: (K,T) or None.
        d_outputs: gradient of the loss by the outputs: (S,B,T,O), or (S,B,K,O).
    """

    case: Case
    weights: dict[str, Tensor]
    inputs: Tensor
    h0: tuple[Tensor, ...]
    projection: Tensor | None
    d_outputs: Tensor

    @property
    def leaves(self) -> dict[str, Tensor]:
        """What gradients are asked of, in the order of ``gradient_names``."""
        tensors = (*self.weights.values(), self.inputs, *self.h0)
        return dict(zip(gradient_names(self.case), tensors, strict=True))

    @property
    def n_bytes(self) -> int:
        """Bytes of the tensors that a forward pass reads."""
        return sum(tensor.nbytes for tensor in self.leaves.values())

    def in_double(self, subjects: list[int]) -> Problem:
        """The same problem for some of its subjects, in float64."""
        return Problem(
            replace(self.case, S=len(subjects)),
            {name: tensor[subjects].double() for name, tensor in self.weights.items()},
            self.inputs[subjects].double(),
            tuple(part[subjects].double() for part in self.h0),
            None if self.projection is None else self.projection.double(),
            self.d_outputs[subjects].double(),
        )


def draw(case: Case, seed: int, device: str) -> Problem:
    """Random float32 tensors: a stable network whose units are well into their bend."""
    generator = torch.Generator(device).manual_seed(seed)

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device).mul_(scale)

    # The last axis of a matrix is summed over; 0.8 keeps the spectral radius below 1.
    weights = {
        name: normal(case.S, *shape, scale=0.8 / math.sqrt(shape[-1]) if len(shape) > 1 else 0.1)
        for name, shape in weight_shapes(case.cell, case.I, case.H, case.O).items()
    }
    return Problem(
        case,
        weights,
        normal(case.S, case.B, case.T, case.I),
        tuple(normal(case.S, case.B, case.H, scale=0.5) for _ in range(CELLS[case.cell].n_states)),
        normal(case.K, case.T, scale=1 / math.sqrt(case.T)) if case.K else None,
        normal(case.S, case.B, case.K or case.T, case.O),
    )


def count_sets(n_bytes: int, cache_bytes: int) -> int:
    """Sets of arguments to take turns with, so that each has left the cache when it comes again.

    Args:
        n_bytes: of one set.
        cache_bytes: the GPU's L2.
    """
    if n_bytes > 2 * cache_bytes:
        return 1
    return min(MAX_SETS, 1 + math.ceil(2 * cache_bytes / n_bytes))


@dataclass(frozen=True)
class Call:
    """One implementation with one set of arguments.

    Attributes:
        run: puts the work onto torch's current stream, or waits for its own.
        tensors: the result of run by name: ``outputs``, or ``gradient_names``.
    """

    run: Callable[[], Any]
    tensors: Callable[[Any], dict[str, Tensor]]


Prepare = Callable[[list[Problem], str], list[Call]]
"""(sets of one case, op) -> a call for each; compiles and captures, none of which is timed."""
