"""The model-local functions ``dtwin::Rollout`` and ``dtwin::RolloutVjp``: standard ONNX inside.

A runtime that knows them by itself (:mod:`dtwin_fast.ort`) runs its own kernel in place of the
body; any other one runs the body.
"""

from __future__ import annotations

from typing import Any

from ..cells import CELLS
from ..weights import WEIGHT_NAMES
from .cells import CELL_NODES, CellNodes
from .nodes import DOMAIN, OPSET, Nodes

INPUTS = (*WEIGHT_NAMES, "inputs")
D_WEIGHTS = tuple(f"d_{name}" for name in WEIGHT_NAMES)


def rollout_function(cell: str) -> Any:
    """``Rollout(w_ih, ..., b_out, inputs) -> (outputs, diverged)``, attribute ``cell``.

    Weights are as of :class:`dtwin_fast.weights.RNNWeights`, inputs (B,T,I), outputs (S,B,T,O),
    diverged (S,) bool: whether a hidden state or an output is NaN or infinite.
    """
    g = Nodes()
    x_steps = _project_inputs(g)
    h_steps = _states(g, cell, x_steps)[0]
    states = g.transpose(h_steps, 1, 2, 0, 3)
    w_out = g.insert_axes(g.transpose("w_out", 0, 2, 1), 1)
    outputs = g("Add", g("MatMul", states, w_out), g.insert_axes("b_out", 1, 2))
    g.rename(outputs, "outputs")
    # 0 times a number that is not finite is NaN.
    zero = g.constant(0, "float32")
    spoilt = [g.total(g("Mul", array, zero), 1, 2, 3) for array in (states, "outputs")]
    g.rename(g("IsNaN", g("Add", *spoilt)), "diverged")
    return _function("Rollout", INPUTS, ("outputs", "diverged"), g)


def rollout_vjp_function(cell: str) -> Any:
    """``RolloutVjp(w_ih, ..., b_out, inputs, d_outputs) -> (d_w_ih, ..., d_b_out)``.

    The gradient of ``sum(outputs * d_outputs)`` of ``Rollout``, which it rolls out again.
    """
    g = Nodes()
    nodes = CELL_NODES[cell]
    x_steps = _project_inputs(g)
    series = _states(g, cell, x_steps)
    previous = [_one_step_later(g, steps) for steps in series]
    h = g("Add", g("MatMul", previous[0], _recurrent(g)), g.insert_axes("b_hh", 1))
    gates = nodes.gates(g, x_steps, h, previous, series)

    d_steps = g.transpose("d_outputs", 2, 0, 1, 3)  # (T,S,B,O)
    d_x, d_h = _scan_back(g, nodes, g("MatMul", d_steps, "w_out"), gates, len(series))
    # Sums over sequences and steps, as products of (S, *, B*T) and (S, B*T, *).
    rows = {
        "d_x": d_x,
        "d_h": d_h,
        "d_y": d_steps,
        "before": previous[0],
        "after": series[0],
        "inputs": g.transpose(g.insert_axes("inputs", 0), 2, 0, 1, 3),
    }
    flat = {name: _rows(g, steps) for name, steps in rows.items()}
    products = {
        "d_w_ih": ("d_x", "inputs"),
        "d_w_hh": ("d_h", "before"),
        "d_w_out": ("d_y", "after"),
    }
    for name, (left, right) in products.items():
        g.rename(g("MatMul", g.transpose(flat[left], 0, 2, 1), flat[right]), name)
    for name, d in (("d_b_ih", "d_x"), ("d_b_hh", "d_h"), ("d_b_out", "d_y")):
        g.rename(g.total(flat[d], 1), name)
    return _function("RolloutVjp", (*INPUTS, "d_outputs"), D_WEIGHTS, g)


def _project_inputs(g: Nodes) -> str:
    """(T,S,B,G*H) W_ih x_t + b_ih of all steps: one product, as nothing here waits for a state."""
    w = g.insert_axes(g.transpose("w_ih", 0, 2, 1), 1)
    x = g("Add", g("MatMul", "inputs", w), g.insert_axes("b_ih", 1, 2))
    return g.transpose(x, 2, 0, 1, 3)


def _recurrent(g: Nodes) -> str:
    return g.transpose("w_hh", 0, 2, 1)


def _states(g: Nodes, cell: str, x_steps: str) -> list[str]:
    """(T,S,B,H) of each state, from zeros."""
    w, b = _recurrent(g), g.insert_axes("b_hh", 1)
    zeros = _zero_state(g)

    def step(body: Nodes, states: list[str], x: list[str]) -> tuple[list[str], list[str]]:
        h = body("Add", body("MatMul", states[0], w), b)
        new = CELL_NODES[cell].forward(body, x[0], h, states)
        return new, new

    n_states = CELLS[cell].n_states
    return g.scan(step, [zeros] * n_states, [x_steps], n_states)


def _scan_back(
    g: Nodes, nodes: CellNodes, d_states: str, gates: list[str], n_states: int
) -> tuple[str, str]:
    """(T,S,B,G*H) gradients of x and h; ``d_states`` (T,S,B,H) come through the readout."""
    zeros = _zero_state(g)

    def step(body: Nodes, later: list[str], now: list[str]) -> tuple[list[str], list[str]]:
        d = [body("Add", later[0], now[0]), *later[1:]]
        d_x, d_h, direct = nodes.backward(body, now[1:], d)
        through = body("MatMul", d_h, "w_hh")
        first, *others = direct
        d_before = through if first is None else body("Add", through, first)
        return [d_before, *(name for name in others if name is not None)], [d_x, d_h]

    # Scan knows a direction, but onnx's own evaluator goes forwards only.
    series = [g.reverse(name) for name in (d_states, *gates)]
    d_x, d_h = g.scan(step, [zeros] * n_states, series, 2)
    return g.reverse(d_x), g.reverse(d_h)


def _zero_state(g: Nodes) -> str:
    """(S,B,H) zeros."""
    sizes = [g("Shape", name, start=axis, end=axis + 1)
             for name, axis in (("w_hh", 0), ("inputs", 0), ("w_hh", 2))]  # fmt: skip
    return g("ConstantOfShape", g("Concat", *sizes, axis=0))


def _one_step_later(g: Nodes, steps: str) -> str:
    """(T,S,B,H) what was there a step before; zeros before the first."""
    first = g.insert_axes(_zero_state(g), 0)
    return g("Concat", first, g.part(steps, [0], [-1], 0), axis=0)


def _rows(g: Nodes, steps: str) -> str:
    """(T,S,B,*) -> (S,B*T,*)."""
    by_person = g.transpose(steps, 1, 2, 0, 3)
    sizes = [g("Shape", by_person, start=axis, end=axis + 1) for axis in (0, 3)]
    shape = g("Concat", sizes[0], g.constant([-1]), sizes[1], axis=0)
    return g("Reshape", by_person, shape)


def _function(name: str, inputs: Any, outputs: Any, g: Nodes) -> Any:
    from onnx import helper

    return helper.make_function(
        DOMAIN,
        name,
        list(inputs),
        list(outputs),
        g.nodes,
        [helper.make_opsetid("", OPSET)],
        attributes=["cell"],
    )
