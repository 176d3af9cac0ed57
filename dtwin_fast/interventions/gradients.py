"""Gradients of targets with respect to the edges of a connectome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..connectome import BadSubjects, Connectomes, MissingPolicy
from ..dispatch import rollout, rollout_vjp
from ..errors import DTwinInputError
from ..readouts import hazard_vjp
from ..twin import Twin
from .targets import Said, Target, find_target

Float64 = npt.NDArray[np.float64]


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
    edges: npt.NDArray[np.float32]
    unit: str


def target_gradients(
    twin: Twin,
    fc: Connectomes | npt.ArrayLike,
    target: str | Target,
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
        target: a key of ``TARGETS``, ``TASK:CONTRAST:REGION``, or a :class:`Target`.
        backend, n_threads: as of :func:`dtwin_fast.rollout`.

    Raises:
        DTwinInputError: input that does not fit the twin, a target that there is not, or one of
            behaviour where the head says no probabilities (code ``target``).
        BackendUnavailableError: an explicitly named backend cannot run.
    """
    found = find_target(target)
    tasks = found.tasks(twin)
    if found.reads_behaviour and twin.spec.head != "hazard":
        raise DTwinInputError(
            "target",
            "the peaks of this head are no function that has gradients",
            field="target",
            wanted="a contrast, or a twin with the head hazard",
            got=f"{target!r} and the head {twin.spec.head}",
            fix="Take a target of BOLD, or train a twin with the head hazard",
        )
    connectomes = twin.prepare(fc, missing=missing, bad_subjects=bad_subjects)
    n_subjects = len(connectomes)
    value = np.empty(n_subjects)
    edges = np.empty((n_subjects, len(twin.edge_mean)), np.float32)
    inputs = twin.encode(tasks)
    options: dict[str, Any] = {"backend": backend, "n_threads": n_threads}
    for rows in twin.chunks(n_subjects, inputs.shape[:2]):
        part = connectomes.select(rows)
        weights = twin.personalize(part, missing=missing)
        outputs = rollout(weights, inputs, **options).outputs
        said = {}
        for b, task in enumerate(tasks):
            responses, contrasts = twin.read_run(task, outputs[:, b])
            said[task] = Said(*responses, contrasts)
        value[rows] = found.value(twin, said)
        d_outputs = _d_outputs(twin, tasks, outputs, found.slopes(twin, said))
        d_weights = rollout_vjp(weights, inputs, d_outputs, **options).weights
        edges[rows] = twin.edge_gradients(part, d_weights, missing=missing)
    return TargetGradients(connectomes.subjects, value, edges, found.unit)


def _d_outputs(
    twin: Twin,
    tasks: tuple[str, ...],
    outputs: npt.NDArray[Any],
    slopes: Mapping[str, Said],
) -> npt.NDArray[np.float32]:
    """(S,B,T,O) gradient with respect to the outputs, of slopes by what they say."""
    spec = twin.spec
    gradient = np.zeros(outputs.shape, np.float32)
    for b, task in enumerate(tasks):
        schedule, slope = twin.schedules[task], slopes[task]
        run = gradient[:, b, : schedule.n_steps(spec.dt_s)]
        run[:, :, spec.n_actions :] = np.matmul(twin.projections[task].T, slope.contrasts)
        if slope.choice_prob.any() or slope.rt_s.any():
            actions = outputs[:, b, : run.shape[1], : spec.n_actions]
            windows = schedule.response_windows(spec.dt_s)
            run[:, :, : spec.n_actions] = hazard_vjp(
                actions, windows, schedule.onset_s, spec.dt_s, slope.choice_prob, slope.rt_s
            )
    return gradient
