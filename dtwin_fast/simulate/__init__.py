"""Simulated cohorts whose truth is known: connectomes, behaviour and BOLD.

The model and its numbers follow measurements of the Transdiagnostic Connectome Project (OpenNeuro
ds005237) and of Human Connectome Project connectomes; tests/test_simulate.py lists what is matched.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from ..cohort import Cohort
from ..connectome import Connectomes
from ..connectome_checks import MAX_COHORT_BYTES, MAX_REGIONS
from ..errors import DTwinInputError
from ..spec import BOLD_REGIONS_20, TR_S, n_edges
from .arguments import names, whole_number
from .population import draw_people, draw_population
from .teacher import Teacher, simulate_teacher
from .traits import HERITABILITY
from .truth import Truth

__all__ = ["SimulatedCohort", "Teacher", "Truth", "simulate", "simulate_teacher"]

_MAX_FACTORS = 200


@dataclass(frozen=True, eq=False)
class SimulatedCohort:
    """A cohort as a study would have it, and the truth behind it."""

    cohort: Cohort
    truth: Truth


def simulate(
    n_subjects: int = 228,
    n_regions: int = 100,
    *,
    seed: int = 0,
    n_factors: int = 20,
    heritability: Mapping[str, float] | None = None,
    confounds: bool = True,
    region_names: Sequence[str] | None = None,
    bold_regions: Sequence[str] = BOLD_REGIONS_20,
    with_bold: bool = True,
) -> SimulatedCohort:
    """Simulate S people who rest and then do the faces and the Stroop task once.

    Args:
        n_subjects: S.
        n_regions: R.
        seed: the same seed gives the same cohort; person i does not depend on S.
        n_factors: latent factors of the connectome that traits can load on.
        heritability: changes to ``traits.HERITABILITY``: share of a trait's variance that the
            connectome holds.
        confounds: age moves connectome and speed; site and motion move the connectome, motion
            speed a little. Their columns are in ``participants`` then.
        region_names: R names of another parcellation; networks are guessed from the names.
        bold_regions: names among ``spec.BOLD_REGIONS_20``.
        with_bold: False leaves BOLD out, and needs numpy alone.

    Returns:
        The cohort and its truth. ``participants`` always holds ``null_trait``, a measure that
        no connectome predicts.

    Raises:
        DTwinInputError: sizes, names or shares that cannot be (codes ``simulation``,
            ``regions``).
        MissingExtraError: BOLD without nilearn installed.
    """
    n_subjects = _integer("n_subjects", n_subjects, 1, 10**7)
    n_regions = _integer("n_regions", n_regions, 16, MAX_REGIONS)
    n_factors = _integer("n_factors", n_factors, 2, _MAX_FACTORS)
    seed = _integer("seed", seed, 0, 2**63)
    _check_size(n_subjects, n_regions, n_factors)
    shares = _shares({} if heritability is None else heritability)
    areas = names(bold_regions)
    if not areas or len(set(areas)) != len(areas):
        raise _error("bold_regions", "different names, at least one", reprlib.repr(bold_regions))
    regions = None if region_names is None else names(region_names)
    if regions is None and region_names is not None:
        raise _error("region_names", "a list of names", reprlib.repr(region_names))
    population = draw_population(n_regions, n_factors, seed, regions, areas, confounds)
    people, edges = draw_people(population, n_subjects)
    truth = Truth(
        population=population,
        people=people,
        z=people.z,
        heritability=shares,
        observed=Connectomes.from_arrays(
            edges,
            regions=population.atlas.regions,
            subjects=[f"sub-{i + 1:05d}" for i in range(n_subjects)],
        ),
        tr_s=TR_S,
    )
    participants: dict[str, npt.NDArray[Any]] = {
        "null_trait": truth.theta[:, truth.trait_names.index("null")]
    }
    if confounds:
        participants["age_years"] = people.age_years
        participants["site"] = people.site
        participants["mean_fd_mm"] = people.mean_fd_mm
    cohort = Cohort(
        truth.observed,
        truth.tasks(with_bold=with_bold),
        population.bold_regions,
        TR_S,
        participants,
    )
    return SimulatedCohort(cohort, truth)


def _integer(name: str, value: object, least: int, most: int) -> int:
    number = whole_number(value, least, most)
    if number is None:
        raise _error(name, f"an integer from {least} to {most}", reprlib.repr(value))
    return number


def _check_size(n_subjects: int, n_regions: int, n_factors: int) -> None:
    if n_factors > n_edges(n_regions) // 4:
        raise _error(
            "n_factors", f"at most {n_edges(n_regions) // 4}, a quarter of the edges", n_factors
        )
    size = 4 * n_edges(n_regions) * max(n_subjects, n_factors)
    if size > MAX_COHORT_BYTES:
        raise _error("n_subjects, n_regions", f"edges of at most {MAX_COHORT_BYTES} bytes", size)


def _shares(heritability: Mapping[str, float]) -> npt.NDArray[np.float64]:
    fits = isinstance(heritability, Mapping) and all(
        trait in HERITABILITY and isinstance(share, Real) and 0 <= share <= 1
        for trait, share in heritability.items()
    )
    if not fits:
        raise _error(
            "heritability",
            f"shares in [0, 1] of {', '.join(HERITABILITY)}",
            reprlib.repr(heritability),
        )
    return np.array(list({**HERITABILITY, **heritability}.values()), np.float64)


def _error(field: str, wanted: str, got: object) -> DTwinInputError:
    return DTwinInputError(
        "simulation",
        "such a cohort cannot be simulated",
        field=field,
        wanted=wanted,
        got=str(got),
        fix="Give sizes, shares and a seed within these bounds",
    )
