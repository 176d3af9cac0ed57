"""dtwin_fast.torch.rollout on CUDA tensors; test_cuda.py runs this file where there is a GPU."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from gpu_kernels import cells

from dtwin_fast import reference
from dtwin_fast.cells import CELLS
from dtwin_fast.errors import BackendUnavailableError, DTwinInputError
from dtwin_fast.torch import SlowBackendWarning, rollout
from dtwin_fast.weights import weight_shapes


def make(cell: str, n_hidden: int = 40) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: (torch.rand(3, *shape, generator=generator) * 2 - 1).cuda() / n_hidden**0.5
        for name, shape in weight_shapes(cell, 9, n_hidden, 5).items()
    }
    return weights, torch.randn(3, 2, 20, 9, generator=generator).cuda()


@cells
@pytest.mark.parametrize("backend", ["cuda", "triton"])
@pytest.mark.parametrize("projected", [False, True])
def test_gradients(cell: str, backend: str, projected: bool, tolerances: ModuleType) -> None:
    weights, inputs = make(cell)
    projection = torch.randn(4, 20, device="cuda") / 20**0.5 if projected else None
    h0 = tuple(torch.randn(3, 2, 40, device="cuda") for _ in range(CELLS[cell].n_states))
    found = []
    for dtype in (torch.float32, torch.float64):
        leaves = [t.detach().to(dtype).requires_grad_() for t in (*weights.values(), inputs, *h0)]
        state = tuple(leaves[7:])
        arguments = (cell, dict(zip(weights, leaves, strict=False)), leaves[6])
        options = {"time_projection": None if projection is None else projection.to(dtype)}
        first = state if len(state) > 1 else state[0]
        if dtype == torch.float32:
            result = rollout(*arguments, first, backend=backend, **options)
        else:
            result = reference.rollout(*arguments, first, **options)
        last = result.h_final if isinstance(result.h_final, tuple) else (result.h_final,)
        loss = result.outputs.sin().sum() + sum((part**2).sum() for part in last)
        gradients = torch.autograd.grad(loss, leaves)
        found.append([t.detach().cpu().numpy() for t in (result.outputs, *gradients)])
    tolerances.assert_close(found[0][0], found[1][0], "projected", "float32")
    for ours, theirs in zip(found[0][1:], found[1][1:], strict=True):
        tolerances.assert_close(ours, theirs, "gradients", "float32")


@cells
@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_repeated_calls_have_the_same_bits(cell: str, backend: str) -> None:
    weights, inputs = make(cell)
    first, second = (rollout(cell, weights, inputs, backend=backend) for _ in range(2))
    assert torch.equal(first.outputs, second.outputs)


def test_a_graph_of_the_engine_replays() -> None:
    """Nothing in a call waits or allocates behind torch's back."""
    weights, inputs = make("rnn")
    rollout("rnn", weights, inputs, backend="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = rollout("rnn", weights, inputs, backend="cuda").outputs
    inputs.copy_(torch.randn_like(inputs))
    graph.replay()
    assert torch.equal(captured, rollout("rnn", weights, inputs, backend="cuda").outputs)


def test_auto_takes_the_engine() -> None:
    weights, inputs = make("rnn")
    named = rollout("rnn", weights, inputs, backend="cuda").outputs
    assert torch.equal(rollout("rnn", weights, inputs).outputs, named)


def test_float64_takes_the_torch_loop_and_says_so() -> None:
    weights, inputs = make("rnn")
    weights = {name: tensor.double() for name, tensor in weights.items()}
    with pytest.warns(SlowBackendWarning, match="no float64"):
        outputs = rollout("rnn", weights, inputs.double()).outputs
    np.testing.assert_array_equal(
        outputs.cpu(), reference.rollout("rnn", weights, inputs.double()).outputs.cpu()
    )
    with pytest.raises(BackendUnavailableError, match="no float64"):
        rollout("rnn", weights, inputs.double(), backend="cuda")


def test_tensors_on_two_devices_are_refused() -> None:
    weights, inputs = make("rnn")
    with pytest.raises(DTwinInputError, match=r"one device.*wanted cuda:0; got cpu"):
        rollout("rnn", weights, inputs.cpu())
