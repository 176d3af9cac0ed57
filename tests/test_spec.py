"""Sizes: every number of the paper follows from the spec, and a bad spec is refused."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from dtwin_fast.errors import DTwinInputError
from dtwin_fast.hypernetwork import count_parameters, layer_sizes
from dtwin_fast.spec import BOLD_REGIONS_20, MAX_LAYERS, MAX_SIZE, PRESETS, TwinSpec, n_edges
from dtwin_fast.weights import count_weights, spec_weight_shapes

PAPER = PRESETS["tcp446"]


def _plain(**changes: Any) -> dict[str, Any]:
    return {**json.loads(json.dumps(PRESETS["tiny"].to_dict())), **changes}


def test_weights_of_the_paper() -> None:
    inputs, hidden, actions, bold = 9, 400, 3, 20
    outputs = actions + bold
    recurrent = hidden * inputs + hidden * hidden + 2 * hidden
    readout = outputs * hidden + outputs
    assert count_weights(PAPER) == recurrent + readout == 173_623
    assert (PAPER.n_inputs, PAPER.n_hidden, PAPER.n_outputs) == (inputs, hidden, outputs)
    assert len(BOLD_REGIONS_20) == len(set(BOLD_REGIONS_20)) == bold


def test_parameters_of_the_paper() -> None:
    edges = 446 * 445 // 2
    first = edges * 200 + 200
    second = 200 * 200 + 200
    third = 200 * 173_623 + 173_623
    assert PAPER.n_edges == edges == 99_235
    assert count_parameters(PAPER) == first + second + third == 54_785_623
    assert layer_sizes(PAPER) == [(99_235, 200), (200, 200), (200, 173_623)]


def test_openneuro_release_differs_in_its_edges_alone() -> None:
    release = PRESETS["tcp434"]
    assert release.n_edges == 434 * 433 // 2 == 93_961
    assert dataclasses.replace(release, name="tcp446", n_regions=446) == PAPER
    assert count_parameters(PAPER) - count_parameters(release) == (99_235 - 93_961) * 200


@pytest.mark.parametrize(
    ("name", "n_regions", "n_edge", "hyper", "n_hidden", "n_outputs", "head", "standardize"),
    [
        ("tcp446", 446, 99_235, (200, 200), 400, 23, "sigmoid", False),
        ("tcp434", 434, 93_961, (200, 200), 400, 23, "sigmoid", False),
        ("demo", 100, 4_950, (64, 64), 64, 23, "hazard", True),
        ("tiny", 16, 120, (64, 64), 16, 7, "hazard", True),
    ],
    ids=list(PRESETS),
)
def test_presets(
    name: str,
    n_regions: int,
    n_edge: int,
    hyper: tuple[int, ...],
    n_hidden: int,
    n_outputs: int,
    head: str,
    standardize: bool,
) -> None:
    spec = PRESETS[name]
    assert (spec.name, spec.n_regions, spec.n_edges) == (name, n_regions, n_edge)
    assert (spec.hyper_hidden, spec.n_hidden, spec.n_outputs) == (hyper, n_hidden, n_outputs)
    assert (spec.head, spec.standardize, spec.cell) == (head, standardize, "rnn")
    assert (spec.dt_s, spec.tr_s, spec.dropout, spec.n_inputs) == (0.08, 0.8, 0.1, 9)
    assert list(PRESETS) == ["tcp446", "tcp434", "demo", "tiny"]


def test_n_edges_counts_the_upper_triangle() -> None:
    for n_regions in range(2, 30):
        pairs = sum(1 for i in range(n_regions) for j in range(i + 1, n_regions))
        assert n_edges(n_regions) == pairs


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_gates_multiply_the_recurrent_weights(cell: str) -> None:
    spec = dataclasses.replace(PRESETS["tiny"], cell=cell)
    gates = {"rnn": 1, "gru": 3, "lstm": 4}[cell]
    assert count_weights(spec) == gates * (16 * 9 + 16 * 16 + 32) + 7 * 16 + 7
    assert spec_weight_shapes(spec)["w_hh"] == (gates * 16, 16)


@pytest.mark.parametrize("name", PRESETS)
def test_json_round_trip(name: str) -> None:
    text = json.dumps(PRESETS[name].to_dict(), allow_nan=False)
    assert TwinSpec.from_dict(json.loads(text)) == PRESETS[name]


def test_defaults_may_be_left_out() -> None:
    spec = TwinSpec.from_dict({"name": "a", "n_regions": 5, "hyper_hidden": [3], "n_hidden": 2})
    assert spec == TwinSpec("a", 5, (3,), 2)


BAD: dict[str, list[Any]] = {
    "name": [5, None, "", " a", "a\n", ["tiny"]],
    "cell": [3, None, "", ["rnn"], {}],
    "n_regions": [1, 0, -16, 16.0, "16", True, None, MAX_SIZE + 1, 10**4000, [[16]]],
    "n_hidden": [0, -1, 1.5, "16", None, MAX_SIZE + 1],
    "n_inputs": [0, "9", None],
    "n_actions": [0, 3.0, None],
    "segment_steps": [0, None],
    "hyper_hidden": [64, "64", [], None, [0], [64, "64"], [1.5], [[64]], [1] * (MAX_LAYERS + 1)],
    "bold_regions": ["LH_V1", None, 4, ["a", "a"], [1], [""], [["a"]], ["a\tb"]],
    "head": ["softmax", None, 1, ["hazard"]],
    "standardize": ["yes", 1, None],
    "dropout": [1, -0.1, 1.0, "0.1", None, float("nan"), [0.1], True],
    "dt_s": [0, -0.08, 1e-9, 0.9, float("nan"), float("inf"), "0.08", None, True, 10**400],
    "tr_s": [0, -1, 0.07, float("nan"), float("inf"), 1e300, 10**400, "0.8", None],
}


@pytest.mark.parametrize(
    ("field", "value"),
    [(field, value) for field, values in BAD.items() for value in values],
    ids=[f"{field}-{i}" for field, values in BAD.items() for i in range(len(values))],
)
def test_bad_fields(field: str, value: Any) -> None:
    with pytest.raises(DTwinInputError) as caught:
        TwinSpec.from_dict(_plain(**{field: value}))
    assert caught.value.code == "spec"
    assert field in caught.value.field
    assert len(str(caught.value)) < 2000
    direct = {**PRESETS["tiny"].to_dict(), field: value}
    with pytest.raises(DTwinInputError):
        TwinSpec(**direct)


@pytest.mark.parametrize(
    "values",
    [{}, {"name": "a"}, _plain(colour="red"), {**_plain(), 5: 5}, [], None, "tiny"],
    ids=["empty", "incomplete", "unknown", "number as key", "list", "none", "text"],
)
def test_bad_objects(values: Any) -> None:
    with pytest.raises(DTwinInputError) as caught:
        TwinSpec.from_dict(values)
    assert caught.value.code == "spec"


def test_unknown_cell_is_refused_where_sizes_are_counted() -> None:
    spec = dataclasses.replace(PRESETS["tiny"], cell="transformer")
    with pytest.raises(DTwinInputError) as caught:
        count_weights(spec)
    assert caught.value.code == "cell"
