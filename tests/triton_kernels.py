"""What the Triton kernels alone promise; test_triton.py runs this file with gpu_kernels.py."""

from __future__ import annotations

import os
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from gpu_kernels import assert_close, cells, make_weights, normal

import dtwin_fast as dt
from dtwin_fast import kernels
from dtwin_fast.errors import BackendUnavailableError
from dtwin_fast.spec import PRESETS
from dtwin_fast.weights import spec_weight_shapes, split_flat

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"


@cells
def test_views_of_flat_weights(cell: str) -> None:
    """Generated weights (S,P) reach the launchers as views, of a misaligned vector here."""
    spec = replace(PRESETS["tiny"], cell=cell)
    size = sum(int(np.prod(shape)) for shape in spec_weight_shapes(spec).values())
    flat = torch.from_numpy(normal(2, size + 1) / 4).to(DEVICE)[:, 1:]
    views = split_flat(flat, spec)
    assert all(view.data_ptr() >= flat.data_ptr() for view in views.values())
    inputs = torch.from_numpy(normal(2, 1, 3, spec.n_inputs)).to(DEVICE)
    d_outputs = torch.from_numpy(normal(2, 1, 3, spec.n_outputs)).to(DEVICE)

    def run(weights: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        forward: dict[str, Any] = {"time_projection": None, "bfloat16_weights": False}
        outputs, states, last = kernels.rollout(
            cell, weights, inputs, None, return_states=True, **forward
        )
        found, d_inputs, d_h0 = kernels.rollout_vjp(
            cell, weights, inputs, d_outputs, None,
            d_states=None, d_final=None, states=None, **forward,
        )  # fmt: skip
        return [outputs, states, *last, *found.values(), d_inputs, *d_h0]

    for ours, theirs in zip(
        run(views), run({name: view.clone() for name, view in views.items()}), strict=True
    ):
        assert torch.equal(ours, theirs)


@cells
def test_too_many_hidden_units_are_refused(cell: str) -> None:
    weights, inputs = make_weights(cell, 1, 2, 300), normal(1, 4, 2)
    with pytest.raises(BackendUnavailableError, match="hidden units, not 300; backend='cpu'"):
        dt.rollout(weights, inputs, backend="triton")
    with pytest.raises(BackendUnavailableError, match="hidden units, not 300; backend='cpu'"):
        dt.rollout_vjp(weights, inputs, normal(1, 1, 4, 3), backend="triton")


@cells
def test_tf32_that_the_process_allows_is_not_used(cell: str, tolerances: ModuleType) -> None:
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32"
    try:
        weights, inputs = make_weights(cell, 1, 9, 5), normal(1, 5, 9)
        got = dt.rollout(weights, inputs, backend="triton", return_states=True)
        assert matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = before
    wanted = dt.rollout(weights, inputs, None, "reference", "float64", return_states=True)
    assert_close(got, wanted, tolerances)
