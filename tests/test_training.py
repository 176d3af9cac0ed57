"""Segments, losses, the hypernetwork module and fit()."""

from __future__ import annotations

import importlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from dtwin_fast import BackendUnavailableError, DTwinInputError, reference
from dtwin_fast.cohort import NO_RESPONSE, NOT_MEASURED, WRONG_BUTTON, Cohort, TaskData
from dtwin_fast.connectome import Connectomes
from dtwin_fast.metrics import pearson
from dtwin_fast.readouts import hazard
from dtwin_fast.simulate import simulate
from dtwin_fast.spec import PRESETS, TwinSpec
from dtwin_fast.tasks import TASKS
from dtwin_fast.training import HyperNetwork, TrainConfig, cut_segments, fit
from dtwin_fast.training.descent import Descent
from dtwin_fast.training.losses import (
    HEAD_LOSSES,
    bold_loss,
    hazard_loss,
    press_log_prob,
    sigmoid_loss,
)
from dtwin_fast.training.segments import NOT_AT_RISK

SPEC = TwinSpec("test", 20, hyper_hidden=(12,), n_hidden=10)
QUICK = TrainConfig(n_steps=4, batch_subjects=6, batch_segments=4)
# The package's fit is the function, which hides the module of that name.
FIT = importlib.import_module("dtwin_fast.training.fit")
GRADIENT = importlib.import_module("dtwin_fast.training.gradient")

on_cuda = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="torch sees no CUDA device to train on"
)


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return simulate(16, SPEC.n_regions, seed=3).cohort


def without_bold(cohort: Cohort, *tasks: str) -> Cohort:
    return replace(
        cohort,
        tasks={
            name: replace(data, bold=None) if name in tasks else data
            for name, data in cohort.tasks.items()
        },
    )


# --- segments ---


def test_segments_hold_the_stretches_of_the_runs(cohort):
    segments = cut_segments(cohort, SPEC)
    stride = SPEC.segment_steps - segments.n_warm_up
    run = TASKS["faces"].encode(cohort.tasks["faces"].schedule, SPEC.dt_s)
    np.testing.assert_array_equal(segments.inputs[0], run[: SPEC.segment_steps])
    np.testing.assert_array_equal(segments.inputs[2], run[2 * stride :][: SPEC.segment_steps])
    assert segments.inputs.shape[1:] == (262, 9)
    assert segments.press.shape == (16, *segments.inputs.shape[:2])


def test_every_press_in_a_window_is_one_target(cohort):
    spec = replace(SPEC, segment_steps=4929)  # the whole faces run, Stroop's but for its tail
    faces = Cohort(
        cohort.connectomes, {"faces": cohort.tasks["faces"]}, cohort.bold_regions, cohort.tr_s
    )
    data = faces.tasks["faces"]
    press = cut_segments(faces, spec).press[:, 0]
    step = np.floor((data.schedule.onset_s + data.rt_s) / spec.dt_s)
    windows = data.schedule.response_windows(spec.dt_s)
    inside = (data.choice >= 0) & (step >= windows[:, 0]) & (step < windows[:, 1])
    assert (press > 0).sum() == inside.sum()
    for s, n in zip(*np.nonzero(inside), strict=True):
        assert press[s, int(step[s, n])] == data.choice[s, n] + 1
        start, stop = windows[n]
        assert (press[s, start : int(step[s, n])] == 0).all()
        assert (press[s, int(step[s, n]) + 1 : stop] == NOT_AT_RISK).all()
    for s, n in zip(*np.nonzero(data.choice < 0), strict=True):
        assert (press[s, windows[n, 0] : windows[n, 1]] == 0).all()


def test_bold_targets_are_the_volumes_of_the_segment(cohort):
    segments = cut_segments(cohort, SPEC)
    assert segments.bold is not None
    bold = cohort.tasks["faces"].bold
    assert bold is not None
    mean = bold.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
    z = (bold - mean) / segments.bold_sd
    per_volume = 10
    first = (SPEC.segment_steps - segments.n_warm_up) // per_volume
    n_volumes = len(segments.volume_steps)
    np.testing.assert_array_equal(segments.bold[:, 1], z[:, first : first + n_volumes])
    np.testing.assert_array_equal(segments.volume_steps, np.arange(0, 262, 10))


def test_bold_of_some_tasks_only_is_masked(cohort):
    both = cut_segments(cohort, SPEC)
    faces = cut_segments(without_bold(cohort, "stroop"), SPEC)
    assert faces.bold is not None
    is_faces = np.array(faces.run) == "faces"
    assert 0 < is_faces.sum() < len(faces) == len(both)
    assert np.isnan(faces.bold[:, ~is_faces]).all()
    # The unit is the SD of the runs that there are.
    assert both.bold is not None
    in_bold_units = both.bold[:, is_faces] * both.bold_sd
    np.testing.assert_allclose(
        faces.bold[:, is_faces] * faces.bold_sd, in_bold_units, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(faces.press, both.press)
    twin = fit(without_bold(cohort, "stroop"), SPEC, QUICK)
    np.testing.assert_array_equal(twin.bold_sd, faces.bold_sd)
    assert np.isfinite(twin.predict(cohort.connectomes).contrasts).all()


def changed(cohort: Cohort, task: str, **changes) -> Cohort:
    return replace(cohort, tasks={**cohort.tasks, task: replace(cohort.tasks[task], **changes)})


def test_codes_of_presses(cohort):
    """Trials of one person: a wrong button that is not known, one not measured, a miss."""
    data = cohort.tasks["faces"]
    choice, rt_s = data.choice.copy(), data.rt_s.copy()
    choice[:, :4] = [WRONG_BUTTON, NOT_MEASURED, NO_RESPONSE, 2]
    rt_s[:, :4] = [0.61, np.nan, np.nan, 0.33]
    edited = changed(cohort, "faces", choice=choice, rt_s=rt_s)
    press = cut_segments(edited, SPEC).press[4, 0]
    windows = data.schedule.response_windows(SPEC.dt_s)
    wrong, unmeasured, missed, unused = (press[start:stop] for start, stop in windows[:4])
    step = [int((data.schedule.onset_s[n] + rt_s[4, n]) / SPEC.dt_s) for n in (0, 3)]
    at = step[0] - windows[0, 0]
    assert wrong.tolist() == (
        [0] * at + [3 + 1 + data.schedule.correct[0]] + [NOT_AT_RISK] * (len(wrong) - at - 1)
    )
    assert (unmeasured == NOT_AT_RISK).all()
    assert (missed == 0).all()
    assert unused[step[1] - windows[3, 0]] == 3
    outside = np.ones(len(press), bool)
    for start, stop in windows:
        outside[start:stop] = False
    assert (press[outside] == NOT_AT_RISK).all()


def test_stretches_without_data_are_dropped(cohort):
    data = without_bold(cohort, "faces", "stroop").tasks["faces"]
    late = data.schedule.onset_s > 200
    choice = np.where(late, NOT_MEASURED, data.choice).astype(np.int8)
    rt_s = np.where(late, np.float32(np.nan), data.rt_s)
    some = changed(without_bold(cohort, "faces", "stroop"), "faces", choice=choice, rt_s=rt_s)
    whole, left = cut_segments(cohort, SPEC), cut_segments(some, SPEC)
    assert left.bold is None
    last = np.flatnonzero(~late)[-1]
    stop = data.schedule.response_windows(SPEC.dt_s)[last, 1]
    wanted = [
        m
        for m, (run, start) in enumerate(zip(whole.run, whole.start, strict=True))
        if run == "stroop" or start < stop
    ]
    # Trials begin 11 s after the run does, within the first segment.
    found = list(zip(left.run, left.start.tolist(), strict=True))
    assert found == [(whole.run[m], whole.start[m]) for m in wanted if is_at_risk(whole, m)]
    assert len(left) < len(whole)
    np.testing.assert_array_equal(left.inputs, whole.inputs[[
        m for m in wanted if is_at_risk(whole, m)]])  # fmt: skip


def is_at_risk(segments, m: int) -> bool:
    return bool((segments.press[:, m] != NOT_AT_RISK).any())


def test_bold_that_ends_early_is_masked_and_demeaned_alone(cohort):
    data = cohort.tasks["stroop"]
    assert data.bold is not None
    bold = data.bold.copy()
    bold[2, 77:] = np.nan
    bold[5] = np.nan
    bold[6, :, 3] = np.nan
    segments = cut_segments(changed(cohort, "stroop", bold=bold), SPEC)
    assert segments.bold is not None
    is_stroop = np.array(segments.run) == "stroop"
    volumes = segments.start[is_stroop, None] // 10 + np.arange(len(segments.volume_steps))
    got = segments.bold[:, is_stroop]
    np.testing.assert_array_equal(np.isnan(got), np.isnan(bold[:, volumes]))
    mean = np.nanmean(bold[2, :77], axis=0, dtype=np.float64).astype(np.float32)
    early = (volumes < 77).all(axis=1)
    wanted = (bold[2][volumes[early]] - mean) / segments.bold_sd
    np.testing.assert_allclose(got[2, early], wanted, rtol=1e-5, atol=1e-6)
    assert np.isfinite(
        fit(changed(cohort, "stroop", bold=bold), SPEC, QUICK).layers[0].weight
    ).all()


def reader(inputs: torch.Tensor) -> torch.Tensor:
    """(M,T,3) actions of who reads the stimulus exactly, and a little of the word."""
    top, left, right = inputs[..., 2:4], inputs[..., 4:6], inputs[..., 6:8]
    unlike = torch.stack([(top - side).abs().amax(-1).round() for side in (left, right)], dim=-1)
    faces = torch.cat([1 - 2 * unlike, torch.full_like(unlike[..., :1], -3.0)], dim=-1)
    stroop = 3 * inputs[..., :3] + 0.7 * inputs[..., 3:6] - 2
    return torch.where(inputs[..., 8:] == 1, stroop, faces)


@pytest.mark.parametrize("seed", range(3))
def test_a_variation_asks_the_same_of_who_reads_the_stimulus(cohort, seed):
    data = cohort.tasks["stroop"]
    choice = data.choice.copy()
    choice[data.pressed & ~data.is_correct] = WRONG_BUTTON
    segments = cut_segments(changed(cohort, "stroop", choice=choice), SPEC)
    assert (segments.press > 4).any()
    inputs, actions = segments.vary(np.random.default_rng(seed), SPEC.dt_s)
    assert inputs.dtype == np.float32
    assert inputs.shape == segments.inputs.shape
    assert actions.shape == (*inputs.shape[:2], 3)
    assert (inputs != segments.inputs).any(axis=(1, 2)).all()
    np.testing.assert_array_equal(inputs[..., 8], segments.inputs[..., 8])
    press = torch.from_numpy(segments.press)
    told = reader(torch.from_numpy(inputs).double()).gather(-1, torch.from_numpy(actions))
    wanted = reader(torch.from_numpy(segments.inputs).double())
    at_risk = (press != NOT_AT_RISK).any(dim=0)
    np.testing.assert_allclose(told[at_risk], wanted[at_risk], atol=1e-6)
    losses = [hazard_loss(a.expand(len(press), -1, -1, -1), press) for a in (told, wanted)]
    torch.testing.assert_close(*losses, rtol=1e-6, atol=1e-6)
    # Without the exchange of actions it is another person's behaviour.
    plain = reader(torch.from_numpy(inputs).double())
    assert hazard_loss(plain.expand(len(press), -1, -1, -1), press) > losses[1] + 0.01


def test_actions_are_exchanged_within_windows_alone(cohort):
    segments = cut_segments(cohort, SPEC)
    _, actions = segments.vary(np.random.default_rng(0), SPEC.dt_s)
    exchanged = (actions != np.arange(3)).any(axis=-1)
    for m, (run, start) in enumerate(zip(segments.run, segments.start, strict=True)):
        inside = np.zeros(SPEC.segment_steps, bool)
        for first, stop in segments.schedules[run].response_windows(SPEC.dt_s) - start:
            inside[max(first, 0) : max(stop, 0)] = True
        assert not (exchanged[m] & ~inside).any()
    assert exchanged.any()
    assert (np.sort(actions, axis=-1) == np.arange(3)).all()


def test_a_run_shorter_than_a_segment_is_refused(cohort):
    with pytest.raises(DTwinInputError, match="6000 steps"):
        cut_segments(cohort, replace(SPEC, segment_steps=6000))


# --- losses ---


def test_hazard_loss_is_the_likelihood_of_the_readout():
    """Cross-entropy over steps at risk = -log P(c, t*), the readout's own probabilities."""
    rng = np.random.default_rng(0)
    actions = torch.tensor(rng.normal(-1, 1, (1, 1, 9, 3)))
    press = torch.full((1, 1, 9), NOT_AT_RISK, dtype=torch.int8)
    press[..., 2:6] = 0
    press[..., 5] = 3
    steps = slice(2, 6)
    at_risk = 4
    # P(action 2 at step 5) = P(by step 5) - P(by step 4).
    upto = [
        hazard(actions[0].numpy(), np.array([[2, stop]]), np.zeros(1), 0.08).choice_prob[0, 0, 2]
        for stop in (6, 5)
    ]
    wanted = -np.log(float(upto[0]) - float(upto[1])) / at_risk
    found = hazard_loss(actions, press).item()
    assert steps.stop - steps.start == at_risk
    # The readout returns float32.
    assert found == pytest.approx(wanted, rel=1e-5)


def test_steps_not_at_risk_have_no_gradient():
    actions = torch.randn(2, 3, 7, 3, requires_grad=True)
    press = torch.full((2, 3, 7), NOT_AT_RISK, dtype=torch.int8)
    press[0, 1, 2] = 0
    press[0, 1, 3] = 2
    hazard_loss(actions, press).backward()
    assert actions.grad is not None
    touched = actions.grad.abs().sum(-1) > 0
    assert touched.nonzero().tolist() == [[0, 1, 2], [0, 1, 3]]


def test_sigmoid_loss_equals_torch_bce():
    actions = torch.randn(2, 3, 5, 3)
    press = torch.randint(-1, 4, (2, 3, 5), dtype=torch.int8)
    target = torch.zeros(2, 3, 5, 3)
    for where in (press > 0).nonzero():
        target[(*where, press[tuple(where)].long() - 1)] = 1
    wanted = torch.nn.BCELoss()(torch.sigmoid(actions), target)
    torch.testing.assert_close(sigmoid_loss(actions, press), wanted)


@pytest.mark.parametrize("head", HEAD_LOSSES)
def test_gradcheck_of_the_head_losses(head):
    actions = torch.randn(2, 1, 4, 3, dtype=torch.float64, requires_grad=True)
    press = torch.tensor([[[0, 2, -1, -1]], [[0, 0, 0, 3]]], dtype=torch.int8)
    assert torch.autograd.gradcheck(lambda a: HEAD_LOSSES[head](a, press), (actions,))


@pytest.mark.parametrize("n_actions", [2, 3, 5])
def test_probabilities_of_a_step(n_actions):
    torch.manual_seed(n_actions)
    actions = 3 * torch.randn(4, 7, n_actions, dtype=torch.float64)
    log_prob = press_log_prob(actions)
    assert log_prob.shape == (4, 7, 1 + 2 * n_actions)
    prob = log_prob.exp()
    known, others = prob[..., : 1 + n_actions], prob[..., 1 + n_actions :]
    odds = torch.cat([torch.ones(4, 7, 1, dtype=torch.float64), actions.exp()], dim=-1)
    torch.testing.assert_close(known, odds / odds.sum(-1, keepdim=True))
    pressed = known[..., 1:].sum(-1, keepdim=True)
    torch.testing.assert_close(others, pressed - known[..., 1:])
    actions.requires_grad_()
    assert torch.autograd.gradcheck(press_log_prob, (actions,))


def test_hazard_loss_adds_up_step_by_step():
    rng = np.random.default_rng(3)
    actions = rng.normal(-1, 2, (3, 2, 11, 3))
    press = rng.integers(-1, 7, (3, 2, 11))
    wanted = []
    for logits, code in zip(actions.reshape(-1, 3), press.ravel(), strict=True):
        odds = np.exp(np.concatenate([[0], logits]))
        prob = odds / odds.sum()
        if code > 3:
            wanted.append(-np.log(sum(prob[1 + a] for a in range(3) if a != code - 4)))
        elif code != NOT_AT_RISK:
            wanted.append(-np.log(prob[code]))
    tensors = torch.from_numpy(actions), torch.from_numpy(press.astype(np.int8))
    assert hazard_loss(*tensors).item() == pytest.approx(np.mean(wanted), rel=1e-12)


def test_nobody_at_risk_is_no_loss():
    actions = torch.randn(2, 3, 7, 3, requires_grad=True)
    loss = hazard_loss(actions, torch.full((2, 3, 7), NOT_AT_RISK, dtype=torch.int8))
    loss.backward()
    assert loss.item() == 0
    assert actions.grad is not None
    assert not actions.grad.any()


def test_sigmoid_loss_leaves_out_wrong_buttons_that_are_not_known():
    actions = torch.randn(2, 3, 5, 3, dtype=torch.float64)
    press = torch.randint(-1, 7, (2, 3, 5), dtype=torch.int8)
    known = press < 4
    torch.testing.assert_close(
        sigmoid_loss(actions, press), sigmoid_loss(actions[known], press[known])
    )


def test_bold_loss_is_of_what_was_measured():
    rng = np.random.default_rng(5)
    target = rng.normal(size=(3, 4, 6, 5))
    target[rng.random(target.shape) < 0.3] = np.nan
    predicted = torch.from_numpy(rng.normal(size=target.shape)).requires_grad_()
    loss = bold_loss(predicted, torch.from_numpy(target))
    wanted = np.nanmean((predicted.detach().numpy() - target) ** 2)
    assert loss.item() == pytest.approx(wanted, rel=1e-12)
    loss.backward()
    assert predicted.grad is not None
    assert torch.equal(predicted.grad == 0, torch.from_numpy(np.isnan(target)))
    nothing = bold_loss(predicted, torch.full_like(predicted, torch.nan))
    assert nothing.item() == 0


def test_bold_loss_is_the_mean_square():
    assert bold_loss(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 1.0])).item() == 2.5


# --- fit ---


def test_fit_returns_a_twin_that_predicts(cohort):
    twin = fit(cohort, SPEC, QUICK)
    prediction = twin.predict(cohort.connectomes)
    assert prediction.choice_prob.shape == (16, 186, 3)
    assert np.isfinite(prediction.rt_s).all()
    assert len(twin.training["action_loss"]) == QUICK.n_steps
    assert twin.training["people"] == 16


def test_fit_is_reproducible_and_leaves_the_global_generator_alone(cohort):
    state = torch.random.get_rng_state()
    one, other = fit(cohort, SPEC, QUICK), fit(cohort, SPEC, QUICK)
    assert torch.equal(torch.random.get_rng_state(), state)
    for a, b in zip(one.layers, other.layers, strict=True):
        np.testing.assert_array_equal(a.weight, b.weight)
    reseeded = fit(cohort, SPEC, replace(QUICK, seed=1))
    assert not np.array_equal(one.layers[0].weight, reseeded.layers[0].weight)


@pytest.mark.parametrize("spec", [SPEC, replace(SPEC, head="sigmoid", standardize=False)],
                         ids=["hazard", "sigmoid"])  # fmt: skip
def test_training_lowers_the_losses(cohort, spec):
    twin = fit(cohort, spec, replace(QUICK, n_steps=60))
    for losses in (twin.training["action_loss"], twin.training["bold_loss"]):
        assert np.mean(losses[-10:]) < np.mean(losses[:10])


def test_scalers_come_from_the_training_cohort(cohort):
    twin = fit(cohort, SPEC, QUICK)
    z = cohort.connectomes.fisher_z()
    np.testing.assert_allclose(twin.edge_mean, z.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(twin.edge_sd, z.std(axis=0), rtol=1e-4)


def test_behaviour_without_bold_trains(cohort):
    spec = replace(SPEC, bold_regions=())
    twin = fit(without_bold(cohort, "faces", "stroop"), spec, QUICK)
    assert set(twin.training["bold_loss"]) == {0.0}
    assert twin.predict(cohort.connectomes).contrasts.shape == (16, 2, 0)


def test_bold_outputs_without_bold_data_are_refused(cohort):
    with pytest.raises(DTwinInputError, match="no BOLD"):
        fit(without_bold(cohort, "faces", "stroop"), SPEC, QUICK)


@pytest.mark.parametrize("tr_s", [0.735, 1.0, 2.5])
def test_a_tr_between_steps_is_refused_with_a_step_that_fits(cohort, tr_s):
    with pytest.raises(DTwinInputError, match="whole number of steps") as caught:
        cut_segments(cohort, replace(SPEC, tr_s=tr_s))
    dt_s = float(caught.value.fix.rsplit(" ", 1)[1])
    assert tr_s / dt_s == pytest.approx(round(tr_s / dt_s), rel=1e-8)


def test_segments_need_room_for_a_volume(cohort):
    with pytest.raises(DTwinInputError, match="a warm-up and a volume"):
        cut_segments(cohort, replace(SPEC, segment_steps=20))


def test_a_region_nobody_has_is_refused(cohort):
    fc = cohort.connectomes
    rows, columns = np.triu_indices(fc.n_regions, 1)
    edges = fc.edges.copy()
    edges[:, (rows == 4) | (columns == 4)] = np.nan
    gap = Connectomes.from_arrays(edges, regions=fc.regions, subjects=fc.subjects)
    with pytest.raises(DTwinInputError, match="1 that nobody has"):
        fit(replace(cohort, connectomes=gap), SPEC, QUICK)


def test_an_edge_that_does_not_vary_cannot_swamp_a_new_person(cohort):
    fc = cohort.connectomes
    edges = fc.edges.copy()
    edges[:, 7] = 0.25
    flat = Connectomes.from_arrays(edges, regions=fc.regions, subjects=fc.subjects)
    twin = fit(replace(cohort, connectomes=flat), SPEC, QUICK)
    assert twin.edge_sd[7] == np.float32(0.05)


@pytest.mark.parametrize(
    "bad",
    [
        {"n_steps": 0},
        {"n_steps": 2.5},
        {"seed": -1},
        {"batch_subjects": 0},
        {"batch_segments": True},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"max_grad_norm": "big"},
        {"weight_decay": -1.0},
    ],
    ids=str,
)
def test_bad_training_settings_are_refused(bad):
    with pytest.raises(DTwinInputError) as caught:
        TrainConfig(**bad)
    assert (caught.value.code, caught.value.field) == ("train_config", next(iter(bad)))


def test_bad_tasks_are_found_before_the_training(cohort):
    schedule = cohort.tasks["faces"].schedule
    no_shapes = replace(schedule, condition=("face",) * schedule.n_trials)
    tasks = {**cohort.tasks, "faces": replace(cohort.tasks["faces"], schedule=no_shapes)}
    steps = []
    with pytest.raises(DTwinInputError):
        fit(replace(cohort, tasks=tasks), SPEC, QUICK, on_step=steps.append)
    assert steps == []


def test_missing_regions_train_with_the_mean_of_the_others(cohort):
    fc = cohort.connectomes
    square = np.triu_indices(fc.n_regions, 1)
    edges = fc.edges.copy()
    edges[2, (square[0] == 4) | (square[1] == 4)] = np.nan
    gap = Connectomes.from_arrays(edges, regions=fc.regions, subjects=fc.subjects)
    assert gap.missing[2, 4]
    twin = fit(replace(cohort, connectomes=gap), SPEC, QUICK)
    others = np.delete(fc.fisher_z(), 2, axis=0)
    lost = np.isnan(edges[2])
    np.testing.assert_allclose(twin.edge_mean[lost], others[:, lost].mean(axis=0), rtol=1e-4)


def test_a_loss_that_is_not_finite_stops_the_training(cohort):
    with pytest.raises(FloatingPointError, match=r"nan at step .* of stage 'gradient'; lower the"):
        fit(cohort, SPEC, replace(QUICK, n_steps=40, learning_rate=1e30, max_grad_norm=1e30))


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (replace(SPEC, n_regions=21), "regions"),
        (replace(SPEC, bold_regions=("LH_V1",)), "bold_regions"),
        (replace(SPEC, tr_s=2.0), "tr_s"),
        (replace(SPEC, n_inputs=5), "n_inputs"),
        (replace(SPEC, n_actions=4), "n_actions"),
    ],
    ids=["regions", "bold", "tr", "inputs", "actions"],
)
def test_a_cohort_that_does_not_fit_is_refused(cohort, spec, field):
    with pytest.raises(DTwinInputError) as caught:
        fit(cohort, spec, QUICK)
    assert (caught.value.code, caught.value.field) == ("cohort", field)


def test_one_person_is_no_cohort(cohort):
    with pytest.raises(DTwinInputError, match="at least 2"):
        fit(cohort.select([0]), SPEC, QUICK)


def test_no_names_no_training(cohort):
    unnamed = Connectomes.from_arrays(cohort.connectomes.edges)
    with pytest.raises(DTwinInputError, match="without names"):
        fit(replace(cohort, connectomes=unnamed), SPEC, QUICK)


# --- devices ---


def assert_same_layers(one, other):
    for a, b in zip(one.layers, other.layers, strict=True):
        np.testing.assert_array_equal(a.weight, b.weight)
        np.testing.assert_array_equal(a.bias, b.bias)


def test_the_cpu_is_the_default_and_what_auto_falls_back_to(cohort, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    default = fit(cohort, SPEC, QUICK)
    for device in ("cpu", "auto"):
        twin = fit(cohort, SPEC, QUICK, device=device)
        assert_same_layers(twin, default)
        assert twin.training == default.training
        assert twin.training["device"] == "cpu"


@pytest.mark.parametrize(
    "device",
    ["meta", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:0\n", "cuda:" + "9" * 5000, "", None,
     torch.device("cpu"), ["cpu"]],
    ids=lambda device: repr(device)[:12],
)  # fmt: skip
def test_other_devices_are_refused(cohort, device):
    with pytest.raises(DTwinInputError, match=r"cpu \| cuda \| cuda:N \| auto") as caught:
        fit(cohort, SPEC, QUICK, device=device)
    assert (caught.value.code, caught.value.field) == ("device", "device")


@pytest.mark.parametrize(
    ("version", "reason"), [(None, "a build without CUDA"), ("13.0", "sees no CUDA device")]
)
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_cuda_that_is_not_there_is_refused_before_any_work(
    cohort, monkeypatch, device, version, reason
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", version)
    monkeypatch.setattr(FIT, "cut_segments", lambda *_: pytest.fail("the work began"))
    with pytest.raises(BackendUnavailableError, match=f"{reason}.*device='cpu'.*--device cpu"):
        fit(cohort, SPEC, QUICK, device=device)


def test_a_gpu_too_many_is_refused(cohort, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(BackendUnavailableError, match="torch sees 1 CUDA device"):
        fit(cohort, SPEC, QUICK, device="cuda:7")


@pytest.mark.parametrize("head", HEAD_LOSSES)
def test_a_step_stays_on_its_device_and_is_read_once(cohort, monkeypatch, head):
    """Meta tensors have no values to read, and torch does not mix them with the CPU's."""
    spec = replace(SPEC, head=head)
    reads = []

    def read(tensor):
        assert tensor.is_meta
        reads.append(tensor.shape)
        return [1.0] * 3

    monkeypatch.setattr(torch.Tensor, "tolist", read)
    monkeypatch.setattr(GRADIENT, "rollout", reference.rollout)
    # What comes back after the last step is no part of a step.
    monkeypatch.setattr(HyperNetwork, "numpy_layers", lambda _: ())
    x = np.zeros((len(cohort), spec.n_edges), np.float32)
    descent = Descent(QUICK.n_steps, QUICK.seed)
    segments = cut_segments(cohort, spec)
    GRADIENT.train_gradient(segments, x, spec, QUICK, torch.device("meta"), descent)
    assert len(descent.history) == QUICK.n_steps
    assert reads == [(3,)] * QUICK.n_steps


def test_a_full_device_is_told_as_bad_input(cohort):
    def full(_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(DTwinInputError, match="batch_subjects") as caught:
        fit(cohort, SPEC, QUICK, on_step=full)
    assert (caught.value.code, caught.value.got) == ("too_large", "cpu")


@pytest.mark.parametrize("where", ["reference", pytest.param("cuda", marks=on_cuda)])
def test_another_arithmetic_trains_about_the_same_twin(cohort, tolerances, monkeypatch, where):
    """Without dropout, whose numbers are the device's own, only the rounding differs."""
    spec, config = replace(SPEC, dropout=0.0), replace(QUICK, n_steps=30)
    wanted = fit(cohort, spec, config)
    if where == "reference":
        monkeypatch.setattr(GRADIENT, "rollout", reference.rollout)
    twin = fit(cohort, spec, config, device="cuda" if where == "cuda" else "cpu")
    assert twin.training["device"].startswith("cuda: " if where == "cuda" else "cpu")
    for losses in (twin.training["action_loss"], twin.training["bold_loss"]):
        assert np.mean(losses[-10:]) < np.mean(losses[:10])
    got, wanted = twin.predict(cohort.connectomes), wanted.predict(cohort.connectomes)
    tolerances.assert_close(got.choice_prob, wanted.choice_prob, "trained", "float32")
    tolerances.assert_close(got.contrasts, wanted.contrasts, "trained", "float32")


@on_cuda
def test_cuda_leaves_the_global_generators_alone(cohort):
    states = torch.random.get_rng_state(), *torch.cuda.get_rng_state_all()
    for device in ("cpu", "cuda"):
        fit(cohort, SPEC, QUICK, device=device)
        after = torch.random.get_rng_state(), *torch.cuda.get_rng_state_all()
        assert all(torch.equal(a, b) for a, b in zip(states, after, strict=True))


@pytest.mark.slow
def test_a_strong_signal_of_the_connectome_reaches_unseen_people():
    """RT that depends on one network of edges alone is predicted for held-out people."""
    spec = replace(PRESETS["tiny"], n_regions=16, bold_regions=(), segment_steps=262)
    rng = np.random.default_rng(0)
    simulated = simulate(120, 16, seed=5, bold_regions=("LH_V1",), with_bold=False).cohort
    score = rng.normal(size=120)
    z = simulated.connectomes.fisher_z() * 0.2
    z[:, :30] += 0.3 * score[:, None]
    fc = Connectomes.from_arrays(
        np.tanh(z), regions=simulated.connectomes.regions, subjects=simulated.connectomes.subjects
    )
    schedule = simulated.tasks["faces"].schedule
    rt_s = np.clip(0.9 + 0.2 * score[:, None] + 0.1 * rng.normal(size=(120, 108)), 0.2, 1.8)
    choice = np.broadcast_to(schedule.correct, rt_s.shape).astype(np.int8)
    data = TaskData(schedule, choice, rt_s.astype(np.float32))
    cohort = Cohort(fc, {"faces": data}, ("LH_V1",), 0.8)
    twin = fit(cohort.select(range(90)), spec, TrainConfig(n_steps=250, batch_segments=8))
    unseen = cohort.select(range(90, 120))
    predicted = twin.predict(unseen.connectomes).rt_s.mean(axis=1)
    assert pearson(predicted, unseen.tasks["faces"].rt_s.mean(axis=1)) > 0.6


def test_the_module_has_the_papers_layers():
    network = HyperNetwork(PRESETS["tiny"])
    assert [tuple(layer.weight.shape) for layer in network.linears()] == [
        (64, 120),
        (64, 64),
        (16 * 9 + 16 * 16 + 2 * 16 + 7 * 16 + 7, 64),
    ]
