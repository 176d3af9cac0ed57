"""Twin.edge_gradients: against autograd, against differences through a rollout, its policies."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtwin_fast.connectome import FISHER_CLIP, Connectomes, matrices
from dtwin_fast.dispatch import rollout, rollout_vjp
from dtwin_fast.errors import DTwinInputError
from dtwin_fast.hypernetwork import BLOCK_SUBJECTS
from dtwin_fast.spec import TwinSpec
from dtwin_fast.twin import Twin
from dtwin_fast.weights import WEIGHT_NAMES, RNNWeights, count_weights

CLIP = float(np.float32(FISHER_CLIP))
STEP = 1e-5  # central differences in float64: errors near STEP^2, rounding near 1e-16 / STEP
COARSE_STEP = 3e-3  # of personalize's float32 weights, whose rounding a smaller step would show
COARSE = 5e-3
SLOPE_ROUNDING = 4 * 2.0**-24  # two sums, a product and a quotient, relative


def _r(n_subjects: int, seed: int = 0, n_regions: int = 16) -> np.ndarray:
    n_edges = n_regions * (n_regions - 1) // 2
    edges = np.random.default_rng(seed).uniform(-0.5, 0.9, (n_subjects, n_edges))
    return edges.astype(np.float32)


def _without(edges: np.ndarray, subject: int, *regions: int) -> np.ndarray:
    full = matrices(edges.copy())
    for region in regions:
        full[subject, region] = full[subject, :, region] = np.nan
    return full


def _triangle(full: np.ndarray) -> np.ndarray:
    return full[:, *np.triu_indices(full.shape[1], 1)]


def _gradient(n_subjects: int, spec: TwinSpec, dtype: str = "float32") -> RNNWeights:
    shape = (n_subjects, count_weights(spec))
    flat = np.random.default_rng(9).standard_normal(shape).astype(dtype)
    return RNNWeights.from_flat(flat, spec)


def _filled(twin: Twin, edges: np.ndarray, *, is_fisher_z: bool, missing: str) -> np.ndarray:
    """What the hypernetwork reads of float64 edges, in float64."""
    z = edges if is_fisher_z else np.arctanh(np.clip(edges, -CLIP, CLIP))
    mean = twin.edge_mean.astype(np.float64)
    if twin.spec.standardize:
        z, mean = (z - mean) / twin.edge_sd, 0 * mean
    lost = np.isnan(z)
    if missing == "mask":
        return np.where(lost, 0, z * z.shape[1] / (~lost).sum(axis=1, keepdims=True))
    return np.where(lost, mean, z)


def _weights(twin: Twin, edges: np.ndarray, *, is_fisher_z: bool, missing: str) -> RNNWeights:
    """Twin.personalize in float64."""
    h = _filled(twin, edges, is_fisher_z=is_fisher_z, missing=missing)
    *hidden, last = twin.layers
    for layer in hidden:
        u = h @ layer.weight.T.astype(np.float64) + layer.bias
        h = u * np.tanh(np.log1p(np.exp(u)))
    return RNNWeights.from_flat(h @ last.weight.T.astype(np.float64) + last.bias, twin.spec)


def _code(act: Callable[[], object]) -> str:
    with pytest.raises(DTwinInputError) as caught:
        act()
    return caught.value.code


@pytest.fixture(scope="module")
def raw_twin(tiny_twin: Twin) -> Twin:
    """A twin that takes Fisher z as it is, as the paper's."""
    return replace(tiny_twin, spec=replace(tiny_twin.spec, standardize=False, head="sigmoid"))


kinds = pytest.mark.parametrize("which", ["tiny_twin", "raw_twin"])
units = pytest.mark.parametrize("is_fisher_z", [False, True], ids=["r", "z"])
policies = pytest.mark.parametrize("missing", ["reject", "mask", "impute"])


@kinds
@units
@policies
def test_equals_autograd(
    which: str,
    is_fisher_z: bool,
    missing: Any,
    request: pytest.FixtureRequest,
    tolerances: ModuleType,
) -> None:
    import torch

    from dtwin_fast.training import HyperNetwork

    twin: Twin = request.getfixturevalue(which)
    n_subjects = BLOCK_SUBJECTS + 2
    edges = _r(n_subjects)
    if missing != "reject":
        edges = _triangle(_without(edges, 1, 4, 7))
    fc = Connectomes.from_arrays(edges, regions=twin.regions, is_fisher_z=is_fisher_z)
    d_weights = _gradient(n_subjects, twin.spec)
    got = twin.edge_gradients(fc, d_weights, missing=missing)
    assert got.dtype == np.float32

    network = HyperNetwork(twin.spec).eval().double()
    for linear, layer in zip(network.linears(), twin.layers, strict=True):
        linear.weight.data = torch.from_numpy(layer.weight).double()
        linear.bias.data = torch.from_numpy(layer.bias).double()
    lost = torch.from_numpy(np.isnan(edges))
    given = torch.from_numpy(np.nan_to_num(edges)).double().requires_grad_()
    x = given if is_fisher_z else torch.atanh(given.clamp(-CLIP, CLIP))
    if twin.spec.standardize:
        x = (x - torch.from_numpy(twin.edge_mean)) / torch.from_numpy(twin.edge_sd)
    if missing == "mask":
        x = x * (x.shape[1] / (~lost).sum(dim=1, keepdim=True))
    mean = 0 * twin.edge_mean if twin.spec.standardize or missing == "mask" else twin.edge_mean
    x = torch.where(lost, torch.from_numpy(mean).double(), x)
    network(x).backward(torch.from_numpy(d_weights.to_flat()).double())
    assert given.grad is not None
    wanted = given.grad.numpy()
    scale = np.abs(wanted).max()
    tolerances.assert_close(got / scale, wanted / scale, "edge_gradients", "float32")
    assert (got[np.isnan(edges)] == 0).all()
    assert np.count_nonzero(got) == np.count_nonzero(~np.isnan(edges))


@kinds
@units
@policies
def test_equals_differences_through_the_rollout(
    which: str,
    is_fisher_z: bool,
    missing: Any,
    request: pytest.FixtureRequest,
    tolerances: ModuleType,
) -> None:
    twin: Twin = request.getfixturevalue(which)
    edges = _r(2, seed=5)
    if missing != "reject":
        edges = _triangle(_without(edges, 1, 4, 7))
    fc = Connectomes.from_arrays(edges, regions=twin.regions, is_fisher_z=is_fisher_z)
    options = {"is_fisher_z": is_fisher_z, "missing": missing}
    rng = np.random.default_rng(6)
    inputs = rng.standard_normal((2, 12, twin.spec.n_inputs))
    c = rng.standard_normal((2, 12, twin.spec.n_outputs))

    def value(moved: np.ndarray) -> np.ndarray:
        weights = _weights(twin, moved, **options)
        return (rollout(weights, inputs, precision="float64").outputs * c).sum(axis=(1, 2, 3))

    weights = twin.personalize(fc, missing=missing)
    exact = _weights(twin, edges.astype(np.float64), **options)
    tolerances.assert_close(weights.to_flat(), exact.to_flat(), "generated", "float32")
    d_weights = rollout_vjp(weights, inputs, np.stack([c, c]), precision="float64").weights
    got = twin.edge_gradients(fc, d_weights, missing=missing)

    steps = STEP * np.eye(edges.shape[1])
    for row, gradient in zip(edges.astype(np.float64), got, strict=True):
        wanted = (value(row + steps) - value(row - steps)) / (2 * STEP)
        scale = np.abs(wanted).max()
        tolerances.assert_close(gradient / scale, wanted / scale, "edge_gradients", "float32")


def test_equals_differences_of_personalize(tiny_twin: Twin) -> None:
    edges = _r(3, seed=7)
    rng = np.random.default_rng(8)
    inputs = rng.standard_normal((1, 20, tiny_twin.spec.n_inputs))
    c = rng.standard_normal((1, 20, tiny_twin.spec.n_outputs))

    def value(moved: np.ndarray) -> np.ndarray:
        weights = tiny_twin.personalize(moved)
        return (rollout(weights, inputs, precision="float64").outputs * c).sum(axis=(1, 2, 3))

    d_weights = rollout_vjp(tiny_twin.personalize(edges), inputs, np.stack([c] * 3)).weights
    got = tiny_twin.edge_gradients(edges, d_weights)
    along = (got / np.linalg.norm(got, axis=1, keepdims=True)).astype(np.float64)
    ahead, behind = value(edges + COARSE_STEP * along), value(edges - COARSE_STEP * along)
    slope = (ahead - behind) / (2 * COARSE_STEP)
    np.testing.assert_allclose((got * along).sum(axis=1), slope, rtol=COARSE)


@pytest.mark.parametrize("r", [0, 0.5, -0.999, 0.9999, -0.99999, CLIP, -CLIP])
def test_slope_of_fishers_transform(r: float) -> None:
    edges = np.full((1, 3), r, np.float32)
    edges[0, 1:] = 0.1
    fc = Connectomes.from_arrays(edges)
    got = fc.fisher_z_vjp(np.full((1, 3), 3, np.float32))
    wanted = 3 / (1 - edges.astype(np.float64) ** 2)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, rtol=SLOPE_ROUNDING)


@pytest.mark.parametrize("r", [1, -1, np.nextafter(np.float32(CLIP), np.float32(1)), 1 + 1e-6])
def test_clipped_edges_have_no_gradient(tiny_twin: Twin, r: float) -> None:
    edges = _r(2)
    edges[1, 17] = r
    d_weights = _gradient(2, tiny_twin.spec)
    got = tiny_twin.edge_gradients(edges, d_weights)
    assert got[1, 17] == 0
    assert np.count_nonzero(got) == got.size - 1


def test_fisher_z_has_no_clip(tiny_twin: Twin) -> None:
    edges = _r(1)
    edges[0, 17] = 7.5
    fc = Connectomes.from_arrays(edges, regions=tiny_twin.regions, is_fisher_z=True)
    assert tiny_twin.edge_gradients(fc, _gradient(1, tiny_twin.spec)).all()


class TestOrder:
    @settings(max_examples=50, deadline=None)
    @given(order=st.permutations(range(16)))
    def test_gradients_come_in_the_order_of_the_twin(
        self, tiny_twin: Twin, order: list[int]
    ) -> None:
        full = matrices(_r(2))
        d_weights = _gradient(2, tiny_twin.spec)
        shuffled = Connectomes.from_arrays(
            full[:, order][:, :, order], regions=[tiny_twin.regions[i] for i in order]
        )
        wanted = tiny_twin.edge_gradients(full, d_weights).tobytes()
        assert tiny_twin.edge_gradients(shuffled, d_weights).tobytes() == wanted

    def test_unknown_regions_have_no_column(self, tiny_twin: Twin) -> None:
        more = Connectomes.from_arrays(
            _r(2, n_regions=18), regions=("other", *tiny_twin.regions, "another")
        )
        d_weights = _gradient(2, tiny_twin.spec)
        got = tiny_twin.edge_gradients(more, d_weights)
        assert got.shape == (2, 120)
        known = matrices(more.edges)[:, 1:17, 1:17]
        assert got.tobytes() == tiny_twin.edge_gradients(known, d_weights).tobytes()

    def test_edges_matrices_and_connectomes_are_one(self, tiny_twin: Twin) -> None:
        edges, d_weights = _r(3), _gradient(3, tiny_twin.spec)
        wanted = tiny_twin.edge_gradients(edges, d_weights).tobytes()
        named = Connectomes.from_arrays(edges, regions=tiny_twin.regions)
        for same in (matrices(edges), named, edges.tolist()):
            assert tiny_twin.edge_gradients(same, d_weights).tobytes() == wanted


class TestSubjects:
    @policies
    def test_company_does_not_matter(self, tiny_twin: Twin, missing: Any) -> None:
        n_subjects = 2 * BLOCK_SUBJECTS + 5
        edges = _r(n_subjects)
        if missing != "reject":
            edges = _triangle(_without(edges, 3, 4, 7))
        d_weights = _gradient(n_subjects, tiny_twin.spec)
        whole = tiny_twin.edge_gradients(edges, d_weights, missing=missing)
        rng = np.random.default_rng(3)
        for count in (1, 2, BLOCK_SUBJECTS, BLOCK_SUBJECTS + 1):
            rows = np.append(rng.permutation(np.arange(4, n_subjects))[: count - 1], 3)
            got = tiny_twin.edge_gradients(edges[rows], d_weights.select(rows), missing=missing)
            assert got.tobytes() == whole[rows].tobytes()

    def test_reject(self, tiny_twin: Twin) -> None:
        fc, d_weights = _without(_r(3), 1, 4), _gradient(3, tiny_twin.spec)
        assert _code(lambda: tiny_twin.edge_gradients(fc, d_weights)) == "missing_regions"

    def test_rows_are_the_subjects_that_were_kept(self, tiny_twin: Twin) -> None:
        fc, d_weights = _without(_r(3), 1, 4), _gradient(3, tiny_twin.spec)
        kept = d_weights.select([0, 2])
        got = tiny_twin.edge_gradients(fc, kept, bad_subjects="drop")
        wanted = tiny_twin.edge_gradients(_r(3), d_weights)
        assert got.tobytes() == wanted[[0, 2]].tobytes()
        assert (
            _code(lambda: tiny_twin.edge_gradients(fc, d_weights, bad_subjects="drop")) == "shape"
        )

    def test_nobody(self, tiny_twin: Twin) -> None:
        nobody = Connectomes.from_arrays(_r(1), regions=tiny_twin.regions).select([])
        got = tiny_twin.edge_gradients(nobody, _gradient(0, tiny_twin.spec))
        assert (got.shape, got.dtype) == ((0, 120), np.float32)
        fc = _without(_r(1), 0, 4)
        got = tiny_twin.edge_gradients(fc, _gradient(0, tiny_twin.spec), bad_subjects="drop")
        assert got.shape == (0, 120)

    @pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
    def test_a_bad_gradient_stays_alone(self, tiny_twin: Twin, bad: float) -> None:
        d_weights = _gradient(4, tiny_twin.spec, "float64")
        wanted = tiny_twin.edge_gradients(_r(4), d_weights)
        d_weights.w_hh[2] = bad
        got = tiny_twin.edge_gradients(_r(4), d_weights)
        assert got[[0, 1, 3]].tobytes() == wanted[[0, 1, 3]].tobytes()
        assert not np.isfinite(got[2]).any()
        masked = tiny_twin.edge_gradients(_without(_r(4), 2, 4), d_weights, missing="mask")
        assert np.count_nonzero(masked[2] == 0) == 15

    def test_float64_gradients_are_rounded_first(self, tiny_twin: Twin) -> None:
        exact = _gradient(3, tiny_twin.spec, "float64")
        rounded = _gradient(3, tiny_twin.spec)
        got = tiny_twin.edge_gradients(_r(3), exact)
        assert got.dtype == np.float32
        assert got.tobytes() == tiny_twin.edge_gradients(_r(3), rounded).tobytes()


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "code"),
        [
            (lambda _: None, "weights"),
            (lambda g: g.to_flat(), "weights"),
            (lambda g: g.select([0]), "shape"),
            (lambda g: g.select([0, 1, 2, 0]), "shape"),
            (lambda g: g.select([]), "shape"),
            (lambda g: replace(g, w_ih=g.w_ih[:, :, 1:]), "shape"),
            (lambda g: replace(g, w_out=g.w_out[:, 1:], b_out=g.b_out[:, 1:]), "shape"),
        ],
        ids=["None", "flat", "one", "four", "nobody", "an input less", "an output less"],
    )
    def test_gradients_that_do_not_fit(self, tiny_twin: Twin, change: Any, code: str) -> None:
        d_weights = change(_gradient(3, tiny_twin.spec))
        assert _code(lambda: tiny_twin.edge_gradients(_r(3), d_weights)) == code

    def test_another_cell(self, tiny_twin: Twin) -> None:
        d_weights = _gradient(3, replace(tiny_twin.spec, cell="gru"))
        assert _code(lambda: tiny_twin.edge_gradients(_r(3), d_weights)) == "shape"

    def test_sizes_are_checked_before_the_connectomes(self, tiny_twin: Twin) -> None:
        d_weights = _gradient(3, replace(tiny_twin.spec, n_hidden=17))
        unread: Any = "no connectomes"
        with pytest.raises(DTwinInputError) as caught:
            tiny_twin.edge_gradients(unread, d_weights)
        assert (caught.value.code, caught.value.field) == ("shape", "d_weights")

    def test_connectomes_and_policies_that_do_not_fit(self, tiny_twin: Twin) -> None:
        d_weights, bad = _gradient(2, tiny_twin.spec), "guess"
        for options in ({"missing": bad}, {"bad_subjects": bad}):
            unknown: Any = options
            assert (
                _code(lambda o=unknown: tiny_twin.edge_gradients(_r(2), d_weights, **o))
                == "argument"
            )
        few = _r(2, n_regions=15)
        assert _code(lambda: tiny_twin.edge_gradients(few, d_weights)) == "region_count"


def test_weights_are_never_there_twice(tiny_twin: Twin) -> None:
    n_subjects = 64 * BLOCK_SUBJECTS
    fc = Connectomes.from_arrays(_r(n_subjects), regions=tiny_twin.regions)
    d_weights = _gradient(n_subjects, tiny_twin.spec)
    n_bytes = sum(getattr(d_weights, name).nbytes for name in WEIGHT_NAMES)
    tracemalloc.start()
    try:
        got = tiny_twin.edge_gradients(fc, d_weights)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak - got.nbytes < n_bytes / 8
