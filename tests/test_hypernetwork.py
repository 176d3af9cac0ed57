"""The hypernetwork in numpy against its torch twin, its bits, and its initialisation."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtwin_fast.errors import DTwinInputError
from dtwin_fast.hypernetwork import (
    BLOCK_SUBJECTS,
    Layer,
    backpropagate_weights,
    count_parameters,
    generate_weights,
    layer_sizes,
    mish,
    mish_slope,
)
from dtwin_fast.spec import PRESETS, TwinSpec
from dtwin_fast.weights import RNNWeights, count_weights, spec_weight_shapes

TINY = PRESETS["tiny"]
SPECS = {
    "tiny": TINY,
    "demo": PRESETS["demo"],
    "paper-like": TwinSpec("paper-like", 60, (200, 200), 64, standardize=False),
    "gru": replace(TINY, cell="gru", hyper_hidden=(7, 5, 3)),
    "two regions": replace(TINY, n_regions=2, hyper_hidden=(1,)),
}
EXTREMES = [
    -3e38,
    -1e4,
    -200,
    -104,
    -90,
    -20.5,
    -1,
    -1e-30,
    0,
    1e-30,
    1,
    19.99,
    20,
    20.01,
    89,
    3e38,
]


def _random_layers(spec: TwinSpec, seed: int = 0) -> tuple[Layer, ...]:
    rng = np.random.default_rng(seed)
    return tuple(
        Layer(
            (rng.standard_normal((n_out, n_in)) / np.sqrt(n_in)).astype(np.float32),
            rng.standard_normal(n_out).astype(np.float32),
        )
        for n_in, n_out in layer_sizes(spec)
    )


def _gradients(n_subjects: int, spec: TwinSpec, seed: int = 4) -> np.ndarray:
    shape = (n_subjects, count_weights(spec))
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _edges(n_subjects: int, spec: TwinSpec, seed: int = 1) -> np.ndarray:
    shape = (n_subjects, spec.n_edges)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("name", SPECS)
def test_numpy_equals_torch(name: str, tolerances: ModuleType) -> None:
    torch = pytest.importorskip("torch")
    from dtwin_fast.training import HyperNetwork

    spec = SPECS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = HyperNetwork(spec).eval()
    x = _edges(BLOCK_SUBJECTS + 3, spec)
    with torch.no_grad():
        wanted = network(torch.from_numpy(x)).numpy()
        named = {key: w.numpy() for key, w in network.weights(torch.from_numpy(x)).items()}
    got = generate_weights(network.numpy_layers(), x)
    assert got.dtype == np.float32
    tolerances.assert_close(got, wanted, "generated", "float32")
    weights = RNNWeights.from_flat(got, spec)
    for key, wanted in named.items():
        tolerances.assert_close(getattr(weights, key), wanted, "generated", "float32")
    assert sum(p.numel() for p in network.parameters()) == count_parameters(spec)


def test_layers_handed_over_are_copies() -> None:
    torch = pytest.importorskip("torch")
    from dtwin_fast.training import HyperNetwork

    network = HyperNetwork(TINY)
    layers = network.numpy_layers()
    before = [layer.weight.copy() for layer in layers]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    for layer, wanted in zip(layers, before, strict=True):
        np.testing.assert_array_equal(layer.weight, wanted)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_mish_equals_torch(precision: str, tolerances: ModuleType) -> None:
    torch = pytest.importorskip("torch")
    u = np.concatenate([EXTREMES, np.linspace(-30, 30, 4001)]).astype(precision)
    got = mish(u)
    # float64 is torch's reference; torch's own float32 is no more exact than ours.
    wanted = torch.nn.functional.mish(torch.from_numpy(u.astype(np.float64))).numpy()
    assert got.dtype == u.dtype
    tiny = np.finfo(precision).tiny * 100  # below it numbers are denormal and lose digits
    normal = np.abs(wanted) > tiny
    error = np.abs(got[normal] - wanted[normal]) / np.abs(wanted[normal])
    assert error.max() <= tolerances.TOLERANCES["mish"][precision]
    assert np.abs(got[~normal]).max() <= tiny


def test_mish_of_infinities_and_nan_equals_torch() -> None:
    torch = pytest.importorskip("torch")
    u = np.array([np.inf, -np.inf, np.nan], np.float32)
    with np.errstate(invalid="ignore"):
        got = mish(u)
    np.testing.assert_array_equal(got, torch.nn.functional.mish(torch.from_numpy(u)).numpy())


@pytest.mark.parametrize("name", SPECS)
def test_a_row_does_not_depend_on_its_company(name: str) -> None:
    spec = SPECS[name]
    layers, x = _random_layers(spec), _edges(2 * BLOCK_SUBJECTS + 7, spec)
    whole = generate_weights(layers, x)
    rng = np.random.default_rng(2)
    for n in (1, 2, 5, BLOCK_SUBJECTS - 1, BLOCK_SUBJECTS, BLOCK_SUBJECTS + 1, len(x)):
        rows = rng.permutation(len(x))[:n]
        assert generate_weights(layers, x[rows]).tobytes() == whole[rows].tobytes()
    same = generate_weights(layers, np.repeat(x[:1], BLOCK_SUBJECTS, axis=0))
    assert (same == whole[0]).all()


@settings(max_examples=200, deadline=None)
@given(rows=st.lists(st.integers(0, 69), min_size=0, max_size=70))
def test_any_choice_of_rows_keeps_their_bits(rows: list[int]) -> None:
    layers, x = _random_layers(TINY), _edges(70, TINY)
    whole = generate_weights(layers, x)
    assert generate_weights(layers, x[rows]).tobytes() == whole[rows].tobytes()


def test_a_bad_row_stays_alone() -> None:
    layers, x = _random_layers(TINY), _edges(40, TINY)
    wanted = generate_weights(layers, x)
    for bad in (np.nan, np.inf, 3e38):
        spoilt = x.copy()
        spoilt[7] = bad
        got = generate_weights(layers, spoilt)
        others = np.arange(40) != 7
        assert got[others].tobytes() == wanted[others].tobytes()
        assert not np.isfinite(got[7]).all()


def test_layout_of_the_input_does_not_matter() -> None:
    layers, x = _random_layers(TINY), _edges(9, TINY)
    wanted = generate_weights(layers, x).tobytes()
    for same in (np.asfortranarray(x), x[::-1].copy()[::-1], x.astype(">f4")):
        assert generate_weights(layers, same).tobytes() == wanted


def test_nobody() -> None:
    flat = generate_weights(_random_layers(TINY), _edges(0, TINY))
    assert flat.shape == (0, count_weights(TINY))


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_mish_slope(precision: str, tolerances: ModuleType) -> None:
    u = np.concatenate([EXTREMES, np.linspace(-30, 30, 4001)]).astype(precision)
    got = mish_slope(u)
    assert got.dtype == u.dtype
    assert np.isfinite(got).all()
    exact = u.astype(np.longdouble)
    tanh = np.tanh(np.logaddexp(0, exact))
    second = exact * np.exp(-np.logaddexp(0, -exact)) * (1 - tanh**2)
    # The terms cancel near u = -1.19, where mish is least: rounding is relative to their sizes.
    size = tanh + np.abs(second)
    tiny = np.finfo(precision).tiny * 1e4  # its parts become denormal before the slope does
    normal = size > tiny
    error = np.abs(got - (tanh + second))[normal] / size[normal]
    assert error.max() <= tolerances.TOLERANCES["mish"][precision]
    assert np.abs(got[~normal]).max() <= tiny


def test_mish_slope_equals_torch() -> None:
    torch = pytest.importorskip("torch")
    u = np.concatenate([EXTREMES, np.linspace(-30, 30, 4001)])
    tensor = torch.from_numpy(u).requires_grad_()
    torch.nn.functional.mish(tensor).sum().backward()
    assert tensor.grad is not None
    # torch takes 1 - tanh^2 where tanh is nearly 1: some 2^-53 times |u| <= 20 are lost.
    np.testing.assert_allclose(mish_slope(u), tensor.grad.numpy(), rtol=0, atol=1e-14)


def test_mish_slope_of_infinities_and_nan() -> None:
    u = np.array([np.inf, -np.inf, np.nan], np.float32)
    with np.errstate(invalid="ignore"):
        got = mish_slope(u)
    np.testing.assert_array_equal(got, np.array([1, np.nan, np.nan], np.float32))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", SPECS)
def test_backward_equals_autograd(name: str, dtype: str, tolerances: ModuleType) -> None:
    torch = pytest.importorskip("torch")
    from dtwin_fast.training import HyperNetwork

    spec = SPECS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = HyperNetwork(spec, "default").eval()
    layers = network.numpy_layers()
    x, d_flat = _edges(BLOCK_SUBJECTS + 3, spec), _gradients(BLOCK_SUBJECTS + 3, spec)
    got = backpropagate_weights(layers, x, d_flat.astype(dtype))
    assert got.dtype == np.float32
    exact = torch.from_numpy(x.astype(np.float64)).requires_grad_()
    network.double()(exact).backward(torch.from_numpy(d_flat.astype(np.float64)))
    assert exact.grad is not None
    wanted = exact.grad.numpy()
    scale = np.abs(wanted).max()  # the table's errors are in units of 1 where all is smaller
    tolerances.assert_close(got / scale, wanted / scale, "edge_gradients", "float32")


@pytest.mark.parametrize("name", SPECS)
def test_a_gradient_does_not_depend_on_its_company(name: str) -> None:
    spec = SPECS[name]
    n = 2 * BLOCK_SUBJECTS + 7
    layers, x, d_flat = _random_layers(spec), _edges(n, spec), _gradients(n, spec)
    whole = backpropagate_weights(layers, x, d_flat)
    rng = np.random.default_rng(2)
    for count in (1, 2, 5, BLOCK_SUBJECTS - 1, BLOCK_SUBJECTS, BLOCK_SUBJECTS + 1, n):
        rows = rng.permutation(n)[:count]
        got = backpropagate_weights(layers, x[rows], d_flat[rows])
        assert got.tobytes() == whole[rows].tobytes()


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.integers(0, 69), min_size=0, max_size=70))
def test_any_choice_of_rows_keeps_their_gradients(rows: list[int]) -> None:
    layers, x, d_flat = _random_layers(TINY), _edges(70, TINY), _gradients(70, TINY)
    whole = backpropagate_weights(layers, x, d_flat)
    assert backpropagate_weights(layers, x[rows], d_flat[rows]).tobytes() == whole[rows].tobytes()


def test_a_bad_gradient_stays_alone() -> None:
    layers, x, d_flat = _random_layers(TINY), _edges(40, TINY), _gradients(40, TINY)
    wanted = backpropagate_weights(layers, x, d_flat)
    others = np.arange(40) != 7
    for bad in (np.nan, np.inf, 3e38):
        for spoilt in ((x, d_flat.copy()), (x.copy(), d_flat)):
            spoilt[0 if spoilt[1] is d_flat else 1][7] = bad
            got = backpropagate_weights(layers, *spoilt)
            assert got[others].tobytes() == wanted[others].tobytes()
            assert got[7].tobytes() != wanted[7].tobytes()


def test_gradient_of_nobody() -> None:
    got = backpropagate_weights(_random_layers(TINY), _edges(0, TINY), _gradients(0, TINY))
    assert got.shape == (0, TINY.n_edges)


@pytest.mark.parametrize(
    ("x", "d_flat"),
    [
        (_edges(3, TINY), _gradients(1, TINY)),
        (_edges(1, TINY), _gradients(3, TINY)),
        (_edges(3, TINY)[:, 1:], _gradients(3, TINY)),
        (_edges(3, TINY), _gradients(3, TINY)[:, :1]),
        (_edges(3, TINY), _gradients(3, TINY)[0]),
        (_edges(3, TINY), _gradients(3, TINY)[None]),
    ],
    ids=["a gradient", "an x", "an edge less", "one weight", "1-D", "3-D"],
)
def test_gradients_that_do_not_fit(x: np.ndarray, d_flat: np.ndarray) -> None:
    with pytest.raises(DTwinInputError) as caught:
        backpropagate_weights(_random_layers(TINY), x, d_flat)
    assert caught.value.code == "shape"


def test_dropout_acts_in_training_only() -> None:
    torch = pytest.importorskip("torch")
    from dtwin_fast.training import HyperNetwork

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        network = HyperNetwork(TINY)
        x = torch.from_numpy(_edges(4, TINY))
        assert not torch.equal(network(x), network(x))
        network.eval()
        assert torch.equal(network(x), network(x))
        still = HyperNetwork(replace(TINY, dropout=0.0)).train()
        assert torch.equal(still(x), still(x))


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_hyperfan_gives_each_matrix_its_variance(cell: str) -> None:
    torch = pytest.importorskip("torch")
    from dtwin_fast.training import HyperNetwork

    spec = replace(TINY, cell=cell)
    n_draws = 40
    x = torch.from_numpy(_edges(16, spec))
    squares = dict.fromkeys(spec_weight_shapes(spec), 0.0)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(11)
        for _ in range(n_draws):
            for name, w in HyperNetwork(spec).eval().weights(x).items():
                squares[name] += float((w**2).mean()) / n_draws
    for name, shape in spec_weight_shapes(spec).items():
        if len(shape) == 1:
            assert squares[name] == 0
        elif name != "w_hh" or cell != "rnn":  # the leaks of rnn units have a test of their own
            # Nearly all of the variance is the bias, which people share: n values per draw.
            n_values = n_draws * shape[0] * shape[1]
            sampling_sd = np.sqrt(2 / n_values)
            ratio = squares[name] * shape[1]
            # The personal share, 2 % at most, is smaller when hidden units are.
            assert 0.98 - 4 * sampling_sd < ratio < 1 + 4 * sampling_sd


def test_hyperfan_spreads_the_time_constants() -> None:
    torch = pytest.importorskip("torch")
    from dtwin_fast.training import HyperNetwork

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12)
        *_, last = HyperNetwork(TINY).numpy_layers()
    n_hidden = TINY.n_hidden
    start = n_hidden * TINY.n_inputs
    w_hh = last.bias[start : start + n_hidden**2].reshape(n_hidden, n_hidden)
    tau_s = -TINY.dt_s / np.log(np.diag(w_hh))
    assert tau_s[0] == pytest.approx(TINY.dt_s, rel=1e-4)
    assert tau_s[-1] == pytest.approx(8.0, rel=1e-4)
    assert (np.diff(tau_s) > 0).all()


def test_people_differ_from_the_start() -> None:
    torch = pytest.importorskip("torch")
    from dtwin_fast.training import HyperNetwork
    from dtwin_fast.training.initialise import PERSONAL_SHARE

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(13)
        w_out = HyperNetwork(TINY).eval().weights(torch.from_numpy(_edges(50, TINY)))["w_out"]
    share = float(w_out.var(dim=0).mean() / w_out.var())
    # 50 people, 64 hidden units: the variance of a variance, and correlated edges.
    assert PERSONAL_SHARE / 2 < share < 2 * PERSONAL_SHARE


def test_default_is_torchs_own() -> None:
    torch = pytest.importorskip("torch")
    from dtwin_fast.training import HyperNetwork

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(14)
        layers = HyperNetwork(TINY, "default").numpy_layers()
        torch.manual_seed(14)
        plain = [torch.nn.Linear(n_in, n_out) for n_in, n_out in layer_sizes(TINY)]
    for layer, module in zip(layers, plain, strict=True):
        np.testing.assert_array_equal(layer.weight, module.weight.detach().numpy())
        np.testing.assert_array_equal(layer.bias, module.bias.detach().numpy())


def test_unknown_initialiser() -> None:
    pytest.importorskip("torch")
    from dtwin_fast.training import HyperNetwork

    with pytest.raises(DTwinInputError) as caught:
        HyperNetwork(TINY, "xavier")
    assert caught.value.code == "init"
