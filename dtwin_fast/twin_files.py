"""From a model folder to a twin; ``Twin.save`` is the way back."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any

from .files import as_path
from .hypernetwork import Layer, layer_sizes
from .model_files import read_config, read_weights
from .spec import TwinSpec
from .tasks.schedule import Schedule
from .twin import Twin
from .twin_parts import check_tasks, content_error, tensor_shapes


def load(path: str | Path) -> Twin:
    """Load a model folder.

    Raises:
        DTwinInputError: not a model folder, another version, a wrong SHA-256, tensors
            that do not fit the config, NaN weights (codes ``model_*``, ``file_*``,
            ``region_*``, ``spec``, ``cell``, ``schedule``, ``argument``).
    """
    folder = as_path(path, field="path")
    config = read_config(folder)
    spec = TwinSpec.from_dict(_typed(config, "spec", dict))
    tasks, lists = _typed(config, "tasks", dict), _typed(config, "contrasts", dict)
    schedules = {name: Schedule.from_dict(_typed(tasks, name, dict)) for name in tasks}
    contrasts = {name: tuple(_typed(lists, name, list)) for name in lists}
    check_tasks(spec, schedules, contrasts)
    sha256 = _typed(config, "weights_sha256", str)
    tensors = read_weights(folder, tensor_shapes(spec, schedules, contrasts), sha256)
    return Twin(
        spec=spec,
        regions=tuple(_typed(config, "regions", list)),
        layers=tuple(
            Layer(tensors[f"hyper.{i}.weight"], tensors[f"hyper.{i}.bias"])
            for i in range(len(layer_sizes(spec)))
        ),
        edge_mean=tensors["edge_mean"],
        edge_sd=tensors["edge_sd"],
        bold_sd=tensors["bold_sd"],
        schedules=schedules,
        projections={name: tensors[f"projection.{name}"] for name in schedules},
        contrasts=contrasts,
        training=_typed(config, "training", dict),
        sha256=sha256,
    )


def _typed(config: dict[str, Any], key: str, kind: type) -> Any:
    if not isinstance(config.get(key), kind):
        raise content_error(
            key, "is missing or ill-typed", wanted=kind.__name__, got=reprlib.repr(config.get(key))
        )
    return config[key]
