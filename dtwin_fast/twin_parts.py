"""What must fit a twin: its tasks, the shapes of its tensors, gradients of its weights."""

from __future__ import annotations

from typing import Any

from .errors import DTwinInputError
from .hypernetwork import layer_sizes
from .spec import N_INPUTS, TwinSpec
from .tasks import TASKS
from .tasks.schedule import Schedule
from .weights import RNNWeights


def check_tasks(
    spec: TwinSpec, schedules: dict[str, Schedule], contrasts: dict[str, tuple[str, ...]]
) -> None:
    """Check schedules and names of contrasts against the tasks of this version.

    Raises:
        DTwinInputError: code ``model_content``.
    """
    if not schedules or set(schedules) != set(contrasts) or not set(schedules) <= set(TASKS):
        raise content_error(
            "tasks", "are not tasks of this version with their contrasts", wanted=" | ".join(TASKS)
        )
    if not all(isinstance(c, str) and c for names in contrasts.values() for c in names):
        raise content_error("contrasts", "holds more than names")
    for name, schedule in schedules.items():
        fits = (
            schedule.task == name
            and schedule.stimulus.shape[1] == spec.n_inputs - 1 == N_INPUTS - 1
            and schedule.correct.max() < spec.n_actions == len(TASKS[name].action_names)
            and schedule.response_windows(spec.dt_s).max() <= schedule.n_steps(spec.dt_s)
        )
        if not fits:
            raise content_error(
                f"tasks.{name}",
                "has other inputs, actions or response windows than the task and the network",
                wanted=f"{N_INPUTS} inputs, {len(TASKS[name].action_names)} actions, "
                "windows within the run",
            )


def tensor_shapes(
    spec: TwinSpec, schedules: dict[str, Schedule], contrasts: dict[str, tuple[str, ...]]
) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of a twin, as they are named in its weights file."""
    shapes: dict[str, tuple[int, ...]] = {
        "edge_mean": (spec.n_edges,),
        "edge_sd": (spec.n_edges,),
        "bold_sd": (len(spec.bold_regions),),
    }
    for i, (n_in, n_out) in enumerate(layer_sizes(spec)):
        shapes[f"hyper.{i}.weight"] = (n_out, n_in)
        shapes[f"hyper.{i}.bias"] = (n_out,)
    for name, schedule in schedules.items():
        shapes[f"projection.{name}"] = (len(contrasts[name]), schedule.n_steps(spec.dt_s))
    return shapes


def check_gradient(d_weights: Any, spec: TwinSpec) -> None:
    """Check that gradients have the cell and the sizes of a twin's weights.

    Raises:
        DTwinInputError: codes ``weights``, ``shape``.
    """
    if not isinstance(d_weights, RNNWeights):
        raise gradient_error("RNNWeights", type(d_weights).__name__, code="weights")
    got = (d_weights.cell, d_weights.n_inputs, d_weights.n_hidden, d_weights.n_outputs)
    wanted = (spec.cell, spec.n_inputs, spec.n_hidden, spec.n_outputs)
    if got != wanted:
        sizes = "{}, I {}, H {}, O {}"
        raise gradient_error(sizes.format(*wanted), sizes.format(*got))


def gradient_error(wanted: str, got: str, *, code: str = "shape") -> DTwinInputError:
    """The error of gradients that do not fit the weights that a twin makes of its input."""
    return DTwinInputError(
        code,
        "these are not gradients of the weights that this twin makes of this input",
        field="d_weights",
        wanted=wanted,
        got=got,
        fix="Give rollout_vjp(...).weights at personalize(...) of the same input and policies",
    )


def content_error(
    field_name: str, what: str, *, wanted: str = "", got: str = ""
) -> DTwinInputError:
    """The error of a part that does not fit (code ``model_content``)."""
    return DTwinInputError(
        "model_content",
        f"this part of the model {what}",
        field=field_name,
        wanted=wanted,
        got=got,
        fix="Copy the model folder again from its source, or train it again",
    )
