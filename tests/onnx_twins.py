"""Twins with short runs, and sessions, for the tests of exported models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from short_runs import short_schedule

from dtwin_fast.hypernetwork import Layer
from dtwin_fast.spec import PRESETS, Head
from dtwin_fast.tasks import TASKS
from dtwin_fast.tasks.design import contrast_projection
from dtwin_fast.training import HyperNetwork
from dtwin_fast.twin import Twin

Array = npt.NDArray[Any]


def short_twin(cell: str = "rnn", head: Head = "hazard", **changes: Any) -> Twin:
    """An untrained ``tiny`` twin, constants drawn too; its runs differ in length and windows."""
    spec = replace(PRESETS["tiny"], cell=cell, head=head, **changes)
    rng = np.random.default_rng(20260729)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(20260729)
        *hidden, last = HyperNetwork(spec).numpy_layers()
    # RNNs that damp what they inherit, as trained ones do; fresh ones may amplify roundings.
    layers = (*hidden, Layer(last.weight / 2, last.bias / 2))
    n_trials = {"faces": 7, "stroop": 9}
    schedules = {
        name: short_schedule(task.make_schedule(0), n_trials[name]) for name, task in TASKS.items()
    }
    return Twin(
        spec=spec,
        regions=tuple(f"region_{i:02d}" for i in range(spec.n_regions)),
        layers=layers,
        edge_mean=rng.uniform(-0.3, 0.5, spec.n_edges).astype(np.float32),
        edge_sd=rng.uniform(0.1, 0.3, spec.n_edges).astype(np.float32),
        bold_sd=rng.uniform(0.5, 2, len(spec.bold_regions)).astype(np.float32),
        schedules=schedules,
        projections={
            name: contrast_projection(
                schedule, TASKS[name].contrasts, tr_s=spec.tr_s, dt_s=spec.dt_s
            )
            for name, schedule in schedules.items()
        },
        contrasts={name: tuple(TASKS[name].contrasts) for name in schedules},
        training={"seed": 7},
        sha256="ab" * 32,
    )


def people(twin: Twin, n: int, seed: int = 0) -> Array:
    """(n,E) float32 Pearson r."""
    rng = np.random.default_rng(seed)
    return np.tanh(rng.normal(0, 0.4, (n, twin.spec.n_edges))).astype(np.float32)


def options(n_threads: int = 1) -> Any:
    """Options of a session that says errors only."""
    import onnxruntime

    made = onnxruntime.SessionOptions()
    made.intra_op_num_threads = n_threads
    made.log_severity_level = 3
    return made


def run_model(
    model: Any, inputs: dict[str, Array], session_options: Any = None
) -> dict[str, Array]:
    """All outputs of a model in ONNX Runtime, on one thread unless told otherwise.

    Args:
        model: bytes, or the path of a file.
        inputs: by name.
        session_options: default :func:`options`.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model, session_options or options(), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))
