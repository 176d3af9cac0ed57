"""What is served: a twin's predictions, and gradients of a target by edge."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, get_args

import numpy as np

from ..connectome import Connectomes, MissingPolicy
from ..errors import DTwinInputError
from ..interventions import TARGETS, find_target, target_gradients
from ..interventions.gradients import check_target
from ..provenance import package_version
from ..screening.shard import no_numbers
from ..twin import Twin
from .refusals import too_large
from .settings import ANSWER_BYTES
from .tensors import Array, Asked, Scalar, TensorSpec, find_name

VERSION = "1"
"""Of every model: a server has one."""

GRADIENT = "_gradient"
"""What the name of the second model ends with."""

UNITS = ("r", "z")


@dataclass(frozen=True)
class How:
    """How people are run: those of requests that agree in it may be run together.

    Attributes:
        missing: policy for missing regions.
        tasks: names, in order; of predictions.
        target: a name; of gradients.
    """

    missing: MissingPolicy
    tasks: tuple[str, ...] = ()
    target: str = ""


@dataclass(frozen=True, eq=False)
class Work:
    """A request that can be run.

    Attributes:
        model, how: what to do.
        people: S of them, checked.
        outputs: names that are wanted.
        n_values: numbers of the answer.
    """

    model: Model
    how: How
    people: Connectomes
    outputs: tuple[str, ...]
    n_values: int


@dataclass(frozen=True, eq=False)
class Answer:
    """Arrays by name, each with a row for each person, and where they come from."""

    arrays: dict[str, Array]
    parameters: dict[str, Scalar]


class Model(Protocol):
    """One served model."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parameters: dict[str, str]

    @property
    def facts(self) -> dict[str, Any]:
        """What the metadata say beyond the protocol: the names of the axes."""
        ...

    def accept(self, asked: Asked) -> Work:
        """Check a request.

        Raises:
            DTwinInputError: it cannot be run; no number of a connectome is in it.
        """
        ...

    def run(self, how: How, people: Connectomes, outputs: Sequence[str]) -> Answer:
        """The outputs of all people."""
        ...


class Predictions:
    """Choices, reaction times, BOLD and contrasts."""

    parameters: dict[str, str] = {  # noqa: RUF012
        "unit": "r (default) or z: Pearson r, or its Fisher z",
        "missing": "reject (default), mask or impute: of people whose edges hold NaN",
        "tasks": "names with commas between them (default: all tasks of the twin)",
    }

    def __init__(self, twin: Twin, name: str) -> None:
        spec = twin.spec
        n_actions, n_regions = spec.n_actions, len(spec.bold_regions)
        self.name = name
        self._twin = twin
        self.inputs: tuple[TensorSpec, ...] = (_edges(twin),)
        self.outputs: tuple[TensorSpec, ...] = (
            TensorSpec("choice_prob", "FP32", (-1, -1, n_actions), "(people, trials, actions)"),
            TensorSpec("rt_s", "FP32", (-1, -1), "(people, trials) mean reaction time, seconds"),
            TensorSpec("contrasts", "FP32", (-1, -1, n_regions), "(people, contrasts, regions)"),
            TensorSpec("bold", "FP32", (-1, -1, n_regions), "(people, volumes, regions)"),
            TensorSpec("diverged", "BOOL", (-1,), "people whose rollout left the finite numbers"),
            TensorSpec("flags", "BYTES", (-1,), "what was done to a person's input, with commas"),
        )

    @property
    def facts(self) -> dict[str, Any]:
        twin = self._twin
        return {
            **_facts(twin),
            "tasks": {name: schedule.n_trials for name, schedule in twin.schedules.items()},
            "contrasts": {name: list(names) for name, names in twin.contrasts.items()},
            "bold_regions": list(twin.spec.bold_regions),
            "tr_s": twin.spec.tr_s,
        }

    def accept(self, asked: Asked) -> Work:
        known = _known(asked, self.parameters)
        tasks = known.get("tasks")
        names = tuple(tasks.split(",")) if tasks else tuple(self._twin.schedules)
        if len(set(names)) < len(names) or not set(names) <= set(self._twin.schedules):
            raise DTwinInputError(
                "task",
                "these are not tasks that this twin was trained on",
                field="tasks",
                wanted=",".join(self._twin.schedules),
                got=repr(str(tasks)[:80]),
                fix="Name each of them once at most",
            )
        outputs = _outputs(asked, self.outputs)
        people, missing = _people(self._twin, asked, known)
        return _work(self, How(missing, names), people, outputs, self._sizes(names))

    def _sizes(self, tasks: Sequence[str]) -> dict[str, int]:
        """Numbers of each output of a person."""
        spec = self._twin.spec
        schedules = [self._twin.schedules[name] for name in tasks]
        n_trials = sum(s.n_trials for s in schedules)
        n_regions = len(spec.bold_regions)
        return {
            "choice_prob": n_trials * spec.n_actions,
            "rt_s": n_trials,
            "contrasts": sum(len(self._twin.contrasts[name]) for name in tasks) * n_regions,
            "bold": sum(s.n_volumes(spec.tr_s) for s in schedules) * n_regions,
            "diverged": 1,
            "flags": 1,
        }

    def run(self, how: How, people: Connectomes, outputs: Sequence[str]) -> Answer:
        done = self._twin.predict(people, how.tasks, missing=how.missing, bold="bold" in outputs)
        flags = np.array([",".join(flags) for flags in done.flags], object)
        arrays = {name: flags if name == "flags" else getattr(done, name) for name in outputs}
        kept = ("model_sha256", "dtwin_fast", "backend", "isa", "precision", "missing_policy")
        return Answer(arrays, {name: done.provenance[name] for name in kept})


class Gradients:
    """A target of each person, and how it would move with each edge of their connectome."""

    parameters: dict[str, str] = {  # noqa: RUF012
        "target": f"{' | '.join(TARGETS)}, or TASK:CONTRAST:REGION",
        "unit": "r (default) or z: what the edges are in, and what the gradient is by",
        "missing": Predictions.parameters["missing"],
    }

    def __init__(self, twin: Twin, name: str) -> None:
        self.name = name
        self._twin = twin
        self.inputs: tuple[TensorSpec, ...] = (_edges(twin),)
        self.outputs: tuple[TensorSpec, ...] = (
            TensorSpec("value", "FP64", (-1,), "the target of each person"),
            TensorSpec("d_edges", "FP32", (-1, twin.spec.n_edges), "its gradient by edge"),
        )

    @property
    def facts(self) -> dict[str, Any]:
        return _facts(self._twin)

    def accept(self, asked: Asked) -> Work:
        known = _known(asked, self.parameters)
        target = known.get("target", "")
        check_target(self._twin, find_target(target))
        outputs = _outputs(asked, self.outputs)
        people, missing = _people(self._twin, asked, known)
        sizes = {"value": 1, "d_edges": people.n_edges}
        return _work(self, How(missing, target=target), people, outputs, sizes)

    def run(self, how: How, people: Connectomes, outputs: Sequence[str]) -> Answer:
        done = target_gradients(self._twin, people, how.target, missing=how.missing)
        arrays: dict[str, Array] = {"value": done.value, "d_edges": done.edges}
        parameters: dict[str, Scalar] = {
            "model_sha256": self._twin.sha256,
            "dtwin_fast": package_version(),
            "missing_policy": how.missing,
            "unit": done.unit,
        }
        return Answer({name: arrays[name] for name in outputs}, parameters)


def served_models(twin: Twin) -> dict[str, Model]:
    """Name -> model.

    Raises:
        DTwinInputError: the twin's name cannot be a part of an address (code ``model_name``).
    """
    name = twin.spec.name
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
        raise DTwinInputError(
            "model_name",
            "this name cannot be a part of an address",
            field="spec.name",
            wanted="up to 64 letters, digits, points, underscores and dashes",
            got=repr(name[:80]),
            fix="Save the twin under another name",
        )
    models: tuple[Model, ...] = (Predictions(twin, name), Gradients(twin, name + GRADIENT))
    return {model.name: model for model in models}


def joined(parts: Sequence[Connectomes]) -> Connectomes:
    """People of several requests, who have rows and no names."""
    first = parts[0]
    if len(parts) == 1:
        return first
    n_people = sum(len(part) for part in parts)
    return replace(
        first,
        edges=np.concatenate([part.edges for part in parts]),
        subjects=tuple(str(row) for row in range(n_people)),
        missing=np.concatenate([part.missing for part in parts]),
        flags=tuple(flags for part in parts for flags in part.flags),
    )


def configuration(model: Model) -> dict[str, Any]:
    """Triton's model configuration, with the facts as texts among its parameters."""
    types = {"FP32": "TYPE_FP32", "FP64": "TYPE_FP64", "BOOL": "TYPE_BOOL", "BYTES": "TYPE_STRING"}
    inputs, outputs = (
        [{"name": s.name, "data_type": types[s.datatype], "dims": list(s.shape)} for s in specs]
        for specs in (model.inputs, model.outputs)
    )
    return {
        "name": model.name,
        "platform": "dtwin_fast",
        "backend": "dtwin_fast",
        "max_batch_size": 0,
        "input": inputs,
        "output": outputs,
        "parameters": {
            name: {"string_value": json.dumps(value)} for name, value in model.facts.items()
        },
    }


def _edges(twin: Twin) -> TensorSpec:
    return TensorSpec(
        "edges",
        "FP32",
        (-1, twin.spec.n_edges),
        "(people, edges) row-major upper triangle without the diagonal, regions in the order of "
        "the metadata; NaN where a region is missing",
    )


def _facts(twin: Twin) -> dict[str, Any]:
    return {"regions": list(twin.regions), "model_sha256": twin.sha256}


def _known(asked: Asked, parameters: dict[str, str]) -> dict[str, str]:
    """The parameters of a request, all of which are texts.

    Raises:
        DTwinInputError: one that the model does not have, or no text (code ``parameter``).
    """
    known = {}
    for name, value in asked.parameters.items():
        if name not in parameters or not isinstance(value, str):
            raise DTwinInputError(
                "parameter",
                "there is no such parameter, or it is no text",
                field="parameters",
                wanted=" | ".join(parameters),
                got=repr(name[:80]),
                fix="Name one of these, with a text",
            )
        known[name] = value
    for name, values in (("unit", UNITS), ("missing", get_args(MissingPolicy))):
        if known.get(name, values[0]) not in values:
            raise DTwinInputError(
                "parameter",
                "there is no such value",
                field=name,
                wanted=" | ".join(values),
                got=repr(known[name][:80]),
                fix="Name one of these",
            )
    return known


def _outputs(asked: Asked, specs: Sequence[TensorSpec]) -> tuple[str, ...]:
    if asked.outputs is None:
        return tuple(spec.name for spec in specs)
    return tuple(dict.fromkeys(find_name(specs, name, "output").name for name in asked.outputs))


def _people(twin: Twin, asked: Asked, known: dict[str, str]) -> tuple[Connectomes, MissingPolicy]:
    missing: MissingPolicy = known.get("missing", "reject")  # type: ignore[assignment]
    if "edges" not in asked.inputs:
        raise DTwinInputError(
            "input",
            "an input is missing",
            field="inputs",
            wanted="edges",
            got="none",
            fix="Send the edges",
        )
    with no_numbers():
        people = Connectomes.from_arrays(
            asked.inputs["edges"],
            regions=twin.regions,
            is_fisher_z=known.get("unit") == "z",
            field="edges",
        )
        twin.prepare(people, missing=missing)
    return people, missing


def _work(
    model: Model, how: How, people: Connectomes, outputs: tuple[str, ...], sizes: dict[str, int]
) -> Work:
    n_values = len(people) * sum(sizes[name] for name in outputs)
    if 4 * n_values > ANSWER_BYTES:
        raise too_large(
            "outputs",
            f"an answer of at most {ANSWER_BYTES:,} bytes",
            f"{4 * n_values:,} bytes",
            "Name fewer outputs, or send fewer people at once",
        )
    return Work(model, how, people, outputs, n_values)
