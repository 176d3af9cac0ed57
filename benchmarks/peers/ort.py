"""ONNX Runtime: a Scan over time with one MatMul for all subjects, forward only.

Input projection before the Scan, readout after it, a time projection on the states. Arguments
and result are bound once, so that no call copies them.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from ...cells import CELLS
from ..cases import Case
from ..problem import Call, Prepare, Problem
from ..threads import count_threads

OPSET = 17
IR_VERSION = 8
"""Of that operator set's time: old runtimes read it too."""


def why_not(case: Case) -> str | None:
    """The reason why this cannot run, or None."""
    missing = [name for name in ("onnx", "onnxruntime") if not importlib.util.find_spec(name)]
    return f"{' and '.join(missing)} not installed" if missing else None


def variants(case: Case, op: str) -> dict[str, Prepare]:
    """``ort-scan``; nothing for gradients, which ONNX Runtime's inference has not."""
    return {"ort-scan": _prepare} if op == "fwd" else {}


def _prepare(problem: Problem) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = count_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # it warns of what it optimises away
    # Its threads must not go on spinning while the others are timed.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(
        build_model(problem.case).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    arrays = problem.weight_arrays | {"inputs": problem.inputs}
    arrays |= {f"h0_{i}": part for i, part in enumerate(problem.h0)}
    if problem.projection is not None:
        arrays["projection"] = problem.projection
    binding = session.io_binding()
    for name, array in arrays.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))

    def run() -> Any:
        binding.bind_output("outputs", "cpu")  # a new array at every call, as the others make
        session.run_with_iobinding(binding)
        return binding.get_outputs()[0]

    return Call(run, lambda outputs: {"outputs": outputs.numpy()})


def build_model(case: Case) -> Any:
    """The ONNX model of a case, all its weights inputs of the graph."""
    from onnx import TensorProto, checker, helper

    def tensor(name: str, *shape: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    def node(op: str, inputs: str, outputs: str, **attributes: Any) -> Any:
        return helper.make_node(op, inputs.split(), outputs.split(), **attributes)

    gated, n_states = case.n_gated, CELLS[case.cell].n_states
    states = [f"h0_{i}" for i in range(n_states)]
    state_shape = (case.S, case.B, case.H)
    body = helper.make_graph(
        [
            # w and b are those of the outer graph.
            node("MatMul", "s_0 w_hh_t", "product"),
            node("Add", "product b_hh_row", "h"),
            *(node(*words, **attributes) for words, attributes in CELL_NODES[case.cell]),
            node("Identity", "new_0", "step"),
        ],
        "step",
        [*(tensor(f"s_{i}", *state_shape) for i in range(n_states)),
         tensor("x", case.S, case.B, gated)],
        [*(tensor(f"new_{i}", *state_shape) for i in range(n_states)),
         tensor("step", *state_shape)],
    )  # fmt: skip
    last = " ".join(f"last_{i}" for i in range(n_states))
    nodes = [
        node("Transpose", "w_ih", "w_ih_t", perm=(0, 2, 1)),
        node("Transpose", "w_hh", "w_hh_t", perm=(0, 2, 1)),
        node("Transpose", "w_out", "w_out_t", perm=(0, 2, 1)),
        *(
            node("Unsqueeze", f"{name} one", f"{name}_{to}")
            for name, to in (("b_ih", "row"), ("b_hh", "row"), ("b_out", "row"), ("w_ih_t", "all"),
                             ("w_out_t", "all"), ("b_ih_row", "all"), ("b_out_row", "all"))
        ),
        node("MatMul", "inputs w_ih_t_all", "projected"),
        node("Add", "projected b_ih_row_all", "x_subjects"),
        node("Transpose", "x_subjects", "x_steps", perm=(2, 0, 1, 3)),
        node("Scan", f"{' '.join(states)} x_steps", f"{last} steps", body=body, num_scan_inputs=1),
        node("Transpose", "steps", "states", perm=(1, 2, 0, 3)),
    ]  # fmt: skip
    if case.K:
        nodes += [
            node("MatMul", "projection states", "read"),
            node("ReduceSum", "projection last_axis", "sums", keepdims=1),
            node("Mul", "sums b_out_row_all", "bias"),
        ]
    else:
        nodes += [node("Identity", "states", "read"), node("Identity", "b_out_row_all", "bias")]
    nodes += [
        node("MatMul", "read w_out_t_all", "unbiased"),
        node("Add", "unbiased bias", "outputs"),
    ]
    arguments = [
        tensor("w_ih", case.S, gated, case.I),
        tensor("w_hh", case.S, gated, case.H),
        tensor("b_ih", case.S, gated),
        tensor("b_hh", case.S, gated),
        tensor("w_out", case.S, case.O, case.H),
        tensor("b_out", case.S, case.O),
        tensor("inputs", case.S, case.B, case.T, case.I),
        *(tensor(name, *state_shape) for name in states),
        *([tensor("projection", case.K, case.T)] if case.K else []),
    ]
    constants = [
        helper.make_tensor("one", TensorProto.INT64, [1], [1]),
        helper.make_tensor("last_axis", TensorProto.INT64, [1], [1]),
    ]
    graph = helper.make_graph(
        nodes,
        "rollout",
        arguments,
        [tensor("outputs", case.S, case.B, case.K or case.T, case.O)],
        constants,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    checker.check_model(model)
    return model


_Nodes = list[tuple[tuple[str, str, str], dict[str, Any]]]

CELL_NODES: dict[str, _Nodes] = {
    "rnn": [
        (("Add", "x h", "u"), {}),
        (("Tanh", "u", "new_0"), {}),
    ],
    "gru": [
        (("Split", "x", "x_r x_z x_n"), {"axis": -1}),
        (("Split", "h", "h_r h_z h_n"), {"axis": -1}),
        (("Add", "x_r h_r", "u_r"), {}),
        (("Add", "x_z h_z", "u_z"), {}),
        (("Sigmoid", "u_r", "r"), {}),
        (("Sigmoid", "u_z", "z"), {}),
        (("Mul", "r h_n", "reset"), {}),
        (("Add", "x_n reset", "u_n"), {}),
        (("Tanh", "u_n", "n"), {}),
        (("Sub", "s_0 n", "change"), {}),
        (("Mul", "z change", "kept"), {}),
        (("Add", "n kept", "new_0"), {}),
    ],
    "lstm": [
        (("Add", "x h", "u"), {}),
        (("Split", "u", "u_i u_f u_g u_o"), {"axis": -1}),
        (("Sigmoid", "u_i", "i"), {}),
        (("Sigmoid", "u_f", "f"), {}),
        (("Tanh", "u_g", "g"), {}),
        (("Sigmoid", "u_o", "o"), {}),
        (("Mul", "f s_1", "kept"), {}),
        (("Mul", "i g", "added"), {}),
        (("Add", "kept added", "new_1"), {}),
        (("Tanh", "new_1", "squashed"), {}),
        (("Mul", "o squashed", "new_0"), {}),
    ],
}
"""The pointwise part of each cell: x, h and the states s_0, s_1 -> new_0, new_1."""
