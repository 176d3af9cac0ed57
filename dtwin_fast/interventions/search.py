"""Closed loop: the change of a connectome that moves a target most, by projected gradient.

Each step rolls the twin out on the changed connectome, takes the target's gradient there, goes
along it and back to the nearest change that is allowed. What counts in the end is what the whole
twin makes of the changed connectome, never what a gradient promised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..connectome import Connectomes
from .constraints import Constraint
from .gradients import Simulator, edited

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]
Scope = Literal["person", "group"]
Progress = Callable[[int, int], None]
Measure = Callable[[Rows, Float32], tuple[Float64, Float32]]
"""Rows and their changes (A,E) -> targets (M,A) and gradients (M,A,E)."""

N_STEPS = 50
PATIENCE = 5
"""Steps without a gain after which a search ends."""
PRECISION = "bfloat16"
"""Of the weights on the way, which then cost half the memory traffic. Effects are simulated in
float32."""

_GAIN = 1e-3
"""Less than this share of what was gained so far is no gain."""
_CAREFUL = 0.1
"""Steps are this much shorter where outcomes are to stay: first order says where those go."""
_PENALTY = 10.0
"""Moving an outcome that is to stay costs this times what its gradient's size makes of it."""


@dataclass(frozen=True, eq=False)
class Found:
    """What :func:`search` returns.

    Attributes:
        change: (S,E) float32, Fisher z; 0 on missing edges.
        n_steps: (S,) int64 gradients taken for each person.
    """

    change: Float32
    n_steps: npt.NDArray[np.int64]


def search(
    simulator: Simulator,
    connectomes: Connectomes,
    constraint: Constraint,
    budget: float,
    sign: float,
    *,
    scope: Scope = "person",
    n_steps: int = N_STEPS,
    patience: int | None = PATIENCE,
    progress: Progress | None = None,
) -> Found:
    """The allowed change that moves the first target of the simulator furthest.

    The k-th step is as long as the budget over sqrt(k), and the best change met is kept. The
    simulator's other targets are to stay as they are: a step is a tenth as long, goes along what
    of the gradient is orthogonal to theirs and undoes to first order what earlier steps moved; a
    change is as good as its gain less a multiple of their moves (an l1 merit function; Nocedal &
    Wright 2006, section 15.4), and all steps are taken.

    Args:
        simulator: of the target, and of the outcomes to keep.
        connectomes: S people in Fisher z.
        constraint: what is allowed; ``valid`` is brought about at the end.
        budget: largest norm of a change, Fisher z.
        sign: 1 raises the target, -1 lowers it.
        scope: ``person``, a change for each, or ``group``, one for all that moves the mean.
        n_steps: gradients at most.
        patience: steps without a gain after which the search of a person who has gained something
            ends; None: never.
        progress: called with (steps done, steps in all), a person's step each.
    """
    n_people = len(connectomes)
    changes = np.empty(connectomes.edges.shape, np.float32)
    taken = np.empty(n_people, np.int64)
    climb = _Climb(constraint, budget, sign, n_steps, patience)
    done = 0

    def tick(n: int) -> None:
        nonlocal done
        done += n
        if progress is not None:
            progress(done, n_steps * n_people)

    if scope == "group":

        def of_group(rows: Rows, change: Float32) -> tuple[Float64, Float32]:
            tick(n_people)
            return _means(simulator, edited(connectomes, change))

        changes[:], taken[:] = climb.run(of_group, 1, connectomes.n_edges)
    else:
        for chunk in simulator.chunks(n_people):
            part = connectomes.select(chunk)

            def of_people(
                rows: Rows, change: Float32, part: Connectomes = part
            ) -> tuple[Float64, Float32]:
                tick(len(rows))
                return simulator.gradients(edited(part.select(rows), change))

            changes[chunk], taken[chunk] = climb.run(of_people, len(part), part.n_edges)
            done = n_steps * chunk.stop
    tick(n_steps * n_people - done)
    changes[np.isnan(connectomes.edges)] = 0
    if constraint.valid:
        changes = constraint.make_valid(connectomes.edges, changes)
    return Found(changes, taken)


@dataclass(frozen=True, eq=False)
class _Climb:
    """Projected gradient for A rows that do not know of each other."""

    constraint: Constraint
    budget: float
    sign: float
    n_steps: int
    patience: int | None

    def run(self, measure: Measure, n_rows: int, n_edges: int) -> tuple[Float32, Rows]:
        """(A,E) the best changes, and (A,) the gradients it took."""
        change = np.zeros((n_rows, n_edges), np.float32)
        best, merit = change.copy(), np.zeros(n_rows)
        idle, taken = np.zeros(n_rows, np.int64), np.zeros(n_rows, np.int64)
        start, price = np.empty(0), np.empty(0)
        rows = np.arange(n_rows)
        for step in range(self.n_steps):
            values, gradients = measure(rows, change[rows])
            gradients = self._finite(gradients)
            if step == 0:
                start, price = values, _prices(gradients)
            moved = values - start[:, rows]
            now = self.sign * moved[0] - (price[:, rows] * np.abs(moved[1:])).sum(axis=0)
            better = now > merit[rows] * (1 + _GAIN)
            best[rows[better]], merit[rows[better]] = change[rows][better], now[better]
            # Whoever has gained nothing yet, as first steps went too far, goes on.
            idle[rows] = np.where(better | (merit[rows] == 0), 0, idle[rows] + 1)
            taken[rows] += 1
            # Where a rollout left the finite numbers nothing leads on: back, and shorter steps.
            lost = ~np.isfinite(values).all(axis=0)
            change[rows[lost]], moved[:, lost], gradients[:, lost] = best[rows[lost]], 0, 0
            if step + 1 < self.n_steps:
                change[rows] = self._step(change[rows], moved, gradients, step)
            if self.patience is not None and len(moved) == 1:
                rows = rows[idle[rows] < self.patience]
            if len(rows) == 0:
                break
        return best, taken

    def _step(self, change: Float32, moved: Float64, gradients: Float32, step: int) -> Float32:
        """The next changes, from where targets (M,A) went and (M,A,E) gradients."""
        along = self.sign * gradients[0]
        if len(moved) > 1:
            along, back = _beside(along, gradients[1:], moved[1:])
            change = change + back
        if self.constraint.norm == "linf":
            # The steepest edges are chosen before all are equally steep.
            along = np.sign(self.constraint.project(along, np.inf))
        else:
            # float64: squares of a gradient that explodes are beyond float32.
            norm = np.sqrt(np.einsum("ae,ae->a", along, along, dtype=np.float64))[:, None]
            along = np.divide(
                along, norm, out=np.zeros_like(along), where=norm > 0, casting="same_kind"
            )
        share = _CAREFUL if len(moved) > 1 else 1.0
        length = np.float32(share * self.budget / np.sqrt(step + 1))
        return self.constraint.project(change + length * along, self.budget)

    def _finite(self, gradients: Float32) -> Float32:
        """On allowed edges; 0 for a person whose rollout left the finite numbers."""
        if self.constraint.allowed is not None:
            gradients = np.where(self.constraint.allowed, gradients, np.float32(0))
        return np.nan_to_num(gradients, copy=False, nan=0.0, posinf=0.0, neginf=0.0)


def _prices(gradients: Float32) -> Float64:
    """(M-1,A) what it costs to move an outcome by one of its units, in units of the target."""
    size = np.linalg.norm(gradients, axis=2).astype(np.float64)
    prices: Float64 = np.zeros_like(size[1:])
    np.divide(_PENALTY * size[0], size[1:], out=prices, where=size[1:] > 0)
    return prices


def _beside(along: Float32, kept: Float32, moved: Float64) -> tuple[Float32, Float32]:
    """(A,E) the part of steps that leaves outcomes be, and the steps that undo their moves.

    Args:
        along: (A,E) wanted steps.
        kept: (M-1,A,E) gradients of the outcomes.
        moved: (M-1,A) how far they are from where they were.
    """
    free, back = np.empty_like(along), np.empty_like(along)
    for a in range(len(along)):
        g = kept[:, a].astype(np.float64)
        # Outcomes whose gradients are nearly parallel are corrected as one.
        solve = np.linalg.pinv(g @ g.T, rcond=1e-9, hermitian=True)
        free[a] = along[a] - (solve @ (g @ along[a])) @ g
        back[a] = -(solve @ moved[:, a]) @ g
    return free, back


def _means(simulator: Simulator, connectomes: Connectomes) -> tuple[Float64, Float32]:
    """(M,1) targets and (M,1,E) gradients, means over people."""
    n_targets = len(simulator.targets)
    value = np.zeros((n_targets, 1))
    gradient = np.zeros((n_targets, 1, connectomes.n_edges))
    for rows in simulator.chunks(len(connectomes)):
        values, gradients = simulator.gradients(connectomes.select(rows))
        value[:, 0] += values.sum(axis=1)
        gradient[:, 0] += gradients.sum(axis=1, dtype=np.float64)
    n_people = len(connectomes)
    return value / n_people, (gradient / n_people).astype(np.float32)
