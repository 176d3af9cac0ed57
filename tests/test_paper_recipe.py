"""The paper's recipe: targets, one training by hand, early stopping, checkpoints."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline
from torch.nn import functional

from dtwin_fast import DTwinInputError
from dtwin_fast.cohort import NO_RESPONSE, NOT_MEASURED, WRONG_BUTTON, Cohort
from dtwin_fast.simulate import simulate
from dtwin_fast.spec import PRESETS
from dtwin_fast.tasks import TASKS
from dtwin_fast.training import HyperNetwork, cut_segments, fit
from dtwin_fast.training.config import PaperConfig
from dtwin_fast.training.paper import hold_out, press_loss
from dtwin_fast.training.paper_segments import (
    NOT_KNOWN,
    cut_paper_segments,
    interpolate,
    press_series,
)

SPEC = replace(PRESETS["tiny"], head="sigmoid", standardize=False)
QUICK = PaperConfig(max_epochs=1, learning_rate=1e-3)


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    """Four people; the last has no BOLD of the faces, the third did no Stroop."""
    people = simulate(4, SPEC.n_regions, seed=11, bold_regions=SPEC.bold_regions).cohort
    faces, stroop = people.tasks["faces"], people.tasks["stroop"]
    bold = faces.bold.copy()
    bold[3] = np.nan
    series = stroop.bold.copy()
    choice, rt_s = stroop.choice.copy(), stroop.rt_s.copy()
    choice[2], rt_s[2], series[2] = NOT_MEASURED, np.nan, np.nan
    wrong = (choice >= 0) & (choice != stroop.schedule.correct)
    choice[wrong] = WRONG_BUTTON
    tasks = {
        "faces": replace(faces, bold=bold + np.float32(3)),
        "stroop": replace(stroop, choice=choice, rt_s=rt_s, bold=series),
    }
    return replace(people, tasks=tasks)


# --- targets ---


@pytest.mark.parametrize("press", ["impulse", "hold"])
def test_presses_are_coded_step_by_step(cohort, press):
    data, dt_s = cohort.tasks["stroop"], SPEC.dt_s
    schedule, n_steps = data.schedule, data.schedule.n_steps(SPEC.dt_s)
    wanted = np.zeros((len(cohort), n_steps), np.int8)
    for person in range(len(cohort)):
        for n, (start, stop) in enumerate(schedule.response_windows(dt_s)):
            choice = data.choice[person, n]
            if choice in (NO_RESPONSE, NOT_MEASURED):
                continue
            step = int(np.floor((schedule.onset_s[n] + data.rt_s[person, n]) / dt_s))
            if not start <= step < stop:
                continue
            held = stop - step if press == "hold" else 1
            code = NOT_KNOWN if choice == WRONG_BUTTON else choice + 1
            wanted[person, step : step + held] = code
    wanted[2] = NOT_KNOWN
    found = press_series(data, n_steps, dt_s, press)
    np.testing.assert_array_equal(found, wanted)
    assert (data.choice == WRONG_BUTTON).any()
    assert {1, 2, 3} <= set(found.ravel().tolist())


def test_a_trial_not_measured_is_unknown_until_the_next(cohort):
    data = cohort.tasks["faces"]
    choice, rt_s = data.choice.copy(), data.rt_s.copy()
    choice[1, 5], rt_s[1, 5] = NOT_MEASURED, np.nan
    n_steps = data.schedule.n_steps(SPEC.dt_s)
    found = press_series(replace(data, choice=choice, rt_s=rt_s), n_steps, SPEC.dt_s, "impulse")
    first, following = data.schedule.response_windows(SPEC.dt_s)[5:7, 0]
    assert np.flatnonzero(found[1] == NOT_KNOWN).tolist() == list(range(first, following))
    assert (found[0] != NOT_KNOWN).all()


def test_bold_is_interpolated_between_measured_volumes():
    rng = np.random.default_rng(2)
    bold = rng.standard_normal((3, 23, 2))
    bold[1, 15:] = np.nan
    bold[2, 7, 1] = np.nan
    found = interpolate(bold, 223, 10)
    at = np.arange(223)
    whole = CubicSpline(10 * np.arange(23), bold[0])(at)
    np.testing.assert_allclose(found[0, :221], whole[:221], rtol=1e-6, atol=1e-6)
    assert np.isnan(found[0, 221:]).all()
    np.testing.assert_allclose(found[0, :221:10], bold[0], rtol=1e-6)
    half = CubicSpline(10 * np.arange(15), bold[1, :15])(at[:141])
    np.testing.assert_allclose(found[1, :141], half, rtol=1e-6, atol=1e-6)
    assert np.isnan(found[1, 141:]).all()
    assert np.flatnonzero(np.isnan(found[2, :221, 1])).tolist() == list(range(61, 80))
    assert not np.isnan(found[2, :221, 0]).any()


def test_segments_overlap_by_16_steps_and_bold_has_scores_of_everybody(cohort):
    data = cut_paper_segments(cohort, SPEC, "impulse")
    stride = SPEC.segment_steps - 16
    run = TASKS["faces"].encode(cohort.tasks["faces"].schedule, SPEC.dt_s)
    np.testing.assert_array_equal(data.inputs[3], run[3 * stride :][: SPEC.segment_steps])
    n_faces = (len(run) - SPEC.segment_steps) // stride + 1
    people, stretches = data.pairs.T
    assert set(stretches[people == 2]) == set(range(n_faces))
    assert set(stretches[people == 0]) == set(range(len(data.inputs)))
    runs = [cohort.tasks[task].bold.reshape(-1, 4) for task in ("faces", "stroop")]
    volumes = np.concatenate(runs).astype(np.float64)
    mean, sd = np.nanmean(volumes, axis=0), np.nanstd(volumes, axis=0)
    np.testing.assert_allclose(data.bold_sd, sd)
    first = (cohort.tasks["faces"].bold[1, :5] - mean) / sd
    np.testing.assert_allclose(data.bold[1, 0, :48:10], first, rtol=1e-4, atol=1e-5)


def test_the_loss_of_presses_is_torchs_over_known_steps():
    actions, target = torch.randn(2, 5, 3), torch.tensor([[0, 1, -1, 3, 0], [-1, -1, 0, 0, 2]])
    known = target >= 0
    pressed = functional.one_hot(target.clamp(min=0), 4)[..., 1:].float()
    wanted = functional.binary_cross_entropy(torch.sigmoid(actions)[known], pressed[known])
    torch.testing.assert_close(press_loss(actions, target), wanted)
    assert press_loss(actions, torch.full((2, 5), NOT_KNOWN)).item() == 0


# --- training ---


def by_hand(cohort, spec, config):
    """The recipe written out, one batch an epoch: losses (epochs,2), layers, validation losses."""
    data = cut_paper_segments(cohort, spec, config.press)
    train, held_out = hold_out(data.pairs, config.validation_share, config.seed)
    x = torch.from_numpy(cohort.connectomes.fisher_z().astype(np.float32))
    torch.manual_seed(config.seed)
    network = HyperNetwork(spec, "default")
    parameters = list(network.parameters())
    adam = torch.optim.Adam(parameters, lr=config.learning_rate)
    cell = torch.nn.RNNCell(spec.n_inputs, spec.n_hidden)
    sizes = [p.numel() for p in cell.parameters()]

    def loss(pairs):
        action_sum = bold_sum = n_steps = n_bold = 0
        for person, stretch in pairs:
            flat = network(x[person : person + 1])[0]
            *parts, readout = flat.split([*sizes, flat.numel() - sum(sizes)])
            shapes = [p.shape for p in cell.parameters()]
            names = [name for name, _ in cell.named_parameters()]
            weights = {n: p.view(s) for n, p, s in zip(names, parts, shapes, strict=True)}
            w_out = readout[: -spec.n_outputs].view(spec.n_outputs, spec.n_hidden)
            h, outputs = torch.zeros(1, spec.n_hidden), []
            for step in torch.from_numpy(data.inputs[stretch]):
                h = torch.func.functional_call(cell, weights, (step[None], h))
                outputs.append(functional.linear(h, w_out, readout[-spec.n_outputs :])[0])
            outputs = torch.stack(outputs)
            target = torch.from_numpy(data.action[person, stretch]).long()
            known = target != NOT_KNOWN
            pressed = functional.one_hot(target.clamp(min=0), 4)[:, 1:].float()
            action_sum += functional.binary_cross_entropy(
                torch.sigmoid(outputs[known, :3]), pressed[known], reduction="sum"
            )
            n_steps += 3 * int(known.sum())
            bold = torch.from_numpy(data.bold[person, stretch])
            measured = ~torch.isnan(bold)
            bold_sum += functional.mse_loss(
                outputs[:, 3:][measured], bold[measured], reduction="sum"
            )
            n_bold += int(measured.sum())
        return action_sum / n_steps, bold_sum / n_bold

    history, validation, best = [], [], None
    for _ in range(config.max_epochs):
        action, bold = loss(train)
        adam.zero_grad()
        (action + bold).backward()
        torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
        adam.step()
        history.append([action.item(), bold.item()])
        with torch.no_grad():
            validation.append(sum(loss(held_out)).item())
        if validation[-1] == min(validation):
            best = network.numpy_layers()
    return np.array(history), best, validation


@pytest.fixture(scope="module")
def small(cohort) -> Cohort:
    """Little enough to be trained by hand: the first trials and volumes of two people."""
    tasks = {}
    for name, data in cohort.select([0, 3]).tasks.items():
        late = data.schedule.onset_s > 12
        choice, rt_s, bold = data.choice.copy(), data.rt_s.copy(), data.bold.copy()
        choice[:, late], rt_s[:, late], bold[:, 15:] = NOT_MEASURED, np.nan, np.nan
        tasks[name] = replace(data, choice=choice, rt_s=rt_s, bold=bold)
    return replace(cohort.select([0, 3]), tasks=tasks)


@pytest.mark.parametrize("press", ["impulse", "hold"])
def test_training_equals_the_recipe_written_out(small, press):
    spec = replace(SPEC, dropout=0.0)
    config = replace(QUICK, max_epochs=4, press=press)
    history, layers, _ = by_hand(small, spec, config)
    twin = fit(small, spec, config)
    found = np.stack([twin.training["action_loss"], twin.training["bold_loss"]], axis=1)
    np.testing.assert_allclose(found, history, atol=1e-5, rtol=1e-5)
    assert np.ptp(history, axis=0).min() > 1e-3  # the steps went somewhere
    for found, wanted in zip(twin.layers[:-1], layers[:-1], strict=True):
        np.testing.assert_allclose(found.weight, wanted.weight, atol=1e-5)
        np.testing.assert_allclose(found.bias, wanted.bias, atol=1e-5)
    # The twin gives BOLD in SDs of demeaned runs; all else is as trained.
    ratio = cut_paper_segments(small, spec, press).bold_sd / cut_segments(small, spec).bold_sd
    gain = np.ones(len(layers[-1].bias))
    gain[-7 - 7 * spec.n_hidden : -7].reshape(7, -1)[3:] = ratio[:, None]
    gain[-4:] = ratio
    np.testing.assert_allclose(twin.layers[-1].bias, layers[-1].bias * gain, atol=1e-5)
    np.testing.assert_allclose(twin.layers[-1].weight, layers[-1].weight * gain[:, None], atol=1e-5)


def test_batches_are_of_all_segments_once_an_epoch(cohort):
    config = replace(QUICK, max_epochs=2, batch_size=70)
    n = len(cut_paper_segments(cohort, SPEC, "impulse").pairs)
    per_epoch = -(-(n - round(0.2 * n)) // 70)
    twin = fit(cohort, SPEC, config)
    assert len(twin.training["action_loss"]) == 2 * per_epoch
    assert set(twin.training["stage"]) == {"paper"}
    assert twin.training["recipe"] == "paper"


def test_held_out_segments_are_drawn_and_apart(cohort):
    pairs = cut_paper_segments(cohort, SPEC, "impulse").pairs
    train, held_out = hold_out(pairs, 0.2, 0)
    assert len(held_out) == round(0.2 * len(pairs))
    assert sorted(map(tuple, [*train, *held_out])) == sorted(map(tuple, pairs))
    assert len({person for person, _ in held_out}) == 4
    assert not np.array_equal(held_out, hold_out(pairs, 0.2, 1)[1])


def test_one_segment_cannot_be_trained_and_validated():
    with pytest.raises(DTwinInputError, match="too few segments") as caught:
        hold_out(np.zeros((1, 2), np.int64), 0.2, 0)
    assert caught.value.code == "cohort"


def test_dozens_of_epochs_lower_the_loss(cohort):
    config = replace(QUICK, max_epochs=25, learning_rate=3e-3)
    twin = fit(cohort, SPEC, config)
    for column in ("action_loss", "bold_loss"):
        losses = twin.training[column]
        assert np.mean(losses[-10:]) < 0.98 * np.mean(losses[:10])
    prediction = twin.predict(cohort.connectomes)
    assert np.isfinite(prediction.rt_s).all()
    assert np.isfinite(prediction.contrasts).all()


def test_training_stops_when_nothing_gets_better_and_gives_the_best(small):
    spec = replace(SPEC, dropout=0.0)
    config = replace(QUICK, max_epochs=60, patience=2, learning_rate=3e-3)
    _, _, validation = by_hand(small, spec, replace(config, max_epochs=12))
    best = next(
        i for i, v in enumerate(validation) if all(v <= w for w in validation[i + 1 : i + 3])
    )
    twin = fit(small, spec, config)
    assert 3 < len(twin.training["stage"]) == best + 3 < 12
    until_best = fit(small, spec, replace(config, max_epochs=best + 1))
    for one, other in zip(twin.layers, until_best.layers, strict=True):
        np.testing.assert_array_equal(one.weight, other.weight)
        np.testing.assert_array_equal(one.bias, other.bias)


class Stopped(Exception):
    pass


@pytest.mark.parametrize(("n_epoch", "at"), [(5, 104), (7, 201)], ids=["between", "within"])
def test_a_stopped_training_goes_on_to_the_same_bits(small, tmp_path, n_epoch, at):
    """Checkpoints are written every 100 steps: between epochs of 5 steps, within one of 7."""
    n_train = len(hold_out(cut_paper_segments(small, SPEC, "impulse").pairs, 0.2, 0)[0])
    batch = next(size for size in range(1, 99) if -(-n_train // size) == n_epoch)
    config = replace(QUICK, max_epochs=210 // n_epoch, batch_size=batch, patience=60)
    wanted = fit(small, SPEC, config)
    n_steps = len(wanted.training["stage"])
    assert n_steps == 210

    def stop(step):
        if step.step == at:
            raise Stopped

    with pytest.raises(Stopped):
        fit(small, SPEC, config, on_step=stop, checkpoint=tmp_path)
    steps = []
    found = fit(small, SPEC, config, on_step=steps.append, checkpoint=tmp_path)
    assert len(steps) == n_steps
    for one, other in zip(found.layers, wanted.layers, strict=True):
        np.testing.assert_array_equal(one.weight, other.weight)
        np.testing.assert_array_equal(one.bias, other.bias)
    np.testing.assert_allclose(
        found.training["action_loss"], wanted.training["action_loss"], atol=2e-6
    )


def test_behaviour_alone_and_bold_alone(small):
    alone = {name: replace(data, bold=None) for name, data in small.tasks.items()}
    twin = fit(replace(small, tasks=alone), replace(SPEC, bold_regions=()), QUICK)
    assert set(twin.training["bold_loss"]) == {0.0}
    unpressed = {
        name: replace(
            data,
            choice=np.full_like(data.choice, NOT_MEASURED),
            rt_s=np.full_like(data.rt_s, np.nan),
        )
        for name, data in small.tasks.items()
    }
    twin = fit(replace(small, tasks=unpressed), SPEC, QUICK)
    assert set(twin.training["action_loss"]) == {0.0}
    assert min(twin.training["bold_loss"]) > 0


def test_the_papers_recipe_is_of_sigmoid_units(small):
    with pytest.raises(DTwinInputError, match="head sigmoid") as caught:
        fit(small, replace(SPEC, head="hazard"), QUICK)
    assert caught.value.code == "train_config"


@pytest.mark.parametrize(
    "bad",
    [
        {"max_epochs": 0},
        {"patience": 1.5},
        {"batch_size": True},
        {"validation_share": 1.0},
        {"validation_share": 0.0},
        {"press": "long"},
        {"press": ["hold"]},
        {"seed": -1},
    ],
    ids=str,
)
def test_bad_settings_are_refused(bad):
    with pytest.raises(DTwinInputError) as caught:
        PaperConfig(**bad)
    assert (caught.value.code, caught.value.field) == ("train_config", next(iter(bad)))
