"""Other implementations of the rollout. A new one is a file here and a line in PEERS.

A peer is a module with ``why_not(case) -> str | None``, the reason why it cannot run, and
``variants(case, op) -> {implementation: prepare}``; it imports its library inside functions.
"""

from __future__ import annotations

from types import ModuleType

from . import jax_jit, ort, torch_compile, torch_eager

PEERS: dict[str, ModuleType] = {
    "torch": torch_eager,
    "torch-compile": torch_compile,
    "jax": jax_jit,
    "ort": ort,
}

DEFAULT_PEERS = ("torch", "jax", "ort")
"""torch-compile must be asked for: it takes minutes to compile."""
