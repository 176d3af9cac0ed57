"""The truth behind a simulated cohort, and what an altered connectome would have done."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..cohort import TaskData
from ..connectome import Connectomes
from ..errors import DTwinInputError
from .behaviour import behave
from .bold import PERSON_HERITABILITY, BoldModel, person_betas
from .population import (
    SIMULATED_TASKS,
    People,
    Population,
    bold_stream,
    rescan,
    trial_draws,
)
from .traits import AGE_FACTOR, TRAITS, Responders, general_speed, responders

Float64 = npt.NDArray[np.float64]
_AMYGDALA = TRAITS.index("amygdala")


@dataclass(frozen=True, eq=False)
class Truth:
    """Everything that made a cohort of S people.

    Attributes:
        population: what people share: atlas, factor patterns, trait loadings, item effects.
        people: what was drawn for each person.
        z: (S,factors) factors of the connectome, as edited.
        heritability: (traits,) share of each trait's variance that the factors hold.
        observed: the connectomes of the cohort.
        tr_s: repetition time of the BOLD series, seconds.
    """

    population: Population
    people: People
    z: Float64
    heritability: Float64
    observed: Connectomes
    tr_s: float

    @property
    def trait_names(self) -> tuple[str, ...]:
        """Names, the order of ``theta`` and ``gradient``."""
        return TRAITS

    @property
    def theta(self) -> Float64:
        """(S,traits) in SD units: sqrt(h2) loading.z + sqrt(1 - h2) noise."""
        held = np.einsum("sk,pk->sp", self.z, self.population.trait_loadings)
        share = self.heritability
        theta = np.sqrt(share) * held + np.sqrt(1 - share) * self.people.trait_noise
        return np.asarray(theta, np.float64)

    @cached_property
    def factor_gradient(self) -> Float64:
        """(factors,E) change of each factor per unit of Fisher z: the patterns' inverse."""
        patterns = self.population.model.patterns.astype(np.float64)
        return np.asarray(np.linalg.solve(patterns @ patterns.T, patterns), np.float64)

    @cached_property
    def gradient(self) -> Float64:
        """(traits,E) true change of each trait per unit of Fisher z of each edge."""
        loadings = np.sqrt(self.heritability)[:, None] * self.population.trait_loadings
        return loadings @ self.factor_gradient

    def causal_edges(self, trait: str, share: float = 0.05) -> npt.NDArray[np.bool_]:
        """(E,) the ``share`` of edges that move a trait most; none where nothing moves it."""
        strength = np.abs(self.gradient[TRAITS.index(trait)])
        n_causal = round(share * len(strength))
        strongest = np.zeros(len(strength), bool)
        strongest[np.argsort(-strength, kind="stable")[:n_causal]] = True
        strongest &= strength > 0
        return strongest

    def edited(self, connectomes: Connectomes) -> Truth:
        """The same people, as they would be with these connectomes instead of those observed.

        People are found by name, and may be some of the cohort. The factors move by
        ``factor_gradient`` times the change in Fisher z; all noise stays, so that with the
        observed connectomes nothing changes at all.

        Raises:
            DTwinInputError: unknown people or regions, or missing edges (code ``cohort``).
        """
        names = {name: row for row, name in enumerate(self.observed.subjects)}
        if unknown := [name for name in connectomes.subjects if name not in names]:
            raise _edit_error("subjects of the cohort", ", ".join(unknown[:5]))
        if connectomes.regions is not None and self.observed.regions is not None:
            connectomes = connectomes.align(self.observed.regions)
        if connectomes.n_regions != self.observed.n_regions:
            raise _edit_error(f"{self.observed.n_regions} regions", f"{connectomes.n_regions}")
        if connectomes.missing.any():
            raise _edit_error("complete connectomes", "missing regions")
        rows = np.array([names[name] for name in connectomes.subjects], np.intp)
        observed = self.observed.select(rows)
        change = connectomes.fisher_z().astype(np.float64) - observed.fisher_z()
        z = self.people.z[rows] + change @ self.factor_gradient.T
        return replace(self, people=self.people.select(rows), z=z, observed=observed)

    def responders(self, task: str, run: int = 0) -> Responders:
        """Drift-diffusion parameters of everyone in one run of a task."""
        _, run_draws = trial_draws(self.population, self.people, task, run)
        return self._responders(task, run_draws)

    def betas(self, task: str) -> Float64:
        """(S,2,regions) BOLD responses to the two conditions of the task's contrast."""
        t = SIMULATED_TASKS.index(task)
        held = np.einsum("sk,rk->sr", self.z, self.population.contrast_loadings[task])
        own = (
            np.sqrt(PERSON_HERITABILITY) * held
            + np.sqrt(1 - PERSON_HERITABILITY) * self.people.bold_noise[:, t]
        )
        if task == "faces":
            is_amygdala = np.array(["amygdala" in name for name in self.population.bold_regions])
            own[:, is_amygdala] = self.theta[:, _AMYGDALA, None]
        return person_betas(task, self.population.bold_regions, self.people.bold_base[:, t], own)

    def tasks(self, run: int = 0, *, with_bold: bool = True) -> dict[str, TaskData]:
        """Behaviour and BOLD of everyone in one run of each task; run 0 is the cohort's.

        The same run always has the same random numbers.

        Raises:
            MissingExtraError: BOLD without nilearn installed.
        """
        done = {}
        for task in SIMULATED_TASKS:
            schedule = self.population.schedules[task]
            draws, run_draws = trial_draws(self.population, self.people, task, run)
            people = self._responders(task, run_draws)
            choice, rt_s = behave(schedule, people, self.population.item_effect_s[task], draws)
            bold = self._bold(task, rt_s, run) if with_bold else None
            done[task] = TaskData(schedule, choice, rt_s, bold)
        return done

    def rescan(self, run: int) -> Connectomes:
        """Connectomes of another resting run of the same people; run 0 is the cohort's."""
        return Connectomes.from_arrays(
            rescan(self.population, self.people, run),
            regions=self.observed.regions,
            subjects=self.observed.subjects,
        )

    def _responders(self, task: str, run_draws: Float64) -> Responders:
        theta = dict(zip(TRAITS, self.theta.T, strict=True))
        people = self.people
        general = theta["speed"]
        if self.population.confounds:
            general = general_speed(general, people.z[:, AGE_FACTOR], people.motion)
        return responders(
            task,
            general,
            theta["interference"],
            people.parameter_noise,
            people.engagement,
            run_draws,
        )

    def _bold(self, task: str, rt_s: npt.NDArray[np.float32], run: int) -> npt.NDArray[np.float32]:
        model = BoldModel(self.population.schedules[task], self.tr_s)
        betas = self.betas(task)
        return np.stack(
            [
                model.series(
                    betas[row],
                    rt_s[row].astype(np.float64),
                    self.people.noise_root[row],
                    bold_stream(self.population, task, int(number), run),
                )
                for row, number in enumerate(self.people.number)
            ]
        )


def _edit_error(wanted: str, got: str) -> DTwinInputError:
    return DTwinInputError(
        "cohort",
        "these connectomes are no edit of the cohort's",
        field="connectomes",
        wanted=wanted,
        got=got,
        fix="Edit the connectomes of the simulated cohort and keep their names",
    )
