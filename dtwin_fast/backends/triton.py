"""The Triton kernels, with numpy arrays in and out.

All states are computed and kept on the device, asked for or not, as the readout is one product
after the loop: memory grows with sequences x steps x hidden units.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import BackendUnavailableError, DTwinInputError
from ..kernels import why_not
from ..weights import WEIGHT_NAMES, FloatArray, RNNWeights
from .interface import Gradients, LossGradients, Problem, Solution, State

if TYPE_CHECKING:
    from torch import Tensor


def supports(cell: str, precision: str) -> str | None:
    """None when :func:`rollout` can run this, otherwise the reason why not.

    It may yet refuse the number of hidden units, which is not asked for here.
    """
    missing = [name for name in ("torch", "triton") if find_spec(name) is None]
    if missing:
        return f"{' and '.join(missing)} not installed (pip install 'dtwin_fast[triton]')"
    return _no_device() or why_not(cell, precision, 1)


supports_vjp = supports


def isa() -> str:
    """The compute capability of the current device, e.g. "cuda 9.0", or "interpreter"."""
    import torch

    if _interpreted():
        return "interpreter"
    return "cuda {}.{}".format(*torch.cuda.get_device_capability())


def rollout(problem: Problem, *, return_states: bool, n_threads: int) -> Solution:
    """Solve the problem on the current CUDA device; threads are not used.

    Raises:
        BackendUnavailableError: too many hidden units, or too small a device for the kernel.
        DTwinInputError: too little device memory (code ``too_large``).
    """
    with _refusals(problem):
        from ..kernels import rollout as run

        outputs, states, h_final = run(
            problem.weights.cell,
            _weights(problem),
            _tensor(problem.inputs),
            _state(problem.h0),
            time_projection=_optional(problem.time_projection),
            # `diverged` is found by looking through them.
            return_states=True,
            bfloat16_weights=problem.precision == "bfloat16",
        )
        finite = states.isfinite().all(3).all(2).all(1) & outputs.isfinite().all(3).all(2).all(1)
        return Solution(
            _array(outputs),
            _array(states) if return_states else None,
            tuple(map(_array, h_final)),
            _array(~finite),
        )


def rollout_vjp(
    problem: Problem, loss: LossGradients, *, states: FloatArray | None, n_threads: int
) -> Gradients:
    """Gradients on the current CUDA device; raises as :func:`rollout`."""
    with _refusals(problem):
        from ..kernels import rollout_vjp as run

        weights, inputs, h0 = run(
            problem.weights.cell,
            _weights(problem),
            _tensor(problem.inputs),
            _tensor(loss.outputs),
            _state(problem.h0),
            time_projection=_optional(problem.time_projection),
            d_states=_optional(loss.states),
            d_final=_state(loss.h_final),
            states=_optional(states),
            bfloat16_weights=problem.precision == "bfloat16",
        )
        return Gradients(
            RNNWeights(problem.weights.cell, *(_array(weights[name]) for name in WEIGHT_NAMES)),
            _array(inputs),
            tuple(map(_array, h0)),
        )


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def _no_device() -> str | None:
    if _interpreted():
        return None
    # torch takes a second to import: without a driver's device file it need not be asked.
    if "torch" in sys.modules or any(Path("/dev").glob("nvidia[0-9]*")):
        import torch

        if torch.cuda.is_available():
            return None
        return f"torch {torch.__version__} sees no CUDA device"
    return "there is no NVIDIA device"


@contextmanager
def _refusals(problem: Problem) -> Iterator[None]:
    """The errors of a problem that this device cannot take, with the way out."""
    import torch
    from triton.runtime.errors import OutOfResources

    cell, n_hidden = problem.weights.cell, problem.weights.n_hidden
    reason = why_not(cell, problem.precision, n_hidden)
    if reason is not None:
        raise BackendUnavailableError(f"backend='triton' cannot run this: {reason}.")
    try:
        with torch.no_grad():
            yield
    except torch.OutOfMemoryError as error:
        raise DTwinInputError(
            "too_large",
            "the memory of the CUDA device has no room for this problem",
            field="inputs",
            got=f"(S,B,T,H) = {(*problem.state_shape[:2], problem.n_steps, n_hidden)}",
            fix="Roll out fewer subjects or sequences at a time, or use backend='cpu'",
        ) from error
    except OutOfResources as error:
        raise BackendUnavailableError(
            f"backend='triton' cannot run this: {cell} with {n_hidden} hidden units needs more "
            f"of a multiprocessor than this device has ({error}). Use backend='cpu'."
        ) from error


def _tensor(array: FloatArray) -> Tensor:
    import torch

    tensor = torch.from_numpy(np.require(array, requirements=["C", "A", "W"]))
    return tensor if _interpreted() else tensor.cuda()


def _optional(array: FloatArray | None) -> Tensor | None:
    return None if array is None else _tensor(array)


def _state(state: State | None) -> tuple[Tensor, ...] | None:
    return None if state is None else tuple(map(_tensor, state))


def _weights(problem: Problem) -> dict[str, Tensor]:
    return {name: _tensor(getattr(problem.weights, name)) for name in WEIGHT_NAMES}


def _array(tensor: Tensor) -> Any:
    return tensor.contiguous().cpu().numpy()
