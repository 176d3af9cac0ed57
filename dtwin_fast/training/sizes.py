"""A preset in the sizes of a cohort."""

from __future__ import annotations

from dataclasses import replace

from ..cohort import Cohort
from ..spec import TwinSpec


def fit_spec(preset: TwinSpec, cohort: Cohort) -> TwinSpec:
    """The preset with the cohort's regions and TR, under a name of its own if that differs.

    People without connectomes leave it the preset's regions.
    """
    spec = replace(
        preset,
        n_regions=cohort.connectomes.n_regions or preset.n_regions,
        bold_regions=cohort.measured_bold_regions,
        tr_s=cohort.tr_s,
        # The nearest step that divides the TR: BOLD targets lie on the grid of steps.
        dt_s=preset.dt_s
        if cohort.tr_s == preset.tr_s
        else cohort.tr_s / max(1, round(cohort.tr_s / preset.dt_s)),
    )
    return spec if spec == preset else replace(spec, name=f"{preset.name}-r{spec.n_regions}")
