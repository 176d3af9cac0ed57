"""What a model computes, in float64 from end to end: the truth that roundings are measured by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..connectome import FISHER_CLIP
from ..dispatch import rollout, rollout_vjp
from ..hypernetwork import mish, mish_slope
from ..readouts import hazard_vjp
from ..twin import Twin
from ..weights import RNNWeights
from .readout import Runs

Array = npt.NDArray[Any]
_FLOAT64: dict[str, Any] = {"backend": "cpu", "precision": "float64"}


def exact_outputs(
    twin: Twin, part: str, edges: Array, given: Mapping[str, Array]
) -> tuple[dict[str, Array], Array]:
    """Outputs of a part of a twin, but for ``diverged``, and the rollout's (S,B,T,O).

    Args:
        twin: the twin.
        part: a key of ``PARTS`` of :mod:`dtwin_fast.export.to_onnx`.
        edges: (S,E) float32 Pearson r.
        given: the part's other inputs.
    """
    x = _hyper_input(twin, edges)
    flat, slopes = _generate(twin, x)
    weights = RNNWeights.from_flat(flat, twin.spec)
    inputs = np.float64(given["inputs"] if part == "rollout" else twin.encode(list(twin.schedules)))
    outputs = rollout(weights, inputs, **_FLOAT64).outputs
    if part == "hypernetwork":
        return {"weights": flat}, outputs
    if part == "rollout":
        return {"outputs": outputs}, outputs
    read = read_outputs(twin, outputs)
    if part == "twin":
        return read, outputs
    read.pop("bold", None)
    d_outputs = cotangent(twin, outputs, given).astype(np.float64)
    d_weights = rollout_vjp(weights, inputs, d_outputs, **_FLOAT64).weights
    return {**read, "d_edges": _edge_gradients(twin, edges, slopes, d_weights.to_flat())}, outputs


def read_outputs(twin: Twin, outputs: Array) -> dict[str, Array]:
    """What ``twin`` says but for who diverged, of a rollout's outputs (S,B,T,O)."""
    runs = [twin.read_run(task, outputs[:, b]) for b, task in enumerate(twin.schedules)]
    rows = outputs.reshape(len(outputs), -1, twin.spec.n_outputs)
    read = {
        "choice_prob": np.concatenate([responses.choice_prob for responses, _ in runs], axis=1),
        "rt_s": np.concatenate([responses.rt_s for responses, _ in runs], axis=1),
    }
    if twin.spec.bold_regions:
        read["bold"] = rows[:, Runs.of(twin).volumes, twin.spec.n_actions :]
        read["contrasts"] = np.concatenate([effects for _, effects in runs], axis=1)
    return read


def peak_gap(twin: Twin, outputs: Array, rt_s: Array) -> Array:
    """(S,N) how far below its window's peak the largest action output at ``rt_s`` is."""
    runs = Runs.of(twin)
    actions = outputs.reshape(len(outputs), -1, twin.spec.n_outputs)[..., : twin.spec.n_actions]
    window = actions.max(axis=2)[:, runs.steps]
    step = np.abs(runs.step_rt_s - rt_s[..., None]).argmin(axis=2)
    gap: Array = window.max(axis=2) - np.take_along_axis(window, step[..., None], axis=2)[..., 0]
    return gap


def cotangent(twin: Twin, outputs: Array, given: Mapping[str, Array]) -> Array:
    """(S,B,T,O) gradient of what ``vjp`` is given, with respect to the rollout's outputs."""
    gradient = np.zeros(outputs.shape, outputs.dtype)
    trial = row = 0
    for b, (task, schedule) in enumerate(twin.schedules.items()):
        run = gradient[:, b, : schedule.n_steps(twin.spec.dt_s)]
        n_rows = len(twin.contrasts[task])
        if twin.spec.bold_regions:
            rows = given["d_contrasts"][:, row : row + n_rows]
            run[:, :, twin.spec.n_actions :] = np.matmul(twin.projections[task].T, rows)
        trials = slice(trial, trial + schedule.n_trials)
        if twin.spec.head == "hazard":
            run[:, :, : twin.spec.n_actions] = hazard_vjp(
                outputs[:, b, : run.shape[1], : twin.spec.n_actions],
                schedule.response_windows(twin.spec.dt_s),
                schedule.onset_s,
                twin.spec.dt_s,
                given["d_choice_prob"][:, trials],
                given["d_rt_s"][:, trials],
            )
        trial, row = trials.stop, row + n_rows
    return gradient


def _hyper_input(twin: Twin, edges: Array) -> Array:
    clip = np.float32(FISHER_CLIP)
    x = np.arctanh(np.clip(edges, -clip, clip).astype(np.float64))
    return (x - twin.edge_mean) / twin.edge_sd if twin.spec.standardize else x


def _generate(twin: Twin, x: Array) -> tuple[Array, list[Array]]:
    """(S,P) flat weights, and the slopes of the hidden layers."""
    slopes: list[Array] = []
    for i, layer in enumerate(twin.layers):
        if i:
            slopes.append(mish_slope(x))
            x = mish(x)
        x = x @ layer.weight.T.astype(np.float64) + layer.bias
    return x, slopes


def _edge_gradients(twin: Twin, edges: Array, slopes: list[Array], d_flat: Array) -> Array:
    d = d_flat
    for i in reversed(range(len(twin.layers))):
        d = d @ twin.layers[i].weight.astype(np.float64)
        if i:
            d = d * slopes[i - 1]
    if twin.spec.standardize:
        d = d / twin.edge_sd
    r = edges.astype(np.float64)
    inside = np.abs(edges) <= np.float32(FISHER_CLIP)
    return np.divide(d, (1 - r) * (1 + r), out=np.zeros_like(d), where=inside)
