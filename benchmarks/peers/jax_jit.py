"""JAX under jit: lax.scan over the steps of one subject, by vmap and by lax.map over subjects.

Input projection before the scan and readout after it. Under a time projection both are there:
``jax-vmap`` and ``jax-map`` make the whole BOLD and then project it; ``-projected`` ones project
the states first, as the engine does. XLA takes its threads from the cores that the process may use.
"""

from __future__ import annotations

import importlib.util
from functools import partial
from typing import Any

from ..cases import Case
from ..problem import Call, Prepare, Problem, gradient_names


def why_not(case: Case) -> str | None:
    """The reason why this cannot run, or None."""
    return None if importlib.util.find_spec("jax") else "jax is not installed"


def variants(case: Case, op: str) -> dict[str, Prepare]:
    """``jax-vmap`` and ``jax-map``, and ``-projected`` forms of both."""
    return {
        f"jax-{over}{'-projected' * first}": partial(
            _prepare, op=op, over=over, project_first=first
        )
        for over in ("vmap", "map")
        for first in ((False, True) if case.K else (False,))
    }


def _prepare(problem: Problem, *, op: str, over: str, project_first: bool) -> Call:
    import jax

    one = partial(
        _roll_one,
        cell=problem.case.cell,
        projection=problem.projection,
        project_first=project_first,
    )

    def forward(*arguments: Any) -> Any:
        if over == "vmap":
            return jax.vmap(one)(*arguments)
        return jax.lax.map(lambda subject: one(*subject), arguments)

    def loss(arguments: Any, d_outputs: Any) -> Any:
        return jax.numpy.vdot(forward(*arguments), d_outputs)

    arguments = jax.device_put(
        (tuple(problem.weight_arrays.values()), problem.inputs, problem.h0), jax.devices("cpu")[0]
    )
    if op == "fwd":
        compiled = jax.jit(forward).lower(*arguments).compile()
        return Call(
            lambda: jax.block_until_ready(compiled(*arguments)),
            lambda outputs: {"outputs": _array(outputs)},
        )
    d_outputs = jax.device_put(problem.d_outputs, jax.devices("cpu")[0])
    gradient = jax.jit(jax.grad(loss)).lower(arguments, d_outputs).compile()
    names = gradient_names(problem.case)
    return Call(
        lambda: jax.block_until_ready(gradient(arguments, d_outputs)),
        lambda found: dict(zip(names, map(_array, jax.tree.leaves(found)), strict=True)),
    )


def _array(value: Any) -> Any:
    import numpy as np

    return np.asarray(value)


def _roll_one(
    weights: Any, inputs: Any, h0: Any, *, cell: str, projection: Any, project_first: bool
) -> Any:
    """One subject: inputs (B,T,I), h0 parts (B,H) -> (B,T,O) or (B,K,O)."""
    import jax

    w_ih, w_hh, b_ih, b_hh, w_out, b_out = weights
    x = (inputs @ w_ih.T + b_ih).swapaxes(0, 1)

    def step(state: Any, x_t: Any) -> tuple[Any, Any]:
        state = POINTWISE[cell](x_t, state[0] @ w_hh.T + b_hh, state)
        return state, state[0]

    _, states = jax.lax.scan(step, h0, x)
    states = states.swapaxes(0, 1)
    if projection is None:
        return states @ w_out.T + b_out
    if project_first:
        return projection @ states @ w_out.T + projection.sum(1, keepdims=True) * b_out
    return projection @ (states @ w_out.T + b_out)


def _rnn(x: Any, h: Any, state: tuple[Any, ...]) -> tuple[Any, ...]:
    from jax.numpy import tanh

    return (tanh(x + h),)


def _gru(x: Any, h: Any, state: tuple[Any, ...]) -> tuple[Any, ...]:
    from jax.nn import sigmoid
    from jax.numpy import split, tanh

    (x_r, x_z, x_n), (h_r, h_z, h_n) = split(x, 3, -1), split(h, 3, -1)
    z, n = sigmoid(x_z + h_z), tanh(x_n + sigmoid(x_r + h_r) * h_n)
    return (n + z * (state[0] - n),)


def _lstm(x: Any, h: Any, state: tuple[Any, ...]) -> tuple[Any, ...]:
    from jax.nn import sigmoid
    from jax.numpy import split, tanh

    i, f, g, o = split(x + h, 4, -1)
    c = sigmoid(f) * state[1] + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


POINTWISE = {"rnn": _rnn, "gru": _gru, "lstm": _lstm}
