"""Targets: one number of each person, and how it moves with what the twin says of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import DTwinInputError
from ..twin import Twin

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Said:
    """What a twin says of S people in one run, or the slopes of a target by it.

    Attributes:
        choice_prob, rt_s: (S,N,A) and (S,N) as of :class:`dtwin_fast.readouts.Responses`.
        contrasts: (S,K,R) in SDs of the training cohort's BOLD, rows as ``Twin.contrasts``.
    """

    choice_prob: npt.NDArray[Any]
    rt_s: npt.NDArray[Any]
    contrasts: npt.NDArray[Any]

    def zeros(self) -> Said:
        """The slopes of a target that depends on nothing."""
        return Said(*(np.zeros(a.shape) for a in (self.choice_prob, self.rt_s, self.contrasts)))


class Target(Protocol):
    """One number of each person."""

    @property
    def unit(self) -> str:
        """What its values are in."""
        ...

    @property
    def reads_behaviour(self) -> bool:
        """Whether it depends on choices or reaction times, which must have gradients then."""
        ...

    def tasks(self, twin: Twin) -> tuple[str, ...]:
        """The tasks it needs.

        Raises:
            DTwinInputError: the twin lacks something that the target needs (code ``target``).
        """
        ...

    def value(self, twin: Twin, said: Mapping[str, Said]) -> Float64:
        """(S,) from what was said of people in each task."""
        ...

    def slopes(self, twin: Twin, said: Mapping[str, Said]) -> dict[str, Said]:
        """How the value of each person moves with each number that was said, by task."""
        ...


@dataclass(frozen=True)
class Contrast:
    """Mean over ``regions`` of a contrast of a task, in SDs of the training cohort's BOLD."""

    task: str
    contrast: str
    regions: tuple[str, ...]
    unit: str = "SD"
    reads_behaviour: bool = False

    def tasks(self, twin: Twin) -> tuple[str, ...]:
        """Its own."""
        _check("task", (self.task,), tuple(twin.schedules))
        _check("contrast", (self.contrast,), twin.contrasts[self.task])
        _check("region", self.regions, twin.spec.bold_regions)
        return (self.task,)

    def value(self, twin: Twin, said: Mapping[str, Said]) -> Float64:
        """(S,) the mean."""
        row, columns = self._places(twin)
        mean: Float64 = said[self.task].contrasts[:, row, columns].mean(axis=1, dtype=np.float64)
        return mean

    def slopes(self, twin: Twin, said: Mapping[str, Said]) -> dict[str, Said]:
        """One over the number of regions, at each of them."""
        row, columns = self._places(twin)
        slopes = said[self.task].zeros()
        slopes.contrasts[:, row, columns] = 1 / len(columns)
        return {self.task: slopes}

    def _places(self, twin: Twin) -> tuple[int, list[int]]:
        columns = [twin.spec.bold_regions.index(region) for region in self.regions]
        return twin.contrasts[self.task].index(self.contrast), columns


@dataclass(frozen=True)
class ReactionTime:
    """Sum over conditions of a coefficient times their mean reaction time, in seconds.

    Attributes:
        coefficients: task -> condition -> coefficient; the condition ``""`` is every trial. None
            is the negative mean over all trials of each of the twin's tasks: speed.
    """

    coefficients: Mapping[str, Mapping[str, float]] | None = None
    unit: str = "s"
    reads_behaviour: bool = True

    def tasks(self, twin: Twin) -> tuple[str, ...]:
        """Those with a coefficient."""
        wanted = self._coefficients(twin)
        _check("task", tuple(wanted), tuple(twin.schedules))
        for task, of_condition in wanted.items():
            known = ("", *dict.fromkeys(twin.schedules[task].condition))
            _check("condition", tuple(of_condition), known)
        return tuple(wanted)

    def value(self, twin: Twin, said: Mapping[str, Said]) -> Float64:
        """(S,) the sum."""
        parts = [said[t].rt_s.astype(np.float64) @ w for t, w in self._weights(twin).items()]
        total: Float64 = np.sum(parts, axis=0)
        return total

    def slopes(self, twin: Twin, said: Mapping[str, Said]) -> dict[str, Said]:
        """The weight of every trial."""
        found = {}
        for task, weights in self._weights(twin).items():
            found[task] = said[task].zeros()
            found[task].rt_s[:] = weights
        return found

    def _coefficients(self, twin: Twin) -> Mapping[str, Mapping[str, float]]:
        if self.coefficients is not None:
            return self.coefficients
        return {task: {"": -1 / len(twin.schedules)} for task in twin.schedules}

    def _weights(self, twin: Twin) -> dict[str, Float64]:
        """(N,) for each task."""
        weights = {}
        for task, of_condition in self._coefficients(twin).items():
            condition = np.array(twin.schedules[task].condition)
            weights[task] = np.zeros(len(condition))
            for name, coefficient in of_condition.items():
                trials = (condition == name) | (name == "")
                weights[task][trials] += coefficient / trials.sum()
        return weights


@dataclass(frozen=True)
class Accuracy:
    """Mean probability of the correct action over all trials of the twin's tasks."""

    unit: str = "share"
    reads_behaviour: bool = True

    def tasks(self, twin: Twin) -> tuple[str, ...]:
        """All."""
        return tuple(twin.schedules)

    def value(self, twin: Twin, said: Mapping[str, Said]) -> Float64:
        """(S,) the mean."""
        correct = [
            np.take_along_axis(
                s.choice_prob.astype(np.float64),
                twin.schedules[task].correct.astype(np.int64)[None, :, None],
                axis=2,
            )[..., 0]
            for task, s in said.items()
        ]
        mean: Float64 = np.concatenate(correct, axis=1).mean(axis=1)
        return mean

    def slopes(self, twin: Twin, said: Mapping[str, Said]) -> dict[str, Said]:
        """One over the number of trials, at the correct action of each."""
        n_trials = sum(s.rt_s.shape[1] for s in said.values())
        found = {task: s.zeros() for task, s in said.items()}
        for task, slopes in found.items():
            correct = twin.schedules[task].correct
            slopes.choice_prob[:, np.arange(len(correct)), correct] = 1 / n_trials
        return found


def _amygdala(*regions: str) -> Callable[[], Target]:
    return lambda: Contrast("faces", "faces>shapes", regions)


TARGETS: dict[str, Callable[[], Target]] = {
    "amygdala": _amygdala("LH_amygdala", "RH_amygdala"),
    "amygdala-left": _amygdala("LH_amygdala"),
    "amygdala-right": _amygdala("RH_amygdala"),
    "speed": ReactionTime,
    "interference": lambda: ReactionTime({"stroop": {"inc": 1.0, "con": -1.0}}),
    "accuracy": Accuracy,
}
"""Name -> factory. ``TASK:CONTRAST:REGION`` names any contrast of any region."""


def find_target(target: str | Target) -> Target:
    """The target of a name, such as ``speed`` or ``faces:faces>shapes:LH_V1``; others as they are.

    Raises:
        DTwinInputError: no such name (code ``target``).
    """
    if not isinstance(target, str):
        return target
    if target in TARGETS:
        return TARGETS[target]()
    parts = target.split(":")
    if len(parts) == 3 and all(parts):
        return Contrast(parts[0], parts[1], (parts[2],))
    raise _unknown("target", target, (*TARGETS, "TASK:CONTRAST:REGION"))


def _check(field: str, names: tuple[str, ...], known: tuple[str, ...]) -> None:
    for name in names or ("",):
        if name not in known or not names:
            raise _unknown(field, name, known)


def _unknown(field: str, name: str, known: tuple[str, ...]) -> DTwinInputError:
    return DTwinInputError(
        "target",
        f"there is no such {field}",
        field=field,
        wanted=" | ".join(name for name in known if name) or "none: this twin has none",
        got=repr(name[:80]),
        fix="Name one of these",
    )
