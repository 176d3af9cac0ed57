"""Contrast effects of measured BOLD against nilearn used directly, with gaps of every kind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dtwin_fast.cohort import Cohort
from dtwin_fast.evaluate.contrasts import contrast_effects, is_estimable
from dtwin_fast.evaluate.splits import within_person
from dtwin_fast.simulate import simulate
from dtwin_fast.tasks import TASKS
from dtwin_fast.tasks.design import contrast_design, design_matrix

pytest.importorskip("nilearn")

FLOAT32_RELATIVE = 1e-5  # float32 results of float64 fits


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    areas = ("LH_V1", "RH_V1", "LH_HVC", "RH_amygdala", "LH_aPFC")
    return simulate(5, 16, seed=6, bold_regions=areas).cohort


def by_nilearn(cohort: Cohort, task: str, person: int, volumes: np.ndarray) -> np.ndarray:
    """(R,) effect of the task's contrast through nilearn."""
    from nilearn.glm import compute_contrast
    from nilearn.glm.first_level import run_glm

    data = cohort.tasks[task]
    design, columns = design_matrix(data.schedule, cohort.tr_s)
    (weights,) = TASKS[task].contrasts.values()
    series = data.bold[person][: len(design)][volumes].astype(np.float64)
    labels, results = run_glm(series, design[volumes], noise_model="ar1")
    vector = np.array([weights.get(c, 0.0) for c in columns])
    return compute_contrast(labels, results, vector, stat_type="t").effect_size()


def with_bold(cohort: Cohort, task: str, bold: np.ndarray) -> Cohort:
    data = replace(cohort.tasks[task], bold=bold)
    return replace(cohort, tasks={**cohort.tasks, task: data})


@pytest.mark.parametrize("task", sorted(TASKS))
def test_whole_run_and_half_equal_nilearn(cohort: Cohort, task: str) -> None:
    schedule = cohort.tasks[task].schedule
    all_volumes = np.ones(schedule.n_volumes(cohort.tr_s), np.bool_)
    early = cohort.tr_s * np.arange(len(all_volumes)) < schedule.run_s / 2
    (fold,) = within_person(cohort).folds
    for part, volumes in ((cohort, all_volumes), (fold.train, early), (fold.test, ~early)):
        effects, flags = contrast_effects(part, task)
        assert flags == []
        assert effects.shape == (5, 1, 5)
        assert effects.dtype == np.float32
        wanted = by_nilearn(cohort, task, 3, volumes)
        np.testing.assert_allclose(effects[3, 0], wanted, rtol=FLOAT32_RELATIVE, atol=1e-6)


def test_the_level_of_a_run_is_no_effect(cohort: Cohort) -> None:
    effects, _ = contrast_effects(cohort, "faces")
    offset = 40 * np.random.default_rng(0).standard_normal((5, 1, 5)).astype(np.float32)
    shifted = with_bold(cohort, "faces", cohort.tasks["faces"].bold + offset)
    again, _ = contrast_effects(shifted, "faces")
    np.testing.assert_allclose(again, effects, atol=1e-3)  # float32 series 40 units up


def test_regions_with_gaps_of_their_own(cohort: Cohort) -> None:
    bold = cohort.tasks["faces"].bold.copy()
    bold[1, 300:] = np.nan  # the run was broken off
    bold[2, :, 3] = np.nan  # a region without signal
    bold[3, 50:90, 1] = np.nan
    bold[4, :, 2] = 1.5
    effects, flags = contrast_effects(with_bold(cohort, "faces", bold), "faces")
    assert flags == []
    n = bold.shape[1]
    cut = np.arange(n) < 300
    np.testing.assert_allclose(
        effects[1, 0], by_nilearn(cohort, "faces", 1, cut), rtol=FLOAT32_RELATIVE, atol=1e-6
    )
    gap = (np.arange(n) < 50) | (np.arange(n) >= 90)
    wanted = by_nilearn(cohort, "faces", 3, gap)[1]
    assert effects[3, 0, 1] == pytest.approx(wanted, rel=FLOAT32_RELATIVE)
    np.testing.assert_array_equal(np.isnan(effects[2, 0]), np.arange(5) == 3)
    np.testing.assert_array_equal(np.isnan(effects[4, 0]), np.arange(5) == 2)


def test_what_cannot_be_estimated_is_flagged(cohort: Cohort) -> None:
    bold = cohort.tasks["stroop"].bold.copy()
    bold[0, 20:] = np.nan
    bold[1] = np.nan  # did not have the run at all: nothing to say
    effects, flags = contrast_effects(with_bold(cohort, "stroop", bold), "stroop")
    assert np.isnan(effects[:2]).all()
    assert np.isfinite(effects[2:]).all()
    assert len(flags) == 1
    assert "sub-00001" in flags[0]
    assert "sub-00002" not in flags[0]


def test_estimable() -> None:
    rng = np.random.default_rng(5)
    design = rng.standard_normal((60, 3))
    design[30:, 1] = 0
    vector = np.array([1.0, -1.0, 0.0])
    late, every = np.arange(60) >= 30, np.ones(60, np.bool_)
    assert is_estimable(design, every, vector)
    assert not is_estimable(design, late, vector)  # no trial of one condition
    assert is_estimable(design, late, np.array([1.0, 0.0, 0.0]))
    assert not is_estimable(design, np.arange(60) < 5, vector)
    twins = np.column_stack([design[:, 0], design[:, 0], np.ones(60)])
    assert not is_estimable(twins, every, vector)  # one column twice
    assert is_estimable(twins, every, np.array([1.0, 1.0, 0.0]))


def test_no_condition_in_the_half_is_no_contrast() -> None:
    schedule = TASKS["stroop"].make_schedule(0)
    contrasts = TASKS["stroop"].contrasts
    early = tuple(
        "con" if c == "inc" and t > schedule.run_s / 2 - 20 else c
        for c, t in zip(schedule.condition, schedule.onset_s, strict=True)
    )
    design, (vector,) = contrast_design(replace(schedule, condition=early), contrasts, 0.8)
    late = 0.8 * np.arange(len(design)) >= schedule.run_s / 2
    assert is_estimable(design, ~late, vector)
    assert not is_estimable(design, late, vector)


def test_same_person_in_another_group_has_the_same_effects(cohort: Cohort) -> None:
    effects, _ = contrast_effects(cohort, "stroop")
    some, _ = contrast_effects(cohort.select([4, 1]), "stroop")
    np.testing.assert_array_equal(some, effects[[4, 1]])


def test_no_bold_no_effects(cohort: Cohort) -> None:
    data = replace(cohort.tasks["faces"], bold=None)
    assert contrast_effects(replace(cohort, tasks={"faces": data}), "faces") == (None, [])
