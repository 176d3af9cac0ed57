"""JAX under jit: lax.scan over the steps of one subject, in three forms over the subjects.

``jax-vmap`` and ``jax-map`` leave the cores to XLA, which takes its threads from those that the
process may use. ``jax-shard`` has one host device per core, each with lax.map over its own share
of the subjects, which lies there before the call.

Input projection before the scan and readout after it. Under a time projection each form makes the
whole BOLD and then projects it; its ``-projected`` twin projects the states first, as the engine
does.
"""

from __future__ import annotations

import importlib.util
from contextlib import suppress
from functools import partial
from typing import Any

from ...errors import BackendUnavailableError
from ..cases import Case
from ..problem import Call, Prepare, Problem, gradient_names
from ..threads import count_threads


def why_not(case: Case) -> str | None:
    """The reason why this cannot run, or None."""
    return None if importlib.util.find_spec("jax") else "jax is not installed"


def variants(case: Case, op: str) -> dict[str, Prepare]:
    """``jax-vmap``, ``jax-map`` and ``jax-shard``, and ``-projected`` forms of them."""
    return {
        f"jax-{over}{'-projected' * first}": partial(
            _prepare, op=op, over=over, project_first=first
        )
        for over in ("vmap", "map", "shard")
        for first in ((False, True) if case.K else (False,))
    }


def _prepare(problem: Problem, *, op: str, over: str, project_first: bool) -> Call:
    import jax
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    devices = _start()
    one = partial(
        roll_one,
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

    where: Any = devices[0]
    function = forward if op == "fwd" else jax.grad(loss)
    if over == "shard":
        _check_divides(problem.case.S, devices)
        mesh, each = Mesh(devices, ("subjects",)), PartitionSpec("subjects")
        where = NamedSharding(mesh, each)
        # Its check does not know that a scan's carry is sharded as the arguments are.
        function = jax.shard_map(
            function, mesh=mesh, in_specs=each, out_specs=each, check_vma=False
        )
    arrays = (tuple(problem.weight_arrays.values()), problem.inputs, problem.h0)
    arguments = jax.device_put(arrays, where)
    if op == "fwd":
        compiled = jax.jit(function).lower(*arguments).compile()
        return Call(
            lambda: jax.block_until_ready(compiled(*arguments)),
            lambda outputs: {"outputs": _array(outputs)},
        )
    d_outputs = jax.device_put(problem.d_outputs, where)
    gradient = jax.jit(function).lower(arguments, d_outputs).compile()
    names = gradient_names(problem.case)
    return Call(
        lambda: jax.block_until_ready(gradient(arguments, d_outputs)),
        lambda found: dict(zip(names, map(_array, jax.tree.leaves(found)), strict=True)),
    )


def _start() -> list[Any]:
    """Host devices, one per core; the two unsharded forms use the first, with XLA's threads."""
    import jax

    # Too late where the process has used JAX before: it keeps the devices that it has.
    with suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", count_threads())
    devices: list[Any] = jax.devices("cpu")[: count_threads()]
    return devices


def _check_divides(n_subjects: int, devices: list[Any]) -> None:
    """shard_map wants equal shares, and a core without a device would stand idle."""
    if len(devices) < count_threads():
        reason = f"JAX has started with {len(devices)} host devices for {count_threads()} cores"
        raise BackendUnavailableError(reason)
    if n_subjects % len(devices):
        reason = f"{n_subjects} subjects are no equal shares for {len(devices)} cores"
        raise BackendUnavailableError(reason)


def _array(value: Any) -> Any:
    import numpy as np

    return np.asarray(value)


def roll_one(
    weights: Any, inputs: Any, h0: Any, *, cell: str, projection: Any, project_first: bool
) -> Any:
    """One subject: inputs (B,T,I), h0 parts (B,H) -> (B,T,O) or (B,K,O)."""
    import jax

    w_ih, w_hh, b_ih, b_hh, w_out, b_out = weights
    x = (inputs @ w_ih.T + b_ih).swapaxes(0, 1)

    def step(state: Any, x_t: Any) -> tuple[Any, Any]:
        state = POINTWISE[cell](x_t, state[0] @ w_hh.T, b_hh, state)
        return state, state[0]

    _, states = jax.lax.scan(step, h0, x)
    states = states.swapaxes(0, 1)
    if projection is None:
        return states @ w_out.T + b_out
    if project_first:
        return projection @ states @ w_out.T + projection.sum(1, keepdims=True) * b_out
    return projection @ (states @ w_out.T + b_out)


# The order of additions matters: XLA is several times slower with a product + b_hh that is
# then added to x than with (x + product) + b_hh.


def _rnn(x: Any, product: Any, b: Any, state: tuple[Any, ...]) -> tuple[Any, ...]:
    from jax.numpy import tanh

    return (tanh(x + product + b),)


def _gru(x: Any, product: Any, b: Any, state: tuple[Any, ...]) -> tuple[Any, ...]:
    from jax.nn import sigmoid
    from jax.numpy import split, tanh

    (x_r, x_z, x_n), (h_r, h_z, h_n) = split(x, 3, -1), split(product + b, 3, -1)
    z, n = sigmoid(x_z + h_z), tanh(x_n + sigmoid(x_r + h_r) * h_n)
    return (n + z * (state[0] - n),)


def _lstm(x: Any, product: Any, b: Any, state: tuple[Any, ...]) -> tuple[Any, ...]:
    from jax.nn import sigmoid
    from jax.numpy import split, tanh

    i, f, g, o = split(x + product + b, 4, -1)
    c = sigmoid(f) * state[1] + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


POINTWISE = {"rnn": _rnn, "gru": _gru, "lstm": _lstm}
