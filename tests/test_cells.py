"""The cells are torch.nn's: forward and gradients on every backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np
import pytest
import torch

from dtwin_fast import reference
from dtwin_fast.backends import BACKENDS, VJPS
from dtwin_fast.cells import CELLS
from dtwin_fast.dispatch import rollout, rollout_vjp, supports
from dtwin_fast.weights import WEIGHT_NAMES, RNNWeights, weight_shapes

MODULES: dict[str, Callable[..., torch.nn.RNNBase]] = {
    "rnn": torch.nn.RNN,
    "gru": torch.nn.GRU,
    "lstm": torch.nn.LSTM,
}
NN_NAMES = {
    "w_ih": "weight_ih_l0",
    "w_hh": "weight_hh_l0",
    "b_ih": "bias_ih_l0",
    "b_hh": "bias_hh_l0",
}
SIZES = {  # S, B, T, I, H, O
    "small": (3, 4, 20, 5, 16, 7),
    "odd": (2, 3, 65, 9, 63, 23),
    "ones": (1, 1, 1, 1, 1, 1),
    "narrow": (2, 17, 7, 1, 1, 1),
    "long": (1, 1, 263, 16, 33, 1),
}

# Those with every precision; tests/triton_kernels.py has the other.
EXACT = [name for name in BACKENDS if supports(name, "rnn", "float64") is None]

cells = pytest.mark.parametrize("cell", CELLS)
precisions = pytest.mark.parametrize("precision", ["float32", "float64"])
sizes = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)


@pytest.fixture(autouse=True, scope="module")
def one_torch_thread() -> Iterator[None]:
    """These problems are tiny; torch's threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(
    cell: str, size: tuple[int, ...], precision: str
) -> tuple[RNNWeights, np.ndarray, tuple[np.ndarray, ...]]:
    n_subjects, n_sequences, n_steps, n_inputs, n_hidden, n_outputs = size
    rng = np.random.default_rng(size)
    scale = 1 / np.sqrt(n_hidden)
    weights = RNNWeights(
        cell,
        **{
            name: rng.uniform(-scale, scale, (n_subjects, *shape)).astype(precision)
            for name, shape in weight_shapes(cell, n_inputs, n_hidden, n_outputs).items()
        },
    )
    inputs = rng.normal(size=(n_subjects, n_sequences, n_steps, n_inputs)).astype(precision)
    state = rng.normal(size=(CELLS[cell].n_states, n_subjects, n_sequences, n_hidden))
    return weights, inputs, tuple(state.astype(precision))


def nn_module(weights: RNNWeights, subject: int) -> torch.nn.RNNBase:
    """torch's module with one subject's weights."""
    module = MODULES[weights.cell](weights.n_inputs, weights.n_hidden, batch_first=True)
    module.to(torch.from_numpy(weights.w_hh).dtype)
    with torch.no_grad():
        for ours, theirs in NN_NAMES.items():
            getattr(module, theirs).copy_(torch.from_numpy(getattr(weights, ours)[subject]))
    return module


def nn_state(state: tuple[torch.Tensor, ...]) -> torch.Tensor | tuple[torch.Tensor, ...]:
    added = tuple(part.unsqueeze(0) for part in state)
    return added if len(added) > 1 else added[0]


@cells
@precisions
@sizes
@pytest.mark.parametrize("backend", EXACT)
def test_forward_equals_torch_nn(
    cell: str, precision: str, size: tuple[int, ...], backend: str, tolerances: ModuleType
) -> None:
    weights, inputs, state = make(cell, size, precision)
    h0 = state if len(state) > 1 else state[0]
    got = rollout(weights, inputs, h0, backend, precision, return_states=True, n_threads=1)
    assert got.backend == backend
    assert got.states is not None
    assert got.outputs.dtype == got.states.dtype == np.dtype(precision)
    assert not got.diverged.any()
    h_final = got.h_final if isinstance(got.h_final, tuple) else (got.h_final,)
    for s in range(weights.n_subjects):
        initial = nn_state(tuple(torch.from_numpy(part[s]) for part in state))
        with torch.no_grad():
            states, final = nn_module(weights, s)(torch.from_numpy(inputs[s]), initial)
        final = final if isinstance(final, tuple) else (final,)
        tolerances.assert_close(got.states[s], states.numpy(), "states", precision)
        for ours, theirs in zip(h_final, final, strict=True):
            tolerances.assert_close(ours[s], theirs[0].numpy(), "states", precision)
        outputs = states.numpy() @ weights.w_out[s].T + weights.b_out[s]
        tolerances.assert_close(got.outputs[s], outputs, "outputs", precision)


@cells
@precisions
@sizes
@pytest.mark.parametrize("backend", [name for name in VJPS if name in EXACT])
def test_vjp_equals_torch_nn(
    cell: str, precision: str, size: tuple[int, ...], backend: str, tolerances: ModuleType
) -> None:
    weights, inputs, state = make(cell, size, precision)
    d_outputs = np.random.default_rng(1).normal(size=(*size[:3], size[5])).astype(precision)
    h0 = state if len(state) > 1 else state[0]
    got = rollout_vjp(weights, inputs, d_outputs, h0, backend, precision, n_threads=1)
    assert got.backend == backend
    got_h0 = got.h0 if isinstance(got.h0, tuple) else (got.h0,)
    for s in range(weights.n_subjects):
        module = nn_module(weights, s)
        x = torch.from_numpy(inputs[s]).requires_grad_()
        initial = tuple(torch.from_numpy(part[s]).requires_grad_() for part in state)
        w_out = torch.from_numpy(weights.w_out[s]).requires_grad_()
        b_out = torch.from_numpy(weights.b_out[s]).requires_grad_()
        states, _ = module(x, nn_state(initial))
        outputs = states @ w_out.mT + b_out
        wanted = torch.autograd.grad(
            outputs,
            (*(getattr(module, NN_NAMES[name]) for name in NN_NAMES), w_out, b_out, x, *initial),
            torch.from_numpy(d_outputs[s]),
        )
        ours = [getattr(got.weights, name)[s] for name in WEIGHT_NAMES]
        ours += [got.inputs[s], *(part[s] for part in got_h0)]
        for found, expected in zip(ours, wanted, strict=True):
            tolerances.assert_close(found, expected.numpy(), "gradients", precision)


@cells
@pytest.mark.parametrize("projected", [False, True], ids=["outputs", "projected"])
@pytest.mark.parametrize("shared", [False, True], ids=["own-inputs", "shared-inputs"])
def test_reference_passes_gradcheck(cell: str, projected: bool, shared: bool) -> None:
    weights, inputs, state = make(cell, (2, 2, 4, 2, 3, 2), "float64")
    projection = torch.randn(3, 4, dtype=torch.float64, generator=torch.manual_seed(0))
    arrays = [
        *(getattr(weights, name) for name in WEIGHT_NAMES),
        inputs[0] if shared else inputs,
        *state,
    ]
    leaves = [torch.from_numpy(array.copy()).requires_grad_() for array in arrays]
    if projected:
        leaves.append(projection.requires_grad_())

    def run(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        n_states = CELLS[cell].n_states
        result = reference.rollout(
            cell,
            dict(zip(WEIGHT_NAMES, tensors[:6], strict=True)),
            tensors[6],
            tensors[7 : 7 + n_states],
            time_projection=tensors[-1] if projected else None,
            return_states=True,
        )
        assert result.states is not None
        last = result.h_final if isinstance(result.h_final, tuple) else (result.h_final,)
        return (result.outputs, result.states, *last)

    assert torch.autograd.gradcheck(run, leaves)


@cells
@pytest.mark.parametrize("projected", [False, True], ids=["outputs", "projected"])
@pytest.mark.parametrize("shared", [False, True], ids=["own-inputs", "shared-inputs"])
@pytest.mark.parametrize("backend", [name for name in VJPS if name in EXACT])
def test_vjp_equals_finite_differences(
    cell: str, projected: bool, shared: bool, backend: str, tolerances: ModuleType
) -> None:
    """Of the same backend's rollout, along one random direction of each argument."""
    weights, inputs, state = make(cell, (2, 3, 6, 2, 5, 3), "float64")
    rng = np.random.default_rng(2)
    projection = rng.normal(size=(4, 6)) if projected else None
    d_outputs = rng.normal(size=(2, 3, 4 if projected else 6, 3))
    arrays = {name: getattr(weights, name) for name in WEIGHT_NAMES}
    arrays["inputs"] = inputs[0] if shared else inputs
    arrays |= {f"state{n}": part for n, part in enumerate(state)}

    def arguments(values: dict[str, np.ndarray]) -> tuple[RNNWeights, np.ndarray, object]:
        parts = tuple(values[f"state{n}"] for n in range(len(state)))
        own = RNNWeights(cell, *(values[name] for name in WEIGHT_NAMES))
        return own, values["inputs"], parts if len(parts) > 1 else parts[0]

    def loss(values: dict[str, np.ndarray]) -> float:
        own, x, h0 = arguments(values)
        found = rollout(own, x, h0, backend, "float64", projection)
        return float((found.outputs * d_outputs).sum())

    own, x, h0 = arguments(arrays)
    got = rollout_vjp(own, x, d_outputs, h0, backend, "float64", projection)
    got_h0 = got.h0 if isinstance(got.h0, tuple) else (got.h0,)
    gradients = {name: getattr(got.weights, name) for name in WEIGHT_NAMES}
    gradients["inputs"] = got.inputs
    gradients |= {f"state{n}": part for n, part in enumerate(got_h0)}
    step = 1e-5
    for name, array in arrays.items():
        way = rng.normal(size=array.shape)
        ahead = loss(arrays | {name: array + step * way})
        behind = loss(arrays | {name: array - step * way})
        slope = np.array((ahead - behind) / (2 * step))
        tolerances.assert_close(
            np.array((gradients[name] * way).sum()), slope, "finite_differences", "float64"
        )


@precisions
@pytest.mark.parametrize("function", ["tanh", "sigmoid"])
def test_activations_over_the_whole_range(
    function: str, precision: str, tolerances: ModuleType
) -> None:
    """One hidden unit whose state is exactly tanh(x), or sigmoid(x) in an LSTM's output gate."""
    info = np.finfo(precision)
    x = np.concatenate(
        [
            np.linspace(-25, 25, 20001),
            np.geomspace(info.tiny, info.max / 2, 400),
            -np.geomspace(info.tiny, info.max / 2, 400),
            [0.0, info.smallest_subnormal],
        ]
    ).astype(precision)
    cell = "rnn" if function == "tanh" else "lstm"
    n_gates = CELLS[cell].n_gates
    gates = np.zeros((1, n_gates, 1), precision)
    gates[0, -1] = 1
    zeros = np.zeros((1, n_gates), precision)
    bias, c0 = zeros.copy(), np.full((1, x.size, 1), 1000, precision)
    if cell == "lstm":
        bias[0, 1] = 50  # the forget gate is 1, so tanh(c) = tanh(1000) = 1
    weights = RNNWeights(
        cell,
        gates,
        np.zeros((1, n_gates, 1), precision),
        bias,
        zeros,
        np.ones((1, 1, 1), precision),
        np.zeros((1, 1), precision),
    )
    h0 = None if cell == "rnn" else (np.zeros_like(c0), c0)
    got = rollout(weights, x.reshape(-1, 1, 1), h0, "cpu", precision).outputs.ravel()
    exact = x.astype(np.longdouble)
    with np.errstate(over="ignore"):
        wanted = np.tanh(exact) if function == "tanh" else 1 / (1 + np.exp(-exact))
    error = np.abs(got - wanted)
    # Relative accuracy holds down to the smallest normal number, where sigmoid(x) then stays.
    error /= np.maximum(np.abs(wanted), 2 * info.tiny)
    assert error[x > -80].max() <= tolerances.TOLERANCES["activation"][precision]
    assert np.all(np.abs(got) <= 1)
