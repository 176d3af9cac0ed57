"""The arrays of a case, and the form in which every implementation is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..cells import CELLS
from ..weights import WEIGHT_NAMES, RNNWeights, weight_shapes
from .cases import Case

Float32 = npt.NDArray[np.float32]
Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Problem:
    """Arguments of one rollout and its gradients, float32.

    Attributes:
        case: sizes; ``case.S`` is the number of subjects here.
        weights: of S subjects.
        inputs: (S,B,T,I).
        h0: (h0,) or for an LSTM (h0, c0), each (S,B,H).
        projection: (K,T) or None.
        d_outputs: gradient of the loss by the outputs: (S,B,T,O), or (S,B,K,O).
    """

    case: Case
    weights: RNNWeights
    inputs: Float32
    h0: tuple[Float32, ...]
    projection: Float32 | None
    d_outputs: Float32

    @property
    def weight_arrays(self) -> dict[str, Float32]:
        """The six weights by name."""
        return {name: getattr(self.weights, name) for name in WEIGHT_NAMES}

    def select(self, subjects: slice | list[int]) -> Problem:
        """The same problem for some of its subjects."""
        weights = self.weights.select(subjects)
        return Problem(
            replace(self.case, S=weights.n_subjects),
            weights,
            self.inputs[subjects],
            tuple(part[subjects] for part in self.h0),
            self.projection,
            self.d_outputs[subjects],
        )


def draw(case: Case) -> Problem:
    """Random arrays, always the same: a stable network whose units are well into their bend."""
    rng = np.random.default_rng(0)

    def normal(*shape: int, scale: float = 1.0) -> Float32:
        return np.float32(scale) * rng.standard_normal(shape, dtype=np.float32)

    # The last axis of a matrix is summed over; 0.8 keeps the spectral radius below 1.
    weights = {
        name: normal(case.S, *shape, scale=0.8 / np.sqrt(shape[-1]) if len(shape) > 1 else 0.1)
        for name, shape in weight_shapes(case.cell, case.I, case.H, case.O).items()
    }
    return Problem(
        case,
        RNNWeights(case.cell, **weights),
        normal(case.S, case.B, case.T, case.I),
        tuple(normal(case.S, case.B, case.H, scale=0.5) for _ in range(CELLS[case.cell].n_states)),
        normal(case.K, case.T, scale=1 / np.sqrt(case.T)) if case.K else None,
        normal(case.S, case.B, case.K or case.T, case.O),
    )


def gradient_names(case: Case) -> tuple[str, ...]:
    """What ``fwd_bwd`` returns, in order; the names of h0 are h0 and, for an LSTM, c0."""
    return (*WEIGHT_NAMES, "inputs", *("h0", "c0")[: CELLS[case.cell].n_states])


@dataclass(frozen=True)
class Call:
    """One implementation, ready to be timed.

    Attributes:
        run: does the work and returns when its result is there.
        arrays: that result as arrays by name: ``outputs``, or :func:`gradient_names`.
    """

    run: Callable[[], Any]
    arrays: Callable[[Any], Arrays]


Prepare = Callable[[Problem], Call]
"""Moves the arguments to where they are used and compiles; none of that is timed."""
