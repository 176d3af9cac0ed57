"""The main RNN of the staged recipe: fast units that act, chains of slow units that become BOLD.

A haemodynamic response is a delay and a smoothing of seconds, and gradients over 262 steps find
that slowly and overfit it quickly. So it is put into the weights: every chain takes a mixture of
the fast units and passes it through five leaky integrators, linear as long as it is small (a
gamma response, Boynton et al. 1996), and BOLD is read from the chains alone. It is an ordinary
tanh RNN all the same, and the engine runs it as such.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ..spec import TwinSpec
from ..weights import spec_weight_shapes

Float64 = npt.NDArray[np.float64]

CHAIN_UNITS, CHAIN_TAU_S = 5, 1.8
"""Five integrators of 1.8 s each hold Glover's response but for 0.6 % of its energy."""
_CHAIN_GAIN = 0.3
"""What a chain is driven with per SD of its mixture: tanh stays linear to a few percent."""
_LONGEST_MEMORY_S = 1.0
_INPUT_GAIN, _RECURRENT_GAIN, _BIAS_SD = 1.5, 0.7, 0.5
_RARE = -3.0
"""Bias of the actions: logit of a press in one step before anything was learnt."""


def n_chains(spec: TwinSpec) -> int:
    """Chains of an RNN of ``spec``: one for every eight units, none without BOLD."""
    return spec.n_hidden // 8 if spec.bold_regions else 0


def n_fast(spec: TwinSpec) -> int:
    """Fast units: those that are in no chain."""
    return spec.n_hidden - CHAIN_UNITS * n_chains(spec)


def fast_start(spec: TwinSpec, rng: np.random.Generator) -> dict[str, npt.NDArray[np.float32]]:
    """First weights of the fast units, a network of its own with the action outputs.

    Random, a third without memory and the others leaky with time constants up to a second.
    What drives a leaky unit is scaled so that its variance is that of the others; the task flag
    and the bias, which never change, are scaled more, or they would saturate it.
    """
    n_units = n_fast(spec)
    tau_s = np.geomspace(spec.dt_s, _LONGEST_MEMORY_S, n_units)
    leak = np.exp(-spec.dt_s / tau_s)
    leak[: n_units // 3] = 0
    scale, steady = np.sqrt(1 - leak**2), 1 - leak
    w_ih = _INPUT_GAIN * scale[:, None] * rng.standard_normal((n_units, spec.n_inputs))
    w_ih[:, -1] *= steady / (_INPUT_GAIN * scale)
    w_hh = rng.standard_normal((n_units, n_units))
    w_hh *= _RECURRENT_GAIN / math.sqrt(n_units) * scale[:, None]
    np.fill_diagonal(w_hh, leak)
    w_out = rng.standard_normal((spec.n_actions, n_units)) / math.sqrt(n_units)
    parts = {
        "w_ih": w_ih,
        "w_hh": w_hh,
        "b_ih": _BIAS_SD * steady * rng.standard_normal(n_units),
        "b_hh": np.zeros(n_units),
        "w_out": w_out,
        "b_out": np.full(spec.n_actions, _RARE),
    }
    return {name: part.astype(np.float32) for name, part in parts.items()}


def whole(
    spec: TwinSpec, fast: dict[str, npt.NDArray[np.float32]], mixtures: Float64
) -> dict[str, npt.NDArray[np.float32]]:
    """The weights of the whole RNN, its BOLD outputs still zero.

    Args:
        spec: sizes.
        fast: weights of the fast units, as :func:`fast_start` gives them.
        mixtures: (chains, fast units) what each chain takes, of unit variance over time.
    """
    n_units = n_fast(spec)
    parts = {name: np.zeros(s, np.float32) for name, s in spec_weight_shapes(spec).items()}
    for name, part in fast.items():
        rows = slice(spec.n_actions if name in ("w_out", "b_out") else n_units)
        columns = slice(part.shape[1]) if part.ndim == 2 else None
        parts[name][rows if columns is None else (rows, columns)] = part
    leak = math.exp(-spec.dt_s / CHAIN_TAU_S)
    for chain, mixture in enumerate(mixtures):
        first = n_units + CHAIN_UNITS * chain
        units = np.arange(first, first + CHAIN_UNITS)
        parts["w_hh"][units, units] = leak
        parts["w_hh"][units[1:], units[:-1]] = 1 - leak
        parts["w_hh"][first, :n_units] = _CHAIN_GAIN * (1 - leak) * mixture
    return parts


def places(spec: TwinSpec) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where weights lie among the P of the whole RNN.

    Returns:
        Those of the fast units, in the flat order of their own network; and those that read
        BOLD from the chains, w_out (regions, chain units) then b_out (regions,).
    """
    n_units, n_actions = n_fast(spec), spec.n_actions
    number: dict[str, npt.NDArray[np.int64]] = {}
    start = 0
    for name, shape in spec_weight_shapes(spec).items():
        number[name] = np.arange(start, start + math.prod(shape)).reshape(shape)
        start += math.prod(shape)
    fast = [
        number["w_ih"][:n_units],
        number["w_hh"][:n_units, :n_units],
        number["b_ih"][:n_units],
        number["b_hh"][:n_units],
        number["w_out"][:n_actions, :n_units],
        number["b_out"][:n_actions],
    ]
    bold = [number["w_out"][n_actions:, n_units:], number["b_out"][n_actions:]]
    return (
        np.concatenate([part.ravel() for part in fast]),
        np.concatenate([part.ravel() for part in bold]),
    )
