"""General linear model of a run at TR, through nilearn: designs, contrasts, projections."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import DTwinInputError, MissingExtraError
from .schedule import Float64, Schedule

if TYPE_CHECKING:
    import pandas as pd

HRF = "glover + derivative"
"""Glover's response and its temporal derivative (Takahashi et al. 2026, Methods)."""
HIGH_PASS_HZ = 0.01
"""Cut-off of the cosine drift terms (Takahashi et al. 2026, Methods)."""

Contrasts = Mapping[str, Mapping[str, float]]


def design_matrix(schedule: Schedule, tr_s: float) -> tuple[Float64, tuple[str, ...]]:
    """(V,columns) float64 design at TR and the names of its columns, through nilearn.

    One column per condition under its own name, with its temporal derivative, then cosine
    drifts and a constant. A trial is a boxcar of the time its stimulus is on. Volume v is
    taken at ``v * tr_s`` seconds.

    Raises:
        MissingExtraError: nilearn is not installed.
    """
    design = _design_frame(schedule, tr_s)
    return design.to_numpy(np.float64), tuple(map(str, design.columns))


def contrast_projection(
    schedule: Schedule, contrasts: Contrasts, *, tr_s: float, dt_s: float
) -> npt.NDArray[np.float32]:
    """(K,T) float32 rows: ``projection @ bold`` are ordinary-least-squares contrast effects.

    ``bold`` has T steps of ``dt_s``. Row k is c_k' pinv(X), X being :func:`design_matrix`, set
    at the steps of the volumes (``schedule.volume_steps``) and zero elsewhere, so nothing is
    interpolated: at 0.08 s an interpolated series would count every volume ten times.

    Raises:
        DTwinInputError: an unknown condition (code ``contrast``), or steps longer than the TR
            (code ``schedule``).
        MissingExtraError: nilearn is not installed.
    """
    if dt_s > tr_s:
        raise DTwinInputError(
            "schedule",
            "a step cannot be longer than a volume",
            field="dt_s",
            wanted=f"at most {tr_s} s",
            got=f"{dt_s} s",
            fix="Give the step of the main RNN and the TR of the scans, in seconds",
        )
    design, vectors = contrast_design(schedule, contrasts, tr_s)
    projection = np.zeros((len(vectors), schedule.n_steps(dt_s)), np.float32)
    projection[:, schedule.volume_steps(tr_s, dt_s)] = vectors @ np.linalg.pinv(design)
    return projection


def contrast_design(
    schedule: Schedule, contrasts: Contrasts, tr_s: float
) -> tuple[Float64, Float64]:
    """(V,columns) :func:`design_matrix`, read-only, and (K,columns) contrasts of its columns.

    Raises:
        DTwinInputError: an unknown condition (code ``contrast``).
        MissingExtraError: nilearn is not installed.
    """
    _check_contrasts(schedule, contrasts)
    design, columns = _design_of_run(schedule, tr_s)
    return design, _contrast_vectors(contrasts, columns)


def fit_contrasts(
    bold: npt.NDArray[Any],
    schedule: Schedule,
    contrasts: Contrasts,
    tr_s: float,
    volumes: npt.NDArray[np.bool_] | None = None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Contrast effects (K,R) and t values (K,R), float32, of one run.

    Fits nilearn's ``run_glm`` at TR with AR(1) prewhitening.

    Args:
        bold: (volumes,R) one subject's series at TR.
        schedule: the run it comes from.
        contrasts: contrast name -> condition name -> coefficient.
        tr_s: repetition time, seconds.
        volumes: (V,) which volumes of the run the series holds; default all.

    Raises:
        DTwinInputError: a series of another length or with NaN (code ``bold``), or an unknown
            condition (code ``contrast``).
        MissingExtraError: nilearn is not installed.
    """
    design, vectors = contrast_design(schedule, contrasts, tr_s)
    if volumes is not None:
        design = design[volumes]
    if bold.ndim != 2 or len(bold) != len(design) or not np.isfinite(bold).all():
        raise DTwinInputError(
            "bold",
            "this series does not belong to the run",
            field="bold",
            wanted=f"({len(design)}, R) finite values",
            got=f"{bold.shape} with {int((~np.isfinite(bold)).sum())} values not finite",
            fix="Give one subject's BOLD at TR, volumes first, for these volumes of the run",
        )
    from nilearn.glm import compute_contrast
    from nilearn.glm.first_level import run_glm

    labels, results = run_glm(bold.astype(np.float64), design, noise_model="ar1")
    fitted = [compute_contrast(labels, results, c, stat_type="t") for c in vectors]
    effect = np.array([f.effect_size() for f in fitted], np.float32)
    return effect, np.array([f.stat() for f in fitted], np.float32)


def _check_contrasts(schedule: Schedule, contrasts: Contrasts) -> None:
    known = dict.fromkeys(schedule.condition)
    for name, coefficients in contrasts.items():
        if not coefficients or (unknown := [c for c in coefficients if c not in known]):
            raise DTwinInputError(
                "contrast",
                "this contrast is not one of the run",
                field=f"contrasts[{name!r}]",
                wanted=f"coefficients of conditions among {', '.join(known)}",
                got=", ".join(unknown) if coefficients else "no coefficients",
                fix="Use the contrasts of the run's own task",
            )


def _contrast_vectors(contrasts: Contrasts, columns: tuple[str, ...]) -> Float64:
    return np.array(
        [[coefficients.get(c, 0.0) for c in columns] for coefficients in contrasts.values()],
        np.float64,
    ).reshape(len(contrasts), len(columns))


@lru_cache(maxsize=16)
def _design_of_run(schedule: Schedule, tr_s: float) -> tuple[Float64, tuple[str, ...]]:
    design, columns = design_matrix(schedule, tr_s)
    design.flags.writeable = False
    return design, columns


def _design_frame(schedule: Schedule, tr_s: float) -> pd.DataFrame:
    try:
        import pandas as pd
        from nilearn.glm.first_level import make_first_level_design_matrix
    except ImportError as error:
        raise MissingExtraError("nilearn", "neuro", "A design matrix") from error
    events = pd.DataFrame(
        {
            "onset": schedule.onset_s,
            "duration": schedule.duration_s,
            "trial_type": list(schedule.condition),
        }
    )
    return make_first_level_design_matrix(
        tr_s * np.arange(schedule.n_volumes(tr_s)),
        events,
        hrf_model=HRF,
        drift_model="cosine",
        high_pass=HIGH_PASS_HZ,
    )
