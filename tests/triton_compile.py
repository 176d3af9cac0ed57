"""Compile what kernels.launch would launch, for a device that need not be here.

``python triton_compile.py i n`` takes every n-th configuration from the i-th and prints a line of
JSON for each kernel: what it is, its registers, local memory and shared memory. The compiler's
own interpreter must be off.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from dtwin_fast.kernels import launch, limits
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from dtwin_fast.weights import weight_shapes

TARGET = GPUTarget("cuda", 90, 32)
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.int32: "*i32"}


class Recorder:
    """In place of a kernel: launching it compiles it for TARGET."""

    def __init__(self, kernel: Any, found: dict[str, Any]) -> None:
        self.kernel = kernel
        self.found = found

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return self.compile

    def compile(self, *arguments: Any, **named: Any) -> None:
        parameters = self.kernel.params
        constants = {p.name: named.pop(p.name) for p in parameters[len(arguments) :]}
        signature = dict.fromkeys(constants, "constexpr")
        for parameter, value in zip(parameters, arguments, strict=False):
            # Else a launch with other numbers or addresses could be another kernel.
            assert parameter.do_not_specialize, parameter.name
            signature[parameter.name] = (
                TYPES[value.dtype] if isinstance(value, torch.Tensor) else parameter.annotation_type
            )
            assert signature[parameter.name], parameter.name
        source = ASTSource(
            self.kernel,
            {p.name: signature[p.name] for p in parameters},
            constexprs={(p.num,): constants[p.name] for p in parameters if p.name in constants},
        )
        compiled = triton.compile(source, target=TARGET, options=named)
        keep = "_keep" if constants.get("KEEP") else ""
        self.found[self.kernel.__name__ + keep] = {
            **resources(compiled.asm["cubin"]),
            "dynamic_shared": compiled.metadata.shared,
            "warps": named["num_warps"],
        }


def resources(cubin: bytes) -> dict[str, int]:
    """Of the one kernel in a binary: REG a thread, STACK and LOCAL bytes a thread."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run(
            [CUOBJDUMP, "--dump-resource-usage", file.name],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    usage = {name: int(n) for name, n in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", text)}
    assert set(usage) == {"REG", "STACK", "LOCAL"}, text
    return usage


def configurations() -> list[tuple[str, str, int, int]]:
    """Cell, precision, hidden units and sequences of every entry of the table."""
    return [
        (cell, precision, size, block)
        for (cell, precision), sizes in limits.WARPS.items()
        for size, (_, of_rows) in sizes.items()
        for block in ((1,) if of_rows is None else (1, limits.ROWS))
    ]


def build(cell: str, precision: str, n_hidden: int, n_sequences: int) -> dict[str, Any]:
    """The kernels of a rollout and of its gradients."""
    found: dict[str, Any] = {}
    forward, backward = launch.forward_loop, launch.backward_loop
    launch.forward_loop = Recorder(forward, found)
    launch.backward_loop = Recorder(backward, found)
    try:
        weights = {
            name: torch.zeros(1, *shape)
            for name, shape in weight_shapes(cell, 1, n_hidden, 1).items()
        }
        inputs = torch.zeros(n_sequences, 1, 1)
        shared: dict[str, Any] = {
            "time_projection": None,
            "bfloat16_weights": precision == "bfloat16",
        }
        launch.rollout(cell, weights, inputs, None, return_states=False, **shared)
        d_outputs = torch.zeros(1, n_sequences, 1, 1)
        launch.rollout_vjp(
            cell, weights, inputs, d_outputs, None, d_states=None, d_final=None, states=None,
            **shared,
        )  # fmt: skip
    finally:
        launch.forward_loop, launch.backward_loop = forward, backward
    return found


if __name__ == "__main__":
    first, step = map(int, sys.argv[1:])
    for configuration in configurations()[first::step]:
        print(json.dumps([configuration, build(*configuration)]), flush=True)
