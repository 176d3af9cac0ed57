"""From the main RNN's outputs to choices and reaction times, trial by trial."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

DECODED = 64 * 1024
"""Outputs that are decoded together, as many trials as they hold: what numpy does with them stays
in the cache, and a call of it is worth its time."""


class Responses(NamedTuple):
    """Predicted responses of S subjects in N trials.

    Attributes:
        choice_prob: (S,N,actions) probability of pressing each action within the window.
            Of :func:`hazard` the rest to 1 is the probability of no response; of
            :func:`sigmoid` nothing is left.
        rt_s: (S,N) mean reaction time in seconds from trial onset, given a response.
    """

    choice_prob: npt.NDArray[np.float32]
    rt_s: npt.NDArray[np.float32]


def hazard(actions: Array, windows: Array, onset_s: Array, dt_s: float) -> Responses:
    """Discrete-time competing risks.

    At each step of a trial's window the hazard of action c is
    lambda_c = exp(a_c) / (1 + sum_k exp(a_k)); P(c, t) = lambda_c(t) prod_{s<t} (1 - sum_k
    lambda_k(s)) (Allison 1982). The reaction time of step t is its middle.

    Args:
        actions: (S,T,actions) outputs of the RNN.
        windows: (N,2) first and past-the-end step of each trial's response window.
        onset_s: (N,) trial onsets in seconds.
        dt_s: step in seconds.
    """
    return _decode(_hazard_trials, actions, windows, onset_s, dt_s)


def hazard_vjp(
    actions: Array,
    windows: Array,
    onset_s: Array,
    dt_s: float,
    d_choice_prob: Array,
    d_rt_s: Array,
) -> npt.NDArray[np.float64]:
    """Gradient of ``sum(choice_prob * d_choice_prob) + sum(rt_s * d_rt_s)`` of :func:`hazard`.

    With p(c, t) the probability that action c is pressed at step t, lambda the hazards, r(t) the
    time of step t and D the probability of any press, the sum moves by sum w(c, t) dp(c, t),
    w(c, t) = d_choice_prob(c) + d_rt_s (r(t) - rt_s) / D, and

        d / da(k, s) = w(k, s) p(k, s) - lambda(k, s) sum_{t >= s} sum_c w(c, t) p(c, t),

    since an output raises its own hazard and lowers the chance to get any further.

    Args:
        actions, windows, onset_s, dt_s: as given to :func:`hazard`.
        d_choice_prob: (S,N,actions) gradient of a loss with respect to ``choice_prob``.
        d_rt_s: (S,N) the same with respect to ``rt_s``, per second.

    Returns:
        (S,T,actions) float64, 0 outside the windows; NaN for a subject without responses.
    """
    gradient = np.zeros(actions.shape)
    for trials, steps in _together(actions, windows):
        step_rt_s = _step_rt_s(steps, onset_s[trials], dt_s)
        with np.errstate(invalid="ignore"):  # see _decode
            press, hazards = _presses(_actions_first(actions[:, steps]))
            any_press = press.sum(axis=0)
            responded = any_press.sum(axis=-1)
            rt_s = (any_press * step_rt_s).sum(axis=-1) / responded
            late_s = step_rt_s - rt_s[..., None]
            slope = (d_rt_s[:, trials] / responded)[..., None] * late_s
            d_choice = np.moveaxis(d_choice_prob[:, trials], -1, 0)[..., None]
            moved = (d_choice + slope) * press
            still_to_come = moved.sum(axis=0)[..., ::-1].cumsum(axis=-1)[..., ::-1]
            of_trials = np.moveaxis(moved - hazards * still_to_come, 0, -1)
        for i, (start, stop) in enumerate(windows[trials]):  # windows may overlap
            gradient[:, start:stop] += of_trials[:, i]
    return gradient


def hazard_steps(
    actions: Array, windows: Array, onset_s: Array, dt_s: float
) -> npt.NDArray[np.float32]:
    """When :func:`hazard` presses, arguments as there.

    Steps count from the trial's onset. A step of the RNN that begins a part of a step later is
    shared between the two that it overlaps, as if all its times were equally likely.

    Returns:
        (S,N,L,actions) probability that the action is pressed within [l, l + 1) steps after the
        onset; its sum over l is ``choice_prob``. L is one more than the longest window.
    """
    n_subjects, _, n_actions = actions.shape
    longest = int((windows[:, 1] - windows[:, 0]).max())
    prob = np.zeros((n_subjects, len(windows), longest + 1, n_actions), np.float32)
    for trial, (start, stop) in enumerate(windows):
        late = max(start - onset_s[trial] / dt_s, 0.0)  # not below but for rounding
        with np.errstate(invalid="ignore"):  # a diverged subject has NaN
            press, _ = _presses(_actions_first(actions[:, start:stop]))
        press = np.moveaxis(press, 0, -1)
        prob[:, trial, : stop - start] += (1 - late) * press
        prob[:, trial, 1 : stop - start + 1] += late * press
    prob[np.isnan(prob).any(axis=(2, 3))] = np.nan
    return prob


def sigmoid(actions: Array, windows: Array, onset_s: Array, dt_s: float) -> Responses:
    """The paper's independent sigmoid units, arguments as in :func:`hazard`.

    The unit with the highest peak in the window is the choice and the time of that peak
    the reaction time (the decoding rule is not stated in the paper; presses last one step,
    so no fixed threshold fits). ``choice_prob`` holds the peaks divided by their sum.
    """
    return _decode(_sigmoid_trials, actions, windows, onset_s, dt_s)


READOUTS: dict[str, Callable[[Array, Array, Array, float], Responses]] = {
    "hazard": hazard,
    "sigmoid": sigmoid,
}
"""One decoder for each ``TwinSpec.head``."""


def _together(actions: Array, windows: Array) -> Iterator[tuple[Array, Array]]:
    """Trials (n,) whose windows are equally long, and the steps (n,L) of their windows."""
    n_subjects, _, n_actions = actions.shape
    lengths = windows[:, 1] - windows[:, 0]
    for length in np.unique(lengths):
        alike = np.flatnonzero(lengths == length)
        n = max(1, DECODED // max(1, n_subjects * length * n_actions))
        for first in range(0, len(alike), n):
            trials = alike[first : first + n]
            yield trials, windows[trials, :1] + np.arange(length)


def _step_rt_s(steps: Array, onset_s: Array, dt_s: float) -> Array:
    """The time of each of (n,L) steps since the onset (n,) of its trial, in seconds."""
    return (steps + 0.5) * dt_s - onset_s[:, None]


def _decode(
    decode: Callable[[Array, Array], tuple[Array, Array]],
    actions: Array,
    windows: Array,
    onset_s: Array,
    dt_s: float,
) -> Responses:
    n_subjects, _, n_actions = actions.shape
    choice_prob = np.empty((n_subjects, len(windows), n_actions), np.float32)
    rt_s = np.empty((n_subjects, len(windows)), np.float32)
    for trials, steps in _together(actions, windows):
        of_windows = _actions_first(actions[:, steps])
        # NaN comes out knowingly: a response that cannot happen has no reaction time (0/0),
        # and a diverged subject has no responses.
        with np.errstate(invalid="ignore"):
            step_rt_s = _step_rt_s(steps, onset_s[trials], dt_s)
            choices, rt_s[:, trials] = decode(of_windows, step_rt_s)
            choice_prob[:, trials] = np.moveaxis(choices, 0, -1)
    return Responses(choice_prob, rt_s)


def _hazard_trials(actions: Array, step_rt_s: Array) -> tuple[Array, Array]:
    """(actions,S,n,L) outputs of windows, (n,L) seconds -> (actions,S,n), (S,n)."""
    press, _ = _presses(actions)
    any_press = press.sum(axis=0)
    responded = any_press.sum(axis=-1)
    return press.sum(axis=-1), (any_press * step_rt_s).sum(axis=-1) / responded


def _actions_first(actions: Array) -> Array:
    """(...,actions) -> (actions,...) float64: a sum over so short a last axis would be slow."""
    return np.ascontiguousarray(np.moveaxis(actions, -1, 0), np.float64)


def _presses(actions: Array) -> tuple[Array, Array]:
    """(actions,...,L) outputs of windows -> P(c, t), and the hazards."""
    top = np.maximum(actions.max(axis=0), 0)
    grown = np.exp(actions - top)
    none = np.exp(-top)
    total = none + grown.sum(axis=0)
    reached = np.cumprod(none / total, axis=-1)
    reached = np.concatenate([np.ones_like(reached[..., :1]), reached[..., :-1]], axis=-1)
    hazards = grown / total
    return hazards * reached, hazards


def _sigmoid_trials(actions: Array, step_rt_s: Array) -> tuple[Array, Array]:
    """As :func:`_hazard_trials`."""
    # Peaks are found on the outputs: the sigmoid is monotone, and saturates to ties. Shares
    # are taken from its logarithm, which does not underflow.
    step = actions.argmax(axis=-1)
    peak_output = np.take_along_axis(actions, step[..., None], axis=-1)[..., 0]
    log_peak = -np.logaddexp(0, -peak_output)
    peak = np.exp(log_peak - log_peak.max(axis=0))
    share = peak / peak.sum(axis=0)
    choice = peak_output.argmax(axis=0)
    chosen = np.take_along_axis(step, choice[None], axis=0)[0]
    rt_s = step_rt_s[np.arange(len(step_rt_s)), chosen]
    return share, np.where(np.isnan(share[0]), np.nan, rt_s)
