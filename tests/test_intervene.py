"""Interventions end to end: effects by hand, their controls, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dtwin_fast.connectome import Connectomes, matrices
from dtwin_fast.dispatch import rollout
from dtwin_fast.errors import DTwinInputError
from dtwin_fast.interventions import (
    Constraint,
    Effect,
    Function,
    Intervention,
    RandomDirections,
    edges,
    intervene,
    lesion,
    network,
    site,
    site_edges,
    target_gradients,
)
from dtwin_fast.interventions.effect import DOSES, overlap
from dtwin_fast.interventions.gradients import Simulator, edited, in_fisher_z
from dtwin_fast.interventions.ground_truth import truth_of_effect, truth_of_map
from dtwin_fast.interventions.out_of_range import range_scores
from dtwin_fast.interventions.targets import find_target
from dtwin_fast.interventions.workbench import DOSE
from dtwin_fast.provenance import input_digest
from dtwin_fast.simulate import SimulatedCohort, simulate
from dtwin_fast.twin import Twin
from dtwin_fast.weights import RNNWeights

torch = pytest.importorskip("torch")

Floats = npt.NDArray[Any]
N_PEOPLE = 20
QUICK: dict[str, Any] = {"n_steps": 6, "n_random": 6}
OTHERS = {"amygdala-left", "amygdala-right", "speed", "speed-faces", "speed-stroop",
          "interference", "accuracy", "bold-variability"}  # fmt: skip


def people_of(twin: Twin, n: int, seed: int = 0) -> Connectomes:
    """People around the twin's mean."""
    rng = np.random.default_rng(seed)
    z = twin.edge_mean + twin.edge_sd * rng.standard_normal((n, twin.spec.n_edges))
    return Connectomes.from_arrays(np.tanh(z), regions=twin.regions)


def in_another_order(twin: Twin, seed: int = 1) -> Twin:
    """The same twin with its regions, and all that belongs to their edges, in another order."""
    order = np.random.default_rng(seed).permutation(len(twin.regions))
    places = np.zeros((len(order), len(order)), np.intp)
    rows, columns = np.triu_indices(len(order), 1)
    places[rows, columns] = places[columns, rows] = np.arange(len(rows))
    moved = places[order][:, order][rows, columns]
    first = twin.layers[0]
    return replace(
        twin,
        regions=tuple(twin.regions[i] for i in order),
        layers=(replace(first, weight=first.weight[:, moved]), *twin.layers[1:]),
        edge_mean=twin.edge_mean[moved],
        edge_sd=twin.edge_sd[moved],
    )


def faces_only(twin: Twin) -> Twin:
    def of_faces(parts: Mapping[str, Any]) -> dict[str, Any]:
        return {"faces": parts["faces"]}

    return replace(
        twin,
        schedules=of_faces(twin.schedules),
        projections=of_faces(twin.projections),
        contrasts=of_faces(twin.contrasts),
    )


@pytest.fixture(scope="module")
def people(tiny_twin: Twin) -> Connectomes:
    return people_of(tiny_twin, N_PEOPLE)


@pytest.fixture(scope="module")
def done(tiny_twin: Twin, people: Connectomes) -> Intervention:
    """Both methods, with a second twin: the same with its regions in another order."""
    return intervene(
        tiny_twin,
        people,
        "amygdala",
        constraint=Constraint(),
        second=in_another_order(tiny_twin),
        **QUICK,
    )


@pytest.fixture(scope="module")
def edit(tiny_twin: Twin, people: Connectomes) -> Intervention:
    return intervene(
        tiny_twin, people, "speed-faces", method=site("region_03", 0.2), n_random=5, seed=3
    )


# Effects


def test_both_methods_move_the_target(done: Intervention, people: Connectomes) -> None:
    assert list(done.effects) == ["connectome", "weights"]
    assert (done.target, done.unit, done.goal, done.tasks) == ("amygdala", "SD", "down", ("faces",))
    assert done.subjects == people.subjects
    assert done.outcomes[0] == "amygdala"
    assert set(done.outcomes[1:]) == OTHERS
    for effect in done.effects.values():
        assert effect.effect.mean() > 1
        assert (effect.effect > 0).all()
        # Twins differ between people, and so do effects.
        assert effect.summary()["sd_effect"] > 0.05


def test_effects_by_hand(done: Intervention, edit: Intervention) -> None:
    for result in (done, edit):
        sign = 1 if result.goal == "up" else -1
        for effect in result.effects.values():
            sd = effect.pre.std(ddof=1)
            wanted = sign * (effect.post - effect.pre) / sd
            np.testing.assert_allclose(effect.effect, wanted, rtol=1e-12)
            summary = effect.summary()
            assert summary["mean_effect"] == pytest.approx(wanted.mean())
            assert summary["sd_effect"] == pytest.approx(wanted.std(ddof=1))
            assert summary["share_improved"] == pytest.approx((wanted > 0).mean())
            assert summary["share_above_0.8"] == pytest.approx((wanted > 0.8).mean())
            change = effect.post - effect.pre
            assert summary["mean_change_in_unit"] == pytest.approx(change.mean())
            wanted_r = np.corrcoef(wanted, effect.pre)[0, 1]
            assert summary["regression_to_mean_r"] == pytest.approx(wanted_r)


@pytest.mark.parametrize("method", ["connectome", "edit"])
def test_the_changed_connectomes_give_post(
    method: str, done: Intervention, edit: Intervention, tiny_twin: Twin, people: Connectomes
) -> None:
    result = done if method == "connectome" else edit
    effect = result.effects[method]
    for connectomes, wanted in ((people, effect.pre), (result.changed, effect.post)):
        assert connectomes is not None
        found = target_gradients(tiny_twin, connectomes, result.target).value
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3 * effect.pre.std())
    assert not result.changed.is_fisher_z
    assert effect.change is not None
    np.testing.assert_allclose(
        np.tanh(people.fisher_z() + effect.change), result.changed.edges, atol=1e-6
    )


def test_what_the_gradient_promises(done: Intervention, tiny_twin: Twin) -> None:
    effect = done.effects["connectome"]
    wanted = target_gradients(tiny_twin, done.connectomes, "amygdala")
    np.testing.assert_allclose(effect.gradient, wanted.edges, rtol=1e-5, atol=1e-9)
    promised = [g @ c for g, c in zip(wanted.edges.astype("d"), effect.change, strict=True)]
    np.testing.assert_allclose(effect.predicted, promised, rtol=1e-5)
    r = np.corrcoef(promised, effect.post - effect.pre)[0, 1]
    assert effect.summary()["predicted_r"] == pytest.approx(r, rel=1e-4)
    assert np.isnan(done.effects["weights"].predicted).all()


def test_dose_2_is_the_intervention_and_dose_0_none(done: Intervention, edit: Intervention) -> None:
    for effect in (*done.effects.values(), *edit.effects.values()):
        at = dict(zip(DOSES.tolist(), effect.curve, strict=True))
        assert list(at) == list(np.arange(-3, 3.5, 0.5))
        tolerance = 1e-4 * effect.pre.std()
        np.testing.assert_allclose(at[DOSE], effect.post, rtol=0, atol=tolerance)
        np.testing.assert_allclose(at[0.0], effect.pre, rtol=0, atol=tolerance)
    curve = done.effects["connectome"].curve
    steps = -np.diff(curve, axis=0)
    monotone = done.effects["connectome"].summary()["monotone_share"]
    assert monotone == pytest.approx((steps >= 0).all(axis=0).mean())


def test_weights_move_everyone_by_two_sds_of_the_score(
    done: Intervention, tiny_twin: Twin, people: Connectomes
) -> None:
    """With all weights formed: W - 2 SD(z1) v', as amygdala is to go down."""
    effect = done.effects["weights"]
    flat = tiny_twin.personalize(people).to_flat().astype(np.float64)
    sd = flat.std(axis=0)
    known = sd > 1e-5 * sd.max()
    z = np.where(known, (flat - flat.mean(axis=0)) / np.where(known, sd, 1), 0)
    v = z.T @ ((effect.pre - effect.pre.mean()) / effect.pre.std())
    v /= np.linalg.norm(v)
    z1 = z @ v
    shifted = flat - 2 * z1.std(ddof=1) * v * np.where(known, sd, 0)
    weights = RNNWeights.from_flat(shifted.astype(np.float32), tiny_twin.spec)
    outputs = rollout(weights, tiny_twin.encode(["faces"])).outputs
    _, contrasts = tiny_twin.read_run("faces", outputs[:, 0])
    columns = [i for i, r in enumerate(tiny_twin.spec.bold_regions) if "amygdala" in r]
    wanted = contrasts[:, 0, columns].mean(axis=1)
    np.testing.assert_allclose(effect.post, wanted, rtol=0, atol=1e-3 * effect.pre.std())
    pls = effect.facts["pls"]
    assert pls["in_sample_r"] == pytest.approx(np.corrcoef(z1, effect.pre)[0, 1], rel=1e-4)
    kernel = z @ z.T
    ratio = np.trace(kernel) ** 2 / (kernel**2).sum()
    assert pls["participation_ratio"] == pytest.approx(ratio, rel=1e-4)
    assert pls["null_r"] == pytest.approx(np.sqrt(ratio / N_PEOPLE), rel=1e-4)
    assert 0 < pls["permutation_p"] <= 1
    assert -1 <= pls["cv_r"] <= 1
    assert effect.change is None
    assert effect.range_after is None


def test_off_target_outcomes(done: Intervention, tiny_twin: Twin, people: Connectomes) -> None:
    effect = done.effects["connectome"]
    assert done.changed is not None
    for k, name in enumerate(done.outcomes):
        before = target_gradients(tiny_twin, people, name).value
        after = target_gradients(tiny_twin, done.changed, name).value
        tolerance = 1e-3 * before.std()
        np.testing.assert_allclose(effect.outcomes_pre[k], before, rtol=0, atol=tolerance)
        np.testing.assert_allclose(effect.outcomes_post[k], after, rtol=0, atol=tolerance)
    np.testing.assert_array_equal(effect.outcomes_pre[0], effect.pre)
    np.testing.assert_array_equal(effect.outcomes_post[0], effect.post)


def test_goals_are_turned_round(tiny_twin: Twin, people: Connectomes) -> None:
    some = people.select(slice(0, 10))
    options = {"constraint": Constraint(), "n_steps": 4, "n_random": 0}
    both = [intervene(tiny_twin, some, "amygdala", goal=goal, **options) for goal in ("up", "down")]
    for method in ("connectome", "weights"):
        up, down = (result.effects[method] for result in both)
        assert up.effect.mean() > 1
        assert down.effect.mean() > 1
        assert (up.post > up.pre).all()
        assert (down.post < down.pre).all()


def test_the_default_budget_is_two_sds_along_the_groups_gradient(done: Intervention) -> None:
    effect = done.effects["connectome"]
    along = effect.gradient.mean(axis=0, dtype=np.float64)
    along /= np.linalg.norm(along)
    budget = 2 * (done.connectomes.edges @ along).std(ddof=1)
    assert done.settings["budget"] == pytest.approx(budget, rel=1e-5)
    lengths = np.linalg.norm(effect.change, axis=1)
    np.testing.assert_allclose(lengths, budget, rtol=1e-3)


def test_the_default_budget_of_the_largest_change_is_as_far(
    tiny_twin: Twin, people: Connectomes
) -> None:
    """Along the signs of the steepest edges, by as much on each."""
    some = people.select(slice(0, 10))
    constraint = Constraint("linf", top_k=9)
    result = intervene(tiny_twin, some, "amygdala", constraint=constraint, n_steps=2, n_random=0)
    gradient = result.effects["connectome"].gradient.mean(axis=0, dtype=np.float64)
    signs = np.zeros(120)
    steepest = np.argsort(-np.abs(gradient))[:9]
    signs[steepest] = np.sign(gradient[steepest])
    spread = (result.connectomes.edges @ signs / 3).std(ddof=1)
    assert result.settings["budget"] == pytest.approx(2 * spread / 3, rel=1e-5)


def test_a_group_has_one_change(tiny_twin: Twin, people: Connectomes) -> None:
    result = intervene(
        tiny_twin,
        people.select(slice(0, 5)),
        "amygdala",
        scope="group",
        constraint=Constraint(budget=0.3),
        **QUICK,
    )
    change = result.effects["connectome"].change
    assert (change == change[0]).all()
    assert result.effects["connectome"].effect.mean() > 0.5


def test_kept_outcomes_stay(tiny_twin: Twin, people: Connectomes) -> None:
    some = people.select(slice(0, 3))
    budget = Constraint(budget=0.4)
    moved = []
    for keep in ([], ["accuracy"]):
        result = intervene(
            tiny_twin, some, "amygdala", keep=keep, constraint=budget, n_steps=12, n_random=0
        )
        k = result.outcomes.index("accuracy")
        effect = result.effects["connectome"]
        moved.append(np.abs(effect.outcomes_post[k] - effect.outcomes_pre[k]).mean())
        assert effect.effect.mean() > 0
    assert moved[1] < 0.15 * moved[0]


# Random directions


def test_random_directions_are_as_long_as_the_change(
    tiny_twin: Twin, people: Connectomes, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Connectomes] = []
    hidden = Simulator.hidden

    def record(self: Simulator, connectomes: Connectomes) -> Floats:
        seen.append(connectomes)
        return hidden(self, connectomes)

    monkeypatch.setattr(Simulator, "hidden", record)
    mask = site_edges(tiny_twin.regions, "region_05")
    lost = people_with_a_gap(tiny_twin, N_PEOPLE)
    result = intervene(
        tiny_twin,
        lost,
        "amygdala",
        constraint=Constraint(allowed=mask),
        missing="impute",
        **QUICK,
    )
    start = in_fisher_z(result.connectomes)
    effect = result.effects["connectome"]
    # What was simulated of changed connectomes: the change, the doses, random directions.
    drawn = [c for c in seen if c.subjects == start.subjects][-QUICK["n_random"] :]
    lengths = np.linalg.norm(effect.change, axis=1)
    deltas = [np.nan_to_num(c.edges - start.edges) for c in drawn]
    for delta in deltas:
        np.testing.assert_allclose(np.linalg.norm(delta, axis=1), lengths, rtol=1e-3)
        assert np.abs(delta[:, ~mask]).max() == 0
    # And every one of them is another, of the same direction for everyone.
    units = [delta[0] / np.linalg.norm(delta[0]) for delta in deltas]
    assert np.abs(np.corrcoef(units) - np.eye(len(units))).max() < 0.95
    np.testing.assert_allclose(deltas[0][1] / lengths[1], units[0], atol=1e-3)


def people_with_a_gap(twin: Twin, n: int) -> Connectomes:
    """People the last of whom lacks a region."""
    fc = matrices(people_of(twin, n).edges)
    fc[-1, 9] = fc[-1, :, 9] = np.nan
    return Connectomes.from_arrays(fc, regions=twin.regions)


def test_random_effects_are_summarised(done: Intervention) -> None:
    for effect in done.effects.values():
        random = effect.random
        assert random.effects.shape == (QUICK["n_random"], N_PEOPLE)
        assert sorted(random.people) == list(range(N_PEOPLE))
        means = random.effects.mean(axis=1)
        told = effect.summary()["random"]
        own = effect.effect.mean()
        assert told["z"] == pytest.approx((own - means.mean()) / means.std(ddof=1))
        assert told["p"] == pytest.approx((1 + (means >= own).sum()) / (1 + len(means)))
        spreads = random.effects.std(axis=1, ddof=1)
        own_sd = effect.effect.std(ddof=1)
        assert told["sd_of_intervention"] == pytest.approx(own_sd)
        assert told["sd_effect_mean"] == pytest.approx(spreads.mean())
        assert told["sd_p"] == pytest.approx((1 + (spreads >= own_sd).sum()) / (1 + len(means)))
    assert done.effects["connectome"].summary()["random"]["z"] > 3


def test_p_is_uniform_where_the_intervention_is_one_of_the_random_ones() -> None:
    rng = np.random.default_rng(0)
    p = []
    for _ in range(300):
        drawn = rng.normal(0.3, 1, (20, 8))
        pre = np.arange(8.0)
        post = pre + drawn[0] * pre.std(ddof=1)
        p.append(summary_of(pre, post, drawn[1:])["random"]["p"])
    assert np.mean(p) == pytest.approx(0.525, abs=3 * np.sqrt(1 / 12 / 300))
    assert min(p) == pytest.approx(1 / 20)


def summary_of(pre: Floats, post: Floats, random: Floats) -> dict[str, Any]:
    """Of an effect upwards on people of whom nothing else is known."""
    nothing = np.zeros((len(pre), 3), np.float32)
    effect = Effect(
        method="connectome",
        goal="up",
        pre=pre,
        post=post,
        predicted=post - pre,
        gradient=nothing,
        change=nothing,
        outcomes_pre=pre[None],
        outcomes_post=post[None],
        curve=np.stack([pre, post]),
        random=RandomDirections(np.arange(len(pre)), random, "drawn"),
        range_before=range_scores(nothing, np.zeros(3), np.ones(3)),
    )
    return effect.summary()


def test_regression_to_the_mean_and_other_numbers_of_an_effect() -> None:
    pre = np.array([1.0, 2.0, 3.0, 4.0])
    no_random = np.empty((0, 4))
    to_the_mean = summary_of(pre, np.full(4, 5.0), no_random)
    assert to_the_mean["regression_to_mean_r"] == pytest.approx(-1)
    assert to_the_mean["predicted_r"] == pytest.approx(1)
    assert np.isnan(summary_of(pre, pre + 1, no_random)["regression_to_mean_r"])
    assert np.isnan(to_the_mean["random"]["p"])
    assert to_the_mean["random"]["n"] == 0
    turned = summary_of(pre, pre + np.array([1, 1, -1, np.nan]), no_random)
    assert turned["monotone_share"] == pytest.approx(2 / 3)
    assert turned["share_improved"] == pytest.approx(2 / 3)
    equal = summary_of(np.ones(4), pre, no_random)
    assert np.isnan(equal["mean_effect"])
    assert equal["mean_change_in_unit"] == pytest.approx(1.5)


def test_overlap_of_maps() -> None:
    one = np.zeros(400)
    one[:4] = [4, -3, 2, 1]
    other = np.zeros(400)
    other[[0, 1, 2, 200]] = [-4, 3, -2, 1]
    r, dice = overlap(one, other)
    assert dice == pytest.approx(3 / 4)
    assert r == pytest.approx(np.corrcoef(one, other)[0, 1])
    assert overlap(one, 2 * one) == (pytest.approx(1), 1)


# The same again, and another twin


def test_a_seed_gives_the_same_bits(tiny_twin: Twin, people: Connectomes) -> None:
    some = people.select(slice(0, 10))
    first, again, other = (
        intervene(tiny_twin, some, "amygdala", n_steps=2, n_random=2, seed=seed)
        for seed in (5, 5, 6)
    )
    for method in ("connectome", "weights"):
        one, same, third = (r.effects[method] for r in (first, again, other))
        for part in ("pre", "post", "gradient", "curve", "outcomes_post"):
            np.testing.assert_array_equal(getattr(one, part), getattr(same, part))
        np.testing.assert_array_equal(one.random.effects, same.random.effects)
        np.testing.assert_equal(one.summary(), same.summary())
        assert (one.random.effects != third.random.effects).any()
    np.testing.assert_array_equal(first.changed.edges, again.changed.edges)
    assert first.settings == again.settings
    assert first.provenance == again.provenance


def test_a_second_twin_has_its_maps_in_the_first_ones_order(done: Intervention) -> None:
    """It is the same twin, with its regions in another order: the same maps."""
    for effect in done.effects.values():
        stability = effect.facts["stability"]
        assert stability["seed_r"] > 0.99
        assert stability["seed_dice"] == 1
    assert done.effects["connectome"].facts["stability"]["split_half_r"] > 0


def test_halves_need_people_enough(tiny_twin: Twin, people: Connectomes) -> None:
    stability = intervene(
        tiny_twin, people.select(slice(0, 12)), "amygdala", method="weights", n_random=0
    ).effects["weights"].facts["stability"]  # fmt: skip
    assert stability["split_half_r"] is None
    assert stability["seed_r"] is None


def test_regions_of_the_input_may_come_in_any_order(tiny_twin: Twin, people: Connectomes) -> None:
    order = np.random.default_rng(0).permutation(len(tiny_twin.regions))
    some = people.select(slice(0, 3))
    mixed = some.align([tiny_twin.regions[i] for i in order])
    small = {"constraint": Constraint(budget=0.2), "n_steps": 3, "n_random": 0}
    one, other = (intervene(tiny_twin, fc, "amygdala", **small) for fc in (some, mixed))
    np.testing.assert_array_equal(one.changed.edges, other.changed.edges)
    assert other.changed.regions == tiny_twin.regions


def test_provenance_names_the_input_as_predictions_do(
    edit: Intervention, tiny_twin: Twin, people: Connectomes
) -> None:
    prediction = tiny_twin.predict(people, ["faces"], bold=False)
    assert edit.provenance["input_sha256"] == prediction.provenance["input_sha256"]
    assert edit.provenance["input_sha256"] == input_digest(people)
    assert edit.settings["seed"] == 3
    assert edit.settings["method"] == "site:region_03:0.2"


# Edits


@pytest.mark.parametrize("what", ["site", "network", "edges", "lesion"])
def test_edits_do_what_they_say(what: str, tiny_twin: Twin, people: Connectomes) -> None:
    names = tiny_twin.regions
    some = people.select(slice(0, 4))
    z = some.fisher_z()
    mask = site_edges(names, "region_02")
    method, wanted = {
        "site": (site("region_02", -0.3), np.where(mask, -0.3, 0)),
        "network": (network("other", 0.8), -0.2 * z),
        "edges": (edges([("region_00", "region_15")], 0.4), np.eye(1, 120, 14) * 0.4),
        "lesion": (lesion("region_02"), np.where(mask, -z, 0)),
    }[what]
    result = intervene(tiny_twin, some, "amygdala", method=method, n_random=2)
    assert list(result.effects) == ["edit"]
    change = result.effects["edit"].change
    np.testing.assert_allclose(change, np.broadcast_to(wanted, z.shape), atol=1e-6)
    drawn = result.effects["edit"].random.effects
    assert drawn.shape == (2, 4)
    assert np.isfinite(drawn).all()


# A function of one's own


def test_a_function_is_a_target(tiny_twin: Twin, people: Connectomes) -> None:
    def early(said: Mapping[str, Any]) -> Any:
        return -said["stroop"].rt_s[:, :40].mean(1)

    some = people.select(slice(0, 4))
    budget = Constraint(budget=0.3)
    result = intervene(tiny_twin, some, early, constraint=budget, **QUICK)
    assert (result.target, result.unit, result.goal) == ("early", "own unit", "up")
    assert set(result.outcomes) == {"early", "amygdala", *OTHERS}
    effect = result.effects["connectome"]
    prediction = tiny_twin.predict(result.changed, ["stroop"])
    np.testing.assert_allclose(effect.post, -prediction.rt_s[:, :40].mean(axis=1), rtol=1e-5)
    assert (effect.post > effect.pre).all()


def test_a_function_with_the_name_of_a_target_is_not_that_target(
    tiny_twin: Twin, simulated: SimulatedCohort
) -> None:
    def speed(said: Mapping[str, Any]) -> Any:
        return said["faces"].contrasts[:, 0, 0]

    twin = of_cohort(tiny_twin, simulated)
    result = intervene(
        twin, simulated.cohort.connectomes, speed, method="weights", n_random=0,
        truth=simulated.truth,
    )  # fmt: skip
    assert result.target == "own speed"
    assert "speed" in result.outcomes
    assert result.effects["weights"].facts["truth"] is None


# Few people


def test_one_person_with_a_budget(tiny_twin: Twin, people: Connectomes) -> None:
    one = people.select([3])
    result = intervene(tiny_twin, one, "amygdala", constraint=Constraint(budget=0.3), **QUICK)
    assert list(result.effects) == ["connectome"]
    effect = result.effects["connectome"]
    assert effect.post[0] < effect.pre[0]
    assert np.isnan(effect.effect).all(), "there is no SD over one person"
    summary = effect.summary()
    assert summary["mean_change_in_unit"] == pytest.approx(effect.post[0] - effect.pre[0])
    assert np.isnan(summary["regression_to_mean_r"])
    assert summary["stability"]["split_half_r"] is None
    assert any("too few people for weights" in note for note in result.notes)
    assert any("no controls over people" in note for note in result.notes)


def test_one_person_without_a_budget(tiny_twin: Twin, people: Connectomes) -> None:
    with pytest.raises(DTwinInputError) as caught:
        intervene(tiny_twin, people.select([3]), "amygdala", **QUICK)
    assert caught.value.code == "too_few"
    assert "--budget" in caught.value.fix
    with pytest.raises(DTwinInputError) as caught:
        intervene(tiny_twin, people.select([3]), "amygdala", method="weights", **QUICK)
    assert caught.value.code == "too_few"


def test_five_people(tiny_twin: Twin, people: Connectomes) -> None:
    five = people.select(slice(0, 5))
    budget = Constraint(budget=0.3)
    result = intervene(tiny_twin, five, "amygdala", constraint=budget, **QUICK)
    assert list(result.effects) == ["connectome"]
    effect = result.effects["connectome"]
    assert (effect.effect > 0).all()
    assert effect.random.effects.shape == (6, 5)
    assert np.isnan(effect.range_after.mahalanobis).all()
    assert "white noise" in effect.random.drawn


def test_a_person_alone_is_moved_as_among_others(tiny_twin: Twin, people: Connectomes) -> None:
    budget = {"constraint": Constraint(budget=0.3), **QUICK}
    among = intervene(tiny_twin, people.select(slice(0, 5)), "amygdala", **budget)
    alone = intervene(tiny_twin, people.select([2]), "amygdala", **budget)
    one, whole = alone.effects["connectome"], among.effects["connectome"]
    np.testing.assert_array_equal(one.change[0], whole.change[2])
    assert one.post[0] == whole.post[2]


# Missing regions and the training range


@pytest.mark.parametrize("missing", ["mask", "impute"])
def test_missing_regions(missing: Any, tiny_twin: Twin) -> None:
    some = people_with_a_gap(tiny_twin, 12)
    result = intervene(tiny_twin, some, "amygdala", missing=missing, **QUICK)
    lost = np.isnan(result.connectomes.edges)
    assert lost[-1].sum() == 15
    for effect in result.effects.values():
        assert np.isfinite(effect.effect).all()
        assert not effect.gradient[lost].any()
    assert not result.effects["connectome"].change[lost].any()
    np.testing.assert_array_equal(np.isnan(result.changed.edges), lost)
    word = {"mask": "masked", "impute": "imputed"}[missing]
    assert any(flag.startswith(word) for flag in result.connectomes.flags[-1])


def test_a_missing_region_hardly_changes_the_budget(tiny_twin: Twin) -> None:
    """A person is not far from the others by what is not known of them."""
    whole = people_of(tiny_twin, 12)
    far = replace(whole, edges=np.tanh(whole.fisher_z() + np.float32(0.8)))
    fc = matrices(far.edges)
    fc[-1, 9] = fc[-1, :, 9] = np.nan
    gap = Connectomes.from_arrays(fc, regions=tiny_twin.regions)
    budgets = [
        intervene(tiny_twin, fc, "amygdala", missing="impute", n_steps=2, n_random=0).settings[
            "budget"
        ]
        for fc in (far, gap)
    ]
    assert budgets[1] == pytest.approx(budgets[0], rel=0.15)


@pytest.mark.parametrize("method", ["connectome", "weights", "edit"])
def test_connectomes_outside_the_training_range_are_flagged(
    method: str, tiny_twin: Twin, people: Connectomes
) -> None:
    some = people.select(slice(0, 12))
    z = some.fisher_z().copy()
    z[4] += 1.5
    far = replace(some, edges=np.tanh(z))
    twin = tiny_twin
    result = intervene(
        twin,
        far,
        "amygdala",
        method=site("region_01", 0.1) if method == "edit" else method,
        n_steps=2,
        n_random=0,
    )
    before = next(iter(result.effects.values())).range_before
    assert any("deviation" in flag for flag in before.flags()[4])
    assert not any("deviation" in flag for flag in before.flags()[3])
    assert any("connectomes as given are outside the training range" in n for n in result.notes)


# Truth


@pytest.fixture(scope="module")
def simulated() -> SimulatedCohort:
    pytest.importorskip("nilearn")
    return simulate(14, 16, seed=5, with_bold=False)


def of_cohort(twin: Twin, simulated: SimulatedCohort) -> Twin:
    """The twin with the regions and the edges of a cohort, as trained on it."""
    z = simulated.cohort.connectomes.fisher_z()
    return replace(
        twin,
        regions=simulated.cohort.connectomes.regions,
        edge_mean=z.mean(axis=0),
        edge_sd=z.std(axis=0) + np.float32(0.01),
    )


@pytest.mark.parametrize("target", ["speed", "interference", "amygdala-left"])
def test_the_true_gradient_is_a_perfect_map(target: str, simulated: SimulatedCohort) -> None:
    truth = simulated.truth
    regions = truth.observed.regions
    true = truth.gradient[truth.trait_names.index(target.removesuffix("-left"))]
    maps = np.repeat(true[None], 5, axis=0)
    scale = np.arange(1, 6)[:, None]
    found = truth_of_map(truth, target, maps * scale, regions)
    assert found["trait"] == target.removesuffix("-left")
    for name, wanted in (("cosine", 1), ("auc", 1)):
        assert found[name] == pytest.approx(wanted, abs=1e-6)
        assert found[f"{name}_low"] == pytest.approx(wanted, abs=1e-6)
        assert found[f"{name}_high"] == pytest.approx(wanted, abs=1e-6)
    against = truth_of_map(truth, target, -maps, regions)
    assert against["cosine"] == pytest.approx(-1)
    assert against["auc"] == pytest.approx(1)
    noise = np.random.default_rng(0).standard_normal((40, len(true)))
    drawn = truth_of_map(truth, target, noise, regions)
    assert drawn["cosine_low"] < 0 < drawn["cosine_high"]
    assert drawn["auc_low"] < 0.5 < drawn["auc_high"]
    assert truth_of_map(truth, "accuracy", maps, regions) is None


def test_maps_of_a_twin_with_another_order_of_regions(simulated: SimulatedCohort) -> None:
    truth = simulated.truth
    regions = truth.observed.regions
    true = truth.gradient[truth.trait_names.index("speed")]
    order = np.random.default_rng(1).permutation(len(regions))
    names = [regions[i] for i in order]
    one = replace(truth.observed.select([0]), edges=true[None].astype(np.float32))
    turned = one.align(names).edges
    assert truth_of_map(truth, "speed", turned, names)["cosine"] == pytest.approx(1, abs=1e-6)
    assert truth_of_map(truth, "speed", turned, names)["auc"] == pytest.approx(1)
    assert truth_of_map(truth, "speed", turned, regions)["cosine"] < 0.9
    with pytest.raises(DTwinInputError, match="regions_missing"):
        truth_of_map(truth, "speed", turned, ["elsewhere", *names[1:]])


@pytest.mark.parametrize("target", ["speed", "speed-faces", "interference", "amygdala-right"])
def test_a_perfect_prediction_has_slope_1(target: str, simulated: SimulatedCohort) -> None:
    truth = simulated.truth
    before = in_fisher_z(truth.observed)
    trait = {"speed-faces": "speed", "amygdala-right": "amygdala"}.get(target, target)
    gradient = truth.gradient[truth.trait_names.index(trait)]
    # As far for each person as it makes a difference, and not as far for all.
    far = np.linspace(-1, 2, len(before))[:, None]
    after = edited(before, far * gradient / np.linalg.norm(gradient) ** 2)
    nothing = truth_of_effect(truth, target, before, after, np.zeros(len(before)))
    assert nothing["slope"] == pytest.approx(0)
    assert np.isnan(nothing["slope_r"])
    moved = moved_by_hand(truth, target, before, after)
    perfect = truth_of_effect(truth, target, before, after, moved)
    assert perfect["slope"] == pytest.approx(1)
    assert perfect["slope_r"] == pytest.approx(1)
    assert perfect["sign_accuracy"] == 1
    assert perfect["true_change"] == pytest.approx(moved.mean())
    half = truth_of_effect(truth, target, before, after, -0.5 * moved)
    assert half["slope"] == pytest.approx(-0.5)
    assert half["sign_accuracy"] == pytest.approx(0)
    # More of the trait is more of the target.
    assert np.corrcoef(far[:, 0], moved)[0, 1] > 0.5


def moved_by_hand(truth: Any, target: str, before: Connectomes, after: Connectomes) -> Floats:
    """How far a target of simulated people went, over trials answered in both."""
    ends = [truth.edited(c) for c in (before, after)]
    if target.startswith("amygdala"):
        betas = [e.betas("faces")[:, 0] - e.betas("faces")[:, 1] for e in ends]
        column = truth.population.bold_regions.index("RH_amygdala")
        return (betas[1] - betas[0])[:, column]
    runs = [e.tasks(with_bold=False) for e in ends]

    def mean(task: str, chosen: Any = slice(None)) -> Floats:
        late = runs[1][task].rt_s[:, chosen] - runs[0][task].rt_s[:, chosen]
        return np.array([np.nanmean(row.astype(np.float64)) for row in late])

    if target == "interference":
        condition = np.array(runs[0]["stroop"].schedule.condition)
        return mean("stroop", condition == "inc") - mean("stroop", condition == "con")
    if target == "speed-faces":
        return -mean("faces")
    return -(mean("faces") + mean("stroop")) / 2


def test_truth_stands_beside_the_effects(tiny_twin: Twin, simulated: SimulatedCohort) -> None:
    twin = of_cohort(tiny_twin, simulated)
    fc = simulated.cohort.connectomes
    result = intervene(twin, fc, "speed", truth=simulated.truth, n_steps=3, n_random=0)
    of_map = {"trait", "cosine", "cosine_low", "cosine_high", "auc", "auc_low", "auc_high"}
    of_effect = {"slope", "slope_r", "sign_accuracy", "true_change"}
    closed, weights = (result.effects[m].facts["truth"] for m in ("connectome", "weights"))
    assert set(closed) == of_map | of_effect
    assert set(weights) == of_map
    true = simulated.truth.gradient[simulated.truth.trait_names.index("speed")]
    for method, found in (("connectome", closed), ("weights", weights)):
        maps = result.effects[method].gradient.astype(np.float64)
        cosines = maps @ true / np.linalg.norm(maps, axis=1) / np.linalg.norm(true)
        assert found["cosine"] == pytest.approx(cosines.mean(), rel=1e-4)
        assert found["cosine_low"] <= found["cosine"] <= found["cosine_high"]
    without = intervene(twin, fc, "accuracy", method="weights", n_random=0, truth=simulated.truth)
    assert without.effects["weights"].facts["truth"] is None


# What is refused

SMALL = {"constraint": Constraint(budget=0.2), "n_steps": 2, "n_random": 0}


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        ({"target": "happiness"}, "target", "amygdala | speed | TASK:CONTRAST:REGION"),
        ({"target": "faces:faces>shapes:LH_nowhere"}, "target", "LH_V1 | RH_amygdala"),
        ({"target": "faces:fear:LH_V1"}, "target", "faces>shapes"),
        ({"target": "memory:a>b:LH_V1"}, "target", "faces | stroop"),
        ({"target": 3}, "target", "amygdala | a function"),
        ({"target": lambda said: said["faces"].rt_s}, "target", "a float64 tensor"),
        ({"target": lambda said: 3.0}, "target", "a float64 tensor"),
        ({"method": "magic"}, "argument", "connectome | weights"),
        ({"goal": "sideways"}, "argument", "up | down"),
        ({"scope": "family"}, "argument", "person | group"),
        ({"n_steps": 0}, "argument", "n_steps"),
        ({"n_steps": 2.5}, "argument", "n_steps"),
        ({"n_random": -1}, "argument", "n_random"),
        ({"seed": -1}, "argument", "seed"),
        ({"seed": 0.5}, "argument", "seed"),
        ({"keep": ["happiness"]}, "target", "amygdala | speed"),
        ({"keep": "accuracy"}, "argument", "keep | a list of targets"),
        ({"keep": ["accuracy"], "constraint": Constraint(top_k=3)}, "argument", "without top_k"),
        ({"keep": ["accuracy"], "constraint": Constraint(norm="linf")}, "argument", "norm='l2'"),
        ({"keep": ["accuracy"], "method": "weights"}, "argument", "keep | method='connectome'"),
        ({"keep": ["accuracy"], "method": lesion("region_01")}, "argument", "keep"),
        ({"scope": "group", "method": "weights"}, "argument", "scope | method='connectome'"),
        ({"constraint": Constraint(budget=1), "method": "weights"}, "argument", "constraint"),
        ({"constraint": Constraint(budget=1), "method": lesion("region_01")}, "argument", "lesion"),
        ({"method": site("lAMY", 0.2)}, "region", "region_00"),
        ({"method": lesion("region_1")}, "region", "near: region_1"),
        ({"method": network("ContA", 0.5)}, "region", "other"),
        ({"method": edges(np.ones(7, bool), 0.5)}, "edit", "(120,)"),
        ({"constraint": Constraint(budget=0)}, "constraint", "a positive number"),
        ({"constraint": Constraint(budget=-1.0)}, "constraint", "-1.0"),
        ({"constraint": Constraint(budget=float("nan"))}, "constraint", "nan"),
        ({"constraint": Constraint(budget=float("inf"))}, "constraint", "inf"),
        ({"constraint": Constraint(top_k=0)}, "constraint", "1 to 120"),
        ({"constraint": Constraint(top_k=121)}, "constraint", "1 to 120"),
        ({"constraint": Constraint(norm="l3")}, "constraint", "l2 | linf"),
        ({"constraint": Constraint(allowed=np.zeros(120, bool))}, "constraint", "no edge may"),
        ({"constraint": Constraint(allowed=np.ones(100, bool))}, "constraint", "(120,)"),
        ({"missing": "ignore"}, "argument", "reject"),
        ({"bad_subjects": "keep"}, "argument", "raise"),
    ],
    ids=lambda value: str(value)[:50] if isinstance(value, dict) else "",
)
def test_what_is_refused(
    options: dict[str, Any], code: str, says: str, tiny_twin: Twin, people: Connectomes
) -> None:
    small = {key: value for key, value in SMALL.items() if key != "constraint"}
    with pytest.raises(DTwinInputError) as caught:
        intervene(tiny_twin, people.select(slice(0, 3)), **(small | options))
    assert caught.value.code == code
    assert all(word in str(caught.value) for word in says.split(" | ")), str(caught.value)


def test_an_unknown_backend_is_named(tiny_twin: Twin, people: Connectomes) -> None:
    with pytest.raises(DTwinInputError, match="cpu"):
        intervene(tiny_twin, people.select([0]), **SMALL, backend="abacus")


def test_a_valid_change_with_no_room_is_refused(tiny_twin: Twin) -> None:
    """Connectomes of one factor: any single edge that moves leaves the correlations."""
    rng = np.random.default_rng(0)
    series = rng.standard_normal((3, 400, 1)) + 1e-4 * rng.standard_normal((3, 400, 16))
    fc = np.stack([np.corrcoef(s.T) for s in series])
    allowed = np.zeros(120, bool)
    allowed[7] = True
    with pytest.raises(DTwinInputError) as caught:
        intervene(
            tiny_twin,
            fc,
            "amygdala",
            constraint=Constraint(budget=0.5, allowed=allowed, valid=True),
            n_steps=3,
            n_random=0,
        )
    assert caught.value.code == "constraint"
    assert "nobody can be moved" in str(caught.value)


def test_edges_that_nothing_depends_on_are_refused(tiny_twin: Twin, people: Connectomes) -> None:
    first = tiny_twin.layers[0]
    weight = first.weight.copy()
    weight[:, :15] = 0
    twin = replace(tiny_twin, layers=(replace(first, weight=weight), *tiny_twin.layers[1:]))
    allowed = site_edges(twin.regions, "region_00")
    for budget in (0.5, None):
        constraint = Constraint(budget=budget, allowed=allowed)
        with pytest.raises(DTwinInputError) as caught:
            intervene(twin, people, "amygdala", constraint=constraint, n_steps=2, n_random=0)
        assert caught.value.code == "constraint"
        assert "Allow more edges" in caught.value.fix


def test_a_twin_without_the_task(tiny_twin: Twin, people: Connectomes) -> None:
    twin = faces_only(tiny_twin)
    some = people.select(slice(0, 3))
    for target in ("interference", "speed-stroop", "stroop:incongruent>congruent:LH_V1"):
        with pytest.raises(DTwinInputError) as caught:
            intervene(twin, some, target, **SMALL)
        assert caught.value.code == "target"
        assert caught.value.wanted == "faces"
    with pytest.raises(DTwinInputError, match="faces"):
        intervene(twin, some, "amygdala", keep=["interference"], **SMALL)
    result = intervene(twin, some, "speed", **SMALL)
    assert result.tasks == ("faces",)
    assert not {"interference", "speed-stroop"} & set(result.outcomes)


def test_a_head_without_probabilities(tiny_twin: Twin, people: Connectomes) -> None:
    twin = replace(tiny_twin, spec=replace(tiny_twin.spec, head="sigmoid"))
    some = people.select(slice(0, 3))
    for options in ({"target": "speed"}, {"target": "amygdala", "keep": ["accuracy"]}):
        with pytest.raises(DTwinInputError) as caught:
            intervene(twin, some, **options, **SMALL)
        assert caught.value.code == "target"
        assert "hazard" in str(caught.value)
    result = intervene(twin, some, "amygdala", **SMALL)
    assert "speed" not in result.outcomes
    assert "bold-variability" in result.outcomes


def test_a_second_twin_that_cannot_is_refused_before_the_work(
    tiny_twin: Twin, people: Connectomes
) -> None:
    some = people.select(slice(0, 3))
    renamed = replace(tiny_twin, regions=("elsewhere", *tiny_twin.regions[1:]))
    for second, target, code in (
        (faces_only(tiny_twin), "interference", "target"),
        (renamed, "amygdala", "regions_missing"),
    ):
        told: list[Any] = []
        with pytest.raises(DTwinInputError) as caught:
            intervene(
                tiny_twin,
                some,
                target,
                second=second,
                progress=lambda *what, told=told: told.append(what),
                **SMALL,
            )
        assert caught.value.code == code
        assert not told


def test_nobody_left_says_why(tiny_twin: Twin) -> None:
    fc = people_with_a_gap(tiny_twin, 3).select([2])
    with pytest.raises(DTwinInputError) as caught:
        intervene(tiny_twin, fc, "amygdala", bad_subjects="drop", **SMALL)
    assert caught.value.code == "no_subjects"
    assert "1 rejected" in str(caught.value)
    assert "missing_regions" in str(caught.value)
    with pytest.raises(DTwinInputError, match="missing_regions"):
        intervene(tiny_twin, fc, "amygdala", **SMALL)


def test_people_whose_target_is_no_number_are_named(tiny_twin: Twin, people: Connectomes) -> None:
    def odd(said: Mapping[str, Any]) -> Any:
        value = said["faces"].contrasts[:, 0, 0]
        return value + torch.log(value - value.mean())

    with pytest.raises(DTwinInputError) as caught:
        intervene(
            tiny_twin, people.select(slice(0, 5)), Function(odd, reads_behaviour=False), **SMALL
        )
    assert caught.value.code == "target"
    assert caught.value.subject in people.subjects
    assert "of 5 people have none" in caught.value.got


def test_the_reference_backend_does_the_same(tiny_twin: Twin, people: Connectomes) -> None:
    some = people.select([0])
    quick, slow = (
        intervene(tiny_twin, some, "amygdala", backend=backend, **SMALL)
        for backend in ("cpu", "reference")
    )
    assert slow.provenance["backend"] == "reference"
    np.testing.assert_allclose(
        slow.effects["connectome"].post, quick.effects["connectome"].post, rtol=1e-3, atol=1e-5
    )


def test_progress_is_told_of_every_stage(tiny_twin: Twin, people: Connectomes) -> None:
    told: list[tuple[str, int, int]] = []
    intervene(
        tiny_twin,
        people.select(slice(0, 3)),
        "amygdala",
        constraint=Constraint(budget=0.2),
        n_steps=3,
        n_random=4,
        progress=lambda *what: told.append(what),
    )
    last = {stage: (done, total) for stage, done, total in told}
    assert last == {"search": (9, 9), "doses": (13, 13), "random directions": (4, 4)}


def test_every_target_there_is_can_be_moved(tiny_twin: Twin, people: Connectomes) -> None:
    some = people.select([0])
    for name in ("amygdala", *sorted(OTHERS), "stroop:incongruent>congruent:RH_V1"):
        result = intervene(tiny_twin, some, name, **SMALL)
        effect = result.effects["connectome"]
        sign = 1 if find_target(name).goal == "up" else -1
        assert (sign * (effect.post - effect.pre) >= 0).all()
        assert result.outcomes[0] == name
