"""``python -m dtwin_fast.benchmarks.ort_op``: ONNX Runtime with libdtwin_ort and without it.

One file of one node, ``dtwin::Rollout``: where the library is registered the session runs the
engine, else the Scan of the function's body. Both are first compared with float64 sums; where one
is wrong, nothing is timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..dispatch import rollout
from ..export.nodes import DOMAIN, DOMAIN_VERSION, IR_VERSION, OPSET
from ..export.rollout import INPUTS, rollout_function
from ..files import write_atomic
from ..ort import register
from .cases import Case
from .machine import examine
from .problem import Problem, draw
from .threads import count_threads
from .timing import summarise, take_turns, time_once

CASES = tuple(
    Case(cell, S=n_people, B=1, T=250, I=9, H=n_hidden, O=23)
    for n_people in (1, 64, 256)
    for cell in ("rnn", "gru", "lstm")
    for n_hidden in (64, 128, 400)
)
"""The paper's inputs and outputs, and training segments of about its length; one person, a batch,
and one that is larger than caches."""
MAX_ERR = 2e-6
"""Of outputs, in units of the largest."""
BUDGET_S = 10.0
"""For each case, about."""
TURN_S = 0.1
"""Of calls one after another: a single one of 2 ms would time how fast threads wake up."""


def main(argv: Sequence[str] | None = None) -> int:
    """Verify, time, print; 1 if results were wrong."""
    parser = argparse.ArgumentParser(prog="ort_op", description="Time the op library.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to FILE")
    args = parser.parse_args(argv)
    rows = []
    for case in CASES:
        rows.append(run(case))
        print(as_line(rows[-1]), flush=True)
    if args.json is not None:
        results = {"machine": examine(), "rows": rows}
        write_atomic(args.json, json.dumps(results, indent=1) + "\n")
    return int(any("reason" in row for row in rows))


def run(case: Case, budget_s: float = BUDGET_S) -> dict[str, Any]:
    """A row of results: the errors, and the times where both are right."""
    problem = draw(case)
    problem = Problem(  # the file's function starts from zeros, on inputs that people share
        case, problem.weights, problem.inputs[0], (), None, problem.d_outputs
    )
    arrays = problem.weight_arrays | {"inputs": problem.inputs}
    sessions = {"scan": _session(case.cell, library=False), "op": _session(case.cell, library=True)}
    calls = {name: _call(session, arrays) for name, session in sessions.items()}
    first = {name: time_once(call) for name, call in calls.items()}
    wanted = rollout(problem.weights, problem.inputs, backend="cpu", precision="float64").outputs
    row: dict[str, Any] = {"cell": case.cell, "S": case.S, "B": case.B, "T": case.T, "H": case.H}
    row["rel_err"] = {
        name: float(np.abs(outputs - wanted).max() / np.abs(wanted).max())
        for name, (_, outputs) in first.items()
    }
    if not max(row["rel_err"].values()) <= MAX_ERR:
        return row | {"reason": "wrong outputs"}
    n_calls = {name: 1 + int(TURN_S / time_once(call)[0]) for name, call in calls.items()}
    turns = {name: _again(call, n_calls[name]) for name, call in calls.items()}
    first_s = {name: n_calls[name] * seconds for name, (seconds, _) in first.items()}
    times = {
        name: [seconds / n_calls[name] for seconds in of_turns]
        for name, of_turns in take_turns(turns, first_s, budget_s).items()
    }
    row |= {name: summarise(seconds) for name, seconds in times.items()}
    row["ratio"] = statistics.median(times["scan"]) / statistics.median(times["op"])
    return row


def as_line(row: dict[str, Any]) -> str:
    """A row for people to read."""
    head = f"{row['cell']:<5} H {row['H']:<4} S {row['S']} B {row['B']} T {row['T']}"
    if "reason" in row:
        return f"{head}: {row['reason']}, errors {row['rel_err']}"
    scan, op = (1e3 * row[name]["median_s"] for name in ("scan", "op"))
    return f"{head}: Scan {scan:8.1f} ms, op {op:8.1f} ms, {row['ratio']:.1f} times as fast"


def op_model(cell: str) -> bytes:
    """A model of one node, whose inputs are those of the graph, of any shape."""
    from onnx import TensorProto, helper

    node = helper.make_node("Rollout", INPUTS, ["outputs", "diverged"], domain=DOMAIN, cell=cell)
    kinds = dict.fromkeys((*INPUTS, "outputs"), TensorProto.FLOAT)
    values = {
        name: helper.make_tensor_value_info(name, kind, None)
        for name, kind in (kinds | {"diverged": TensorProto.BOOL}).items()
    }
    model = helper.make_model(
        helper.make_graph(
            [node],
            "op",
            [values[name] for name in INPUTS],
            [values["outputs"], values["diverged"]],
        ),
        functions=[rollout_function(cell)],
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)],
        ir_version=IR_VERSION,
    )
    data: bytes = model.SerializeToString()
    return data


def _again(call: Callable[[], Any], times: int) -> Callable[[], None]:
    def run() -> None:
        for _ in range(times):
            call()

    return run


def _session(cell: str, *, library: bool) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = count_threads()
    options.log_severity_level = 3
    # Its threads must not go on spinning while the other is timed.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if library:
        register(options)
    return onnxruntime.InferenceSession(op_model(cell), options, providers=["CPUExecutionProvider"])


def _call(session: Any, arrays: dict[str, Any]) -> Callable[[], Any]:
    """Runs a session whose inputs are bound once, so that no call copies them."""
    import onnxruntime

    binding = session.io_binding()
    for name, array in arrays.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))

    def run() -> Any:
        binding.bind_output("outputs", "cpu")
        binding.bind_output("diverged", "cpu")
        session.run_with_iobinding(binding)
        return binding.get_outputs()[0].numpy()

    return run


if __name__ == "__main__":
    sys.exit(main())
