"""Writes the nodes of an ONNX graph or function one call at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

OPSET = 17
IR_VERSION = 8
"""The oldest with model-local functions and this operator set: old runtimes read it too."""
DOMAIN = "dtwin"
DOMAIN_VERSION = 1


class Nodes:
    """Nodes in the order in which they are computed; a call adds one and names its output.

    Args:
        prefix: what every name begins with, so that those of a Scan's body are its own.
    """

    def __init__(self, prefix: str = "") -> None:
        self.nodes: list[Any] = []
        self._prefix = prefix

    def __call__(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of one output and return that output's name."""
        (name,) = self.many(op, *inputs, n_outputs=1, **attributes)
        return name

    def many(
        self, op: str, *inputs: str, n_outputs: int, domain: str = "", **attributes: Any
    ) -> list[str]:
        """Add a node of several outputs and return their names."""
        from onnx import helper

        stem = f"{self._prefix}{op.lower()}_{len(self.nodes)}"
        names = [stem] if n_outputs == 1 else [f"{stem}_{i}" for i in range(n_outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, domain=domain, **attributes))
        return names

    def constant(self, values: npt.ArrayLike, dtype: npt.DTypeLike = np.int64) -> str:
        """A small constant."""
        from onnx import numpy_helper

        return self("Constant", value=numpy_helper.from_array(np.asarray(values, dtype)))

    def rename(self, name: str, to: str) -> str:
        """Give an output the name that a graph or function promises."""
        from onnx import helper

        self.nodes.append(helper.make_node("Identity", [name], [to]))
        return to

    def transpose(self, name: str, *axes: int) -> str:
        """Axes in another order."""
        return self("Transpose", name, perm=axes)

    def insert_axes(self, name: str, *axes: int) -> str:
        """New axes of length 1 at these places."""
        return self("Unsqueeze", name, self.constant(axes))

    def total(self, name: str, *axes: int, keep: bool = False) -> str:
        """The sum over axes."""
        return self("ReduceSum", name, self.constant(axes), keepdims=int(keep))

    def part(self, name: str, starts: Sequence[int], stops: Sequence[int], *axes: int) -> str:
        """``name[start:stop]`` along each of the axes."""
        return self("Slice", name, *map(self.constant, (starts, stops, axes)))

    def reverse(self, name: str) -> str:
        """The first axis from its end to its start."""
        bounds = ([-1], [np.iinfo(np.int64).min], [0], [-1])
        return self("Slice", name, *map(self.constant, bounds))

    def split(self, name: str, n: int) -> list[str]:
        """The last axis in n equal parts."""
        return [name] if n == 1 else self.many("Split", name, n_outputs=n, axis=-1)

    def scan(
        self,
        step: Callable[[Nodes, list[str], list[str]], tuple[list[str], list[str]]],
        states: Sequence[str],
        series: Sequence[str],
        n_results: int,
    ) -> list[str]:
        """A Scan along the first axis, over (S,B,*) states and steps.

        Args:
            step: writes the body: (nodes, states, a step of each series) -> (next states,
                results). It may name what is outside.
            states: names of the first states.
            series: names of what is scanned.
            n_results: results of a step.

        Returns:
            Names of the series of results.
        """
        from onnx import TensorProto, helper

        def values(names: Sequence[str]) -> list[Any]:
            # Three axes: ONNX Runtime asks how many there are, where it cannot find out itself.
            return [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 3) for name in names
            ]

        stem = f"{self._prefix}scan_{len(self.nodes)}"
        body = Nodes(f"{stem}_")
        before = [f"{stem}_state_{i}" for i in range(len(states))]
        seen = [f"{stem}_step_{i}" for i in range(len(series))]
        after, results = step(body, before, seen)
        # A graph's outputs are made by its own nodes, and each of them once.
        outputs = [body("Identity", name) for name in (*after, *results)]
        graph = helper.make_graph(body.nodes, stem, values([*before, *seen]), values(outputs))
        names = self.many(
            "Scan",
            *states,
            *series,
            n_outputs=len(states) + n_results,
            body=graph,
            num_scan_inputs=len(series),
        )
        return names[len(states) :]
