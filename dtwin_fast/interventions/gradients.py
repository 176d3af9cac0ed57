"""Values of targets and their gradients with respect to the edges of a connectome."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..connectome import BadSubjects, Connectomes, MissingPolicy
from ..dispatch import rollout, rollout_vjp
from ..errors import DTwinInputError
from ..hypernetwork import (
    BLOCK_SUBJECTS,
    backpropagate_from,
    hidden_units,
    run_hidden,
    weights_of_hidden,
)
from ..readouts import hazard_vjp
from ..twin import Twin
from ..weights import RNNWeights, count_weights
from .targets import Said, Target, find_target

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

STATES_BYTES = 2**30
"""Weights, states and outputs that are kept between a rollout and its gradients."""


@dataclass(frozen=True, eq=False)
class TargetGradients:
    """What :func:`target_gradients` returns.

    Attributes:
        subjects: S names.
        value: (S,) the target of each person.
        edges: (S,E) float32 its gradient, in the unit in which connectomes were given; columns
            as of :meth:`dtwin_fast.twin.Twin.edge_gradients`.
        unit: of ``value``.
    """

    subjects: tuple[str, ...]
    value: Float64
    edges: Float32
    unit: str


def target_gradients(
    twin: Twin,
    fc: Connectomes | npt.ArrayLike,
    target: str | Target | Callable[[Mapping[str, Any]], Any],
    *,
    missing: MissingPolicy = "reject",
    bad_subjects: BadSubjects = "raise",
    backend: str = "auto",
    n_threads: int | None = None,
) -> TargetGradients:
    """A target of each person, and how it would move with each edge of their connectome.

    Args:
        twin: the model.
        fc, missing, bad_subjects: as given to :meth:`dtwin_fast.twin.Twin.personalize`.
        target: a key of ``TARGETS``, ``TASK:CONTRAST:REGION``, a :class:`Target`, or a function
            as of :class:`Function`.
        backend, n_threads: as of :func:`dtwin_fast.rollout`.

    Raises:
        DTwinInputError: input that does not fit the twin, a target that there is not, or one of
            behaviour where the head says no probabilities (code ``target``).
        BackendUnavailableError: an explicitly named backend cannot run.
    """
    found = find_target(target)
    simulator = Simulator(twin, [found], missing=missing, backend=backend, n_threads=n_threads)
    connectomes = twin.prepare(fc, missing=missing, bad_subjects=bad_subjects)
    value, edges = simulator.gradients(connectomes)
    return TargetGradients(connectomes.subjects, value[0], edges[0], found.unit)


class Simulator:
    """Runs a twin for the sake of some targets.

    Args:
        twin: the model.
        targets: M of them; the tasks of all are run together.
        missing: as given to :meth:`dtwin_fast.twin.Twin.personalize`.
        backend, precision, n_threads: as of :func:`dtwin_fast.rollout`.

    Raises:
        DTwinInputError: a target that this twin does not have, or has no gradients of (code
            ``target``).
    """

    def __init__(
        self,
        twin: Twin,
        targets: Sequence[Target],
        *,
        missing: MissingPolicy = "reject",
        backend: str = "auto",
        precision: str = "float32",
        n_threads: int | None = None,
    ) -> None:
        self.twin = twin
        self.targets = tuple(targets)
        self.missing: MissingPolicy = missing
        self.backend = backend
        wanted = {task for target in targets for task in check_target(twin, target)}
        self.tasks = tuple(task for task in twin.schedules if task in wanted)
        self._inputs = twin.encode(self.tasks)
        self._options: dict[str, Any] = {
            "backend": backend, "precision": precision, "n_threads": n_threads
        }  # fmt: skip

    def hidden(self, connectomes: Connectomes) -> Float32:
        """(S,D) the hypernetwork's last hidden layer of people that ``Twin.prepare`` returned."""
        return hidden_units(self.twin.layers, self.twin.hyper_input(connectomes, self.missing))

    def values(self, hidden: Float32) -> Float64:
        """(M,S) targets of the people whose last hidden layer is ``hidden``, (S,D) float32.

        NaN where a rollout leaves the finite numbers.
        """
        values = np.empty((len(self.targets), len(hidden)))
        for rows in self.twin.chunks(len(hidden), self._inputs.shape[:2]):
            flat = weights_of_hidden(self.twin.layers, hidden[rows])
            weights = RNNWeights.from_flat(flat, self.twin.spec)
            result = rollout(weights, self._inputs, **self._options)
            self.backend = result.backend
            values[:, rows] = self._values(self._read(result.outputs))
        return values

    def gradients(self, connectomes: Connectomes) -> tuple[Float64, Float32]:
        """(M,S) targets and (M,S,E) their gradients, in the unit of the connectomes.

        Args:
            connectomes: S people, as :meth:`dtwin_fast.twin.Twin.prepare` returned them.
        """
        twin = self.twin
        shape = (len(self.targets), len(connectomes))
        values = np.empty(shape)
        gradients = np.empty((*shape, connectomes.n_edges), np.float32)
        for rows in self.chunks(len(connectomes)):
            part = connectomes.select(rows)
            hidden = run_hidden(twin.layers, twin.hyper_input(part, self.missing))
            flat = weights_of_hidden(twin.layers, hidden.units)
            weights = RNNWeights.from_flat(flat, twin.spec)
            memory = self._states[: len(part)]
            result = rollout(weights, self._inputs, out_states=memory, **self._options)
            self.backend = result.backend
            said = self._read(result.outputs)
            values[:, rows] = self._values(said)
            for m, target in enumerate(self.targets):
                d_outputs = self._d_outputs(result.outputs, said, target)
                d_weights = rollout_vjp(
                    weights, self._inputs, d_outputs, states=result.states, **self._options
                ).weights
                d_x = backpropagate_from(twin.layers, hidden, d_weights.to_flat())
                gradients[m, rows] = twin.hyper_input_vjp(part, self.missing, d_x)
        return values, gradients

    def chunks(self, n_subjects: int) -> Iterator[slice]:
        """Rows of people whose weights, states and outputs are in memory at once."""
        for start in range(0, n_subjects, self._chunk_size):
            yield slice(start, min(start + self._chunk_size, n_subjects))

    @property
    def _chunk_size(self) -> int:
        spec, (n_sequences, n_steps) = self.twin.spec, self._inputs.shape[:2]
        values = count_weights(spec) + n_sequences * n_steps * (spec.n_hidden + 2 * spec.n_outputs)
        return int(min(max(1, STATES_BYTES // (4 * values)), BLOCK_SUBJECTS))

    @cached_property
    def _states(self) -> Float32:
        """Memory for the states of a chunk, used again and again."""
        n_sequences, n_steps = self._inputs.shape[:2]
        shape = (self._chunk_size, n_sequences, n_steps, self.twin.spec.n_hidden)
        return np.empty(shape, np.float32)

    def _read(self, outputs: npt.NDArray[Any]) -> dict[str, Said]:
        said = {}
        for b, task in enumerate(self.tasks):
            responses, contrasts = self.twin.read_run(task, outputs[:, b])
            said[task] = Said(
                *responses, contrasts, self._series(outputs, b).std(axis=1, dtype=np.float64)
            )
        return said

    def _series(self, outputs: npt.NDArray[Any], b: int) -> npt.NDArray[Any]:
        """(S,T,R) BOLD of a run without what pads it."""
        spec = self.twin.spec
        n_steps = self.twin.schedules[self.tasks[b]].n_steps(spec.dt_s)
        return outputs[:, b, :n_steps, spec.n_actions :]

    def _values(self, said: Mapping[str, Said]) -> Float64:
        values = [target.value(self.twin, self._of(said, target)) for target in self.targets]
        return np.stack(values)

    def _of(self, said: Mapping[str, Said], target: Target) -> dict[str, Said]:
        return {task: said[task] for task in target.tasks(self.twin)}

    def _d_outputs(
        self, outputs: npt.NDArray[Any], said: Mapping[str, Said], target: Target
    ) -> Float32:
        """(S,B,T,O) gradient of a target with respect to the outputs."""
        twin, spec = self.twin, self.twin.spec
        gradient = np.zeros(outputs.shape, np.float32)
        for task, slope in target.slopes(twin, self._of(said, target)).items():
            b, schedule = self.tasks.index(task), twin.schedules[task]
            run = gradient[:, b, : schedule.n_steps(spec.dt_s)]
            bold = run[:, :, spec.n_actions :]
            if slope.contrasts.any():
                bold += np.matmul(twin.projections[task].T, slope.contrasts)
            if slope.bold_sd.any():
                series = self._series(outputs, b)
                late = series - series.mean(axis=1, keepdims=True, dtype=np.float64)
                spread = said[task].bold_sd * series.shape[1]
                scale = np.divide(slope.bold_sd, spread, out=np.zeros_like(slope.bold_sd),
                                  where=spread > 0)  # fmt: skip
                bold += late * scale[:, None]
            if slope.choice_prob.any() or slope.rt_s.any():
                actions = outputs[:, b, : run.shape[1], : spec.n_actions]
                windows = schedule.response_windows(spec.dt_s)
                run[:, :, : spec.n_actions] = hazard_vjp(
                    actions, windows, schedule.onset_s, spec.dt_s, slope.choice_prob, slope.rt_s
                )
        return gradient


def check_target(twin: Twin, target: Target) -> tuple[str, ...]:
    """The tasks that a target needs.

    Raises:
        DTwinInputError: this twin does not have it, or no gradients of it (code ``target``).
    """
    tasks = target.tasks(twin)
    if target.reads_behaviour and twin.spec.head != "hazard":
        raise DTwinInputError(
            "target",
            "the peaks of this head are no function that has gradients",
            field="target",
            wanted="a contrast, or a twin with the head hazard",
            got=f"{target!r} and the head {twin.spec.head}",
            fix="Take a target of BOLD, or train a twin with the head hazard",
        )
    return tasks


def in_fisher_z(connectomes: Connectomes) -> Connectomes:
    """The same people with edges in Fisher z, the unit of all edits."""
    return replace(connectomes, edges=connectomes.fisher_z(), is_fisher_z=True)


def edited(connectomes: Connectomes, change: npt.NDArray[Any]) -> Connectomes:
    """People (:func:`in_fisher_z`) with (S,E) added to their edges; missing edges stay so."""
    return replace(connectomes, edges=(connectomes.edges + change).astype(np.float32))


def in_order(edges: npt.NDArray[Any], regions: Sequence[str], wanted: Sequence[str]) -> Float64:
    """A map (E,) of the edges between ``regions``, in the order of the regions ``wanted``.

    Raises:
        DTwinInputError: a region that is not there (code ``regions_missing``).
    """
    one = Connectomes(
        edges=edges[None].astype(np.float32),
        subjects=("map",),
        regions=tuple(regions),
        is_fisher_z=True,
        missing=np.zeros((1, len(regions)), np.bool_),
        flags=((),),
    )
    ordered: Float64 = one.align(wanted).edges[0].astype(np.float64)
    return ordered
