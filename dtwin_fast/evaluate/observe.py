"""The truth of one run, with the training people's numbers beside it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..cohort import Cohort, TaskData
from .baselines.targets import mean_over_people, run_targets
from .baselines.time_course import demeaned, group_time_course
from .contrasts import contrast_effects
from .observed import Observed
from .splits import training_run


def observe(test: Cohort, train: Cohort, run: str) -> tuple[Observed, list[str]]:
    """What the test people did in a run, and flags.

    ``reference`` is of the training people, in the run of that name or the first of its task.
    Its ``bold_mean`` is :func:`group_time_course`: in volumes that training did not see, what a
    GLM of the group expects.

    Raises:
        MissingExtraError: BOLD without nilearn.
    """
    data = test.tasks[run]
    schedule = data.schedule
    shape = data.choice.shape
    contrasts, flags = contrast_effects(test, run)
    observed = Observed(
        choice=data.choice,
        rt_s=data.rt_s,
        correct=np.broadcast_to(schedule.correct, shape),
        condition=np.broadcast_to(np.array(schedule.condition), shape),
        contrasts=contrasts,
        bold=None if data.bold is None else demeaned(data.bold[:, : schedule.n_volumes(test.tr_s)]),
        reference=_reference(train, run, data, test.tr_s),
    )
    error_rate = observed.reference["error_rate"]
    if error_rate and not any(error_rate.values()):
        flags.append(f"{run}: no training person made an error; scores of errors say little")
    return observed, flags


def _reference(train: Cohort, run: str, data: TaskData, tr_s: float) -> dict[str, Any]:
    name = training_run({name: name for name in train.tasks}, run, data.schedule.task)
    if name is None:
        return {"error_rate": {}, "no_response": {}, "rt_mean": np.nan}
    targets, seen = run_targets(train, name), train.tasks[name]
    wrong, silent = mean_over_people(targets.wrong), mean_over_people(targets.silent)
    person_rt = np.where(seen.pressed, seen.rt_s, np.nan)
    reference = {
        "error_rate": dict(zip(targets.conditions, (wrong + silent).tolist(), strict=True)),
        "no_response": dict(zip(targets.conditions, silent.tolist(), strict=True)),
        "rt_mean": float(mean_over_people(mean_over_people(person_rt.T)[:, None])[0]),
        "bold_mean": group_time_course(seen, data.schedule, tr_s),
    }
    if targets.contrasts is not None:
        reference["contrasts_mean"] = mean_over_people(targets.contrasts).astype(np.float32)
    return reference
