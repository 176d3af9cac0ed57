"""Stages of gradient descent: the rate, what a step draws, and going on from a checkpoint."""

from __future__ import annotations

import json
import math
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dtwin_fast.cohort import NOT_MEASURED, Cohort
from dtwin_fast.errors import DTwinInputError
from dtwin_fast.spec import TwinSpec
from dtwin_fast.training import StagedConfig, TrainConfig, TrainStep, cut_segments, fit
from dtwin_fast.training.checkpoint import CHECKPOINT_FILE
from dtwin_fast.training.descent import Descent, Group, Losses
from dtwin_fast.training.recipes import count_steps, train_layers

SHORT_RUNS = runpy.run_path(str(Path(__file__).with_name("short_runs.py")))
SPEC = TwinSpec("test", 17, hyper_hidden=(7, 5), n_hidden=17, bold_regions=SHORT_RUNS["BOLD"])
STAGED = StagedConfig(n_steps=7, group_steps=5, batch_subjects=3, batch_segments=2)
GRADIENT = TrainConfig(n_steps=9, batch_subjects=3, batch_segments=2)


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return SHORT_RUNS["short_cohort"](8, SPEC.n_regions, seed=11)


# --- one stage ---


def bowl(centre: torch.Tensor, at: torch.Tensor) -> Losses:
    loss = ((at - centre) ** 2).sum()
    return Losses(loss, loss, torch.zeros(()))


@pytest.mark.parametrize("n_steps", [1, 2, 9, 10, 37, 200])
def test_the_rate_rises_for_a_tenth_and_falls_along_half_a_cosine(n_steps: int) -> None:
    """AdamW moves a parameter with a constant gradient by its rate in every step."""
    rates = {"slow": 1e-3, "fast": 2e-2}
    leaves = {name: torch.zeros(1, dtype=torch.float64, requires_grad=True) for name in rates}
    path: list[dict[str, float]] = []

    def slope(rng: np.random.Generator) -> Losses:
        path.append({name: leaf.item() for name, leaf in leaves.items()})
        loss = -sum(leaf.sum() for leaf in leaves.values())
        assert isinstance(loss, torch.Tensor)
        return Losses(loss, loss, torch.zeros(()))

    groups = [Group({name: leaves[name]}, rate) for name, rate in rates.items()]
    Descent(n_steps, 0).run("stage", groups, slope, n_steps, max_norm=1e9)
    path.append({name: leaf.item() for name, leaf in leaves.items()})
    warm_up = max(1, n_steps // 10)
    for name, rate in rates.items():
        moved = np.diff([at[name] for at in path])
        wanted = [
            (k + 1) / warm_up
            if k < warm_up
            else 0.5 * (1 + math.cos(math.pi * (k - warm_up) / (n_steps - warm_up)))
            for k in range(n_steps)
        ]
        np.testing.assert_allclose(moved, rate * np.array(wanted), rtol=1e-6)


def test_weight_decay_takes_its_share() -> None:
    """With no gradient to follow, a step leaves 1 - rate x decay."""
    leaf = torch.full((3,), 2.0, dtype=torch.float64, requires_grad=True)

    def nothing(rng: np.random.Generator) -> Losses:
        return Losses((leaf * 0).sum(), torch.zeros(()), torch.zeros(()))

    Descent(1, 0).run("stage", [Group({"leaf": leaf}, 0.1, 0.5)], nothing, 1)
    np.testing.assert_allclose(leaf.detach().numpy(), 2.0 * (1 - 0.1 * 0.5), rtol=1e-12)


def test_long_gradients_are_clipped_and_short_ones_are_not() -> None:
    norms = []
    for max_norm in (0.5, 100.0):
        leaf = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        centre = torch.tensor([3.0, 4.0], dtype=torch.float64)
        Descent(1, 0).run(
            "stage", [Group({"leaf": leaf}, 1e-9)], lambda _, c=centre, at=leaf: bowl(c, at), 1,
            max_norm=max_norm,
        )  # fmt: skip
        assert leaf.grad is not None
        norms.append(float(leaf.grad.norm()))
    np.testing.assert_allclose(norms, [0.5, 10.0], rtol=1e-5)


def test_steps_draw_their_own_numbers_and_leave_the_generators_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda _: pytest.fail("all GPUs reseeded"))
    state = torch.random.get_rng_state()
    drawn: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for seed, stage in [(0, "group"), (0, "people"), (1, "group")]:
        numbers = drawn[seed, stage] = []
        leaf = torch.zeros(1, requires_grad=True)

        def loss(rng: np.random.Generator, numbers=numbers, leaf=leaf) -> Losses:
            numbers.append((float(rng.random()), float(torch.rand(()))))
            return bowl(torch.ones(1), leaf)

        Descent(3, seed).run(stage, [Group({"leaf": leaf}, 0.1)], loss, 3)
        torch.rand(5)  # what is drawn elsewhere changes nothing
    flat = [number for numbers in drawn.values() for pair in numbers for number in pair]
    assert len(set(flat)) == 3 * 3 * 2
    torch.random.set_rng_state(state)
    again: list[float] = []
    leaf = torch.zeros(1, requires_grad=True)

    def loss_again(rng: np.random.Generator) -> Losses:
        again.append(float(torch.rand(())))
        return bowl(torch.ones(1), leaf)

    Descent(3, 0).run("group", [Group({"leaf": leaf}, 0.1)], loss_again, 3)
    assert again == [number for _, number in drawn[0, "group"]]
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_stage_and_step(bad: float) -> None:
    leaf = torch.zeros(1, requires_grad=True)
    steps: list[TrainStep] = []

    def loss(rng: np.random.Generator) -> Losses:
        return bowl(torch.tensor([bad if len(steps) == 2 else 1.0]), leaf)

    with pytest.raises(FloatingPointError, match=r"at step 3 of stage 'people'"):
        Descent(5, 0, steps.append).run("people", [Group({"leaf": leaf}, 0.1)], loss, 5)
    assert [step.step for step in steps] == [1, 2]


def test_a_parameter_without_a_gradient_is_kept_through_a_checkpoint(tmp_path: Path) -> None:
    leaf, idle = (torch.ones(2, requires_grad=True) for _ in range(2))
    groups = [Group({"leaf": leaf, "idle": idle}, 0.1, 0.1)]
    with pytest.raises(Interrupted):
        Descent(5, 0, Stop(3), tmp_path, checkpoint_steps=1).run(
            "stage", groups, lambda _: bowl(torch.zeros(2), leaf), 5
        )
    descent = Descent(5, 0, None, tmp_path, checkpoint_steps=1)
    descent.run("stage", groups, lambda _: bowl(torch.zeros(2), leaf), 5)
    assert torch.equal(idle, torch.ones(2))
    assert [step.step for step in descent.history] == [1, 2, 3, 4, 5]


# --- going on ---


class Interrupted(Exception):
    """The training was stopped."""


class Stop:
    """Stops a training after so many steps."""

    def __init__(self, after: int) -> None:
        self.after = after

    def __call__(self, step: TrainStep) -> None:
        if step.step == self.after:
            raise Interrupted


def layers_of(cohort, config, folder=None, on_step=None, checkpoint_steps=100):
    segments = cut_segments(cohort, SPEC)
    x = cohort.connectomes.fisher_z().astype(np.float32)
    n_steps = count_steps(config, segments, SPEC)
    descent = Descent(n_steps, config.seed, on_step, folder, checkpoint_steps)
    layers = train_layers(cohort, segments, x, SPEC, config, torch.device("cpu"), descent)
    return layers, descent.history


@pytest.fixture(scope="module", params=[STAGED, GRADIENT], ids=["staged", "gradient"])
def unbroken(request, cohort):
    return request.param, *layers_of(cohort, request.param)


@pytest.mark.parametrize("checkpoint_steps", [1, 3])
def test_a_training_that_goes_on_ends_with_the_same_bits(
    cohort, unbroken, tmp_path, checkpoint_steps
):
    """Stopped again and again: in, at the end and at the beginning of every stage."""
    config, wanted, history = unbroken
    for after in range(1, len(history)):
        with pytest.raises(Interrupted):
            layers_of(cohort, config, tmp_path, Stop(after), checkpoint_steps)
    # The last steps, then a training that was complete: nothing is left to do.
    for _ in range(2):
        layers, resumed = layers_of(cohort, config, tmp_path, None, checkpoint_steps)
        assert resumed == history
        for a, b in zip(layers, wanted, strict=True):
            np.testing.assert_array_equal(a.weight, b.weight)
            np.testing.assert_array_equal(a.bias, b.bias)


def test_every_stage_reports(unbroken):
    config, _, history = unbroken
    stages = (
        {"gradient": config.n_steps}
        if isinstance(config, TrainConfig)
        else {"group": config.group_steps, "people": config.n_steps}
    )
    assert [step.stage for step in history] == [s for s, n in stages.items() for _ in range(n)]
    assert [step.step for step in history] == list(range(1, len(history) + 1))
    assert {step.n_steps for step in history} == {sum(stages.values())}


def same_twin(one, other) -> bool:
    return all(
        np.array_equal(a.weight, b.weight) and np.array_equal(a.bias, b.bias)
        for a, b in zip(one.layers, other.layers, strict=True)
    )


@pytest.mark.parametrize("config", [STAGED, GRADIENT], ids=["staged", "gradient"])
def test_fit_goes_on_from_the_last_whole_stage(cohort, tmp_path, config):
    folder = tmp_path / "deep" / "state"
    wanted = fit(cohort, SPEC, config)
    with pytest.raises(Interrupted):
        fit(cohort, SPEC, config, on_step=Stop(8), checkpoint=folder)
    files = {path.name for path in folder.iterdir()}
    is_staged = isinstance(config, StagedConfig)
    assert files == {CHECKPOINT_FILE, *(["group.safetensors"] if is_staged else [])}
    steps: list[TrainStep] = []
    twin = fit(cohort, SPEC, config, on_step=steps.append, checkpoint=str(folder))
    assert same_twin(twin, wanted)
    assert twin.training == wanted.training
    assert [step.step for step in steps] == list(range(1, steps[-1].n_steps + 1))


@pytest.fixture
def checkpoint(cohort, tmp_path):
    """The folder of a finished training."""
    fit(cohort, SPEC, STAGED, checkpoint=tmp_path)
    return tmp_path


def half_unmeasured(cohort: Cohort) -> Cohort:
    """The same connectomes; half of the trials are another split's."""
    data = cohort.tasks["faces"]
    hidden = np.arange(data.schedule.n_trials) % 2 == 0
    choice = np.where(hidden, NOT_MEASURED, data.choice).astype(np.int8)
    rt_s = np.where(hidden, np.float32(np.nan), data.rt_s)
    return replace(cohort, tasks={**cohort.tasks, "faces": replace(data, choice=choice, rt_s=rt_s)})


def other_bold(cohort: Cohort) -> Cohort:
    data = cohort.tasks["stroop"]
    assert data.bold is not None
    bold = data.bold.copy()
    bold[2, 5, 1] += 1
    return replace(cohort, tasks={**cohort.tasks, "stroop": replace(data, bold=bold)})


OTHERS = {
    "seed": ("config", lambda c: (c, SPEC, replace(STAGED, seed=1))),
    "steps": ("config", lambda c: (c, SPEC, replace(STAGED, n_steps=8))),
    "recipe": ("recipe, config", lambda c: (c, SPEC, GRADIENT)),
    "spec": ("spec", lambda c: (c, replace(SPEC, n_hidden=16), STAGED)),
    "people": (
        "input_sha256, tasks_sha256",
        lambda c: (c.select([1, 0, 2, 3, 4, 5, 6, 7]), SPEC, STAGED),
    ),
    "trials": ("tasks_sha256", lambda c: (half_unmeasured(c), SPEC, STAGED)),
    "BOLD": ("tasks_sha256", lambda c: (other_bold(c), SPEC, STAGED)),
}


@pytest.mark.parametrize(("what", "other"), OTHERS.values(), ids=OTHERS)
def test_the_checkpoint_of_another_training_is_refused(cohort, checkpoint, what, other):
    before = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    steps: list[TrainStep] = []
    with pytest.raises(DTwinInputError) as caught:
        fit(*other(cohort), on_step=steps.append, checkpoint=checkpoint)
    assert (caught.value.code, caught.value.got) == ("checkpoint", f"another {what}")
    assert steps == []
    assert {path.name: path.read_bytes() for path in checkpoint.iterdir()} == before


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", json.dumps({"recipe": "staged"})])
def test_a_damaged_marker_is_refused(cohort, checkpoint, text):
    (checkpoint / CHECKPOINT_FILE).write_text(text)
    with pytest.raises(DTwinInputError) as caught:
        fit(cohort, SPEC, STAGED, checkpoint=checkpoint)
    assert caught.value.code == "checkpoint"


def test_a_folder_of_something_else_is_refused_and_left_alone(cohort, tmp_path):
    (tmp_path / "thesis.txt").write_text("irreplaceable")
    with pytest.raises(DTwinInputError, match="files of something else"):
        fit(cohort, SPEC, STAGED, checkpoint=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("stage", ["group", "people"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: b"",
        lambda raw: raw[:7],
        lambda raw: raw[:-4],
        lambda raw: raw + b"\0\0\0\0",
        lambda raw: b"\xff" * 8 + raw[8:],
        lambda raw: raw.replace(b'"done"', b'"dune"', 1),
    ],
    ids=["empty", "cut in the length", "cut in a tensor", "longer", "long header", "other name"],
)
def test_a_damaged_file_is_refused(cohort, checkpoint, stage, damage):
    path = checkpoint / f"{stage}.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DTwinInputError) as caught:
        fit(cohort, SPEC, STAGED, checkpoint=checkpoint)
    assert caught.value.code in ("model_file", "model_tensors", "file_empty")
    assert path.name in str(caught.value)


def test_a_checkpoint_that_is_no_path_is_refused(cohort):
    with pytest.raises(DTwinInputError) as caught:
        fit(cohort, SPEC, STAGED, checkpoint=7)
    assert (caught.value.code, caught.value.field) == ("argument", "checkpoint")
