"""The compiled engine on NVIDIA GPUs: numpy arrays are copied there and back.

Device arrays stay where they are: :func:`launch`.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from .._core import cuda_capability, cuda_fits, cuda_launch, cuda_why_not, cuda_workspace
from ..errors import BackendFailedError, BackendUnavailableError, DTwinInputError
from ..weights import FloatArray, RNNWeights, weight_shapes
from . import cpu, host_arrays
from .interface import Gradients, LossGradients, Problem, Solution

DEVICE = 0
"""The GPU of numpy arrays; CUDA_VISIBLE_DEVICES chooses which one that is."""

MAX_CHECK_ERROR = 1e-5
"""Of the small rollout that a GPU must get right before it is used."""


def supports(cell: str, precision: str) -> str | None:
    """None when :func:`rollout` can run this, otherwise the reason why not.

    It may yet refuse the sizes of a problem, which are not asked for here.
    """
    return _why_not_precision(precision) or _why_not_device(DEVICE, cell)


supports_vjp = supports


def isa() -> str:
    """The compute capability of the GPU, e.g. "cuda 9.0".

    Raises:
        BackendUnavailableError: there is none that can run.
    """
    capability = cuda_capability(DEVICE)
    if capability is None:
        raise BackendUnavailableError(f"backend='cuda' cannot run: {cuda_why_not(DEVICE)}.")
    return f"cuda {capability}"


def rollout(problem: Problem, *, return_states: bool, n_threads: int) -> Solution:
    """Solve the problem on the GPU, for as many subjects at a time as fit; threads are not used.

    Raises:
        BackendUnavailableError: sizes for which there is no kernel.
        BackendFailedError: the GPU or its driver failed.
        DTwinInputError: too little memory there for one subject (code ``too_large``).
    """
    with _errors():
        return host_arrays.rollout(
            problem, return_states=return_states, n_threads=n_threads, device=DEVICE
        )


def rollout_vjp(
    problem: Problem, loss: LossGradients, *, states: FloatArray | None, n_threads: int
) -> Gradients:
    """Gradients on the GPU; raises as :func:`rollout`."""
    with _errors():
        return host_arrays.rollout_vjp(
            problem, loss, states=states, n_threads=n_threads, device=DEVICE
        )


def why_not(
    cell: str, precision: str, device: int, sizes: tuple[int, int, int, int, int], *, vjp: bool
) -> str | None:
    """Why this GPU cannot run :func:`launch` with sizes (S,B,T,I,H), or None."""
    reason = _why_not_precision(precision) or _why_not_device(device, cell)
    if reason is not None:
        return reason
    return cuda_fits(
        cell=cell,
        sizes=sizes,
        bfloat16_weights=precision == "bfloat16",
        vjp=vjp,
        device=device,
    )


def launch(
    cell: str,
    arrays: Mapping[str, Any],
    *,
    bfloat16_weights: bool,
    vjp: bool,
    device: int,
    stream: int,
    allocate: Callable[[int], Any],
    ordered: bool = False,
) -> None:
    """Put a rollout or its gradients on a stream and return; nothing waits.

    Args:
        arrays: what :func:`dtwin_fast._core.rollout` or ``rollout_vjp`` read and write, under
            their names: float32 arrays (``diverged`` is bool) on one CUDA device, with
            ``__dlpack__``. They stay valid until the stream has done the work.
        device: number of that device.
        stream: CUDA stream, as an integer; 0 = the default one.
        allocate: ``(bytes) -> array`` of uint8 on the device, for the workspace.
        ordered: the arrays come from work on that very stream, so their producers need not be
            asked to make it wait.

    Raises:
        BackendUnavailableError: sizes for which there is no kernel.
        BackendFailedError: the GPU or its driver failed.
        ValueError: arrays with other shapes, dtypes, devices or layouts than those.
    """
    options: dict[str, Any] = {
        "cell": cell,
        "bfloat16_weights": bfloat16_weights,
        "vjp": vjp,
        "device": device,
    }
    with _errors():
        n_bytes = cuda_workspace(arrays=dict(arrays), **options)
        workspace = allocate(n_bytes)
        named = {**arrays, "workspace": workspace}
        cuda_launch(arrays=named, stream=stream, ordered=ordered, **options)


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise DTwinInputError(
            "too_large",
            "the memory of the GPU, or of this machine, has no room for this problem",
            field="inputs",
            fix="Roll out fewer subjects, sequences or steps at a time, or use backend='cpu'",
        ) from error
    except NotImplementedError as error:
        raise BackendUnavailableError(f"backend='cuda' cannot run this: {error}.") from error
    except RuntimeError as error:
        raise BackendFailedError(f"backend='cuda' failed: {error}.") from error


def _why_not_precision(precision: str) -> str | None:
    if precision == "float64":
        return "there is no float64 on the GPU: its kernels are for float32 and bfloat16 weights"
    return None


_checked: dict[tuple[int, int, str], str | None] = {}
"""What the check found, by process, device and cell: a forked child cannot use its parent's GPU."""


def _why_not_device(device: int, cell: str) -> str | None:
    reason = cuda_why_not(device)
    if reason is not None and reason.startswith("cuBLAS"):
        _load_cublas()
        reason = cuda_why_not(device)
    if reason is not None:
        return reason
    key = os.getpid(), device, cell
    if key not in _checked:
        try:
            _checked[key] = _check(device, cell)
        except (RuntimeError, MemoryError) as error:  # which may be over at the next call
            return f"a small rollout fails on GPU {device}: {error}"
    return _checked[key]


def _check(device: int, cell: str) -> str | None:
    """Compare a small rollout with the processor's: a GPU or driver at fault is not used."""
    rng = np.random.default_rng(0)
    n_subjects, n_sequences, n_steps, n_inputs, n_hidden, n_outputs = 3, 2, 5, 9, 37, 4
    shapes = weight_shapes(cell, n_inputs, n_hidden, n_outputs)
    weights = {
        name: rng.normal(0, 0.15, (n_subjects, *shape)).astype(np.float32)
        for name, shape in shapes.items()
    }
    inputs = rng.normal(size=(n_sequences, n_steps, n_inputs)).astype(np.float32)
    problem = Problem(RNNWeights(cell, **weights), inputs, None, None, "float32")
    wanted = cpu.rollout(problem, return_states=True, n_threads=1)
    found = host_arrays.rollout(problem, return_states=True, n_threads=1, device=device)
    for name in ("outputs", "states"):
        error_size = float(np.abs(getattr(found, name) - getattr(wanted, name)).max())
        if not error_size <= MAX_CHECK_ERROR:  # so that NaN is refused too
            return (
                f"GPU {device} gets a small {cell} rollout wrong ({name} are off by "
                f"{error_size:.1e}); it is not used. Run its diagnostics, or use backend='cpu'"
            )
    return None


def _load_cublas() -> None:
    """Load the cuBLAS of pip's NVIDIA packages, which the system's loader does not look for."""
    package = find_spec("nvidia")
    found = [
        library
        for folder in (package.submodule_search_locations or () if package else ())
        for library in Path(folder).glob("*/lib/libcublas.so.*")
    ]
    for library in sorted(found, key=lambda path: path.suffix, reverse=True):
        # What it needs lies beside it, and is found once it is loaded.
        for path in (*library.parent.glob("libcublasLt.so.*"), library):
            try:
                ctypes.CDLL(str(path))
            except OSError:  # the engine then says what it lacks
                break
        else:
            return
