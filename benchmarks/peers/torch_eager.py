"""torch without a compiler, in two forms.

``torch-eager`` is the loop that most people write: it indexes the time axis and projects the
input inside the loop. ``torch-unbind`` is ``dtwin_fast.reference``, the strongest eager form we
know: input projection before the loop, unbind, baddbmm, time projection on the states.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ...cells import CELLS
from ..cases import Case
from ..problem import Prepare
from .torch_calls import prepare_torch


def why_not(case: Case) -> str | None:
    """Always None: the verification needs torch, so it is there."""
    return None


def variants(case: Case, op: str) -> dict[str, Prepare]:
    """``torch-eager`` and ``torch-unbind``."""
    return {
        "torch-eager": partial(prepare_torch, op=op, forward=plain_loop),
        "torch-unbind": partial(prepare_torch, op=op, forward=unbound),
    }


def plain_loop(case: Case, weights: Any, inputs: Any, h0: Any, projection: Any) -> Any:
    """One bmm for the input and one for the state at each step, one for the readout."""
    import torch

    w_ih, w_hh, w_out = (weights[name].mT for name in ("w_ih", "w_hh", "w_out"))
    b_ih, b_hh, b_out = (weights[name][:, None] for name in ("b_ih", "b_hh", "b_out"))
    state, steps = h0, []
    for t in range(case.T):
        x = inputs[:, :, t] @ w_ih + b_ih
        state = CELLS[case.cell].pointwise(x, state[0] @ w_hh + b_hh, state)
        steps.append(state[0])
    states = torch.stack(steps, 2)
    outputs = (states.flatten(1, 2) @ w_out + b_out).unflatten(1, (case.B, case.T))
    return outputs if projection is None else projection @ outputs


def unbound(case: Case, weights: Any, inputs: Any, h0: Any, projection: Any) -> Any:
    """``dtwin_fast.reference.rollout``."""
    from ...reference import rollout

    state = h0 if len(h0) > 1 else h0[0]
    return rollout(case.cell, weights, inputs, state, time_projection=projection).outputs
