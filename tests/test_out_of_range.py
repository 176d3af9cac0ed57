"""How unusual connectomes are: scores by their definitions, flags on people and on damage."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dtwin_fast.errors import DTwinInputError
from dtwin_fast.interventions.out_of_range import LIMITS, RangeScores, Reference, range_scores
from dtwin_fast.simulate import simulate

Floats = npt.NDArray[Any]


@pytest.fixture(scope="module")
def z() -> Floats:
    """(456,4950) Fisher z of simulated people: 228 to train on, 228 others."""
    return simulate(456, 100, with_bold=False).cohort.connectomes.fisher_z()


def scored(z: Floats, training: Floats) -> RangeScores:
    reference = Reference.fit(training)
    assert reference is not None
    return range_scores(z, training.mean(axis=0), training.std(axis=0), reference)


def share_flagged(scores: RangeScores) -> float:
    return float(np.mean([bool(flags) for flags in scores.flags()]))


def test_people_of_the_training_are_ordinary(z: Floats) -> None:
    scores = scored(z[:228], z[:228])
    assert np.sqrt(np.mean(scores.deviation**2)) == pytest.approx(1, abs=1e-5)
    assert np.sqrt(np.mean(scores.mahalanobis**2)) == pytest.approx(np.sqrt(227 / 228), abs=1e-9)
    assert (scores.min_eigenvalue > 0).all()
    assert share_flagged(scores) < 0.02


@pytest.mark.parametrize("n_training", [20, 40, 228])
def test_other_people_are_hardly_ever_flagged(z: Floats, n_training: int) -> None:
    assert share_flagged(scored(z[228:], z[:n_training])) < 0.02


@pytest.mark.parametrize("change", ["doubled", "shifted"])
def test_connectomes_at_another_scale_are_flagged(z: Floats, change: str) -> None:
    moved = 2 * z[228:258] if change == "doubled" else z[228:258] + np.float32(0.3)
    scores = scored(moved, z[:228])
    for flags in scores.flags():
        assert flags[0].startswith("outside_training_range:deviation_")
        assert any("min_eigenvalue_-" in flag for flag in flags)


def test_each_score_has_its_flag() -> None:
    names = [field.name for field in fields(RangeScores)]
    assert names == list(LIMITS)
    usual = {"deviation": 1.0, "beyond_share": 0.003, "mahalanobis": 1.0, "min_eigenvalue": 0.0}
    unusual = {"deviation": 3.24, "beyond_share": 0.2, "mahalanobis": 12, "min_eigenvalue": -0.5}
    assert range_of(usual).flags() == ((),)
    for name, value in unusual.items():
        (flags,) = range_of(usual | {name: value}).flags()
        assert flags == (f"outside_training_range:{name}_{value:.3g}",)
    assert len(range_of(unusual).flags()[0]) == 4
    assert range_of(dict.fromkeys(usual, np.nan)).flags() == ((),)


def range_of(values: dict[str, float]) -> RangeScores:
    return RangeScores(**{name: np.array([value]) for name, value in values.items()})


def test_scores_by_their_definitions() -> None:
    z = np.array([[0.0, 0.5, -1.0], [0.1, 0.2, 0.3]], np.float32)
    mean, sd = np.array([0.0, 0.1, 0.0]), np.array([0.1, 0.1, 0.3])
    scores = range_scores(z, mean, sd)
    np.testing.assert_allclose(scores.deviation[0], np.sqrt((16 + 100 / 9) / 3), rtol=1e-6)
    np.testing.assert_allclose(scores.beyond_share, [2 / 3, 0])
    full = np.eye(3)
    full[[0, 0, 1], [1, 2, 2]] = full[[1, 2, 2], [0, 0, 1]] = np.tanh(z[0])
    np.testing.assert_allclose(scores.min_eigenvalue[0], np.linalg.eigvalsh(full)[0], rtol=1e-6)
    assert np.isnan(scores.mahalanobis).all()


@pytest.mark.parametrize(("n_people", "k"), [(20, 5), (23, 5), (50, 12), (99, 20)])
def test_components_are_those_of_the_covariance(n_people: int, k: int) -> None:
    rng = np.random.default_rng(n_people)
    z = rng.normal(0, 1, (n_people, 91)) * np.linspace(0.2, 2, 91) + 0.3
    reference = Reference.fit(z)
    assert reference is not None
    assert reference.components.shape == (k, 91)
    np.testing.assert_allclose(reference.components @ reference.components.T, np.eye(k), atol=1e-10)
    values, vectors = np.linalg.eigh(np.cov(z.T))
    np.testing.assert_allclose(reference.sd**2, values[::-1][:k], rtol=1e-9)
    stranger = rng.normal(0, 1, 91)
    along = vectors[:, ::-1][:, :k].T @ (stranger - z.mean(axis=0))
    wanted = np.sqrt(np.mean(along**2 / values[::-1][:k]))
    assert reference.distance(stranger) == pytest.approx(wanted, rel=1e-9)


def test_components_of_more_edges_than_fit_in_a_block() -> None:
    z = np.random.default_rng(0).normal(0, 1, (24, 20_000)).astype(np.float32)
    reference = Reference.fit(z)
    assert reference is not None
    values = np.linalg.svd(z - z.mean(axis=0, dtype=np.float64), compute_uv=False)
    np.testing.assert_allclose(reference.sd, values[:6] / np.sqrt(23), rtol=1e-9)


def test_no_reference_of_few_or_equal_people() -> None:
    z = np.random.default_rng(0).normal(0, 1, (20, 45))
    assert Reference.fit(z[:19]) is None
    assert Reference.fit(z) is not None
    assert Reference.fit(np.tile(z[:1], (20, 1))) is None
    two_kinds = Reference.fit(np.repeat(z[:2], 10, axis=0))
    assert two_kinds is not None
    assert len(two_kinds.sd) == 1


def test_missing_edges_are_left_out(z: Floats) -> None:
    training, person = z[:228], z[300:301].copy()
    rows, columns = np.triu_indices(100, 1)
    lost = np.isin(rows, [3, 50]) | np.isin(columns, [3, 50])
    person[0, lost] = np.nan
    mean, sd = training.mean(axis=0), training.std(axis=0)
    holes = training.copy()
    holes[5, lost] = np.nan
    reference = Reference.fit(holes)
    scores = range_scores(person, mean, sd, reference)
    rest = range_scores(person[:, ~lost], mean[~lost], sd[~lost])
    assert scores.deviation[0] == rest.deviation[0]
    assert scores.beyond_share[0] == rest.beyond_share[0]
    assert reference is not None
    at_the_mean = np.where(lost, reference.mean, person[0])
    assert scores.mahalanobis[0] == pytest.approx(reference.distance(at_the_mean), rel=1e-9)
    assert np.isnan(scores.min_eigenvalue[0])
    assert scores.flags() == ((),)
    nobody = range_scores(np.full((1, 4950), np.nan, np.float32), mean, sd, reference)
    assert all(np.isnan(getattr(nobody, name)).all() for name in LIMITS)


def test_people_are_judged_alone(z: Floats) -> None:
    together = scored(z[228:234], z[:40])
    for i in range(6):
        alone = scored(z[228 + i : 229 + i], z[:40])
        for name in LIMITS:
            assert getattr(alone, name)[0] == getattr(together, name)[i]


@pytest.mark.parametrize("fault", ["edges of another atlas", "one person", "mean", "reference"])
def test_arrays_that_do_not_fit(fault: str) -> None:
    z = np.random.default_rng(0).normal(0, 0.3, (25, 45))
    mean, sd, reference = z.mean(axis=0), z.std(axis=0), Reference.fit(z)
    if fault == "edges of another atlas":
        z = z[:, :36]
    elif fault == "one person":
        z = z[0]
    elif fault == "mean":
        mean = mean[:36]
    else:
        reference = Reference.fit(z[:, :36])
    with pytest.raises(DTwinInputError) as caught:
        range_scores(z, mean, sd, reference)
    assert caught.value.code == "shape"
