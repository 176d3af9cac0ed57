"""``jax-vmap``: JAX jit over ``lax.scan``, all subjects in one batched product a step.

A time projection is applied to the states, as the engine does. lax.map over the subjects, which
is quick on a CPU, would walk them one after the other here.
"""

from __future__ import annotations

import importlib.util
import os
from functools import partial
from typing import Any

from torch import Tensor
from torch.utils.dlpack import from_dlpack

from ...errors import BackendUnavailableError
from ..peers.jax_jit import roll_one
from .problem import Call, Problem

PLATFORMS = {"cuda": "gpu", "cpu": "cpu"}
"""JAX's name of torch's kind of device."""
MEMORY_SHARE = "0.3"
"""Of the GPU's memory: JAX keeps what it has once taken, and torch needs the rest."""


def prepare(problems: list[Problem], op: str) -> list[Call]:
    """Compile once, and bind each set; arguments are shared with torch, not copied.

    Raises:
        BackendUnavailableError: JAX is not installed or does not see this kind of device.
    """
    jax = _start(problems[0].inputs.device.type)
    cell = problems[0].case.cell

    def forward(arguments: Any, projection: Any) -> Any:
        one = partial(roll_one, cell=cell, projection=projection, project_first=True)
        return jax.vmap(one)(*arguments)

    def loss(arguments: Any, projection: Any, d_outputs: Any) -> Any:
        return jax.numpy.vdot(forward(arguments, projection), d_outputs)

    def bind(problem: Problem) -> tuple[Any, ...]:
        tensors = (tuple(problem.weights.values()), problem.inputs, problem.h0)
        last = (problem.projection, problem.d_outputs)
        bound = jax.tree.map(jax.numpy.from_dlpack, (tensors, *last))
        return tuple(bound[:2]) if op == "fwd" else tuple(bound)

    bound = [bind(problem) for problem in problems]
    compiled = jax.jit(forward if op == "fwd" else jax.grad(loss)).lower(*bound[0]).compile()
    names = ("outputs",) if op == "fwd" else tuple(problems[0].leaves)

    def tensors(found: Any) -> dict[str, Tensor]:
        # Copies: JAX's own arrays are never written to.
        parts = [from_dlpack(part).clone() for part in jax.tree.leaves(found)]
        return dict(zip(names, parts, strict=True))

    def call(words: tuple[Any, ...]) -> Call:
        return Call(lambda: jax.block_until_ready(compiled(*words)), tensors)

    return [call(words) for words in bound]


def _start(device: str) -> Any:
    """The module, with float32 products in float32."""
    if importlib.util.find_spec("jax") is None:
        raise BackendUnavailableError("jax is not installed")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", MEMORY_SHARE)
    import jax

    platform = jax.default_backend()
    if platform != PLATFORMS[device]:
        raise BackendUnavailableError(f"JAX {jax.__version__} runs on {platform}, not on the GPU")
    jax.config.update("jax_default_matmul_precision", "highest")
    return jax
