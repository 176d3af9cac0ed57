"""The demo: simulate people, train on most of them, predict the others, compare with floors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .cohort import Cohort, TaskData
from .errors import MissingExtraError
from .metrics import concordance, mean_row_r, pearson, person_mean_r
from .prediction import Prediction
from .simulate import simulate
from .spec import PRESETS
from .twin import Twin

try:
    from .training import StagedConfig, TrainStep, fit
    from .training.recipes import Config
except MissingExtraError as error:
    raise MissingExtraError(error.package, "demo", "The demo") from error

Array = npt.NDArray[Any]

TEST_SHARE = 0.2


@dataclass(frozen=True)
class Row:
    """One line of the result table: the model beside its trivial floor, held-out people."""

    task: str
    metric: str
    model: float
    floor: float
    floor_is: str


@dataclass(frozen=True, eq=False)
class DemoResult:
    """What the demo made."""

    twin: Twin
    prediction: Prediction
    rows: list[Row]
    n_train: int
    n_test: int


def run_demo(
    *,
    n_people: int = 228,
    config: Config | None = None,
    seed: int = 0,
    on_step: Callable[[TrainStep], None] | None = None,
) -> DemoResult:
    """Simulate a cohort (preset ``demo``), train on 80 % of the people, score on the rest.

    Nothing of the held-out people enters the training: scalers and weights are fitted on
    the others.
    """
    spec = PRESETS["demo"]
    cohort = simulate(n_people, spec.n_regions, seed=seed).cohort
    order = np.random.default_rng(seed).permutation(n_people)
    n_test = max(2, round(TEST_SHARE * n_people))
    test, train = cohort.select(order[:n_test]), cohort.select(order[n_test:])
    twin = fit(train, spec, config or StagedConfig(seed=seed), on_step=on_step)
    prediction = twin.predict(test.connectomes)
    rows = score(twin, prediction, train, test)
    return DemoResult(twin, prediction, rows, len(train), len(test))


def score(twin: Twin, prediction: Prediction, train: Cohort, test: Cohort) -> list[Row]:
    """Model and floor of every metric, each floor fitted on the training people alone."""
    rows: list[Row] = []
    for task, data in test.tasks.items():
        trials = prediction.trial_slice(task)
        rows += _behaviour(
            task,
            prediction.choice[:, trials],
            prediction.rt_s[:, trials],
            train,
            test,
        )
        if data.bold is not None:
            rows += _bold(task, twin, prediction, train.tasks[task], data)
    return rows


def _behaviour(task: str, choice: Array, rt_s: Array, train: Cohort, test: Cohort) -> list[Row]:
    seen, data = train.tasks[task], test.tasks[task]
    correct = np.broadcast_to(data.schedule.correct, data.choice.shape)
    item_mean = np.broadcast_to(np.nanmean(seen.rt_s, axis=0), data.rt_s.shape)
    rows = [
        Row(
            task,
            "choice concordance",
            concordance(choice, data.choice),
            concordance(correct, data.choice),
            "always the correct button",
        ),
        Row(
            task,
            "RT r over trials",
            pearson(rt_s, data.rt_s),
            pearson(item_mean, data.rt_s),
            "mean RT of the trial, training people",
        ),
    ]
    if "age_years" in train.participants:
        # Degree 1: a line through the training people's mean RT and age.
        line = np.polyfit(train.participants["age_years"], np.nanmean(seen.rt_s, axis=1), deg=1)
        by_age = np.polyval(line, test.participants["age_years"])
        rows.append(
            Row(
                task,
                "RT r over people",
                person_mean_r(rt_s, data.rt_s),
                pearson(by_age, np.nanmean(data.rt_s, axis=1)),
                "age alone",
            )
        )
    return rows


def _bold(
    task: str, twin: Twin, prediction: Prediction, train: TaskData, test: TaskData
) -> list[Row]:
    rows: list[Row] = []
    for name in twin.contrasts[task]:
        predicted = prediction.contrasts[:, prediction.contrast_names.index(name)]
        k = twin.contrasts[task].index(name)
        seen, observed = (observed_contrast(twin, task, data, k) for data in (train, test))
        group = np.broadcast_to(seen.mean(axis=0), observed.shape)
        rows += [
            Row(
                task,
                f"BOLD {name} pattern r, group",
                pearson(predicted.mean(axis=0), observed.mean(axis=0)),
                pearson(group[0], observed.mean(axis=0)),
                "training group's mean",
            ),
            Row(
                task,
                f"BOLD {name} pattern r, person",
                mean_row_r(predicted, observed),
                mean_row_r(group, observed),
                "training group's mean",
            ),
        ]
    return rows


def observed_contrast(twin: Twin, task: str, data: TaskData, k: int) -> Array:
    """(S, regions) effect of contrast k in measured BOLD: the rows that the model's get."""
    spec, schedule = twin.spec, twin.schedules[task]
    steps = schedule.volume_steps(spec.tr_s, spec.dt_s)
    assert data.bold is not None
    series = data.bold[:, : len(steps)] / twin.bold_sd
    effect: Array = twin.projections[task][k, steps] @ series
    return effect


def as_table(rows: list[Row]) -> str:
    """The rows as aligned text."""
    header = ("task", "metric (held-out people)", "model", "floor", "the floor is")
    cells = [
        header,
        *((r.task, r.metric, f"{r.model:.3f}", f"{r.floor:.3f}", r.floor_is) for r in rows),
    ]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.rjust(width) if i in (2, 3) else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)
