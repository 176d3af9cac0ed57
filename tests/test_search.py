"""The search for a change of connectomes: what it finds, what it may not do, and for whom."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dtwin_fast.connectome import Connectomes
from dtwin_fast.interventions import Constraint, Function, find_target, site_edges
from dtwin_fast.interventions.gradients import Simulator, edited, in_fisher_z
from dtwin_fast.interventions.search import N_STEPS, PATIENCE, Found, search
from dtwin_fast.twin import Twin

torch = pytest.importorskip("torch")

Floats = npt.NDArray[Any]
N_PEOPLE = 4
BEYOND = 1e9
"""No target gets there."""


def people_of(twin: Twin, n: int, seed: int = 0, without: dict[int, int] | None = None):
    """People with correlations of 60 volumes; ``without`` is person -> region missing."""
    n_regions = len(twin.regions)
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((3, n_regions))
    series = rng.standard_normal((n, 60, n_regions)) + rng.standard_normal((n, 60, 3)) @ shared
    fc = np.stack([np.corrcoef(person.T) for person in series])
    for person, region in (without or {}).items():
        fc[person, region] = fc[person, :, region] = np.nan
    connectomes = Connectomes.from_arrays(fc, regions=twin.regions)
    return in_fisher_z(twin.prepare(connectomes, missing="impute"))


def simulator(twin: Twin, *names: Any, **options: Any) -> Simulator:
    options = {"missing": "impute", **options}
    return Simulator(twin, [find_target(name) for name in names], **options)


def effect(sim: Simulator, people: Connectomes, change: Floats) -> Floats:
    """(M,S) how far the targets went."""
    before = sim.values(sim.hidden(people))
    return sim.values(sim.hidden(edited(people, change))) - before


def norms(change: Floats) -> Floats:
    return np.linalg.norm(change.astype(np.float64), axis=1)


@pytest.fixture(scope="module")
def people(tiny_twin: Twin) -> Connectomes:
    return people_of(tiny_twin, N_PEOPLE)


# What is known beforehand: a change so small that the target is linear in it


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("name", ["amygdala", "speed"])
def test_a_small_change_is_along_the_gradient(
    name: str, sign: float, tiny_twin: Twin, people: Connectomes
) -> None:
    sim = simulator(tiny_twin, name)
    gradient = sim.gradients(people)[1][0].astype(np.float64)
    budget = 0.01
    found = search(sim, people, Constraint(), budget, sign)
    cosine = np.sum(found.change * gradient, axis=1) / norms(found.change) / norms(gradient)
    assert (sign * cosine > 0.99).all()
    np.testing.assert_allclose(norms(found.change), budget, rtol=1e-5)
    assert (norms(found.change) <= budget).all()
    went = effect(sim, people, found.change)[0]
    np.testing.assert_allclose(sign * went, budget * norms(gradient), rtol=0.05)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_with_few_edges_it_takes_the_steepest(
    norm: Any, tiny_twin: Twin, people: Connectomes
) -> None:
    sim = simulator(tiny_twin, "amygdala")
    gradient = sim.gradients(people)[1][0]
    found = search(sim, people, Constraint(norm, top_k=4), 1e-3, 1.0)
    for change, slope in zip(found.change, gradient, strict=True):
        steepest = np.sort(np.argsort(-np.abs(slope))[:4])
        np.testing.assert_array_equal(np.flatnonzero(change), steepest)
        np.testing.assert_array_equal(np.sign(change[steepest]), np.sign(slope[steepest]))


def test_with_a_largest_change_every_edge_goes_its_way(
    tiny_twin: Twin, people: Connectomes
) -> None:
    sim = simulator(tiny_twin, "amygdala")
    gradient = sim.gradients(people)[1][0]
    found = search(sim, people, Constraint(norm="linf"), 1e-3, -1.0)
    steep = np.abs(gradient) > 0.1 * np.abs(gradient).max(axis=1, keepdims=True)
    np.testing.assert_allclose(found.change[steep], -1e-3 * np.sign(gradient[steep]), rtol=1e-5)
    assert np.abs(found.change).max() <= 1e-3


def test_a_small_change_of_the_group_is_along_the_mean_gradient(
    tiny_twin: Twin, people: Connectomes
) -> None:
    sim = simulator(tiny_twin, "amygdala")
    gradient = sim.gradients(people)[1][0].mean(axis=0, dtype=np.float64)
    found = search(sim, people, Constraint(), 0.01, 1.0, scope="group")
    assert (found.change == found.change[0]).all()
    one = found.change[0].astype(np.float64)
    assert one @ gradient / np.linalg.norm(one) / np.linalg.norm(gradient) > 0.99
    assert (found.n_steps == found.n_steps[0]).all()


# And where it is not linear


@pytest.mark.parametrize("scope", ["person", "group"])
def test_large_changes_beat_the_plain_gradient(
    scope: Any, tiny_twin: Twin, people: Connectomes
) -> None:
    sim = simulator(tiny_twin, "amygdala")
    gradient = sim.gradients(people)[1][0].astype(np.float64)
    if scope == "group":
        gradient[:] = gradient.mean(axis=0)
    budget = 3.0
    at_once = effect(sim, people, budget * gradient / norms(gradient)[:, None])[0]
    found = search(sim, people, Constraint(), budget, 1.0, scope=scope)
    went = effect(sim, people, found.change)[0]
    if scope == "group":
        assert went.mean() > at_once.mean() * 1.01
    else:
        assert (went > at_once).all()
        longer = search(sim, people, Constraint(), budget, 1.0, n_steps=80, patience=None)
        assert (went > 0.8 * effect(sim, people, longer.change)[0]).all()


@pytest.mark.parametrize("name", ["interference", "amygdala"])
@pytest.mark.parametrize("scope", ["person", "group"])
def test_nobody_ends_worse_than_they_began(
    name: str, scope: Any, tiny_twin: Twin, people: Connectomes
) -> None:
    sim = simulator(tiny_twin, name)
    for budget in (0.3, 20.0):
        found = search(sim, people, Constraint(), budget, 1.0, scope=scope, n_steps=12)
        went = effect(sim, people, found.change)[0]
        if scope == "group":
            went = went.mean(keepdims=True)
        assert (went >= 0).all()
        assert (went > 0).any() or budget > 1
        assert (norms(found.change) <= budget).all()


def test_weights_of_less_precision_lose_little(tiny_twin: Twin, people: Connectomes) -> None:
    exact = simulator(tiny_twin, "speed")
    rough = simulator(tiny_twin, "speed", precision="bfloat16")
    one, other = (search(sim, people, Constraint(), 0.3, 1.0, n_steps=8) for sim in (exact, rough))
    gained = effect(exact, people, one.change)[0]
    np.testing.assert_allclose(effect(exact, people, other.change)[0], gained, rtol=0.1)


# Constraints


@pytest.mark.parametrize(
    "constraint",
    [Constraint(), Constraint(norm="linf"), Constraint(top_k=7), Constraint("linf", top_k=7)],
    ids=["l2", "linf", "top-k", "linf top-k"],
)
@pytest.mark.parametrize("scope", ["person", "group"])
def test_only_what_is_allowed_changes(
    constraint: Constraint, scope: Any, tiny_twin: Twin, people: Connectomes
) -> None:
    mask = site_edges(tiny_twin.regions, ["region_03", "region_11"])
    constraint = replace(constraint, allowed=mask)
    sim = simulator(tiny_twin, "amygdala")
    change = search(sim, people, constraint, 0.2, -1.0, scope=scope, n_steps=8).change
    assert change.any(axis=1).all()
    assert not change[:, ~mask].any()
    if constraint.norm == "linf":
        assert np.abs(change).max() <= 0.2
    else:
        assert norms(change).max() <= 0.2
    if constraint.top_k is not None:
        assert (change != 0).sum(axis=1).max() <= constraint.top_k
    assert (effect(sim, people, change)[0].mean()) < 0


def test_edges_that_nothing_depends_on_stay(tiny_twin: Twin, people: Connectomes) -> None:
    first = tiny_twin.layers[0]
    weight = first.weight.copy()
    weight[:, :15] = 0  # all edges of region_00
    twin = replace(tiny_twin, layers=(replace(first, weight=weight), *tiny_twin.layers[1:]))
    constraint = Constraint(allowed=site_edges(twin.regions, "region_00"))
    found = search(simulator(twin, "speed"), people, constraint, 0.5, 1.0)
    assert not found.change.any()


def test_valid_changes_leave_correlation_matrices(tiny_twin: Twin, people: Connectomes) -> None:
    sim = simulator(tiny_twin, "amygdala")

    def smallest(valid: bool) -> Floats:
        change = search(sim, people, Constraint(valid=valid), 6.0, 1.0, n_steps=6).change
        assert norms(change).max() <= 6.0
        z = people.edges.astype(np.float64) + change
        full = np.ones((len(z), 16, 16))
        rows, columns = np.triu_indices(16, 1)
        full[:, rows, columns] = full[:, columns, rows] = np.tanh(z)
        return np.linalg.eigvalsh(full)[:, 0]

    assert (smallest(valid=False) < -0.01).any(), "nothing is there to be made valid"
    assert (smallest(valid=True) > -1e-5).all()


def test_missing_edges_stay(tiny_twin: Twin, people: Connectomes) -> None:
    some = people_of(tiny_twin, N_PEOPLE, without={2: 4})
    sim = simulator(tiny_twin, "amygdala")
    lost = np.isnan(some.edges)
    assert lost.sum() == 15
    for scope in ("person", "group"):
        for valid in (False, True):
            found = search(sim, some, Constraint(valid=valid), 0.3, 1.0, scope=scope, n_steps=5)
            assert np.isfinite(found.change).all()
            assert not found.change[lost].any()
            assert found.change.any(axis=1).all()
    alone = search(sim, some, Constraint(), 0.3, 1.0, n_steps=5)
    whole = search(sim, people, Constraint(), 0.3, 1.0, n_steps=5)
    np.testing.assert_array_equal(
        np.delete(alone.change, 2, axis=0), np.delete(whole.change, 2, axis=0)
    )


# Outcomes that are to stay


@pytest.mark.parametrize("keep", [["accuracy"], ["speed-faces", "speed-stroop"]])
def test_kept_outcomes_hardly_move(keep: list[str], tiny_twin: Twin, people: Connectomes) -> None:
    sim = simulator(tiny_twin, "amygdala", *keep)
    plain = simulator(tiny_twin, "amygdala")
    free = search(plain, people, Constraint(), 0.5, -1.0, n_steps=10)
    kept = search(sim, people, Constraint(), 0.5, -1.0, n_steps=20)
    moved, still = (effect(sim, people, found.change) for found in (free, kept))
    assert (np.abs(still[1:]).mean(axis=1) < 0.1 * np.abs(moved[1:]).mean(axis=1)).all()
    # And the target still goes: by half of the way at least.
    assert (still[0] < 0.5 * moved[0]).all()
    assert (norms(kept.change) <= 0.5).all()
    assert (kept.n_steps == 20).all(), "all steps are taken"


def test_who_keeps_the_target_itself_goes_nowhere(tiny_twin: Twin, people: Connectomes) -> None:
    sim = simulator(tiny_twin, "amygdala", "amygdala")
    found = search(sim, people, Constraint(), 0.5, -1.0, n_steps=10)
    plain = search(simulator(tiny_twin, "amygdala"), people, Constraint(), 0.5, -1.0, n_steps=10)
    went, could = (effect(sim, people, f.change)[0] for f in (found, plain))
    assert np.abs(went).max() < 0.01 * np.abs(could).min()


# Steps


def test_a_search_ends_when_nothing_is_gained(tiny_twin: Twin, people: Connectomes) -> None:
    sim = simulator(tiny_twin, "amygdala")
    # At a small budget the first step is as good as it gets.
    early = search(sim, people, Constraint(), 1e-3, 1.0)
    assert (early.n_steps >= PATIENCE).all()
    assert early.n_steps.mean() < N_STEPS / 2
    every = search(sim, people, Constraint(), 1e-3, 1.0, n_steps=9, patience=None)
    assert (every.n_steps == 9).all()
    one = search(sim, people, Constraint(), 0.3, 1.0, n_steps=1)
    assert not one.change.any(), "the only gradient is of the connectome as it was"


@pytest.mark.parametrize("scope", ["person", "group"])
def test_progress_counts_to_the_end(scope: Any, tiny_twin: Twin, people: Connectomes) -> None:
    told: list[tuple[int, int]] = []
    search(
        simulator(tiny_twin, "amygdala"),
        people,
        Constraint(),
        1e-3,
        1.0,
        scope=scope,
        n_steps=30,
        progress=lambda done, total: told.append((done, total)),
    )
    done, total = zip(*told, strict=True)
    assert set(total) == {30 * N_PEOPLE}
    assert list(done) == sorted(done)
    assert done[0] == N_PEOPLE
    assert done[-1] == 30 * N_PEOPLE


# Company


def test_a_persons_change_does_not_depend_on_the_others(tiny_twin: Twin) -> None:
    many = people_of(tiny_twin, 35)
    sim = simulator(tiny_twin, "amygdala")
    constraint = Constraint(valid=True)
    whole = search(sim, many, constraint, 0.5, 1.0, n_steps=8)
    for person in (0, 20, 33):
        alone = search(sim, many.select([person]), constraint, 0.5, 1.0, n_steps=8)
        np.testing.assert_array_equal(alone.change[0], whole.change[person])
        assert alone.n_steps[0] == whole.n_steps[person]


def ending(task: str, limit: Floats) -> Function:
    """BOLD of a task; no number where that of faces is above a limit that each person has."""

    def level(said: Any) -> Any:
        faces = said["faces"].contrasts[:, 0].mean(1)
        there = torch.log(torch.tensor(limit) - faces)
        return said[task].contrasts[:, 0].mean(1) + 0 * there

    return Function(level, reads_behaviour=False)


@pytest.mark.parametrize("keep", [(), ("stroop",)])
def test_who_leaves_the_numbers_does_not_spoil_the_others(
    keep: tuple[str, ...], tiny_twin: Twin, people: Connectomes
) -> None:
    def found_by(limit: Floats) -> tuple[Found, Simulator]:
        targets = [ending(task, limit) for task in ("faces", *keep)]
        sim = simulator(tiny_twin, *targets, missing="reject")
        # Nobody leaves the search, so that rows and limits stay together.
        return search(sim, people, Constraint(), 0.5, 1.0, n_steps=8, patience=None), sim

    free, sim = found_by(np.full(N_PEOPLE, BEYOND))
    start = sim.values(sim.hidden(people))[0]
    gain = effect(sim, people, free.change)[0]
    assert (gain > 0).all()
    limit = np.full(N_PEOPLE, BEYOND)
    limit[[1, 3]] = start[[1, 3]] + np.array([0.7, 1e-4]) * gain[[1, 3]]
    found, sim = found_by(limit)
    others = [0, 2]
    np.testing.assert_array_equal(found.change[others], free.change[others])
    assert np.isfinite(found.change).all()
    ended = sim.values(sim.hidden(edited(people, found.change)))[0]
    assert np.isfinite(ended).all()
    assert (ended >= start).all()
    # Shorter steps than those that went beyond are still tried.
    assert keep or ended[1] > start[1]


def test_whoever_goes_too_far_at_first_goes_on(tiny_twin: Twin) -> None:
    # A step as long as this budget leads nobody anywhere good.
    some = people_of(tiny_twin, 14, seed=5)
    sim = simulator(tiny_twin, "interference")
    far = search(sim, some, Constraint(), 20.0, -1.0)
    went = -effect(sim, some, far.change)[0]
    assert (norms(far.change) > 0).all()
    assert (went > 0).all()
