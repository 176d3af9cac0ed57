"""Where a change of connectomes or weights becomes an effect with its controls."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..connectome import Connectomes
from ..errors import DTwinInputError
from ..metrics import pearson
from ..simulate import Truth
from ..twin import Twin
from .constraints import Constraint
from .effect import DOSES, Effect, RandomDirections, improvement, overlap
from .gradients import Simulator, edited, in_fisher_z, in_order
from .ground_truth import truth_of_effect, truth_of_map
from .out_of_range import RangeScores, Reference, range_scores
from .targets import Goal
from .weight_space import (
    FEWEST_PEOPLE,
    WeightDirection,
    WeightSpace,
    cross_validated_r,
    smooth_gradients,
)

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

DOSE = 2.0
"""SDs over people by which an intervention moves them, as in the paper."""
N_PERMUTATIONS = 1000
RANDOM_PEOPLE = 32
"""Random directions are tried on this many people, evenly from the lowest target to the highest."""


class Workbench:
    """S people, what they do before an intervention, and what to hold against its effect.

    Attributes:
        sign: 1 where the goal is up, else -1.
        gradient: (S,E) float32 of the target by Fisher z, before.
        pre: (K,S) outcomes before, the target first.

    Args:
        people: S people in Fisher z, as ``Twin.prepare`` brought them into order.
        name: of the target.
        goal: of the intervention.
        target: simulates the target alone.
        outcomes: simulates the target and all other outcomes.
        truth: of simulated people.
        second: a twin of another seed.
        n_random: random directions.
        seed: of all that is drawn.
        progress: see ``Progress``.

    Raises:
        DTwinInputError: people whose target is no finite number (code ``target``).
    """

    def __init__(
        self,
        people: Connectomes,
        name: str,
        goal: Goal,
        target: Simulator,
        outcomes: Simulator,
        *,
        truth: Truth | None,
        second: Twin | None,
        n_random: int,
        seed: int,
        progress: Progress,
    ) -> None:
        self.people = people
        self.goal: Goal = goal
        self.target = target
        self.progress = progress
        self.sign = 1.0 if goal == "up" else -1.0
        self._name = name
        self._outcomes = outcomes
        self._truth = truth
        self._second = second
        self._n_random = n_random
        self._seed = seed
        values, gradients = target.gradients(people)
        if not np.isfinite(values).all():
            bad = np.flatnonzero(~np.isfinite(values[0]))
            raise DTwinInputError(
                "target",
                "the target of some people is not a finite number",
                field="target",
                subject=people.subjects[bad[0]],
                wanted="finite numbers",
                got=f"{len(bad)} of {len(people)} people have none",
                fix="Leave them out, or look at their predictions: a rollout may have diverged",
            )
        self.gradient = gradients[0]
        self._hidden = outcomes.hidden(people)
        self.pre = outcomes.values(self._hidden)

    def budget(self, constraint: Constraint) -> float:
        """Norm of a change of ``DOSE`` SDs over these people along the group's gradient.

        Raises:
            DTwinInputError: too few people for an SD (code ``too_few``).
        """
        if constraint.budget is not None:
            return float(constraint.budget)
        if len(self.people) < FEWEST_PEOPLE:
            raise DTwinInputError(
                "too_few",
                "so few people do not say how far connectomes differ",
                field="budget",
                wanted=f"at least {FEWEST_PEOPLE} people, or a budget",
                got=f"{len(self.people)} people",
                fix="Give a budget (--budget), the largest norm of the change in Fisher z",
            )
        along = self.gradient.mean(axis=0, dtype=np.float64)[None]
        # Of any length that no budget cuts: only its edges are chosen.
        along = constraint.project(along, np.inf)[0]
        if constraint.norm == "linf":
            along = np.sign(along)
        length = np.linalg.norm(along)
        if not length > 0:
            return DOSE  # nothing depends on these edges, however far they go
        along /= length
        spread = float((self._deviations() @ along).std(ddof=1))
        return DOSE * spread * (float(np.abs(along).max()) if constraint.norm == "linf" else 1.0)

    def in_connectomes(self, method: str, change: Float32, constraint: Constraint) -> Effect:
        """Of a change (S,E) of the people's Fisher z."""
        after = edited(self.people, change)
        predicted = np.einsum("se,se->s", self.gradient, change, dtype=np.float64)
        post = self._outcomes.values(self._outcomes.hidden(after))
        facts: dict[str, Any] = {"stability": self._stability(self.gradient)}
        if self._truth is not None:
            facts["truth"] = self._truth_of_map(self.gradient)
            if facts["truth"] is not None:
                facts["truth"] |= truth_of_effect(
                    self._truth, self._name, self.people, after, post[0] - self.pre[0]
                )
        return Effect(
            method=method,
            goal=self.goal,
            pre=self.pre[0],
            post=post[0],
            predicted=predicted,
            gradient=self.gradient,
            change=change,
            outcomes_pre=self.pre,
            outcomes_post=post,
            curve=self._curve(
                lambda dose: self.target.hidden(
                    edited(self.people, (dose / DOSE) * change.astype(np.float64))
                )
            ),
            random=self._random_changes(change, constraint),
            range_before=self._range_before,
            range_after=self._range(after),
            facts=facts,
        )

    def in_weights(self) -> Effect:
        """Of the paper's shift of everyone's weights by ``DOSE`` SDs of z1.

        Raises:
            DTwinInputError: too few people (code ``too_few``).
        """
        last = self.target.twin.layers[-1]
        s = self.pre[0]
        space = WeightSpace.of(last, self._hidden)
        direction = space.direction(s)
        rng = self._rng(0)
        gradient = smooth_gradients(self.target.twin, self.people, direction, rng)
        post = self._outcomes.values(self._shifted(self._hidden, direction, DOSE))
        facts: dict[str, Any] = {
            "pls": {
                "participation_ratio": space.participation_ratio(),
                "null_r": space.null_r(),
                "in_sample_r": pearson(direction.scores(self._hidden), s),
                "permutation_p": space.permutation_p(s, N_PERMUTATIONS, self._rng(1)),
                "cv_r": cross_validated_r(last, self._hidden, s, self._rng(2)),
            },
            "stability": self._stability_of_weights(gradient),
        }
        if self._truth is not None:
            facts["truth"] = self._truth_of_map(gradient)
        return Effect(
            method="weights",
            goal=self.goal,
            pre=s,
            post=post[0],
            predicted=np.full(len(s), np.nan),
            gradient=gradient,
            change=None,
            outcomes_pre=self.pre,
            outcomes_post=post,
            curve=self._curve(lambda dose: self._shifted(self._hidden, direction, dose)),
            random=self._random_shifts(space, direction),
            range_before=self._range_before,
            facts=facts,
        )

    def notes(self, effects: dict[str, Effect]) -> list[str]:
        """What a reader should know before the numbers."""
        found = []
        scored = {"connectomes as given": self._range_before}
        for name, effect in effects.items():
            if effect.range_after is not None:
                scored[f"connectomes changed by {name}"] = effect.range_after
        for what, scores in scored.items():
            if n := sum(map(bool, scores.flags())):
                found.append(f"{n} of {len(self.people)} {what} are outside the training range")
        if len(self.people) < FEWEST_PEOPLE:
            found.append(f"{len(self.people)} people: no controls over people")
        return found

    @cached_property
    def _reference(self) -> Reference | None:
        return Reference.fit(self.people.edges)

    @cached_property
    def _range_before(self) -> RangeScores:
        return self._range(self.people)

    def _range(self, people: Connectomes) -> RangeScores:
        twin = self.target.twin
        return range_scores(people.edges, twin.edge_mean, twin.edge_sd, self._reference)

    def _truth_of_map(self, gradient: Float32) -> dict[str, Any] | None:
        assert self._truth is not None
        regions = self.target.twin.regions
        return truth_of_map(self._truth, self._name, gradient, regions, self._seed)

    def _rng(self, *purpose: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, *purpose])

    def _shifted(self, hidden: Float32, direction: WeightDirection, dose: float) -> Float32:
        step = self.sign * dose * direction.sd * direction.shift
        return (hidden + step).astype(np.float32)

    def _curve(self, hidden_at: Callable[[float], Float32]) -> Float64:
        """(doses,S) the target at ``DOSES``."""
        curve = np.empty((len(DOSES), len(self.people)))
        for i, dose in enumerate(DOSES):
            curve[i] = self.target.values(hidden_at(float(dose)))[0]
            self.progress("doses", i + 1, len(DOSES))
        return curve

    def _deviations(self) -> Float32:
        """(S,E) how people differ from their mean; 0 where an edge is missing."""
        edges = self.people.edges
        here = ~np.isnan(edges)
        mean = np.where(here, edges, 0).sum(axis=0) / np.maximum(here.sum(axis=0), 1)
        return np.where(here, edges - mean, 0).astype(np.float32)

    def _some_people(self) -> npt.NDArray[np.intp]:
        """Positions of ``RANDOM_PEOPLE`` at most, evenly spread over the target's ranks."""
        order = np.argsort(self.pre[0], kind="stable")
        n = min(RANDOM_PEOPLE, len(order))
        places = order[np.linspace(0, len(order) - 1, n).round().astype(np.intp)]
        return np.sort(places)

    def _random_changes(self, change: Float32, constraint: Constraint) -> RandomDirections:
        """Combinations of how people differ from their mean, as long as the change."""
        rows = self._some_people()
        some = self.people.select(rows)
        here = ~np.isnan(some.edges)
        length = np.linalg.norm(change[rows], axis=1, keepdims=True)
        edges = self._deviations()
        is_cohort = len(edges) >= FEWEST_PEOPLE
        # An edit changes some edges only: so do the directions that it is compared with.
        touched = (change != 0).any(axis=0)
        rng = self._rng(3)

        def hidden() -> Float32:
            weights = rng.standard_normal(len(edges)).astype(np.float32)
            drawn = weights @ edges if is_cohort else rng.standard_normal(edges.shape[1])
            drawn = np.where(touched, drawn, 0).astype(np.float32)[None]
            drawn = constraint.project(drawn, np.inf)[0]
            # Of who lacks edges, on the others alone: as long as the change there.
            own = np.where(here, drawn, np.float32(0))
            size = np.linalg.norm(own, axis=1, keepdims=True)
            own = np.divide(length * own, size, out=np.zeros_like(own), where=size > 0)
            return self.target.hidden(edited(some, own))

        what = "combinations of people's deviations" if is_cohort else "white noise"
        return self._random(rows, hidden, f"{what}, as long as each person's change")

    def _random_shifts(self, space: WeightSpace, own: WeightDirection) -> RandomDirections:
        """Directions for the target shuffled over people, as far as the own one."""
        rows = self._some_people()
        rng = self._rng(4)

        def hidden() -> Float32:
            other = space.direction(rng.permutation(self.pre[0]))
            step = DOSE * own.sd * other.shift
            return (self._hidden[rows] + step).astype(np.float32)

        drawn = "directions for the target shuffled over people, as far in z-scored weights"
        return self._random(rows, hidden, drawn)

    def _random(
        self, rows: npt.NDArray[np.intp], hidden: Callable[[], Float32], drawn: str
    ) -> RandomDirections:
        effects = np.empty((self._n_random, len(rows)))
        for i in range(self._n_random):
            post = self.target.values(hidden())[0]
            everyone = self.pre[0].copy()
            everyone[rows] = post
            effects[i] = improvement(self.pre[0], everyone, self.goal)[rows]
            self.progress("random directions", i + 1, self._n_random)
        return RandomDirections(rows, effects, drawn)

    def _halves(self) -> list[npt.NDArray[np.intp]]:
        return np.array_split(self._rng(5).permutation(len(self.people)), 2)

    def _stability(self, gradient: Float32) -> dict[str, float | None]:
        """Of the group's map: between halves of the people, and between twins."""
        halves = [gradient[half].mean(axis=0) for half in self._halves() if len(half)]
        other = None
        if self._second is not None:
            options: dict[str, Any] = {"missing": self.target.missing}
            simulator = Simulator(self._second, self.target.targets, **options)
            people = in_fisher_z(self._second.prepare(self.people, **options))
            found = simulator.gradients(people)[1][0].mean(axis=0)
            other = in_order(found, self._second.regions, self.target.twin.regions)
        return self._alike(halves, gradient.mean(axis=0), other)

    def _stability_of_weights(self, gradient: Float32) -> dict[str, float | None]:
        last = self.target.twin.layers[-1]
        maps = []
        for half in self._halves():
            if len(half) < FEWEST_PEOPLE:
                break
            direction = WeightSpace.of(last, self._hidden[half]).direction(self.pre[0][half])
            part = self.people.select(half)
            maps.append(smooth_gradients(self.target.twin, part, direction, self._rng(6)))
        other = None
        if self._second is not None:
            simulator = Simulator(self._second, self.target.targets, missing=self.target.missing)
            people = in_fisher_z(self._second.prepare(self.people, missing=self.target.missing))
            hidden = simulator.hidden(people)
            direction = WeightSpace.of(self._second.layers[-1], hidden).direction(
                simulator.values(hidden)[0]
            )
            found = smooth_gradients(self._second, people, direction, self._rng(6))
            other = in_order(found.mean(axis=0), self._second.regions, self.target.twin.regions)
        return self._alike([m.mean(axis=0) for m in maps], gradient.mean(axis=0), other)

    def _alike(
        self, halves: list[Float32], whole: Float32, other: Float64 | None
    ) -> dict[str, float | None]:
        split = overlap(*halves) if len(halves) == 2 else (None, None)
        seeds = overlap(whole, other) if other is not None else (None, None)
        return {
            "split_half_r": split[0],
            "split_half_dice": split[1],
            "seed_r": seeds[0],
            "seed_dice": seeds[1],
        }
