"""What ``dtwin_fast.torch.rollout`` takes: which tensors, and which backend they go to."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib.util import find_spec

import torch
from torch import Tensor

import dtwin_fast.kernels as kernels

from . import dispatch
from .backends import cuda
from .errors import BackendUnavailableError, DTwinInputError
from .weights import WEIGHT_NAMES

PRECISIONS = {torch.float32: "float32", torch.float64: "float64"}

DEVICES = {"cpu": ("cpu", "reference"), "cuda": ("cuda", "triton", "reference")}
"""The backends by where the tensors are, in the order in which "auto" tries them."""


class SlowBackendWarning(RuntimeWarning):
    """Under backend="auto" no kernel can run this on the GPU, and torch's own loop does."""


def check_tensors(named: Mapping[str, object]) -> None:
    """Refuse what is not a dense tensor of the one dtype and device: nothing is cast or moved."""
    tensors = [value for value in named.values() if isinstance(value, Tensor)]
    dtypes = [tensor.dtype for tensor in tensors]
    wanted = dtypes[0] if dtypes and dtypes[0] in PRECISIONS else torch.float32
    for field, value in named.items():
        got = type(value).__name__
        if isinstance(value, Tensor):
            if value.device.type not in DEVICES:
                raise BackendUnavailableError(
                    f"dtwin_fast.torch.rollout runs on CPU and CUDA tensors, and {field} is on "
                    f"{value.device}. Use dtwin_fast.reference.rollout, which runs on any device."
                )
            if value.device != tensors[0].device:
                raise DTwinInputError(
                    "device",
                    "all tensors are on one device",
                    field=field,
                    wanted=str(tensors[0].device),
                    got=str(value.device),
                    fix=f"Move it with .to({str(tensors[0].device)!r})",
                )
            if value.dtype == wanted and value.layout == torch.strided:
                continue
            got = f"{value.dtype}, {value.layout}"
        raise DTwinInputError(
            "dtype",
            "all arguments are dense tensors of one dtype, float32 or float64",
            field=field,
            wanted=str(wanted),
            got=got,
            fix=f"Convert it to a dense tensor of {wanted}",
        )


def is_bfloat16(precision: str | None, dtype: torch.dtype) -> bool:
    """Whether the weights are to be rounded; refuses a precision that is not the tensors'."""
    if precision not in (None, PRECISIONS[dtype], "bfloat16") or (
        precision == "bfloat16" and dtype != torch.float32
    ):
        raise DTwinInputError(
            "precision",
            "the tensors have another precision",
            field="precision",
            wanted=f"None, {PRECISIONS[dtype]!r}, or 'bfloat16' with float32 tensors",
            got=repr(precision),
            fix="Convert the tensors, or leave precision out",
        )
    return precision == "bfloat16"


def choose(
    backend: str,
    cell: str,
    weights: list[Tensor],
    inputs: Tensor,
    bfloat16_weights: bool,
    needs_gradient: bool,
) -> str:
    """The backend for these tensors."""
    on_gpu = inputs.device.type == "cuda"
    candidates = DEVICES[inputs.device.type]
    if backend not in ("auto", *candidates):
        dispatch.check_backend(backend)
        where = "CUDA" if on_gpu else "CPU"
        raise BackendUnavailableError(
            f"backend={backend!r} does not run on {where} tensors. Use one of "
            f"{', '.join(candidates)}, or move the tensors."
        )
    reasons: dict[str, str] = {}
    for name in candidates if backend == "auto" else (backend,):
        reason = _why_not(name, cell, weights, inputs, bfloat16_weights, needs_gradient)
        if reason is None:
            if on_gpu and backend == "auto" and name == "reference":
                why = "; ".join(f"{other}: {text}" for other, text in reasons.items())
                warnings.warn(
                    f"dtwin_fast.torch.rollout runs torch's own loop on {inputs.device}, which "
                    f"is much slower than a kernel. {why}.",
                    SlowBackendWarning,
                    stacklevel=3,
                )
            return name
        reasons[name] = reason
    raise BackendUnavailableError(
        f"dtwin_fast.torch.rollout cannot run this with backend={backend!r} ({cell}, "
        f"{inputs.dtype}). {'; '.join(f'{name}: {why}' for name, why in reasons.items())}."
    )


def _why_not(
    name: str,
    cell: str,
    weights: list[Tensor],
    inputs: Tensor,
    bfloat16_weights: bool,
    needs_gradient: bool,
) -> str | None:
    """Why a backend cannot run this on these tensors, or None."""
    precision = "bfloat16" if bfloat16_weights else PRECISIONS[inputs.dtype]
    if inputs.device.type == "cpu":
        return dispatch.why_not(name, cell, precision, vjp=needs_gradient)
    n_subjects, _, n_hidden = weights[WEIGHT_NAMES.index("w_hh")].shape
    if name == "cuda":
        n_sequences, n_steps, n_inputs = inputs.shape[-3:]
        sizes = (n_subjects, n_sequences, n_steps, n_inputs, n_hidden)
        device = inputs.device.index
        return cuda.why_not(cell, precision, device, sizes, vjp=needs_gradient)
    if name == "triton":
        if find_spec("triton") is None:
            return "triton is not installed (pip install 'dtwin_fast[triton]')"
        reason: str | None = kernels.why_not(cell, precision, n_hidden)
        return reason
    return None
