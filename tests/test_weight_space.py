"""The paper's direction through the weights, against the same with all weights formed."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dtwin_fast.connectome import Connectomes
from dtwin_fast.errors import DTwinInputError
from dtwin_fast.hypernetwork import Layer, hidden_units, mish, weights_of_hidden
from dtwin_fast.interventions.gradients import in_fisher_z
from dtwin_fast.interventions.weight_space import (
    FEWEST_PEOPLE,
    NOISE_SHARE,
    WeightDirection,
    WeightSpace,
    cross_validated_r,
    smooth_gradients,
    standardised,
)
from dtwin_fast.twin import Twin

Floats = npt.NDArray[Any]

N_PEOPLE = 24


def people_of(twin: Twin, n: int, seed: int = 0, without: dict[int, int] | None = None):
    """People as simulated around the twin's mean; ``without`` is person -> region missing."""
    rng = np.random.default_rng(seed)
    z = twin.edge_mean + twin.edge_sd * rng.standard_normal((n, twin.spec.n_edges))
    fc = np.ones((n, len(twin.regions), len(twin.regions)))
    rows, columns = np.triu_indices(len(twin.regions), 1)
    fc[:, rows, columns] = fc[:, columns, rows] = np.tanh(z)
    for person, region in (without or {}).items():
        fc[person, region] = fc[person, :, region] = np.nan
    connectomes = Connectomes.from_arrays(fc, regions=twin.regions)
    return in_fisher_z(twin.prepare(connectomes, missing="impute"))


def hidden_of(twin: Twin, people: Connectomes) -> Floats:
    return hidden_units(twin.layers, twin.hyper_input(people, "impute"))


def formed(last: Layer, hidden: Floats) -> Floats:
    """(S,P) the generated weights in float64."""
    return hidden.astype(np.float64) @ last.weight.T.astype(np.float64) + last.bias


def z_scored(w: Floats) -> Floats:
    """Columns with mean 0 and SD 1; 0 where a weight is the same for everyone."""
    sd = w.std(axis=0)
    differs = sd > 1e-5 * sd.max()
    return np.where(differs, w - w.mean(axis=0), 0) / np.where(differs, sd, 1)


@pytest.fixture(scope="module")
def people(tiny_twin: Twin) -> Connectomes:
    return people_of(tiny_twin, N_PEOPLE)


@pytest.fixture(scope="module")
def hidden(tiny_twin: Twin, people: Connectomes) -> Floats:
    return hidden_of(tiny_twin, people)


@pytest.fixture(scope="module")
def s() -> Floats:
    return np.random.default_rng(5).gamma(2, 3, N_PEOPLE)


# The direction


def test_direction_is_that_of_the_formed_weights(
    tiny_twin: Twin, hidden: Floats, s: Floats
) -> None:
    last = tiny_twin.layers[-1]
    space = WeightSpace.of(last, hidden)
    direction = space.direction(s)
    w = formed(last, hidden)
    z = z_scored(w)
    # The biases of an untrained twin are the same for everyone.
    assert 0 < (~z.any(axis=0)).sum() < 50
    v = z.T @ ((s - s.mean()) / s.std())
    v /= np.linalg.norm(v)
    z1 = z @ v
    np.testing.assert_allclose(direction.scores(hidden), z1, rtol=1e-6, atol=1e-6)
    assert direction.sd == pytest.approx(z1.std(ddof=1), rel=1e-6)
    np.testing.assert_allclose(space.kernel, z @ z.T, rtol=1e-6, atol=1e-5)
    # W + alpha v', unscaled to the units of the weights, is made of shifted hidden units.
    alpha = 2 * z1.std(ddof=1)
    wanted = w + alpha * v * w.std(axis=0)
    shifted = (hidden + alpha * direction.shift).astype(np.float32)
    found = weights_of_hidden(tiny_twin.layers, shifted)
    moved = np.abs(wanted - w).max()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * moved)
    np.testing.assert_allclose(direction.scores(shifted), z1 + alpha, rtol=1e-5)


def test_direction_has_length_one_in_z_scored_weights(
    tiny_twin: Twin, hidden: Floats, s: Floats
) -> None:
    last = tiny_twin.layers[-1]
    direction = WeightSpace.of(last, hidden).direction(s)
    sd = formed(last, hidden).std(axis=0)
    step = last.weight.astype(np.float64) @ direction.shift
    assert not step[sd < 1e-9].any()
    step = step[sd > 1e-9] / sd[sd > 1e-9]
    assert np.linalg.norm(step) == pytest.approx(1, rel=1e-6)


def test_target_in_another_unit_has_the_same_direction(
    tiny_twin: Twin, hidden: Floats, s: Floats
) -> None:
    space = WeightSpace.of(tiny_twin.layers[-1], hidden)
    one, other = space.direction(s), space.direction(1000 * s - 3)
    np.testing.assert_allclose(other.score, one.score, rtol=1e-9, atol=1e-9)
    against = space.direction(-s)
    np.testing.assert_allclose(against.score, -one.score, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("why", ["the layer's weights are 0", "they read a unit that never moves"])
def test_weights_that_are_the_same_for_everyone_are_left_out(
    why: str, tiny_twin: Twin, hidden: Floats, s: Floats
) -> None:
    last = tiny_twin.layers[-1]
    weight, units = last.weight.copy(), hidden.copy()
    weight[::3] = 0
    if why == "they read a unit that never moves":
        units[:, 7] = 0.3
        weight[::3, 7] = 1.7
    layer = Layer(weight, last.bias)
    space = WeightSpace.of(layer, units)
    z = z_scored(formed(layer, units))
    assert not z[:, ::3].any()
    np.testing.assert_allclose(space.kernel, z @ z.T, rtol=1e-5, atol=1e-4)
    v = z.T @ standardised(s)
    z1 = z @ v / np.linalg.norm(v)
    np.testing.assert_allclose(space.direction(s).scores(units), z1, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fault", ["few people", "equal people", "equal targets"])
def test_no_direction(fault: str, tiny_twin: Twin, hidden: Floats, s: Floats) -> None:
    if fault == "few people":
        hidden, s = hidden[: FEWEST_PEOPLE - 1], s[: FEWEST_PEOPLE - 1]
    elif fault == "equal people":
        hidden = np.repeat(hidden[:1], N_PEOPLE, axis=0)
    else:
        s = np.full(N_PEOPLE, 0.1)
    with pytest.raises(DTwinInputError) as caught:
        WeightSpace.of(tiny_twin.layers[-1], hidden).direction(s)
    assert caught.value.code == "too_few"
    assert "method='connectome'" in caught.value.fix


# What a direction means by chance


def noise_space(n_people: int, n_weights: int, seed: int, spread: float = 0.0) -> WeightSpace:
    """Weights that are the hidden units themselves, some of them larger and correlated."""
    return WeightSpace.of(*noise(n_people, n_weights, seed, spread))


def noise(n_people: int, n_weights: int, seed: int, spread: float = 0.0) -> tuple[Layer, Floats]:
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((n_people, 3)) @ rng.standard_normal((3, n_weights))
    hidden = rng.standard_normal((n_people, n_weights)) + spread * shared
    layer = Layer(np.eye(n_weights, dtype=np.float32), np.zeros(n_weights, np.float32))
    return layer, hidden.astype(np.float32)


def test_participation_ratio_counts_directions(tiny_twin: Twin, hidden: Floats) -> None:
    for space, z in (
        (noise_space(60, 40, 1), None),
        (WeightSpace.of(tiny_twin.layers[-1], hidden), formed(tiny_twin.layers[-1], hidden)),
    ):
        w = z_scored(space.hidden if z is None else z)
        values = np.linalg.svd(w, compute_uv=False) ** 2
        wanted = values.sum() ** 2 / (values**2).sum()
        assert space.participation_ratio() == pytest.approx(wanted, rel=1e-6)
    # Two kinds of weights, copied often, fill about two directions.
    rng = np.random.default_rng(2)
    hidden = rng.standard_normal((500, 2)).astype(np.float32)
    layer = Layer(np.repeat(np.eye(2, dtype=np.float32), 30, axis=0), np.zeros(60, np.float32))
    assert WeightSpace.of(layer, hidden).participation_ratio() == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_noise_correlates_as_null_r_says(spread: float) -> None:
    n_people, n_draws = 80, 400
    space = noise_space(n_people, 60, 3, spread)
    rng = np.random.default_rng(4)
    found = np.empty(n_draws)
    for i in range(n_draws):
        s = rng.standard_normal(n_people)
        z1 = space.direction(s).scores(space.hidden + space.mean)
        found[i] = np.corrcoef(z1, s)[0, 1]
    wanted = np.sqrt(space.participation_ratio() / n_people)
    assert space.null_r() == pytest.approx(wanted)
    # An expectation by first order: within a tenth, and far from the 0.09 of one random score.
    assert found.mean() == pytest.approx(space.null_r(), rel=0.1)
    assert found.mean() > 0.15


def test_permutation_p_is_uniform_of_noise_and_small_of_a_signal() -> None:
    rng = np.random.default_rng(6)
    space = noise_space(40, 30, 7, 1.0)
    p = np.array([space.permutation_p(rng.standard_normal(40), 99, rng) for _ in range(200)])
    assert p.min() >= 1 / 100
    assert p.max() <= 1
    # Within three standard errors of what a uniform p has.
    assert p.mean() == pytest.approx(0.5, abs=3 * np.sqrt(1 / 12 / 200))
    for share in (0.05, 0.2, 0.5, 0.8):
        assert (p <= share).mean() == pytest.approx(
            share, abs=3 * np.sqrt(share * (1 - share) / 200)
        )
    largest = np.linalg.eigh(space.kernel)[1][:, -1]
    signal = largest + 0.05 * rng.standard_normal(40)
    assert space.permutation_p(signal, 99, rng) == 1 / 100


def test_permutation_p_compares_what_direction_gives() -> None:
    """The correlations behind p are those of the scores, not of something like them."""
    space = noise_space(30, 20, 8, 0.5)
    s = np.random.default_rng(9).standard_normal(30)
    own = np.corrcoef(space.direction(s).scores(space.hidden + space.mean), s)[0, 1]
    draws = np.random.default_rng(10)
    shuffled = [draws.permutation(standardised(s)) for _ in range(60)]
    null = [
        np.corrcoef(space.direction(t).scores(space.hidden + space.mean), t)[0, 1] for t in shuffled
    ]
    wanted = (1 + np.sum(np.array(null) >= own)) / 61
    assert space.permutation_p(s, 60, np.random.default_rng(10)) == pytest.approx(wanted)


def test_cross_validated_r_is_0_of_noise_and_high_of_a_signal() -> None:
    n_people = 80
    layer, hidden = noise(n_people, 60, 11, 1.0)
    space = WeightSpace.of(layer, hidden)
    rng = np.random.default_rng(12)
    of_noise = np.array(
        [cross_validated_r(layer, hidden, rng.standard_normal(n_people), rng) for _ in range(60)]
    )
    # A correlation of 80 people has an SE of 0.11; the mean of 60 such is 0 within 3 SE, but for
    # the small negative bias of folds that share one mean.
    assert -0.1 < of_noise.mean() < 3 * 0.11 / np.sqrt(60)
    assert space.null_r() > 0.2
    scores = np.linalg.eigh(space.kernel)[1][:, -1]
    signal = standardised(scores) + 0.3 * rng.standard_normal(n_people)
    assert cross_validated_r(layer, hidden, signal, rng) > 0.8


def test_cross_validation_sees_nothing_of_the_test_people() -> None:
    """A person's score comes from the others: z-scores, direction and unit."""
    layer, hidden = noise(40, 10, 13, 0.5)
    s = np.random.default_rng(14).standard_normal(40)
    found = cross_validated_r(layer, hidden, s, np.random.default_rng(15), n_folds=5)
    scores = np.empty(40)
    order = np.random.default_rng(15).permutation(40)
    for test in np.array_split(order, 5):
        train = np.setdiff1d(order, test)
        w = hidden[train].astype(np.float64)
        mean, sd = w.mean(axis=0), w.std(axis=0)
        v = ((w - mean) / sd).T @ (s[train] - s[train].mean())
        unit = ((w - mean) / sd @ v).std()
        scores[test] = (hidden[test] - mean) / sd @ v / unit
    assert found == pytest.approx(np.corrcoef(scores, s)[0, 1], rel=1e-5)


def test_cross_validation_of_too_few_people_is_nan() -> None:
    layer, hidden = noise(FEWEST_PEOPLE, 8, 16)
    s = np.arange(FEWEST_PEOPLE, dtype=np.float64)
    assert np.isnan(cross_validated_r(layer, hidden, s, np.random.default_rng(0)))


# SmoothGrad


def score_by_edges(twin: Twin, direction: WeightDirection, z: Floats) -> Floats:
    """(...,) z1 of (...,E) Fisher z, in float64."""
    h = (z - twin.edge_mean.astype(np.float64)) / twin.edge_sd
    for layer in twin.layers[:-1]:
        h = mish(h @ layer.weight.T.astype(np.float64) + layer.bias)
    return (h - direction.mean) @ direction.score


def constant(people: Connectomes) -> Connectomes:
    """People whose edges are all alike: no SD over edges, so no noise."""
    first = people.edges[:, :1]
    return replace(people, edges=np.repeat(first, people.n_edges, axis=1))


def test_without_noise_it_is_the_gradient(
    tiny_twin: Twin, people: Connectomes, hidden: Floats, s: Floats, tolerances: ModuleType
) -> None:
    direction = WeightSpace.of(tiny_twin.layers[-1], hidden).direction(s)
    flat = constant(people.select(slice(0, 3)))
    found = smooth_gradients(tiny_twin, flat, direction, np.random.default_rng(0), 2)
    assert found.shape == (3, people.n_edges)
    assert found.dtype == np.float32
    step = 1e-5
    wanted = np.empty(found.shape)
    for e in range(people.n_edges):
        ends = np.stack([flat.edges.astype(np.float64)] * 2)
        ends[0, :, e] += step
        ends[1, :, e] -= step
        scores = score_by_edges(tiny_twin, direction, ends)
        wanted[:, e] = (scores[0] - scores[1]) / (2 * step)
    scale = np.abs(wanted).max()
    tolerance = tolerances.TOLERANCES["edge_gradients"]["float32"]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * scale)


def analytic(twin: Twin, direction: WeightDirection, z: Floats) -> Floats:
    """(N,E) gradients of z1 at (N,E) Fisher z by autograd, float64."""
    torch = pytest.importorskip("torch")
    leaf = torch.tensor(z, dtype=torch.float64, requires_grad=True)
    h = (leaf - torch.tensor(twin.edge_mean)) / torch.tensor(twin.edge_sd)
    for layer in twin.layers[:-1]:
        weight, bias = (torch.tensor(part).double() for part in (layer.weight, layer.bias))
        h = torch.nn.functional.mish(h @ weight.T + bias)
    (h @ torch.tensor(direction.score)).sum().backward()
    gradient: Floats = leaf.grad.numpy()
    return gradient


def bent(twin: Twin) -> Twin:
    """A twin whose first layer turns within the noise, so that smoothing is seen."""
    first = twin.layers[0]
    return replace(twin, layers=(Layer(6 * first.weight, first.bias), *twin.layers[1:]))


def test_smoothing_is_the_mean_over_noise_on_every_edge(tiny_twin: Twin) -> None:
    twin = bent(tiny_twin)
    people = people_of(twin, N_PEOPLE, seed=3)
    hidden = hidden_of(twin, people)
    direction = WeightSpace.of(twin.layers[-1], hidden).direction(hidden[:, 0].astype(np.float64))
    n_draws = 4000
    one = people.select([2])
    found = smooth_gradients(twin, one, direction, np.random.default_rng(1), n_draws)[0]
    z = one.edges[0].astype(np.float64)
    rng = np.random.default_rng(2)
    noise = NOISE_SHARE * z.std() * rng.standard_normal((n_draws, len(z)))
    gradients = analytic(twin, direction, z + noise)
    wanted = gradients.mean(axis=0)
    # Both are means of as many draws; of 120 edges, 4.5 standard errors are hardly ever passed.
    error = np.sqrt(2 / n_draws) * gradients.std(axis=0)
    assert (np.abs(found - wanted) < 4.5 * error).all()
    assert np.sqrt(np.mean(((found - wanted) / error) ** 2)) < 1.5
    # What is compared is the noise's doing: the gradient without it is far away.
    plain = analytic(twin, direction, z[None])[0]
    assert np.sqrt(np.mean(((plain - wanted) / error) ** 2)) > 5


def test_missing_regions_have_no_gradient_and_are_imputed(tiny_twin: Twin) -> None:
    whole = people_of(tiny_twin, N_PEOPLE, seed=4)
    some = people_of(tiny_twin, N_PEOPLE, seed=4, without={1: 5})
    hidden = hidden_of(tiny_twin, whole)
    direction = WeightSpace.of(tiny_twin.layers[-1], hidden).direction(
        hidden[:, 1].astype(np.float64)
    )
    lost = np.isnan(some.edges[1])
    assert lost.sum() == 15
    found = smooth_gradients(tiny_twin, some, direction, np.random.default_rng(0), 50)
    assert not found[1, lost].any()
    assert np.isfinite(found).all()
    imputed = np.where(lost, tiny_twin.edge_mean, some.edges[1]).astype(np.float64)
    rng = np.random.default_rng(1)
    spread = NOISE_SHARE * np.nanstd(some.edges[1])
    noisy = imputed + spread * rng.standard_normal((2000, len(imputed)))
    gradients = analytic(tiny_twin, direction, noisy)
    wanted = gradients.mean(axis=0)[~lost]
    error = gradients.std(axis=0)[~lost] / np.sqrt(50)
    assert (np.abs(found[1, ~lost] - wanted) < 4.5 * error + 1e-5 * np.abs(wanted).max()).all()
    # The others are as they were: noise is drawn person by person, and as much for everyone.
    same = smooth_gradients(tiny_twin, whole, direction, np.random.default_rng(0), 50)
    np.testing.assert_array_equal(np.delete(found, 1, 0), np.delete(same, 1, 0))
