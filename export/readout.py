"""From outputs to choices, reaction times, BOLD and contrasts as ONNX nodes, and back.

All runs of a twin are read at once: a step of sequence b is row b*T + step of the outputs with the
first two of their axes after S joined. Times and probabilities are computed in float64, as
:mod:`dtwin_fast.readouts` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..spec import TwinSpec
from ..twin import Twin
from .nodes import Nodes


@dataclass(frozen=True, eq=False)
class Runs:
    """Where a twin's runs are read.

    Attributes:
        spec: of the twin.
        shape: (B,T) of its inputs.
        steps: (N,L) int64 rows of each trial's response window; a window shorter than L repeats
            its last step.
        inside: (N,L) float64 0 at those repeated steps, else 1.
        step_rt_s: (N,L) float64 the middle of each step, from its trial's onset.
        volumes: (V,) int64 rows of the volumes.
        projection: (B,K,T) float32 rows of contrasts, zero in other tasks' sequences.
        sequence: (K,) int64 the sequence of each contrast.
    """

    spec: TwinSpec
    shape: tuple[int, int]
    steps: npt.NDArray[np.int64]
    inside: npt.NDArray[np.float64]
    step_rt_s: npt.NDArray[np.float64]
    volumes: npt.NDArray[np.int64]
    projection: npt.NDArray[np.float32]
    sequence: npt.NDArray[np.int64]

    @classmethod
    def of(cls, twin: Twin) -> Runs:
        """Those of all tasks of a twin, in its order."""
        spec = twin.spec
        n_steps = max(s.n_steps(spec.dt_s) for s in twin.schedules.values())
        windows, onsets, volumes, sequence = [], [], [], []
        for b, (task, schedule) in enumerate(twin.schedules.items()):
            windows.append(schedule.response_windows(spec.dt_s) + b * n_steps)
            onsets.append(schedule.onset_s + b * n_steps * spec.dt_s)
            volumes.append(schedule.volume_steps(spec.tr_s, spec.dt_s) + b * n_steps)
            sequence += [b] * len(twin.contrasts[task])
        first, stop = np.concatenate(windows).T[:, :, None]
        steps = first + np.arange((stop - first).max())
        projection = np.zeros((len(twin.schedules), len(sequence), n_steps), np.float32)
        for row, p in enumerate(p for task in twin.schedules for p in twin.projections[task]):
            projection[sequence[row], row, : len(p)] = p
        return cls(
            spec=spec,
            shape=(len(twin.schedules), n_steps),
            steps=np.minimum(steps, stop - 1),
            inside=(steps < stop).astype(np.float64),
            step_rt_s=(steps + 0.5) * spec.dt_s - np.concatenate(onsets)[:, None],
            volumes=np.concatenate(volumes),
            projection=projection,
            sequence=np.array(sequence, np.int64),
        )

    @property
    def n_rows(self) -> int:
        """B*T."""
        return self.shape[0] * self.shape[1]


def flat_outputs(g: Nodes, runs: Runs, outputs: str) -> str:
    """(S,B*T,O) of (S,B,T,O); sequences and steps beyond the twin's own are left out."""
    own = g.part(outputs, [0, 0], runs.shape, 1, 2)
    return g("Reshape", own, g.constant([0, runs.n_rows, runs.spec.n_outputs]))


def window_outputs(g: Nodes, runs: Runs, flat: str) -> str:
    """(S,N,L,actions) float64 what the actions' outputs are in each trial's window."""
    from onnx import TensorProto

    actions = g.part(flat, [0], [runs.spec.n_actions], 2)
    return g("Cast", g("Gather", actions, g.constant(runs.steps), axis=1), to=TensorProto.DOUBLE)


def bold_series(g: Nodes, runs: Runs, flat: str) -> str:
    """(S,B*T,regions)."""
    return g.part(flat, [runs.spec.n_actions], [runs.spec.n_outputs], 2)


def volumes(g: Nodes, runs: Runs, flat: str) -> str:
    """(S,V,regions) BOLD at the volumes."""
    return g("Gather", bold_series(g, runs, flat), g.constant(runs.volumes), axis=1)


def contrasts(g: Nodes, runs: Runs, flat: str, projection: str) -> str:
    """(S,K,regions); ``projection`` names that of ``runs``."""
    (n_sequences, n_steps), n_contrasts = runs.shape, len(runs.sequence)
    regions = len(runs.spec.bold_regions)
    by_run = g("Reshape", bold_series(g, runs, flat),
               g.constant([0, n_sequences, n_steps, regions]))  # fmt: skip
    effects = g("Reshape", g("MatMul", projection, by_run),
                g.constant([0, n_sequences * n_contrasts, regions]))  # fmt: skip
    own = runs.sequence * n_contrasts + np.arange(n_contrasts)
    return g("Gather", effects, g.constant(own), axis=1)


def contrasts_vjp(g: Nodes, runs: Runs, d_contrasts: str, projection: str) -> str:
    """(S,B*T,regions) gradient of BOLD of ``d_contrasts`` (S,K,regions)."""
    d = g("MatMul", g.transpose(projection, 0, 2, 1), g.insert_axes(d_contrasts, 1))
    return g("Reshape", d, g.constant([0, runs.n_rows, len(runs.spec.bold_regions)]))


@dataclass(frozen=True)
class Presses:
    """Names of what the hazard head is computed from, axes (S,N,L,actions) or (S,N,L,1).

    ``prob`` is P(c, t), 0 outside the window; ``any`` its sum over actions; ``responded`` (S,N,1,1)
    the sum of that; ``rt_s`` (S,N,1,1).
    """

    prob: str
    hazards: str
    any: str
    responded: str
    rt_s: str


def presses(g: Nodes, runs: Runs, a: str) -> Presses:
    """What :func:`dtwin_fast.readouts.hazard` computes of ``a`` (S,N,L,actions)."""
    double = np.float64
    top = g("Max", g("ReduceMax", a, axes=[3], keepdims=1), g.constant(0, double))
    grown = g("Exp", g("Sub", a, top))
    total = g("Add", g("Exp", g("Neg", top)), g.total(grown, 3, keep=True))
    # ONNX has no product along an axis: the logarithm's sum in its place.
    stay = g("Neg", g("Add", top, g("Log", total)))
    reached = g("Exp", g("CumSum", stay, g.constant(2), exclusive=1))
    hazards = g("Div", grown, total)
    inside = g.constant(runs.inside[:, :, None], double)
    prob = g("Mul", g("Mul", hazards, reached), inside)
    any_press = g.total(prob, 3, keep=True)
    responded = g.total(any_press, 2, keep=True)
    late = g("Mul", any_press, g.constant(runs.step_rt_s[:, :, None], double))
    rt_s = g("Div", g.total(late, 2, keep=True), responded)
    return Presses(prob, hazards, any_press, responded, rt_s)


def read_presses(g: Nodes, found: Presses) -> tuple[str, str]:
    """float64 choice_prob (S,N,actions) and rt_s (S,N)."""
    return g.total(found.prob, 2), g("Squeeze", found.rt_s, g.constant([2, 3]))


def hazard(g: Nodes, runs: Runs, a: str) -> tuple[str, str]:
    """float64 choice_prob (S,N,actions) and rt_s (S,N) of :func:`dtwin_fast.readouts.hazard`."""
    return read_presses(g, presses(g, runs, a))


def hazard_vjp(g: Nodes, runs: Runs, found: Presses, d_choice_prob: str, d_rt_s: str) -> str:
    """(S,B*T,actions) float32 what :func:`dtwin_fast.readouts.hazard_vjp` returns.

    ``d_choice_prob`` (S,N,actions) and ``d_rt_s`` (S,N) are float32.
    """
    from onnx import TensorProto

    double = TensorProto.DOUBLE
    step_rt_s = g.constant(runs.step_rt_s[:, :, None], np.float64)
    late = g("Sub", step_rt_s, found.rt_s)
    d_rt = g.insert_axes(g("Cast", d_rt_s, to=double), 2, 3)
    slope = g("Mul", g("Div", d_rt, found.responded), late)
    d_choice = g.insert_axes(g("Cast", d_choice_prob, to=double), 2)
    moved = g("Mul", g("Add", d_choice, slope), found.prob)
    still_to_come = g("CumSum", g.total(moved, 3, keep=True), g.constant(2), reverse=1)
    # Repeated steps say nothing: their part of the gradient is none.
    inside = g.constant(runs.inside[:, :, None], np.float64)
    d = g("Mul", g("Sub", moved, g("Mul", found.hazards, still_to_come)), inside)
    d_rows = g("Cast", g.transpose(d, 1, 2, 0, 3), to=TensorProto.FLOAT)  # (N,L,S,actions)
    n_actions = runs.spec.n_actions
    sizes = g("Concat", g.constant([runs.n_rows]), g("Shape", d_choice_prob, start=0, end=1),
              g.constant([n_actions]), axis=0)  # fmt: skip
    rows = g("ScatterND", g("ConstantOfShape", sizes), g.constant(runs.steps[:, :, None]), d_rows,
             reduction="add")  # fmt: skip
    return g.transpose(rows, 1, 0, 2)


def no_actions(g: Nodes, runs: Runs, flat: str) -> str:
    """(S,B*T,actions) float32 zeros, S as of ``flat``."""
    sizes = g("Concat", g("Shape", flat, start=0, end=1),
              g.constant([runs.n_rows, runs.spec.n_actions]), axis=0)  # fmt: skip
    return g("ConstantOfShape", sizes)


def sigmoid(g: Nodes, runs: Runs, a: str) -> tuple[str, str]:
    """float64 choice_prob (S,N,actions) and rt_s (S,N) of :func:`dtwin_fast.readouts.sigmoid`."""
    zero, double = g.constant(0, np.float64), np.float64
    # The first of equal values is taken, so never a repeated step.
    step = g("ArgMax", a, axis=2, keepdims=0)
    peak_output = g("ReduceMax", a, axes=[2], keepdims=0)
    small = g("Exp", g("Neg", g("Abs", peak_output)))
    log_peak = g(
        "Sub", g("Min", peak_output, zero), g("Log", g("Add", small, g.constant(1, double)))
    )
    peak = g("Exp", g("Sub", log_peak, g("ReduceMax", log_peak, axes=[2], keepdims=1)))
    share = g("Div", peak, g.total(peak, 2, keep=True))
    choice = g("ArgMax", peak_output, axis=2, keepdims=1)
    n_trials, length = runs.steps.shape
    trial_rows = g.constant(length * np.arange(n_trials)[:, None])
    times = g("Gather", g.constant(runs.step_rt_s.ravel(), double), g("Add", step, trial_rows))
    rt_s = g("Squeeze", g("GatherElements", times, choice, axis=2), g.constant([2]))
    nan = g("IsNaN", g.total(share, 2))
    return share, g("Where", nan, g.constant(np.nan, double), rt_s)


READOUT_NODES: dict[str, Callable[[Nodes, Runs, str], tuple[str, str]]] = {
    "hazard": hazard,
    "sigmoid": sigmoid,
}
"""One for each of ``dtwin_fast.readouts.READOUTS``."""
