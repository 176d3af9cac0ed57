"""A twin as ONNX models, each one file with its weights inside.

================  =====================================================================
part              inputs -> outputs
================  =====================================================================
``twin``          edges (S,E) -> choice_prob (S,N,actions), rt_s (S,N), bold (S,V,regions),
                  contrasts (S,K,regions), diverged (S): the twin's own runs, which it holds
``rollout``       edges, inputs (B,T,I), any B and T -> outputs (S,B,T,O), diverged
``vjp``           edges, d_choice_prob, d_rt_s, d_contrasts -> d_edges (S,E), and choice_prob,
                  rt_s, contrasts, diverged
``hypernetwork``  edges -> weights (S,P), flat as in :mod:`dtwin_fast.weights`
================  =====================================================================

Edges are Pearson r of complete connectomes (ONNX models fill in no missing regions), row-major
upper triangle, regions in the twin's order, which the metadata name. S is free everywhere. Edges
that are no correlations mark their person diverged, whose weights are NaN.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DTwinInputError, MissingExtraError
from ..hypernetwork import count_parameters
from ..prediction_files import NOTICE
from ..provenance import package_version
from ..twin import Twin
from ..weights import count_weights
from . import readout
from .hypernetwork import HyperNodes
from .nodes import DOMAIN, DOMAIN_VERSION, IR_VERSION, OPSET, Nodes
from .readout import READOUT_NODES, Runs
from .rollout import rollout_function, rollout_vjp_function

FORMAT = "dtwin_fast onnx 1"
MAX_BYTES = 2**31 - 2**24
"""A protobuf message is smaller than 2 GiB; some of that for the graph and the metadata."""

Dim = int | str


def build(twin: Twin, part: str) -> bytes:
    """The bytes of a model, not yet verified (:func:`dtwin_fast.export.verify`).

    Args:
        twin: the twin.
        part: a key of ``PARTS``.

    Raises:
        DTwinInputError: no such part (code ``argument``), or a model that would be larger than
            ONNX files can be (``onnx_size``).
        MissingExtraError: onnx is not installed.
    """
    if part not in PARTS:
        raise DTwinInputError(
            "argument",
            "a twin has no such part",
            field="part",
            wanted=" | ".join(PARTS),
            got=repr(part),
            fix="Name one of these",
        )
    _check_size(twin)
    try:
        from onnx import checker, helper
    except ImportError as error:
        raise MissingExtraError("onnx", "onnx", "Writing an ONNX model") from error
    graph = _Graph(twin)
    PARTS[part](graph)
    opsets = [helper.make_opsetid("", OPSET)]
    if graph.functions:
        opsets.append(helper.make_opsetid(DOMAIN, DOMAIN_VERSION))
    model = helper.make_model(
        helper.make_graph(
            graph.g.nodes, f"dtwin_{part}", graph.inputs, graph.outputs, graph.initialisers()
        ),
        functions=graph.functions,
        opset_imports=opsets,
        ir_version=IR_VERSION,
        producer_name="dtwin_fast",
        producer_version=package_version(),
        doc_string=NOTICE,
    )
    helper.set_model_props(model, metadata(twin, part))
    checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def metadata(twin: Twin, part: str) -> dict[str, str]:
    """What a model says of itself; all but plain words is JSON."""
    return {
        "format": FORMAT,
        "part": part,
        "notice": NOTICE,
        "dtwin_fast": package_version(),
        "model": twin.spec.name,
        "model_sha256": twin.sha256,
        "spec": json.dumps(twin.spec.to_dict()),
        "regions": json.dumps(twin.regions),
        "tasks": json.dumps({name: s.to_dict() for name, s in twin.schedules.items()}),
        "contrasts": json.dumps(twin.contrasts),
    }


def _check_size(twin: Twin) -> None:
    """Refuse what protobuf cannot hold, before anything is built."""
    n_steps = max(s.n_steps(twin.spec.dt_s) for s in twin.schedules.values())
    n_contrasts = sum(map(len, twin.contrasts.values()))
    values = count_parameters(twin.spec) + 2 * twin.spec.n_edges
    values += len(twin.schedules) * n_steps * (twin.spec.n_inputs + n_contrasts)
    if 4 * values > MAX_BYTES:
        raise DTwinInputError(
            "onnx_size",
            "this twin does not fit into one ONNX file",
            field="model",
            wanted=f"at most {MAX_BYTES:,} bytes, the limit of protobuf",
            got=f"{4 * values:,} bytes",
            fix="Use a smaller hypernetwork, or the model folder itself",
        )


class _Graph:
    """A model while it is written."""

    def __init__(self, twin: Twin) -> None:
        self.twin, self.g, self.runs = twin, Nodes(), Runs.of(twin)
        self.hyper = HyperNodes(self.g, twin)
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.functions: list[Any] = []
        self.arrays: dict[str, npt.NDArray[Any]] = {}
        self.edges = self.input("edges", "S", twin.spec.n_edges)

    def input(self, name: str, *shape: Dim) -> str:
        """Declare an input."""
        from onnx import TensorProto, helper

        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def output(self, name: str, value: str, *shape: Dim) -> None:
        """Declare an output: bool of ``diverged``, else float32."""
        from onnx import TensorProto, helper

        kind = TensorProto.BOOL if name == "diverged" else TensorProto.FLOAT
        self.g.rename(self.g("Cast", value, to=kind), name)
        self.outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def array(self, name: str, values: npt.NDArray[Any]) -> str:
        """An array that the file holds."""
        self.arrays[name] = values
        return name

    def initialisers(self) -> list[Any]:
        """All arrays that the file holds."""
        from onnx import numpy_helper

        arrays = self.hyper.initialisers | self.arrays
        return [
            numpy_helper.from_array(np.ascontiguousarray(a), name) for name, a in arrays.items()
        ]

    def call(self, function: Any, *inputs: str) -> list[str]:
        """A node of a function of this model."""
        self.functions.append(function)
        return self.g.many(function.name, *inputs, n_outputs=len(function.output), domain=DOMAIN,
                           cell=self.twin.spec.cell)  # fmt: skip

    def own_inputs(self) -> str:
        """(B,T,I) the runs that the twin knows."""
        return self.array("inputs", self.twin.encode(list(self.twin.schedules)))

    def say_responses(self, choice_prob: str, rt_s: str) -> None:
        """Declare choices and reaction times."""
        n_trials = len(self.runs.steps)
        self.output("choice_prob", choice_prob, "S", n_trials, self.twin.spec.n_actions)
        self.output("rt_s", rt_s, "S", n_trials)

    def say_contrasts(self, flat: str) -> None:
        """Declare contrasts of a twin that has BOLD; the array ``projection`` is theirs."""
        if not self.twin.spec.bold_regions:
            return
        projection = self.array("projection", self.runs.projection)
        value = readout.contrasts(self.g, self.runs, flat, projection)
        self.output("contrasts", value, "S", *self.contrast_shape)

    @property
    def contrast_shape(self) -> tuple[int, int]:
        """(K,regions)."""
        return len(self.runs.sequence), len(self.twin.spec.bold_regions)


def _twin(graph: _Graph) -> None:
    g, runs, spec = graph.g, graph.runs, graph.twin.spec
    weights = graph.hyper.weights(graph.hyper.forward(graph.edges))
    outputs, diverged = graph.call(rollout_function(spec.cell), *weights, graph.own_inputs())
    flat = readout.flat_outputs(g, runs, outputs)
    graph.say_responses(*READOUT_NODES[spec.head](g, runs, readout.window_outputs(g, runs, flat)))
    if n_regions := len(spec.bold_regions):
        graph.output("bold", readout.volumes(g, runs, flat), "S", len(runs.volumes), n_regions)
    graph.say_contrasts(flat)
    graph.output("diverged", diverged, "S")


def _rollout(graph: _Graph) -> None:
    spec = graph.twin.spec
    weights = graph.hyper.weights(graph.hyper.forward(graph.edges))
    inputs = graph.input("inputs", "B", "T", spec.n_inputs)
    outputs, diverged = graph.call(rollout_function(spec.cell), *weights, inputs)
    graph.output("outputs", outputs, "S", "B", "T", spec.n_outputs)
    graph.output("diverged", diverged, "S")


def _vjp(graph: _Graph) -> None:
    g, runs, spec = graph.g, graph.runs, graph.twin.spec
    weights = graph.hyper.weights(graph.hyper.forward(graph.edges, slopes=True))
    inputs = graph.own_inputs()
    outputs, diverged = graph.call(rollout_function(spec.cell), *weights, inputs)
    flat = readout.flat_outputs(g, runs, outputs)
    graph.say_contrasts(flat)
    actions = readout.window_outputs(g, runs, flat)
    if spec.head == "hazard":
        found = readout.presses(g, runs, actions)
        graph.say_responses(*readout.read_presses(g, found))
        n_trials = len(runs.steps)
        d_choice_prob = graph.input("d_choice_prob", "S", n_trials, spec.n_actions)
        d_rt_s = graph.input("d_rt_s", "S", n_trials)
        d_actions = readout.hazard_vjp(g, runs, found, d_choice_prob, d_rt_s)
    else:
        # The peaks of the other head are no function that has gradients.
        graph.say_responses(*READOUT_NODES[spec.head](g, runs, actions))
        d_actions = readout.no_actions(g, runs, flat)
    d_parts = [d_actions]
    if spec.bold_regions:
        d_contrasts = graph.input("d_contrasts", "S", *graph.contrast_shape)
        d_parts.append(readout.contrasts_vjp(g, runs, d_contrasts, "projection"))
    shape = g.constant([0, *runs.shape, spec.n_outputs])
    d_outputs = g("Reshape", g("Concat", *d_parts, axis=2), shape)
    d_weights = graph.call(rollout_vjp_function(spec.cell), *weights, inputs, d_outputs)
    d_edges = graph.hyper.backward(graph.edges, graph.hyper.flat(d_weights))
    graph.output("d_edges", d_edges, "S", spec.n_edges)
    graph.output("diverged", diverged, "S")


def _hypernetwork(graph: _Graph) -> None:
    flat = graph.hyper.forward(graph.edges)
    graph.output("weights", flat, "S", count_weights(graph.twin.spec))


PARTS: dict[str, Callable[[_Graph], None]] = {
    "twin": _twin,
    "rollout": _rollout,
    "vjp": _vjp,
    "hypernetwork": _hypernetwork,
}
"""Part -> what writes it."""
