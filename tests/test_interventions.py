"""Targets of interventions and their gradients, against float64 autograd and differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from dtwin_fast.errors import DTwinInputError
from dtwin_fast.interventions import (
    TARGETS,
    BoldVariability,
    Contrast,
    Function,
    ReactionTime,
    Said,
    Target,
    find_target,
    target_gradients,
)
from dtwin_fast.tasks import TASKS
from dtwin_fast.twin import Twin

torch = pytest.importorskip("torch")


def efficiency(said: Mapping[str, Said]) -> torch.Tensor:
    """Accuracy by time, of a twin with the tasks faces and stroop, and some BOLD."""
    right = [
        said[task].choice_prob[:, torch.arange(len(correct)), torch.tensor(correct)]
        for task, correct in CORRECT.items()
    ]
    share = torch.cat(right, 1).mean(1)
    return (share / said["faces"].rt_s.mean(1)).log() + said["stroop"].bold_sd.mean(1)


CORRECT = {name: TASKS[name].make_schedule(0).correct for name in ("faces", "stroop")}

ASKED: dict[str, str | Target] = {
    **{name: name for name in TARGETS},
    "another region": "stroop:incongruent>congruent:RH_V1",
    "a function": Function(efficiency),
    "one condition": ReactionTime({"faces": {"face": 2.0, "": -1.0}}),
}


def draw(twin: Twin, n_subjects: int, seed: int = 0) -> np.ndarray:
    n_edges = len(twin.edge_mean)
    rng = np.random.default_rng(seed)
    return rng.uniform(-0.5, 0.8, (n_subjects, n_edges)).astype(np.float32)


def value_by_torch(twin: Twin, edges: torch.Tensor, target: Target) -> torch.Tensor:
    """The target of (S,E) float64 Pearson r, written down once more with autograd."""
    from dtwin_fast import reference
    from dtwin_fast.weights import split_flat

    h = (torch.atanh(edges) - torch.tensor(twin.edge_mean)) / torch.tensor(twin.edge_sd)
    *hidden, last = [
        (torch.tensor(layer.weight).double(), torch.tensor(layer.bias).double())
        for layer in twin.layers
    ]
    for weight, bias in hidden:
        h = torch.nn.functional.mish(h @ weight.T + bias)
    weights = split_flat(h @ last[0].T + last[1], twin.spec)
    inputs = torch.tensor(twin.encode(list(twin.schedules))).double()
    outputs = reference.rollout(twin.spec.cell, weights, inputs).outputs
    rt_s, correct, contrasts, spreads, n = {}, [], {}, [], twin.spec.n_actions
    for b, (task, schedule) in enumerate(twin.schedules.items()):
        run = outputs[:, b, : schedule.n_steps(twin.spec.dt_s)]
        contrasts[task] = torch.tensor(twin.projections[task]).double() @ run[:, :, n:]
        spreads.append(run[:, :, n:].std(dim=1, correction=0).mean(1))
        times = []
        windows = schedule.response_windows(twin.spec.dt_s)
        for (start, stop), onset_s, right in zip(
            windows, schedule.onset_s, schedule.correct, strict=True
        ):
            window = run[:, start:stop, :n]
            nothing = torch.zeros_like(window[:, :, :1])
            risk = torch.softmax(torch.cat([window, nothing], dim=2), dim=2)
            alive = torch.cumprod(torch.cat([1 + nothing[:, :1, 0], risk[:, :-1, n]], 1), 1)
            press = risk[:, :, :n] * alive[:, :, None]
            step_s = (torch.arange(start, stop).double() + 0.5) * twin.spec.dt_s - onset_s
            times.append((press.sum(2) @ step_s) / press.sum((1, 2)))
            correct.append(press[:, :, right].sum(1))
        rt_s[task] = torch.stack(times, 1)
    if isinstance(target, Contrast):
        row = twin.contrasts[target.task].index(target.contrast)
        columns = [twin.spec.bold_regions.index(region) for region in target.regions]
        return contrasts[target.task][:, row, columns].mean(1)
    if isinstance(target, BoldVariability):
        return torch.stack(spreads).mean(0)
    if isinstance(target, Function):
        return (torch.stack(correct, 1).mean(1) / rt_s["faces"].mean(1)).log() + spreads[1]
    if not isinstance(target, ReactionTime):
        return torch.stack(correct, 1).mean(1)
    speed = {task: {"": -1 / len(rt_s)} for task in rt_s}
    total = torch.zeros(len(edges), dtype=torch.float64)
    for task, of_condition in (target.coefficients or speed).items():
        condition = np.array(twin.schedules[task].condition)
        for name, coefficient in of_condition.items():
            trials = np.flatnonzero((condition == name) | (name == ""))
            total = total + coefficient * rt_s[task][:, trials].mean(1)
    return total


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_gradients_equal_autograd_and_differences(
    asked: str | Target, tiny_twin: Twin, tolerances: ModuleType
) -> None:
    edges = draw(tiny_twin, 5)
    found = target_gradients(tiny_twin, edges, asked)
    leaf = torch.tensor(edges).double().requires_grad_()
    value = value_by_torch(tiny_twin, leaf, find_target(asked))
    (wanted,) = torch.autograd.grad(value.sum(), leaf)
    assert found.value.shape == (5,)
    np.testing.assert_allclose(found.value, value.detach(), rtol=1e-4, atol=1e-5)
    scale = wanted.abs().max()
    assert scale > 0
    tolerance = tolerances.TOLERANCES["target_gradients"]["float32"]
    assert (torch.tensor(found.edges) - wanted).abs().max() < tolerance * scale
    # Along the gradient found, the float64 value moves as the gradient says.
    way = torch.tensor(found.edges).double()
    way /= way.norm(dim=1, keepdim=True)
    step = 1e-4
    with torch.no_grad():
        ends = [
            value_by_torch(tiny_twin, leaf + sign * step * way, find_target(asked))
            for sign in (1, -1)
        ]
    moved = (ends[0] - ends[1]) / (2 * step)
    np.testing.assert_allclose(moved, (wanted * way).sum(1), rtol=1e-3, atol=1e-7)


def test_people_do_not_depend_on_their_company(tiny_twin: Twin) -> None:
    edges = draw(tiny_twin, 70)
    whole = target_gradients(tiny_twin, edges, "speed")
    alone = target_gradients(tiny_twin, edges[66:67], "speed")
    np.testing.assert_array_equal(alone.edges[0], whole.edges[66])
    assert alone.value[0] == whole.value[66]
    assert whole.unit == "s"


def test_values_are_what_predictions_say(tiny_twin: Twin) -> None:
    edges = draw(tiny_twin, 4)
    prediction = tiny_twin.predict(edges)
    speed = target_gradients(tiny_twin, edges, "speed").value
    means = [
        prediction.rt_s[:, prediction.trial_slice(t)].mean(axis=1) for t in ("faces", "stroop")
    ]
    np.testing.assert_allclose(speed, -np.mean(means, axis=0), rtol=1e-5)
    amygdala = target_gradients(tiny_twin, edges, "amygdala").value
    row = prediction.contrast_names.index("faces>shapes")
    columns = [i for i, name in enumerate(prediction.bold_regions) if "amygdala" in name]
    wanted = prediction.contrasts[:, row, columns].mean(axis=1)
    np.testing.assert_allclose(amygdala, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("happiness", "amygdala | amygdala-left"),
        ("faces:faces>shapes", "speed"),
        ("memory:a>b:LH_V1", "faces | stroop"),
        ("faces:fear:LH_V1", "faces>shapes"),
        ("faces:faces>shapes:LH_V9", "LH_V1"),
        (ReactionTime({"stroop": {"face": 1.0}}), "con | inc"),
        (ReactionTime({"n-back": {"": 1.0}}), "faces | stroop"),
        (ReactionTime({}), "faces | stroop"),
        (ReactionTime({"faces": {}}), "face | shape"),
        (Contrast("faces", "faces>shapes", ()), "LH_V1"),
    ],
)
def test_what_there_is_not_is_refused_by_name(
    asked: str | Target, says: str, tiny_twin: Twin
) -> None:
    with pytest.raises(DTwinInputError) as caught:
        target_gradients(tiny_twin, draw(tiny_twin, 2), asked)
    assert caught.value.code == "target"
    assert all(word in str(caught.value) for word in says.split(" | "))


def test_behaviour_of_a_head_without_probabilities_is_refused(tiny_twin: Twin) -> None:
    twin = replace(tiny_twin, spec=replace(tiny_twin.spec, head="sigmoid"))
    edges = draw(twin, 2)
    with pytest.raises(DTwinInputError, match="hazard"):
        target_gradients(twin, edges, "speed")
    found = target_gradients(twin, edges, "amygdala")
    same = target_gradients(tiny_twin, edges, "amygdala")
    np.testing.assert_array_equal(found.edges, same.edges)
