"""Targets: one number of each person, and how it moves with what the twin says of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ..errors import DTwinInputError, MissingExtraError
from ..twin import Twin

Float64 = npt.NDArray[np.float64]
Goal = Literal["up", "down"]


@dataclass(frozen=True, eq=False)
class Said:
    """What a twin says of S people in one run, or the slopes of a target by it.

    Attributes:
        choice_prob, rt_s: (S,N,A) and (S,N) as of :class:`dtwin_fast.readouts.Responses`.
        contrasts: (S,K,R) in SDs of the training cohort's BOLD, rows as ``Twin.contrasts``.
        bold_sd: (S,R) SD over the run's steps of each region's BOLD, in the same unit.
    """

    choice_prob: npt.NDArray[Any]
    rt_s: npt.NDArray[Any]
    contrasts: npt.NDArray[Any]
    bold_sd: npt.NDArray[Any]

    def zeros(self) -> Said:
        """The slopes of a target that depends on nothing."""
        parts = (self.choice_prob, self.rt_s, self.contrasts, self.bold_sd)
        return Said(*(np.zeros(part.shape) for part in parts))


@runtime_checkable
class Target(Protocol):
    """One number of each person."""

    @property
    def unit(self) -> str:
        """What its values are in."""
        ...

    @property
    def goal(self) -> Goal:
        """Which way an intervention is to move it."""
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
    goal: Goal = "down"
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
    goal: Goal = "up"
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

    goal: Goal = "up"
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


@dataclass(frozen=True)
class BoldVariability:
    """Mean over tasks and regions of the SD of BOLD over a run."""

    goal: Goal = "up"
    unit: str = "SD"
    reads_behaviour: bool = False

    def tasks(self, twin: Twin) -> tuple[str, ...]:
        """All, of a twin that has BOLD."""
        if not twin.spec.bold_regions:
            raise _unknown("region", "", ())
        return tuple(twin.schedules)

    def value(self, twin: Twin, said: Mapping[str, Said]) -> Float64:
        """(S,) the mean."""
        spreads = [s.bold_sd.mean(axis=1, dtype=np.float64) for s in said.values()]
        mean: Float64 = np.mean(spreads, axis=0)
        return mean

    def slopes(self, twin: Twin, said: Mapping[str, Said]) -> dict[str, Said]:
        """One over the number of tasks and regions."""
        found = {task: s.zeros() for task, s in said.items()}
        for slopes in found.values():
            slopes.bold_sd[:] = 1 / (len(said) * slopes.bold_sd.shape[1])
        return found


@dataclass(frozen=True)
class Function:
    """A function of your own, differentiated by torch.

    Attributes:
        function: from task -> :class:`Said` of float64 torch tensors (all tasks of the twin) to
            (S,), a value for each person that depends on that person alone.
        name: what results call it.
        goal, unit: as of :class:`Target`.
        reads_behaviour: False where it reads BOLD only, which any head allows.
    """

    function: Callable[[Mapping[str, Any]], Any]
    name: str = "function"
    goal: Goal = "up"
    unit: str = "own unit"
    reads_behaviour: bool = True

    def tasks(self, twin: Twin) -> tuple[str, ...]:
        """All."""
        return tuple(twin.schedules)

    def value(self, twin: Twin, said: Mapping[str, Said]) -> Float64:
        """(S,) what the function returns.

        Raises:
            DTwinInputError: no float tensor (S,) that depends on its argument (code ``target``).
            MissingExtraError: torch is not installed.
        """
        value: Float64 = self._evaluate(said)[1].detach().numpy()
        return value

    def slopes(self, twin: Twin, said: Mapping[str, Said]) -> dict[str, Said]:
        """By torch.autograd."""
        leaves, value = self._evaluate(said)
        value.sum().backward()
        found = {}
        for task, leaf in leaves.items():
            found[task] = said[task].zeros()
            for name, tensor in vars(leaf).items():
                if tensor.grad is not None:
                    getattr(found[task], name)[:] = tensor.grad.numpy()
        return found

    def _evaluate(self, said: Mapping[str, Said]) -> tuple[dict[str, Said], Any]:
        try:
            import torch
        except ImportError as error:
            raise MissingExtraError("torch", "torch", "A target that is a function") from error
        leaves = {}
        for task, s in said.items():
            parts: list[Any] = [
                torch.tensor(part, dtype=torch.float64, requires_grad=True)
                for part in vars(s).values()
            ]
            leaves[task] = Said(*parts)
        value = self.function(leaves)
        n_people = len(next(iter(said.values())).rt_s)
        if (
            not isinstance(value, torch.Tensor)
            or value.shape != (n_people,)
            or value.dtype != torch.float64
            or not value.requires_grad
        ):
            raise DTwinInputError(
                "target",
                "this function is no target",
                field="target",
                wanted=f"a float64 tensor ({n_people},) that depends on what the twin says",
                got=f"{type(value).__name__} {tuple(getattr(value, 'shape', ()))}",
                fix="Return a value for each person, of operations that torch can differentiate",
            )
        return leaves, value


def _speed(task: str) -> Callable[[], Target]:
    return lambda: ReactionTime({task: {"": -1.0}})


def _amygdala(*regions: str) -> Callable[[], Target]:
    return lambda: Contrast("faces", "faces>shapes", regions)


TARGETS: dict[str, Callable[[], Target]] = {
    "amygdala": _amygdala("LH_amygdala", "RH_amygdala"),
    "amygdala-left": _amygdala("LH_amygdala"),
    "amygdala-right": _amygdala("RH_amygdala"),
    "speed": ReactionTime,
    "speed-faces": _speed("faces"),
    "speed-stroop": _speed("stroop"),
    "interference": lambda: ReactionTime({"stroop": {"inc": 1.0, "con": -1.0}}, goal="down"),
    "accuracy": Accuracy,
    "bold-variability": BoldVariability,
}
"""Name -> factory. ``TASK:CONTRAST:REGION`` names any contrast of any region.

Speed is the negative mean reaction time.
"""


def find_target(target: str | Target | Callable[[Mapping[str, Any]], Any]) -> Target:
    """The target of a name, such as ``speed`` or ``faces:faces>shapes:LH_V1``.

    A function becomes a :class:`Function`, other targets stay as they are.

    Raises:
        DTwinInputError: no such name (code ``target``).
    """
    if not isinstance(target, str):
        if isinstance(target, Target):
            return target
        if callable(target):
            return Function(target, getattr(target, "__name__", "function"))
        raise _unknown("target", type(target).__name__, (*TARGETS, "a function"))
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
