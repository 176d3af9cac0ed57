"""Constraints on changes of a connectome: the nearest one within, and valid correlations."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtwin_fast.errors import DTwinInputError
from dtwin_fast.interventions.constraints import (
    ROUNDING,
    Constraint,
    listed_edges,
    network_edges,
    shrink,
    site_edges,
)
from dtwin_fast.simulate import simulate

Floats = npt.NDArray[Any]
REGIONS = ("LH_DefaultA_1", "LH_ContB_1", "RH_DefaultA_1", "RH_DefaultC_1", "lAMY-rh", "odd one")
PAIRS = list(itertools.combinations(range(len(REGIONS)), 2))


def draw(n_people: int, n_edges: int, seed: int, dtype: Any = np.float32) -> Floats:
    return np.random.default_rng(seed).normal(0, 1, (n_people, n_edges)).astype(dtype)


def length(dx: Floats, norm: str) -> Floats:
    dx = dx.astype(np.float64)
    return np.sqrt((dx**2).sum(axis=-1)) if norm == "l2" else np.abs(dx).max(axis=-1)


def matrix(z: Floats) -> Floats:
    """(R,R) correlations of the regions that are not missing."""
    n_regions = round((1 + np.sqrt(1 + 8 * len(z))) / 2)
    full = np.eye(n_regions)
    full[np.triu_indices(n_regions, 1)] = np.tanh(z.astype(np.float64))
    full = np.triu(full, 1) + np.triu(full, 1).T + np.eye(n_regions)
    here = ~np.isnan(full).all(axis=1) & (np.isnan(full).sum(axis=1) < n_regions - 1)
    return full[np.ix_(here, here)]


def smallest(z: Floats) -> Floats:
    return np.array([np.linalg.eigvalsh(matrix(row))[0] for row in z])


# Projection


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["l2", "linf"]),
    st.sampled_from([np.float32, np.float64]),
    st.integers(1, 4),
    st.integers(1, 60),
    st.integers(0, 10**6),
    st.floats(1e-3, 50),
)
def test_projection(
    norm: Any, dtype: Any, n_people: int, n_edges: int, seed: int, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    dx = scale * draw(n_people, n_edges, seed, dtype)
    dx[rng.random(dx.shape) < 0.2] = 0
    dx = dx.astype(dtype)
    budget = rng.uniform(0.01, 5, n_people)
    allowed = rng.random(n_edges) < 0.6
    top_k = int(rng.integers(1, n_edges + 1))
    given_dx = dx.copy()
    for constraint in (
        Constraint(norm),
        Constraint(norm, allowed=allowed),
        Constraint(norm, top_k=top_k),
        Constraint(norm, top_k=top_k, allowed=allowed),
    ):
        near = constraint.project(dx, budget)
        assert near.dtype == dtype
        assert near.shape == dx.shape
        np.testing.assert_array_equal(dx, given_dx)
        np.testing.assert_array_equal(constraint.project(near, budget), near)
        assert (length(near, norm) <= budget).all()
        assert (near * dx >= 0).all()
        open_edges = allowed if constraint.allowed is not None else np.ones(n_edges, bool)
        assert not near[:, ~open_edges].any()
        if constraint.top_k is not None:
            wanted = np.minimum(top_k, np.count_nonzero(dx * open_edges, axis=1))
            np.testing.assert_array_equal(np.count_nonzero(near, axis=1), wanted)
        for i in range(n_people):
            alone = constraint.project(dx[i : i + 1], budget[i : i + 1])
            np.testing.assert_array_equal(alone[0], near[i])


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("top_k", [None, 1, 2, 3])
def test_nothing_within_is_nearer(norm: Any, top_k: int | None) -> None:
    """Against a grid of all changes of three edges that keep the constraint."""
    allowed = np.array([True, True, False, True])
    constraint = Constraint(norm, top_k=top_k, allowed=allowed)
    axis = np.linspace(-1, 1, 41)
    grid = np.array(list(itertools.product(axis, repeat=3)))
    grid = grid[length(grid, norm) <= 0.8]
    if top_k is not None:
        grid = grid[np.count_nonzero(grid, axis=1) <= top_k]
    for dx in draw(12, 4, 3, np.float64):
        near = constraint.project(dx[None], [0.8])[0]
        best = np.linalg.norm(grid - dx[allowed], axis=1).min()
        found = np.linalg.norm(near[allowed] - dx[allowed])
        assert found <= best + 1e-9
        assert found > best - 0.1


def test_of_equal_edges_the_first_stay() -> None:
    dx = np.array([[1, -2, 2, 1, -1, 2, 1]], np.float32)
    for top_k, kept in ((1, [1]), (2, [1, 2]), (4, [0, 1, 2, 5]), (5, [0, 1, 2, 3, 5])):
        near = Constraint(top_k=top_k).project(dx, 100)
        assert np.flatnonzero(near[0]).tolist() == kept
    assert Constraint(top_k=7).project(dx, 100).tolist() == dx.tolist()


def test_a_budget_of_nothing_leaves_nothing() -> None:
    for norm in ("l2", "linf"):
        assert not Constraint(norm).project(draw(3, 10, 0), 0).any()


def test_a_bound_that_float32_does_not_have_is_kept() -> None:
    budget = 0.1
    assert float(np.float32(budget)) > budget
    near = Constraint("linf").project(draw(3, 10, 0) * 9, budget)
    assert (np.abs(near.astype(np.float64)) <= budget).all()


# Valid correlations


@pytest.fixture(scope="module")
def z() -> Floats:
    """Fisher z of 4 people with 30 regions; the third lacks two of them."""
    z = simulate(4, 30, with_bold=False, n_factors=4).cohort.connectomes.fisher_z().copy()
    rows, columns = np.triu_indices(30, 1)
    z[2, np.isin(rows, [0, 11]) | np.isin(columns, [0, 11])] = np.nan
    return z


CONSTRAINTS: dict[str, Any] = {
    "all edges": lambda n: Constraint(),
    "largest": lambda n: Constraint("linf"),
    "few": lambda n: Constraint(top_k=25),
    "some": lambda n: Constraint(allowed=np.arange(n) % 3 == 0),
    "some, largest": lambda n: Constraint("linf", allowed=np.arange(n) % 3 == 0),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CONSTRAINTS)
def test_made_valid(name: str, z: Floats, dtype: Any) -> None:
    constraint = CONSTRAINTS[name](z.shape[1])
    budget = np.array([1.0, 8.0, 4.0, 12.0]) / (30 if constraint.norm == "linf" else 1)
    dx = constraint.project(30 * draw(*z.shape, 7, dtype), budget)
    missing = np.isnan(z)
    floor = np.minimum(0, smallest(z)) - 3 * 30 * ROUNDING
    assert (smallest(z + np.where(missing, 0, dx)) < floor)[1:].all()
    made = constraint.make_valid(z, dx)
    assert made.dtype == dtype
    assert (smallest(z + made) >= floor).all()
    assert (length(made, constraint.norm) <= budget).all()
    assert not made[missing].any()
    assert not made[dx == 0].any()
    # There is something left of it, in the direction that was asked for.
    assert ((made * dx).sum(axis=1) > 0).all()
    assert (length(made, constraint.norm) > 0.03 * length(dx, constraint.norm)).all()
    for i in range(len(z)):
        np.testing.assert_array_equal(constraint.make_valid(z[[i]], dx[[i]])[0], made[i])


def test_what_is_valid_keeps_its_bits(z: Floats) -> None:
    dx = 1e-4 * draw(*z.shape, 1)
    dx[np.isnan(z)] = 0
    assert (smallest(z + dx) > 0).all()
    np.testing.assert_array_equal(Constraint().make_valid(z, dx), dx)


def test_missing_edges_never_change(z: Floats) -> None:
    for size in (1e-4, 1.0):
        made = Constraint().make_valid(z, size * draw(*z.shape, 1))
        assert not made[np.isnan(z)].any()
        assert made[~np.isnan(z)].all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_missing_regions_are_as_if_they_were_no_part_of_it(z: Floats, norm: Any) -> None:
    here = ~np.isnan(z[2])
    dx = Constraint(norm).project(np.where(here, draw(1, z.shape[1], 4), 0), 4)
    made = Constraint(norm).make_valid(z[[2]], dx)
    alone = Constraint(norm).make_valid(z[2:3, here], dx[:, here])
    np.testing.assert_allclose(made[:, here], alone, atol=1e-3 * np.abs(alone).max())


def test_the_largest_change_bounds_the_search_for_a_valid_one(z: Floats) -> None:
    z = z[[0, 1, 3]]
    dx = Constraint("linf").project(draw(*z.shape, 7), 0.1)
    made = Constraint("linf").make_valid(z, dx)
    assert (length(made, "l2") > 0.25 * length(dx, "l2")).all()


def test_a_connectome_that_is_no_correlation_matrix_gets_no_worse(z: Floats) -> None:
    rough = z[:2] + 0.3 * draw(2, z.shape[1], 5)
    start = smallest(rough)
    assert (start < -0.1).all()
    for constraint in (Constraint(), Constraint(top_k=40)):
        dx = constraint.project(draw(*rough.shape, 6), 4)
        made = constraint.make_valid(rough, dx)
        assert (smallest(rough + made) >= start - 3 * 30 * ROUNDING).all()
        assert (length(made, "l2") > 0.03 * 4).all()


def test_validity_costs_less_than_shrinking_alone(z: Floats) -> None:
    """Moving the edges keeps more of a change than going back towards the start."""
    z = z[[0]]
    dx = Constraint().project(draw(*z.shape, 8), 4)
    made = Constraint().make_valid(z, dx)
    shares = np.linspace(0, 1, 201)
    whole = [s for s in shares if smallest(z + shrink(z, dx, s))[0] >= 0]
    assert (made * dx).sum() > 5 * (shrink(z, dx, max(whole)) * dx).sum()


def test_shrinking_keeps_validity_and_is_monotone(z: Floats) -> None:
    constraint = Constraint(top_k=150)
    dx = constraint.make_valid(z, constraint.project(draw(*z.shape, 9, np.float64), 5))
    lowest = np.minimum(smallest(z), smallest(z + dx))
    before = np.zeros_like(dx)
    for share in np.linspace(0, 1, 21):
        part = shrink(z, dx, share)
        # The smallest eigenvalue is concave: nowhere below the lower of the two ends.
        assert (smallest(z + part) >= lowest - 1e-12).all()
        assert (np.abs(part) >= np.abs(before) - 1e-15).all()
        assert (part * dx >= 0).all()
        assert not part[dx == 0].any()
        before = part
    np.testing.assert_array_equal(shrink(z, dx, 1), dx)
    assert not shrink(z, dx, 0).any()


# Bad constraints


MASK = np.arange(10) < 4
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "norm": ({"norm": "l1"}, "l2 | linf"),
    "zero budget": ({"budget": 0}, "budget"),
    "negative budget": ({"budget": -1.0}, "budget"),
    "NaN budget": ({"budget": np.nan}, "budget"),
    "infinite budget": ({"budget": np.inf}, "budget"),
    "text budget": ({"budget": "1"}, "budget"),
    "budget of truth": ({"budget": True}, "budget"),
    "no edges": ({"top_k": 0}, "1 to 10"),
    "half an edge": ({"top_k": 2.5}, "1 to 10"),
    "more than all": ({"top_k": 11}, "1 to 10"),
    "more than allowed": ({"top_k": 5, "allowed": MASK}, "1 to 4"),
    "empty mask": ({"allowed": np.zeros(10, bool)}, "no edge may change"),
    "another length": ({"allowed": np.ones(11, bool)}, "bool (10,)"),
    "numbers": ({"allowed": np.ones(10)}, "bool (10,)"),
    "a list": ({"allowed": [True] * 10}, "bool (10,)"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_constraints(name: str) -> None:
    arguments, says = BAD[name]
    with pytest.raises(DTwinInputError) as caught:
        Constraint(**arguments).check(10)
    assert caught.value.code == "constraint"
    assert says in str(caught.value)


def test_good_constraints() -> None:
    Constraint().check(10)
    Constraint("linf", 0.5, 4, MASK, True).check(10)
    Constraint(budget=np.float32(2), top_k=np.int64(10)).check(10)


# Masks


def edges_where(is_chosen: Any) -> list[bool]:
    return [bool(is_chosen(i, j)) for i, j in PAIRS]


def test_site_edges() -> None:
    assert site_edges(REGIONS, "lAMY-rh").tolist() == edges_where(lambda i, j: 4 in (i, j))
    two = edges_where(lambda i, j: {4, 1} & {i, j})
    assert site_edges(REGIONS, ["lAMY-rh", "LH_ContB_1"]).tolist() == two
    assert not site_edges(REGIONS, []).any()


@pytest.mark.parametrize(
    ("block", "ends"),
    [
        ("DefaultA", ({0, 2}, {0, 2})),
        ("Default", ({0, 2, 3}, {0, 2, 3})),
        ("Default:Default", ({0, 2, 3}, {0, 2, 3})),
        ("DefaultA:ContB", ({0, 2}, {1})),
        ("ContB:DefaultA", ({0, 2}, {1})),
        ("Default:DefaultC", ({0, 2, 3}, {3})),
        ("MTL:other", ({4}, {5})),
        ("MTL", ({4}, {4})),
    ],
)
def test_network_edges(block: str, ends: tuple[set[int], set[int]]) -> None:
    one, other = ends
    wanted = edges_where(lambda i, j: (i in one and j in other) or (j in one and i in other))
    assert network_edges(REGIONS, block).tolist() == wanted


def test_listed_edges() -> None:
    pairs = [("odd one", "LH_ContB_1"), ("LH_ContB_1", "RH_DefaultA_1"), ("LH_ContB_1", "odd one")]
    assert listed_edges(REGIONS, pairs).tolist() == edges_where(
        lambda i, j: (i, j) in {(1, 5), (1, 2)}
    )
    assert not listed_edges(REGIONS, []).any()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: site_edges(REGIONS, "LAMY-RH"), "near: lAMY-rh"),
        (lambda: site_edges(REGIONS, ["lAMY-rh", "nowhere"]), "got 'nowhere'"),
        (lambda: site_edges(REGIONS, "nowhere"), "LH_DefaultA_1, LH_ContB_1"),
        (lambda: network_edges(REGIONS, "DefaultD"), "near: Default"),
        (lambda: network_edges(REGIONS, "VisCent"), "DefaultA, ContB, DefaultC, MTL, other"),
        (lambda: network_edges(REGIONS, "Def"), "no such network"),
        (lambda: network_edges(REGIONS, ""), "no such network"),
        (lambda: network_edges(REGIONS, "DefaultA:ContB:MTL"), "'ContB:MTL'"),
        (lambda: network_edges(REGIONS, ":ContB"), "no such network"),
        (lambda: network_edges(REGIONS, "ContB:"), "no such network"),
        (lambda: listed_edges(REGIONS, [("lAMY-rh", "nowhere")]), "'nowhere'"),
        (lambda: listed_edges(REGIONS, [("lAMY-rh", "lAMY-rh")]), "joins two regions"),
    ],
)
def test_regions_that_are_not_there(make: Any, says: str) -> None:
    with pytest.raises(DTwinInputError) as caught:
        make()
    assert caught.value.code == "region"
    assert says in str(caught.value)
