"""The staged recipe: its parts against formulas and other libraries, then the whole."""

from __future__ import annotations

import math
import runpy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from nilearn.glm.first_level import glover_hrf
from scipy import stats
from sklearn.kernel_ridge import KernelRidge

from dtwin_fast import rollout
from dtwin_fast.cohort import NOT_MEASURED, Cohort
from dtwin_fast.connectome import Connectomes
from dtwin_fast.hypernetwork import generate_weights, mish
from dtwin_fast.model_files import decode_safetensors
from dtwin_fast.spec import TwinSpec
from dtwin_fast.training import StagedConfig, cut_segments, fit
from dtwin_fast.training.encoder import kernel_ridge
from dtwin_fast.training.haemodynamics import conditions, mixtures, readout
from dtwin_fast.training.persons import first_latents
from dtwin_fast.training.units import (
    CHAIN_TAU_S,
    CHAIN_UNITS,
    fast_start,
    n_chains,
    n_fast,
    places,
    whole,
)
from dtwin_fast.weights import RNNWeights, count_weights, spec_weight_shapes

SHORT_RUNS = runpy.run_path(str(Path(__file__).with_name("short_runs.py")))
SPEC = TwinSpec("test", 30, hyper_hidden=(9, 6), n_hidden=32, bold_regions=SHORT_RUNS["BOLD"])
CONFIG = StagedConfig(n_steps=12, group_steps=15, batch_subjects=5, batch_segments=3)
NAN = np.float32(np.nan)


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return SHORT_RUNS["short_cohort"](24, 30, seed=4)


def without(cohort: Cohort, *, presses=(), bold=(), all_bold=False) -> Cohort:
    """The cohort without the presses or the BOLD of some people, or without any BOLD."""
    tasks = {}
    for name, data in cohort.tasks.items():
        choice, rt_s, series = data.choice.copy(), data.rt_s.copy(), data.bold.copy()
        choice[list(presses)], rt_s[list(presses)], series[list(bold)] = NOT_MEASURED, NAN, NAN
        series = None if all_bold else series
        tasks[name] = replace(data, choice=choice, rt_s=rt_s, bold=series)
    return replace(cohort, tasks=tasks)


# --- latent numbers at first sight ---


@pytest.mark.parametrize("n_dims", [1, 2, 5, 16])
def test_first_latents_are_uncorrelated_and_of_unit_variance(cohort, n_dims):
    z = first_latents(cohort, cut_segments(cohort, SPEC), n_dims)
    assert z.shape == (24, n_dims)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(z.std(axis=0), 1, rtol=1e-12)
    behaviour = z[:, 2:]  # after one gain for each run
    off = behaviour.T @ behaviour / len(z) - np.eye(max(n_dims - 2, 0))
    np.testing.assert_allclose(off, 0, atol=1e-9)


def test_gains_are_slopes_on_the_group(cohort):
    """Each person's BOLD is the group's, times a number that comes back."""
    rng = np.random.default_rng(0)
    gain = rng.uniform(0.2, 2, (2, 24, 1, 1))
    tasks = {
        name: replace(data, bold=(g * data.bold[:1]).astype(np.float32))
        for g, (name, data) in zip(gain, cohort.tasks.items(), strict=True)
    }
    scaled = replace(cohort, tasks=tasks)
    z = first_latents(scaled, cut_segments(scaled, SPEC), 2)
    np.testing.assert_allclose(z, stats.zscore(gain[:, :, 0, 0].T), atol=1e-4)


def test_who_has_no_data_gets_zeros_and_only_scales_the_others(cohort):
    nobody = [3, 17]
    others = np.setdiff1d(np.arange(24), nobody)
    some = without(cohort, presses=nobody, bold=nobody)
    z = first_latents(some, cut_segments(some, SPEC), 6)
    np.testing.assert_allclose(z[nobody], 0, atol=1e-9)
    alone = cohort.select(others)
    wanted = first_latents(alone, cut_segments(alone, SPEC), 6)
    # Variances are over everybody, zeros too; a principal component has no sign of its own.
    signs = np.sign((z[others] * wanted).sum(axis=0))
    np.testing.assert_allclose(z[others] * signs, wanted * math.sqrt(24 / 22), atol=1e-5)


# --- from connectomes to latent numbers ---


@pytest.mark.parametrize("n_features", [7, 23, 400])
@pytest.mark.parametrize("ridge", [1e-3, 0.1, 10.0])
def test_encoder_is_kernel_ridge_regression(n_features, ridge):
    rng = np.random.default_rng(n_features)
    x = rng.normal(size=(23, n_features)) * rng.uniform(0.1, 3, n_features)
    x = (x - x.mean(axis=0)).astype(np.float32)
    z, new = rng.normal(2, 1, (23, 4)), rng.normal(size=(5, n_features)).astype(np.float32)
    weight, intercept = kernel_ridge(x, z, ridge)
    assert (weight.dtype, weight.shape, intercept.shape) == (np.float32, (4, n_features), (4,))
    scale = np.sum(x.astype(np.float64) ** 2) / len(x)
    model = KernelRidge(alpha=ridge * scale).fit(x.astype(np.float64), z - z.mean(axis=0))
    wanted = model.predict(new.astype(np.float64)) + z.mean(axis=0)
    np.testing.assert_allclose(new @ weight.T + intercept, wanted, rtol=2e-3, atol=2e-3)


def test_a_tiny_ridge_gives_the_training_people_their_latents():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(19, 300))
    x, z = (x - x.mean(axis=0)).astype(np.float32), rng.normal(size=(19, 3))
    weight, intercept = kernel_ridge(x, z, 1e-6)
    np.testing.assert_allclose(x @ weight.T + intercept, z, atol=1e-4)


@pytest.mark.parametrize("constant", [0.0, 1e-8, 3.7e-6])
def test_features_that_are_the_same_for_everyone_tell_nothing(constant):
    """Also when what is left of them is the rounding of a mean that was taken off."""
    z = np.random.default_rng(2).normal(3, 1, (11, 2))
    x = np.full((11, 50), constant, np.float32)
    weight, intercept = kernel_ridge(x, z, 1e-3)
    np.testing.assert_array_equal(weight, 0)
    np.testing.assert_allclose(intercept, z.mean(axis=0), rtol=1e-12)


# --- units ---


@pytest.mark.parametrize(
    ("n_hidden", "chains", "fast"), [(1, 0, 1), (7, 0, 7), (8, 1, 3), (17, 2, 7), (64, 8, 24)]
)
def test_eight_units_make_a_chain_where_there_is_bold(n_hidden, chains, fast):
    spec = replace(SPEC, n_hidden=n_hidden)
    assert (n_chains(spec), n_fast(spec)) == (chains, fast)
    spec = replace(spec, bold_regions=())
    assert (n_chains(spec), n_fast(spec)) == (0, n_hidden)


@pytest.mark.parametrize("n_hidden", [1, 5, 8, 13, 40])
def test_places_are_where_whole_puts_the_fast_units(n_hidden):
    spec = replace(SPEC, n_hidden=n_hidden)
    rng = np.random.default_rng(n_hidden)
    fast = fast_start(spec, rng)
    fast = {name: rng.normal(size=p.shape).astype(np.float32) for name, p in fast.items()}
    parts = whole(spec, fast, rng.normal(size=(n_chains(spec), n_fast(spec))))
    assert {name: part.shape for name, part in parts.items()} == spec_weight_shapes(spec)
    flat = np.concatenate([part.ravel() for part in parts.values()])
    at_fast, at_bold = places(spec)
    np.testing.assert_array_equal(
        flat[at_fast], np.concatenate([part.ravel() for part in fast.values()])
    )
    assert not flat[at_bold].any()
    both = np.concatenate([at_fast, at_bold])
    assert len(np.unique(both)) == len(both) <= len(flat) == count_weights(spec)
    # Numbers put there read BOLD: w_out of the chains, then b_out.
    numbers = rng.normal(size=len(at_bold)).astype(np.float32)
    flat[at_bold] = numbers
    weights = RNNWeights.from_flat(flat[None], spec)
    n_slow = n_hidden - n_fast(spec)
    np.testing.assert_array_equal(
        weights.w_out[0, 3:, n_fast(spec) :], numbers[: 3 * n_slow].reshape(3, n_slow)
    )
    np.testing.assert_array_equal(weights.b_out[0, 3:], numbers[3 * n_slow :])


@pytest.mark.parametrize("n_hidden", [5, 8, 29])
def test_the_fast_units_act_alone_as_in_the_whole(n_hidden):
    """Chains only listen: their zeros leave every sum of the actions as it is."""
    spec = replace(SPEC, n_hidden=n_hidden)
    rng = np.random.default_rng(n_hidden)
    fast = fast_start(spec, rng)
    parts = whole(spec, fast, rng.normal(size=(n_chains(spec), n_fast(spec))))
    parts["w_out"][3:, n_fast(spec) :] = 1
    inputs = rng.normal(size=(3, 70, 9)).astype(np.float32)
    outputs = [
        rollout(RNNWeights("rnn", **{k: v[None] for k, v in p.items()}), inputs).outputs
        for p in (fast, parts)
    ]
    np.testing.assert_array_equal(outputs[0], outputs[1][..., :3])
    assert (outputs[1][..., 3:].std() > 0) == (n_chains(spec) > 0)


def impulse_response(spec, n_steps):
    """(T,5) states of a chain whose fast unit is 1 in step 0, by the engine in float64."""
    size = 1e-4  # so small that tanh is linear
    parts = {name: np.zeros(s, np.float32) for name, s in spec_weight_shapes(
        replace(spec, n_hidden=n_fast(spec), bold_regions=())).items()}  # fmt: skip
    parts["w_ih"][1, 0] = 1
    mixture = np.zeros((1, n_fast(spec)))
    mixture[0, 1] = 1
    named = whole(spec, parts, mixture)
    inputs = np.zeros((1, n_steps, 9))
    inputs[0, 0, 0] = size
    weights = RNNWeights("rnn", **{k: v[None].astype(np.float64) for k, v in named.items()})
    states = rollout(weights, inputs, return_states=True).states
    return states[0, 0, :, n_fast(spec) :] / size


def test_a_chain_answers_as_integrators_one_after_the_other():
    spec = replace(SPEC, n_hidden=8)
    response = impulse_response(spec, 300)
    p = 1 - math.exp(-spec.dt_s / CHAIN_TAU_S)
    steps = np.arange(300)
    t_s = spec.dt_s * steps
    for unit in range(CHAIN_UNITS):
        k = unit + 1
        # k leaky integrators of steps: the k-th success of trials that succeed with p.
        exact = stats.nbinom.pmf(steps - k, k, p)
        np.testing.assert_allclose(response[:, unit], 0.3 * exact, rtol=1e-4, atol=1e-7)
        # In steps, each integrator answers half a step late.
        gamma = stats.gamma.pdf(t_s - k / 2 * spec.dt_s, k, scale=CHAIN_TAU_S) * spec.dt_s
        assert np.abs(exact - gamma)[k:].max() < 0.002 * gamma.max()


def test_a_chain_holds_glovers_response():
    response = impulse_response(replace(SPEC, n_hidden=8), 400)
    hrf = glover_hrf(t_r=0.08, oversampling=1, time_length=32.0)
    assert hrf.shape == (400,)
    weight = np.linalg.lstsq(response, hrf, rcond=None)[0]
    left = np.sum((hrf - response @ weight) ** 2) / np.sum(hrf**2)
    assert left < 0.01
    assert np.corrcoef(hrf, response @ weight)[0, 1] ** 2 > 0.98


# --- BOLD of the group ---


def test_mixtures_have_unit_variance_and_tell_the_conditions(cohort):
    segments = cut_segments(cohort, SPEC)
    rng = np.random.default_rng(0)
    fast = rng.normal(size=(2, *segments.inputs.shape[:2], n_fast(SPEC))).astype(np.float32)
    fast *= rng.uniform(0.05, 3, n_fast(SPEC)).astype(np.float32)
    # One unit is on while a word is: the flag is on in every step, the ink only then.
    fast[..., 4] += 5 * segments.inputs[..., :3].any(axis=-1) * segments.inputs[..., 8]
    taken = mixtures(SPEC, segments, fast)
    assert taken.shape == (n_chains(SPEC), n_fast(SPEC))
    states = fast[:, :, segments.n_warm_up :].reshape(-1, n_fast(SPEC)) @ taken.T
    np.testing.assert_allclose(states.std(axis=0), 1, rtol=1e-3)
    share = np.abs(taken) * fast.reshape(-1, n_fast(SPEC)).std(axis=0)
    words = [i for i, name in enumerate(["shape", "face", "con", "inc"]) if name in ("con", "inc")]
    assert (share[words].argmax(axis=1) == 4).all()


def test_the_groups_stage_learns_to_tell_conditions_for_bold(cohort, monkeypatch):
    left = []

    def spy(spec, segments, fast):
        states = fast[0, :, segments.n_warm_up :].reshape(-1, n_fast(spec))
        shown = conditions(spec, segments)[:, segments.n_warm_up :].reshape(len(states), -1)
        known = np.column_stack([states, np.ones(len(states))])
        rest = shown - known @ np.linalg.lstsq(known, shown)[0]
        left.append((rest.var(axis=0) / shown.var(axis=0)).mean())
        return mixtures(spec, segments, fast)

    monkeypatch.setattr("dtwin_fast.training.haemodynamics.mixtures", spy)
    for weight in (0.0, 1.0):
        config = replace(CONFIG, n_steps=1, group_steps=300, condition_weight=weight)
        fit(cohort, replace(SPEC, n_hidden=64), config)
    assert left[1] < 0.8 * left[0]


def test_readout_finds_a_linear_bold(cohort):
    segments = cut_segments(cohort, SPEC)
    rng = np.random.default_rng(1)
    slow = rng.normal(size=(1, *segments.inputs.shape[:2], 10)).astype(np.float32)
    weight, bias = rng.normal(size=(3, 10)), rng.normal(size=3)
    at_volumes = slow[0][:, segments.scored_volume_steps] @ weight.T + bias
    bold = np.full_like(segments.bold, np.nan)
    # People miss different volumes; a volume that nobody has is left out.
    bold[:, :, -len(segments.scored_volume_steps) :] = at_volumes
    bold[::2, 0] = np.nan
    bold[:, 2, 9] = np.nan
    found, constant = readout(SPEC, replace(segments, bold=bold), slow)
    np.testing.assert_allclose(found, weight, atol=0.03 * np.abs(weight).max())
    np.testing.assert_allclose(constant, bias, atol=0.03)


# --- the whole ---


def decoded(folder, spec, n_latents, n_people):
    """Weights of the fast units by the state of stage ``people``, in numpy."""
    n_fast_weights = len(places(spec)[0])
    sizes = (n_latents, *spec.hyper_hidden)
    shapes = {"z": (n_people, n_latents), "base": (n_fast_weights,),
              "rows": (n_fast_weights, sizes[-1])}  # fmt: skip
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        shapes |= {f"layers.{i}.weight": (n_out, n_in), f"layers.{i}.bias": (n_out,)}
    moments = {f"{m}.{k}": s for m in ("exp_avg", "exp_avg_sq") for k, s in shapes.items()}
    other = {"done": (1,), "curve": (CONFIG.n_steps, 2)}
    state, _ = decode_safetensors(folder / "people.safetensors", shapes | moments | other)
    hidden, zero = state["z"], np.zeros((1, n_latents), np.float32)
    for i in range(len(spec.hyper_hidden)):
        hidden, zero = (
            mish(h @ state[f"layers.{i}.weight"].T + state[f"layers.{i}.bias"])
            for h in (hidden, zero)
        )
    return state["z"], state["base"] + (hidden - zero) @ state["rows"].T


def test_the_twin_gives_training_people_the_weights_they_were_fitted_with(cohort, tmp_path):
    config = replace(CONFIG, ridge=1e-6, n_latents=5)
    twin = fit(cohort, SPEC, config, checkpoint=tmp_path)
    z, wanted = decoded(tmp_path, SPEC, 5, 24)
    x = (cohort.connectomes.fisher_z().astype(np.float32) - twin.edge_mean) / twin.edge_sd
    got = generate_weights(twin.layers, x)[:, places(SPEC)[0]]
    np.testing.assert_allclose(got, wanted, atol=1e-3)
    # People differ, by far more than that.
    assert wanted.std(axis=0).max() > 0.02
    assert z.std(axis=0).min() > 0.3


def test_the_latents_pass_the_ridge_by_name(cohort, tmp_path):
    """A large ridge sends everybody to the mean person."""
    twin = fit(cohort, SPEC, replace(CONFIG, ridge=1e9, n_latents=5), checkpoint=tmp_path)
    z, _ = decoded(tmp_path, SPEC, 5, 24)
    flat = twin.personalize(cohort.connectomes).to_flat()
    assert flat.std(axis=0).max() < 1e-5
    assert np.abs(z).max() > 0.5


CASES = {
    "all": (SPEC, {}),
    "behaviour only": (replace(SPEC, bold_regions=()), {"all_bold": True}),
    "BOLD only": (SPEC, {"presses": range(24)}),
    "two without behaviour": (SPEC, {"presses": [0, 9]}),
    "two without BOLD": (SPEC, {"bold": [0, 23]}),
    "one without anything": (SPEC, {"presses": [5], "bold": [5]}),
    "one with anything": (SPEC, {"presses": range(1, 24), "bold": range(1, 24)}),
    "one with behaviour": (
        replace(SPEC, bold_regions=()), {"all_bold": True, "presses": range(1, 24)}
    ),
    "seven units": (replace(SPEC, n_hidden=7), {}),
    "one unit": (replace(SPEC, n_hidden=1), {}),
    "eight units": (replace(SPEC, n_hidden=8), {}),
    "one layer": (replace(SPEC, hyper_hidden=(4,)), {}),
}  # fmt: skip


@pytest.mark.parametrize(("spec", "lost"), CASES.values(), ids=CASES)
def test_every_cohort_trains_a_twin_of_finite_numbers(cohort, spec, lost):
    some = without(cohort, **lost)
    twin = fit(some, spec, CONFIG)
    prediction = twin.predict(cohort.connectomes)
    for part in (prediction.choice_prob, prediction.contrasts):
        assert np.isfinite(part).all()
    assert prediction.choice_prob.shape == (24, 28, 3)
    assert prediction.contrasts.shape == (24, 2, len(spec.bold_regions))
    has_presses = lost.get("presses") != range(24)
    stages = ["group"] * 15 + ["people"] * 12 * has_presses
    assert twin.training["stage"] == stages
    assert set(twin.training["bold_loss"]) <= {0.0}


def test_one_seed_one_twin(cohort):
    state = torch.random.get_rng_state()
    one, same, other = (fit(cohort, SPEC, replace(CONFIG, seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    for a, b, c in zip(one.layers, same.layers, other.layers, strict=True):
        np.testing.assert_array_equal(a.weight, b.weight)
        np.testing.assert_array_equal(a.bias, b.bias)
        assert not np.array_equal(a.weight, c.weight)


@pytest.mark.parametrize("standardize", [True, False])
def test_people_with_one_connectome_all_get_the_mean_person(cohort, standardize):
    fc = cohort.connectomes
    same = Connectomes.from_arrays(
        np.repeat(fc.edges[:1], 24, axis=0), regions=fc.regions, subjects=fc.subjects
    )
    spec = replace(SPEC, standardize=standardize)
    twin = fit(replace(cohort, connectomes=same), spec, CONFIG)
    np.testing.assert_array_equal(twin.layers[0].weight, 0)
    # Nothing was learnt of connectomes, so a new one changes nothing.
    flat = twin.personalize(fc).to_flat()
    assert (flat == flat[0]).all()


def test_training_lowers_the_loss_of_every_stage(cohort):
    config = replace(CONFIG, n_steps=60, group_steps=60, batch_subjects=24, batch_segments=99)
    twin = fit(cohort, SPEC, config)
    losses = np.array(twin.training["action_loss"]).reshape(2, 60)
    assert (losses[:, -10:].mean(axis=1) < losses[:, :10].mean(axis=1)).all()
