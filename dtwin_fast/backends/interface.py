"""What dispatch hands to a backend and gets back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..weights import FloatArray, RNNWeights

State = tuple[FloatArray, ...]
"""(h,), or (h, c) for an LSTM, each (S,B,H)."""


@dataclass(frozen=True, eq=False)
class Problem:
    """One rollout, validated; all arrays have the same native float dtype, any strides.

    Attributes:
        weights: of S subjects.
        inputs: (B,T,I) shared by all subjects, or (S,B,T,I).
        h0: state before the first step; None = zeros.
        time_projection: (K,T) or (B,K,T), or None.
        precision: a key of ``dtwin_fast.dispatch.PRECISIONS``.
        out_states: (S,B,T,H) C-order memory that a backend may write the states into, or None.
    """

    weights: RNNWeights
    inputs: FloatArray
    h0: State | None
    time_projection: FloatArray | None
    precision: str
    out_states: FloatArray | None = None

    @property
    def n_sequences(self) -> int:
        """B."""
        return int(self.inputs.shape[-3])

    @property
    def n_steps(self) -> int:
        """T."""
        return int(self.inputs.shape[-2])

    @property
    def state_shape(self) -> tuple[int, int, int]:
        """(S,B,H)."""
        return self.weights.n_subjects, self.n_sequences, self.weights.n_hidden

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        """(S,B,T,O), or (S,B,K,O) under a time projection."""
        projection = self.time_projection
        rows = self.n_steps if projection is None else int(projection.shape[-2])
        return self.weights.n_subjects, self.n_sequences, rows, self.weights.n_outputs


@dataclass(frozen=True, eq=False)
class Solution:
    """Forward results: outputs, states (S,B,T,H) or None, final state, diverged (S,)."""

    outputs: FloatArray
    states: FloatArray | None
    h_final: State
    diverged: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class LossGradients:
    """Gradients of a loss in the shapes of a :class:`Solution`'s arrays; None = zeros."""

    outputs: FloatArray
    states: FloatArray | None
    h_final: State | None


@dataclass(frozen=True, eq=False)
class Gradients:
    """Gradients in the shapes of the problem's arrays; ``h0`` is there even when it was zeros."""

    weights: RNNWeights
    inputs: FloatArray
    h0: State


class Backend(Protocol):
    """One way of computing a rollout."""

    def supports(self, cell: str, precision: str) -> str | None:
        """None when :meth:`rollout` can run this, otherwise the reason why not."""

    def supports_vjp(self, cell: str, precision: str) -> str | None:
        """None when the gradients can be computed, otherwise the reason why not."""

    def isa(self) -> str:
        """The instruction set its arithmetic uses here, for the record of a result."""

    def rollout(self, problem: Problem, *, return_states: bool, n_threads: int) -> Solution:
        """Solve the problem; every element of the result is written."""


class Vjp(Protocol):
    """The gradients of a loss with respect to what a rollout reads.

    ``states``: (S,B,T,H) of the same problem, which spare rolling it out again, or None.
    """

    def __call__(
        self, problem: Problem, loss: LossGradients, *, states: FloatArray | None, n_threads: int
    ) -> Gradients: ...
