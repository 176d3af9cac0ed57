"""What a cohort was simulated from, kept beside it, so that its truth can be made again."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..cohort import Cohort
from ..cohort_files import load_cohort
from ..errors import DTwinInputError
from ..files import check_regular_file
from ..prediction_files import write_json
from ..provenance import package_version
from . import SimulatedCohort, simulate
from .truth import Truth

SIMULATION_FILE = "simulation.json"
FORMAT = "dtwin_fast simulation"
MAX_JSON_BYTES = 32 * 2**20

_TOLERANCE = 1e-5
"""Largest difference of an edge (r) or a reaction time (s) of the same simulation.

Not 0: BLAS rounds differently with other threads and on other processors.
"""


def save_simulation(
    simulated: SimulatedCohort, folder: str | Path, region_names: Sequence[str] | None = None
) -> None:
    """Write ``simulation.json`` into the folder of a simulated cohort.

    ::

        {"format", "people", "n_regions", "region_names": [...] or null, "seed", "factors",
         "heritability": {trait: share}, "confounds", "dtwin_fast": version}

    Written before the cohort itself (:func:`dtwin_fast.cohort_files.save_cohort`), it is never
    the file that a complete cohort lacks.

    Args:
        simulated: the cohort and its truth.
        folder: the cohort's folder.
        region_names: those that :func:`dtwin_fast.simulate.simulate` was given; None where it made
            names itself.
    """
    truth, population = simulated.truth, simulated.truth.population
    shares = truth.heritability.tolist()
    values = {
        "format": FORMAT,
        "people": len(simulated.cohort),
        "n_regions": simulated.cohort.connectomes.n_regions,
        "region_names": None if region_names is None else list(region_names),
        "seed": population.seed,
        "factors": truth.z.shape[1],
        "heritability": dict(zip(truth.trait_names, shares, strict=True)),
        "confounds": population.confounds,
        "dtwin_fast": package_version(),
    }
    write_json(Path(folder) / SIMULATION_FILE, values)


def load_truth(folder: str | Path) -> Truth | None:
    """The truth behind the simulated cohort in a folder; None without ``simulation.json``.

    The cohort is simulated again, without BOLD, and compared with the folder's connectomes, choices
    and reaction times: a simulator that changed since must not give another truth in silence.

    Raises:
        DTwinInputError: files that cannot be read (codes ``file_*``, ``cohort_file``), or a
            simulation that is not that of the cohort beside it (``cohort``).
    """
    path = Path(folder) / SIMULATION_FILE
    if not os.path.lexists(path):
        return None
    values = _read(path)
    cohort = load_cohort(folder)
    # Before anything is simulated: a wrong number could ask for hours.
    sizes = (len(cohort), cohort.connectomes.n_regions)
    if (values["people"], values["n_regions"]) != sizes:
        raise _another_cohort(
            path, f"{sizes[0]} people and {sizes[1]} regions", "other numbers of them"
        )
    try:
        simulated = simulate(
            values["people"],
            values["n_regions"],
            seed=values["seed"],
            n_factors=values["factors"],
            heritability=values["heritability"],
            confounds=values["confounds"],
            region_names=values["region_names"],
            bold_regions=cohort.bold_regions,
            with_bold=False,
        )
    except DTwinInputError as error:
        raise _file_error(path, f"{error.field}: {error.wanted}", error.got) from error
    if part := _difference(simulated.cohort, cohort):
        raise _another_cohort(
            path,
            f"the cohort's {part}",
            f"others, by dtwin_fast {package_version()}; simulated by {values['dtwin_fast']}"[:200],
        )
    return simulated.truth


def _read(path: Path) -> dict[str, Any]:
    """The values with the types that ``simulate`` does not check itself."""
    check_regular_file(path, max_bytes=MAX_JSON_BYTES)
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        raise _file_error(path, "JSON", str(error)) from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise _file_error(path, f"format {FORMAT!r}", "something else")
    keys = ("people", "n_regions", "region_names", "seed", "factors", "heritability", "confounds")
    if absent := [key for key in (*keys, "dtwin_fast") if key not in values]:
        raise _file_error(path, "all arguments of a simulation", f"no {', '.join(absent)}")
    if type(values["confounds"]) is not bool:
        raise _file_error(path, "confounds true or false", values["confounds"])
    if not isinstance(values["heritability"], dict):
        raise _file_error(path, "heritability of each trait", values["heritability"])
    if not isinstance(values["region_names"], list | None):
        raise _file_error(path, "region_names a list of names or null", values["region_names"])
    return values


def _difference(simulated: Cohort, cohort: Cohort) -> str:
    """What differs in a cohort from its simulation, in words; nothing where it is the same."""
    mine, its = simulated.connectomes, cohort.connectomes
    if (mine.subjects, mine.regions) != (its.subjects, its.regions):
        return "people and regions"
    if its.is_fisher_z or not np.allclose(mine.edges, its.edges, rtol=0, atol=_TOLERANCE):
        return "connectomes"
    if list(simulated.tasks) != list(cohort.tasks):
        return "tasks"
    for name, data in cohort.tasks.items():
        done = simulated.tasks[name]
        is_same = np.array_equal(done.choice, data.choice) and np.allclose(
            done.rt_s, data.rt_s, rtol=0, atol=_TOLERANCE, equal_nan=True
        )
        if not is_same:
            return f"behaviour in {name}"
    return ""


def _file_error(path: Path, wanted: str, got: object) -> DTwinInputError:
    return DTwinInputError(
        "cohort_file",
        "this file does not say how a cohort was simulated",
        field=str(path),
        wanted=wanted,
        got=str(got)[:200],
        fix="Simulate the cohort again, or remove this file: the cohort is then one without truth",
    )


def _another_cohort(path: Path, wanted: str, got: str) -> DTwinInputError:
    return DTwinInputError(
        "cohort",
        "the cohort in this folder is not the one that this file simulates",
        field=str(path),
        wanted=wanted,
        got=got,
        fix="Simulate the cohort again, or remove this file: the cohort is then one without truth",
    )
