"""A simulated cohort whose runs are short, for trainings that take a moment."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dtwin_fast.cohort import Cohort, TaskData
from dtwin_fast.simulate import simulate
from dtwin_fast.spec import TR_S
from dtwin_fast.tasks import Schedule

BOLD = ("LH_V1", "RH_M1", "LH_amygdala")


def short_cohort(n_people: int, n_regions: int, seed: int, n_trials: int = 14) -> Cohort:
    """People in the first trials of both runs, with BOLD of the regions in ``BOLD``."""
    whole = simulate(n_people, n_regions, seed=seed, bold_regions=BOLD).cohort
    tasks = {name: _shortened(data, n_trials) for name, data in whole.tasks.items()}
    return replace(whole, tasks=tasks)


def short_schedule(full: Schedule, n_trials: int) -> Schedule:
    """The first trials of a run."""
    cues = full.cue_onset_s < full.onset_s[n_trials - 1]
    names = ("onset_s", "duration_s", "window_s", "correct", "stimulus", "item")
    return Schedule(
        task=full.task,
        run_s=float(np.ceil(full.onset_s[n_trials - 1] + 10)),
        condition=full.condition[:n_trials],
        **{name: getattr(full, name)[:n_trials] for name in names},
        **{name: getattr(full, name)[cues] for name in ("cue_onset_s", "cue_duration_s", "cue")},
    )


def _shortened(data: TaskData, n_trials: int) -> TaskData:
    schedule = short_schedule(data.schedule, n_trials)
    assert data.bold is not None
    bold = data.bold[:, : schedule.n_volumes(TR_S)]
    return TaskData(schedule, data.choice[:, :n_trials], data.rt_s[:, :n_trials], bold)
