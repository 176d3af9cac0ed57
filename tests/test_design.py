"""The GLM at TR: designs, projections and AR(1) fits against nilearn used directly."""

from __future__ import annotations

import numpy as np
import pytest

from dtwin_fast.errors import DTwinInputError
from dtwin_fast.spec import DT_S, TR_S
from dtwin_fast.tasks import TASKS
from dtwin_fast.tasks.design import contrast_projection, design_matrix, fit_contrasts

pytest.importorskip("nilearn")

FLOAT32_RELATIVE = 1e-5  # float32 weights over 500 volumes against float64


@pytest.fixture(params=sorted(TASKS))
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _noise(n_volumes: int, n_regions: int, phi: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    series = rng.standard_normal((n_volumes, n_regions))
    for v in range(1, n_volumes):
        series[v] = phi * series[v - 1] + np.sqrt(1 - phi**2) * series[v]
    return series


def test_columns(task: str) -> None:
    schedule = TASKS[task].make_schedule(0)
    design, columns = design_matrix(schedule, TR_S)
    one, other = dict.fromkeys(sorted(schedule.condition))
    assert columns[:4] == (one, f"{one}_derivative", other, f"{other}_derivative")
    # Periods above 100 s: floor(2 * run * 0.01 Hz) cosines, as in SPM.
    n_drifts = {"faces": 7, "stroop": 8}[task]
    assert columns[4:] == (*(f"drift_{k + 1}" for k in range(n_drifts)), "constant")
    assert design.shape == (schedule.n_volumes(TR_S), len(columns))


def test_projection_gives_nilearn_effects(task: str) -> None:
    from nilearn.glm import compute_contrast
    from nilearn.glm.first_level import run_glm

    schedule, contrasts = TASKS[task].make_schedule(0), TASKS[task].contrasts
    design, columns = design_matrix(schedule, TR_S)
    series = 100 + _noise(len(design), 6, 0.5, seed=1)
    labels, results = run_glm(series, design, noise_model="ols")
    vectors = [[w.get(c, 0.0) for c in columns] for w in contrasts.values()]
    wanted = [
        compute_contrast(labels, results, np.array(v), stat_type="t").effect_size() for v in vectors
    ]
    projection = contrast_projection(schedule, contrasts, tr_s=TR_S, dt_s=DT_S)
    at_dt = np.full((schedule.n_steps(DT_S), 6), np.nan)
    at_dt[::10] = series
    # Only the steps of volumes may count: the rest of the series is not even a number.
    effects = projection[:, ::10] @ at_dt[::10]
    np.testing.assert_allclose(effects, wanted, rtol=FLOAT32_RELATIVE * 100, atol=1e-4)
    assert projection.shape == (len(contrasts), schedule.n_steps(DT_S))
    assert projection.dtype == np.float32
    assert set(np.flatnonzero(projection.any(axis=0)) % 10) == {0}


def test_projection_reads_its_own_design(task: str) -> None:
    # On the design's own columns the effect of a contrast is its weight, exactly.
    schedule, contrasts = TASKS[task].make_schedule(2), TASKS[task].contrasts
    design, columns = design_matrix(schedule, TR_S)
    projection = contrast_projection(schedule, contrasts, tr_s=TR_S, dt_s=DT_S)
    (weights,) = contrasts.values()
    wanted = [[weights.get(c, 0.0) for c in columns]]
    np.testing.assert_allclose(projection[:, ::10] @ design, wanted, atol=FLOAT32_RELATIVE)


def test_fit_finds_a_known_effect(task: str) -> None:
    schedule, contrasts = TASKS[task].make_schedule(0), TASKS[task].contrasts
    design, columns = design_matrix(schedule, TR_S)
    (weights,) = contrasts.values()
    plus, minus = (columns.index(name) for name in weights)
    series = 1e-3 * _noise(len(design), 4, 0.3, seed=2)
    series += 3 * design[:, [plus]] + np.arange(4) * design[:, [minus]]
    effect, t = fit_contrasts(series, schedule, contrasts, TR_S)
    assert (effect.dtype, t.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(effect, [3 - np.arange(4)], atol=0.02)
    assert (t[0, :3] > 10).all()
    assert abs(t[0, 3]) < 5


def test_prewhitening_keeps_null_t_calibrated() -> None:
    schedule, contrasts = TASKS["faces"].make_schedule(0), TASKS["faces"].contrasts
    noise = _noise(schedule.n_volumes(TR_S), 400, 0.6, seed=3)
    _, t = fit_contrasts(noise, schedule, contrasts, TR_S)
    design, columns = design_matrix(schedule, TR_S)
    vector = np.array([contrasts["faces>shapes"].get(c, 0.0) for c in columns])
    inverse = np.linalg.pinv(design)
    residual = noise - design @ (inverse @ noise)
    sigma = np.sqrt((residual**2).sum(axis=0) / (len(design) - design.shape[1]))
    ols_t = (vector @ inverse @ noise) / (sigma * np.linalg.norm(vector @ inverse))
    # nilearn estimates 0.55 from the residuals of this design (a known bias), which leaves t
    # about 12 % too wide; the SD of 400 values has a standard error of 4 %.
    assert 0.9 < t.std() < 1.25
    assert ols_t.std() > 1.5


def test_unknown_condition_is_refused() -> None:
    schedule = TASKS["faces"].make_schedule(0)
    for contrasts in ({"wrong": {"inc": 1.0}}, {"empty": {}}):
        with pytest.raises(DTwinInputError) as caught:
            contrast_projection(schedule, contrasts, tr_s=TR_S, dt_s=DT_S)
        assert caught.value.code == "contrast"


def test_no_contrasts_give_no_rows() -> None:
    projection = contrast_projection(TASKS["faces"].make_schedule(0), {}, tr_s=TR_S, dt_s=DT_S)
    assert projection.shape == (0, 4930)


def test_step_longer_than_a_volume_is_refused() -> None:
    task = TASKS["faces"]
    with pytest.raises(DTwinInputError, match="dt_s"):
        contrast_projection(task.make_schedule(0), task.contrasts, tr_s=0.8, dt_s=1.0)


@pytest.mark.parametrize(
    "bold",
    [np.zeros((492, 3)), np.zeros(493), np.full((493, 3), np.nan)],
    ids=["short", "one axis", "nan"],
)
def test_bad_series_are_refused(bold: np.ndarray) -> None:
    task = TASKS["faces"]
    with pytest.raises(DTwinInputError) as caught:
        fit_contrasts(bold, task.make_schedule(0), task.contrasts, TR_S)
    assert caught.value.code == "bold"
