"""What simulated people share, and what is drawn for each of them.

Every draw has its own stream, named by the seed, its purpose and the person's number: person 7
is the same in a cohort of 10 and of 1000, and no draw moves another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..tasks import TASKS, Schedule
from .atlas import Atlas, make_atlas
from .behaviour import ITEM_SD_S, TrialDraws
from .bold import noise_root
from .connectomes import ConnectomeModel, make_model, scan, stable_correlation
from .traits import AGE_FACTOR, N_PERSON_DRAWS, N_RUN_DRAWS, TRAITS, unit_loadings

Float64 = npt.NDArray[np.float64]

SIMULATED_TASKS = ("faces", "stroop")
SCHEDULE_SEED = 0
"""All simulated cohorts do the same trials, as all people of the TCP did."""

_ATLAS, _MODEL, _LOADINGS, _ITEMS, _PERSON, _OWN_EDGES, _SCAN, _RUN, _TRIALS, _BOLD = range(10)

_MEDIAN_FD_MM, _LOG_FD_SD = 0.12, 0.5
_MEAN_FD_MM = _MEDIAN_FD_MM * float(np.exp(_LOG_FD_SD**2 / 2))
# Ages 18 and up with mean 34 and SD 13, as in the TCP.
_YOUNGEST, _OLDEST, _LOG_AGE_MEAN, _LOG_AGE_SD = 18.0, 70.0, 2.50, 0.85


@dataclass(frozen=True, eq=False)
class Population:
    """What everyone shares.

    Attributes:
        seed: of the whole cohort.
        atlas: R regions.
        model: the connectomes' block model and factor patterns.
        trait_loadings: (traits,factors) unit vectors: traits on factors.
        contrast_loadings: task -> (regions,factors) unit vectors: BOLD contrasts on factors.
        schedules: task -> the run everyone does.
        item_effect_s: task -> (N,) seconds a trial adds to everyone's reaction time.
        bold_regions: names of the BOLD series.
        confounds: whether age, site and motion are simulated.
    """

    seed: int
    atlas: Atlas
    model: ConnectomeModel
    trait_loadings: Float64
    contrast_loadings: dict[str, Float64]
    schedules: dict[str, Schedule]
    item_effect_s: dict[str, Float64]
    bold_regions: tuple[str, ...]
    confounds: bool


def draw_population(
    n_regions: int,
    n_factors: int,
    seed: int,
    region_names: Sequence[str] | None,
    bold_regions: tuple[str, ...],
    confounds: bool,
) -> Population:
    """Draw everything that people share."""
    atlas = make_atlas(n_regions, region_names, bold_regions, np.random.default_rng([seed, _ATLAS]))
    rng = np.random.default_rng([seed, _LOADINGS])
    schedules = {name: TASKS[name].make_schedule(SCHEDULE_SEED) for name in SIMULATED_TASKS}
    items = np.random.default_rng([seed, _ITEMS])
    return Population(
        seed=seed,
        atlas=atlas,
        model=make_model(atlas, n_factors, np.random.default_rng([seed, _MODEL])),
        trait_loadings=unit_loadings(len(TRAITS), n_factors, rng),
        contrast_loadings={
            name: unit_loadings(len(bold_regions), n_factors, rng) for name in SIMULATED_TASKS
        },
        schedules=schedules,
        item_effect_s={
            name: ITEM_SD_S[name] * items.standard_normal(s.n_trials)
            for name, s in schedules.items()
        },
        bold_regions=bold_regions,
        confounds=confounds,
    )


@dataclass(frozen=True, eq=False)
class People:
    """What is drawn for S people; standard normal unless said otherwise.

    Attributes:
        number: (S,) int64 a person's number, the name of their random streams.
        z: (S,factors) factors of the connectome.
        trait_noise: (S,traits) the part of the traits that the connectome does not hold.
        parameter_noise: (S,15) see ``traits.responders``.
        engagement: (S,) uniform in [0, 1).
        bold_base: (S,tasks) response to any trial.
        bold_noise: (S,tasks,regions) the part of BOLD contrasts the connectome does not hold.
        site: (S,) int64 1 or 2.
        motion: (S,) log mean FD.
        noise_root: (S,regions,regions) root of the BOLD noise's correlations.
    """

    number: npt.NDArray[np.int64]
    z: Float64
    trait_noise: Float64
    parameter_noise: Float64
    engagement: Float64
    bold_base: Float64
    bold_noise: Float64
    site: npt.NDArray[np.int64]
    motion: Float64
    noise_root: Float64

    def select(self, rows: npt.NDArray[np.intp]) -> People:
        """Some of them."""
        return replace(self, **{name: getattr(self, name)[rows] for name in vars(self)})

    @property
    def age_years(self) -> Float64:
        """(S,) the age factor as an age."""
        years = _YOUNGEST + np.exp(_LOG_AGE_MEAN + _LOG_AGE_SD * self.z[:, AGE_FACTOR])
        return np.minimum(years, _OLDEST)

    @property
    def mean_fd_mm(self) -> Float64:
        """(S,) mean framewise displacement of the resting run, mm."""
        fd: Float64 = _MEDIAN_FD_MM * np.exp(_LOG_FD_SD * self.motion)
        return fd


def draw_people(population: Population, n_subjects: int) -> tuple[People, npt.NDArray[np.float32]]:
    """S people, and their resting connectomes (S,E) float32 r of run 0."""
    n_traits, n_factors = population.trait_loadings.shape
    n_regions, n_tasks = len(population.bold_regions), len(SIMULATED_TASKS)
    normals = np.empty(
        (n_subjects, n_factors + n_traits + N_PERSON_DRAWS + n_tasks * (1 + n_regions) + 1)
    )
    engagement, site = np.empty(n_subjects), np.empty(n_subjects, np.int64)
    for i in range(n_subjects):
        rng = np.random.default_rng([population.seed, _PERSON, i])
        normals[i] = rng.standard_normal(normals.shape[1])
        engagement[i] = rng.random()
        site[i] = 1 + rng.integers(2)
    ends = np.cumsum([n_factors, n_traits, N_PERSON_DRAWS, n_tasks, n_tasks * n_regions])
    z, trait_noise, parameter_noise, bold_base, bold_noise, motion = np.split(normals, ends, axis=1)
    people = People(
        number=np.arange(n_subjects),
        z=z,
        trait_noise=trait_noise,
        parameter_noise=parameter_noise,
        engagement=engagement,
        bold_base=bold_base,
        bold_noise=bold_noise.reshape(n_subjects, n_tasks, n_regions),
        site=site,
        motion=motion[:, 0],
        noise_root=np.empty((n_subjects, n_regions, n_regions)),
    )
    home = population.atlas.bold_home
    edges = np.empty((n_subjects, population.model.patterns.shape[1]), np.float32)
    for i in range(n_subjects):
        stable = _stable(population, people, i)
        people.noise_root[i] = noise_root(stable[np.ix_(home, home)])
        edges[i] = _scan(population, stable, i, 0)
    return people, edges


def rescan(population: Population, people: People, run: int) -> npt.NDArray[np.float32]:
    """(S,E) float32 r of another resting run of the same people."""
    return np.stack(
        [
            _scan(population, _stable(population, people, row), int(number), run)
            for row, number in enumerate(people.number)
        ]
    )


def trial_draws(
    population: Population, people: People, task: str, run: int
) -> tuple[TrialDraws, Float64]:
    """Random numbers of one run: for its trials, and (S,4) for its parameters."""
    n_trials = population.schedules[task].n_trials
    n_subjects = len(people.number)
    draws = TrialDraws(np.empty((n_subjects, n_trials, 2)), np.empty((n_subjects, n_trials, 6)))
    parameters = np.empty((n_subjects, N_RUN_DRAWS))
    for row, number in enumerate(people.number):
        rng = run_stream(population, _TRIALS, task, int(number), run)
        parameters[row] = rng.standard_normal(N_RUN_DRAWS)
        draws.normal[row] = rng.standard_normal((n_trials, 2))
        draws.uniform[row] = 1 - rng.random((n_trials, 6))
    return draws, parameters


def bold_stream(population: Population, task: str, number: int, run: int) -> np.random.Generator:
    """Random numbers of a person's BOLD in one run."""
    return run_stream(population, _BOLD, task, number, run)


def run_stream(
    population: Population, purpose: int, task: str, number: int, run: int
) -> np.random.Generator:
    """Random numbers of one person in one run of one task."""
    return np.random.default_rng(
        [population.seed, purpose, SIMULATED_TASKS.index(task), number, run]
    )


def _stable(population: Population, people: People, row: int) -> Float64:
    site_step, motion_mm = 0.0, 0.0
    if population.confounds:
        site_step = people.site[row] - 1.5
        motion_mm = _MEDIAN_FD_MM * np.exp(_LOG_FD_SD * people.motion[row]) - _MEAN_FD_MM
    rng = np.random.default_rng([population.seed, _OWN_EDGES, people.number[row]])
    return stable_correlation(population.model, people.z[row], site_step, motion_mm, rng)


def _scan(
    population: Population, stable: Float64, number: int, run: int
) -> npt.NDArray[np.float32]:
    return scan(stable, np.random.default_rng([population.seed, _SCAN, number, run]))
