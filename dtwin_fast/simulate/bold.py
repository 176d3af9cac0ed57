"""BOLD of the output regions at TR: responses to the trials, drift, offset and noise.

A person's noise is correlated over regions as their connectome says, so rest and task share it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..errors import MissingExtraError
from ..tasks import TASKS, Schedule
from .connectomes import ar1_root

Float64 = npt.NDArray[np.float64]

# Response to the first minus the second condition of each task's contrast, in units of the
# noise SD per SD of a regressor.
CONTRAST: dict[str, dict[str, float]] = {
    "faces": {
        "aPFC": -0.05,
        "VLPFC": 0.07,
        "premotor": -0.02,
        "M1": -0.08,
        "S1": -0.12,
        "SPL": -0.17,
        "auditory": -0.10,
        "HVC": 0.22,
        "V1": 0.17,
        "amygdala": 0.06,
    },
    "stroop": {
        "aPFC": 0.02,
        "VLPFC": 0.06,
        "premotor": 0.04,
        "M1": -0.02,
        "S1": -0.06,
        "SPL": 0.05,
        "auditory": -0.07,
        "HVC": 0.01,
        "V1": -0.04,
        "amygdala": -0.06,
    },
}
PERSON_SD = {"faces": 0.10, "stroop": 0.05}
"""SD over people of a region's contrast."""
PERSON_HERITABILITY = 0.15
BASE, BASE_PERSON_SD = 0.35, 0.15
"""Response to any trial, and its SD over people."""
RT_RESPONSE = 0.05
"""Response to one SD of a trial's reaction time."""

_DELAY_SD_S = 0.5
_NOISE_AR, _WHITE_SHARE = 0.80, 0.20
_DRIFT_SD, _DRIFT_PERIOD_S = 0.3, 100.0
_OFFSET_SD = 0.5
_FINE_S, _RESPONSE_S = 0.1, 36.0


class BoldModel:
    """Responses of one run, computed once for everyone.

    Raises:
        MissingExtraError: nilearn is not installed.
    """

    def __init__(self, schedule: Schedule, tr_s: float) -> None:
        self.volume_s = tr_s * np.arange(schedule.n_volumes(tr_s))
        self.onset_s = schedule.onset_s
        self.response = _response(float(schedule.duration_s[0]))
        (contrast,) = TASKS[schedule.task].contrasts.values()
        self.conditions = tuple(contrast)
        condition = np.array(schedule.condition)
        self.is_condition = np.array([condition == c for c in self.conditions])
        evoked = self._evoked(0.0)
        # One unit for both conditions: the same response to a trial of either is no contrast.
        self.regressor_sd = np.sqrt(np.mean([(evoked @ c).var() for c in self.is_condition]))
        n_drifts = int(2 * schedule.run_s / _DRIFT_PERIOD_S)
        phase = np.pi * (np.arange(len(self.volume_s)) + 0.5) / len(self.volume_s)
        self.drifts = np.cos(np.outer(phase, np.arange(1, n_drifts + 1)))
        self.drifts *= _DRIFT_SD * np.sqrt(2 / n_drifts)

    def series(
        self, betas: Float64, rt_s: Float64, noise_root: Float64, rng: np.random.Generator
    ) -> npt.NDArray[np.float32]:
        """(V,regions) float32 series of one person.

        Args:
            betas: (conditions, regions) responses per SD of a condition's regressor.
            rt_s: (N,) reaction times, NaN where there is none.
            noise_root: (regions, regions) root of the noise's correlations.
            rng: the person's random numbers of this run.
        """
        n_volumes, n_regions = len(self.volume_s), betas.shape[1]
        evoked = self._evoked(_DELAY_SD_S * rng.standard_normal())
        regressors = evoked @ self.is_condition.T / self.regressor_sd
        series: Float64 = regressors @ betas
        responded = ~np.isnan(rt_s)
        if responded.sum() > 1:
            slower = np.where(responded, rt_s - rt_s[responded].mean(), 0.0)
            modulated = evoked @ slower
            series += RT_RESPONSE * (modulated / modulated.std())[:, None]
        series += _OFFSET_SD * rng.standard_normal(n_regions)
        series += self.drifts @ rng.standard_normal((self.drifts.shape[1], n_regions))
        coloured = ar1_root(n_volumes, _NOISE_AR) @ rng.standard_normal((n_volumes, n_regions))
        series += np.sqrt(1 - _WHITE_SHARE) * coloured @ noise_root.T
        series += np.sqrt(_WHITE_SHARE) * rng.standard_normal((n_volumes, n_regions))
        return np.asarray(series, np.float32)

    def _evoked(self, delay_s: float) -> Float64:
        """(V,N) response of every volume to every trial, ``delay_s`` later than Glover's."""
        age_s = self.volume_s[:, None] - self.onset_s - delay_s
        return np.interp(age_s, _FINE_S * np.arange(len(self.response)), self.response, 0, 0)


def person_betas(task: str, bold_regions: Sequence[str], base: Float64, own: Float64) -> Float64:
    """(S,2,regions) responses to the two conditions of the task's contrast.

    Args:
        task: faces or stroop.
        bold_regions: names as in ``spec.BOLD_REGIONS_20``.
        base: (S,) a person's response to any trial, in SD units.
        own: (S,regions) a person's deviation of the contrast, in SD units.
    """
    group = np.array([CONTRAST[task][name.split("_")[1]] for name in bold_regions])
    contrast = group + PERSON_SD[task] * own
    shared = BASE + BASE_PERSON_SD * base
    return shared[:, None, None] + np.stack([contrast, -contrast], axis=1) / 2


def noise_root(correlation: Float64) -> Float64:
    """Symmetric root of a correlation matrix that may have repeated rows."""
    values, vectors = np.linalg.eigh(correlation)
    root: Float64 = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    return root


def _response(duration_s: float) -> Float64:
    """Glover response to a stimulus of this length on a 0.1 s grid from its onset (nilearn)."""
    try:
        from nilearn.glm.first_level import compute_regressor
    except ImportError as error:
        raise MissingExtraError("nilearn", "neuro", "Simulated BOLD") from error
    times_s = np.arange(0, _RESPONSE_S, _FINE_S)
    events = np.array([[0.0], [duration_s], [1.0]])
    response, _ = compute_regressor(events, "glover", times_s, oversampling=10)
    return np.asarray(response[:, 0], np.float64)
