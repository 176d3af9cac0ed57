"""Simulated people, whose causal edges are known: which maps of interventions find them.

Unlike most studies it reads no folder. Each of some cohorts is simulated, and a twin is trained on
it. Three maps of how a trait would move with each edge are compared with its true gradient: the
twin's gradient of the target, through the whole rollout; the paper's, SmoothGrad of a direction
through the weights; and the weights of a kernel regression of what was observed. A row of the
numbers is a cohort.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..cohort import Cohort
from ..evaluate.contrasts import contrast_effects
from ..evaluate.statistics import area_under_curve, mean_where
from ..interventions.gradients import Simulator, in_fisher_z
from ..interventions.targets import find_target
from ..interventions.weight_space import WeightSpace, smooth_gradients
from ..simulate import SimulatedCohort, simulate
from ..spec import PRESETS
from ..training import StagedConfig, fit
from ..training.encoder import kernel_ridge
from ..training.fit import edge_scale
from ..twin import Twin
from .reading import refuse_folder
from .result import Measure, as_dict, rows_of

Array = npt.NDArray[Any]

STUDY = "intervention-maps"
TARGETS = ("speed", "interference", "amygdala")
"""Targets that are also the names of simulated traits."""
GRADIENT, WEIGHTS, KRR = "connectome gradient", "weights, SmoothGrad", "KRR, observed trait"


def run(
    folder: Path | None = None,
    *,
    seed: int = 0,
    people: int = 228,
    n_regions: int = 100,
    n_cohorts: int = 10,
    config: StagedConfig | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> dict[str, Any]:
    """Compare maps with the truth of simulated cohorts.

    Args:
        folder: there is none.
        seed: of the first cohort, its twin and the bootstrap; the others follow.
        people, n_regions: of each cohort, see :func:`dtwin_fast.simulate.simulate`.
        n_cohorts: how many.
        config: of the trainings; None: the default.
        progress: is told cohorts done, from 0, their number, and what was done.

    Raises:
        DTwinInputError: a folder (code ``folder``), or sizes that cannot be simulated.
    """
    refuse_folder(folder)
    scores: dict[tuple[str, str, str], list[float]] = {}
    for i in range(n_cohorts):
        if progress is not None:
            progress(i, n_cohorts, "simulating and training")
        simulated = simulate(people, n_regions, seed=seed + i)
        recipe = config or StagedConfig(seed=seed + i)
        spec = replace(PRESETS["demo"], n_regions=n_regions)
        twin = fit(simulated.cohort, spec, recipe)
        for target in TARGETS:
            for name, group_map in _maps(twin, simulated.cohort, target, recipe):
                for metric, score in _scores(simulated, target, group_map):
                    scores.setdefault((target, metric, name), []).append(score)
    if progress is not None:
        progress(n_cohorts, n_cohorts, "done")
    measures = [
        Measure(
            f"{n_cohorts} cohorts",
            f"{target}: {metric}",
            {name: np.array(scores[target, metric, name]) for name in (GRADIENT, WEIGHTS, KRR)},
        )
        for target in TARGETS
        for metric in dict.fromkeys(metric for _, metric, _ in scores)
    ]
    return as_dict(
        STUDY,
        rows_of(STUDY, measures, (WEIGHTS, KRR), seed),
        people=people,
        flags=["n counts cohorts, and intervals are over cohorts"],
        settings={"regions": n_regions, "cohorts": n_cohorts, "seed": seed},
    )


def _maps(
    twin: Twin, cohort: Cohort, target: str, config: StagedConfig
) -> Iterator[tuple[str, Array]]:
    """(E,) how the target moves with each edge's Fisher z, means over people."""
    people = in_fisher_z(twin.prepare(cohort.connectomes))
    simulator = Simulator(twin, [find_target(target)])
    values, gradients = simulator.gradients(people)
    yield GRADIENT, gradients[0].mean(axis=0)
    space = WeightSpace.of(twin.layers[-1], simulator.hidden(people))
    rng = np.random.default_rng(0)
    yield WEIGHTS, smooth_gradients(twin, people, space.direction(values[0]), rng).mean(axis=0)
    mean, sd = edge_scale(people.edges, config)
    observed = _observed(cohort, target)
    known = np.isfinite(observed)
    trait = observed[known, None] - observed[known].mean()
    yield KRR, kernel_ridge((people.edges[known] - mean) / sd, trait, config.ridge)[0][0] / sd


def _observed(cohort: Cohort, target: str) -> Array:
    """(S,) the target in what people did, NaN where unknown."""
    if target == "amygdala":
        effects = contrast_effects(cohort, "faces")[0]
        assert effects is not None
        columns = [r for r, name in enumerate(cohort.bold_regions) if "amygdala" in name]
        response: Array = effects[:, 0, columns].mean(axis=1)
        return response
    times = {name: data.rt_s.astype(np.float64) for name, data in cohort.tasks.items()}
    if target == "interference":
        condition = np.array(cohort.tasks["stroop"].schedule.condition)
        inc, con = (
            mean_where(rt_s, np.isfinite(rt_s))
            for rt_s in (times["stroop"][:, condition == name] for name in ("inc", "con"))
        )
        longer: Array = inc - con
        return longer
    means = [mean_where(rt_s, np.isfinite(rt_s)) for rt_s in times.values()]
    faster: Array = -np.mean(means, axis=0)
    return faster


def _scores(
    simulated: SimulatedCohort, target: str, group_map: Array
) -> Iterator[tuple[str, float]]:
    truth = simulated.truth
    true = truth.gradient[truth.trait_names.index(target)]
    causal = truth.causal_edges(target)
    length = np.linalg.norm(group_map) * np.linalg.norm(true)
    yield "cosine with the true gradient", float(group_map @ true / length)
    size = np.abs(group_map)
    yield "AUC of the causal edges", area_under_curve(size[causal], size[~causal])
