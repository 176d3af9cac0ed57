"""The torch reference, with numpy arrays in and out.

All states are computed and kept, asked for or not: ``diverged`` is found by looking through
them, so memory grows with sequences x steps x hidden units.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..cells import CELLS
from ..weights import WEIGHT_NAMES, FloatArray, RNNWeights
from .interface import Gradients, LossGradients, Problem, Solution, State

if TYPE_CHECKING:
    from torch import Tensor


def supports(cell: str, precision: str) -> str | None:
    """None when torch is there: every cell and precision runs."""
    if find_spec("torch") is None:
        return "torch is not installed (pip install 'dtwin_fast[torch]')"
    return None


supports_vjp = supports


def isa() -> str:
    """What torch calls the instruction set of its CPU kernels, e.g. "AVX2"."""
    import torch

    return torch.backends.cpu.get_cpu_capability()


def rollout(problem: Problem, *, return_states: bool, n_threads: int) -> Solution:
    """Solve the problem with torch on the CPU."""
    import torch

    from .. import reference

    with _threads(n_threads), torch.no_grad():
        result = reference.rollout(
            problem.weights.cell,
            _weights(problem),
            _tensor(problem.inputs),
            _state(problem.h0),
            time_projection=_optional(problem.time_projection),
            return_states=True,
        )
    assert result.states is not None
    states = result.states.numpy()
    outputs = result.outputs.numpy()
    h_final = result.h_final if isinstance(result.h_final, tuple) else (result.h_final,)
    return Solution(
        outputs,
        states if return_states else None,
        tuple(array.numpy() for array in h_final),
        ~(_finite_subjects(states) & _finite_subjects(outputs)),
    )


def rollout_vjp(
    problem: Problem, loss: LossGradients, *, states: FloatArray | None, n_threads: int
) -> Gradients:
    """Gradients by torch's autograd, which needs more than the states: it rolls out again.

    Under ``bfloat16`` they are those at the rounded weights.
    """
    import torch

    from .. import reference

    # The gradients are this function's own: a caller's no_grad must not switch them off.
    with torch.inference_mode(False), _threads(n_threads):
        weights = {name: tensor.requires_grad_() for name, tensor in _weights(problem).items()}
        inputs = _tensor(problem.inputs).requires_grad_()
        state = _state(problem.h0)
        if state is None:
            n_states = CELLS[problem.weights.cell].n_states
            state = tuple(inputs.new_zeros(problem.state_shape) for _ in range(n_states))
        state = tuple(tensor.requires_grad_() for tensor in state)
        result = reference.rollout(
            problem.weights.cell,
            weights,
            inputs,
            state,
            time_projection=_optional(problem.time_projection),
            return_states=loss.states is not None,
        )
        last = result.h_final if isinstance(result.h_final, tuple) else (result.h_final,)
        pairs = [(result.outputs, loss.outputs)]
        if result.states is not None and loss.states is not None:
            pairs.append((result.states, loss.states))
        pairs += zip(last, loss.h_final or (), strict=False)
        wanted = (*weights.values(), inputs, *state)
        found = torch.autograd.grad(
            [tensor for tensor, _ in pairs], wanted, [_tensor(array) for _, array in pairs]
        )
    gradients = [tensor.numpy() for tensor in found]
    n_weights = len(WEIGHT_NAMES)
    return Gradients(
        RNNWeights(problem.weights.cell, *gradients[:n_weights]),
        gradients[n_weights],
        tuple(gradients[n_weights + 1 :]),
    )


def _tensor(array: FloatArray) -> Tensor:
    """The array as a tensor; copied where torch cannot share its memory."""
    import torch

    return torch.from_numpy(np.require(array, requirements=["C", "A", "W"]))


def _optional(array: FloatArray | None) -> Tensor | None:
    return None if array is None else _tensor(array)


def _state(state: State | None) -> tuple[Tensor, ...] | None:
    return None if state is None else tuple(_tensor(array) for array in state)


def _weights(problem: Problem) -> dict[str, Tensor]:
    weights = {name: _tensor(getattr(problem.weights, name)) for name in WEIGHT_NAMES}
    if problem.precision == "bfloat16":
        # Stored in bfloat16, computed with in float32.
        return {name: tensor.bfloat16().float() for name, tensor in weights.items()}
    return weights


def _finite_subjects(array: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    finite: npt.NDArray[np.bool_] = np.isfinite(array).all(axis=(1, 2, 3))
    return finite


@contextmanager
def _threads(n_threads: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
