"""RNNWeights: shapes, dtypes and the flat layout, which is torch's parameter order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dtwin_fast.errors import DTwinInputError
from dtwin_fast.spec import PRESETS
from dtwin_fast.weights import WEIGHT_NAMES, RNNWeights, as_float, count_weights, weight_shapes

S, I, H, O = 3, 4, 5, 2  # noqa: E741 - the project's letters
GATES = {"rnn": 1, "gru": 3, "lstm": 4}


def _arrays(cell: str = "rnn", n_subjects: int = S, dtype: str = "f4") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = weight_shapes(cell, I, H, O)
    return {n: rng.standard_normal((n_subjects, *s)).astype(dtype) for n, s in shapes.items()}


def _code(make: Callable[[], object]) -> str:
    with pytest.raises(DTwinInputError) as caught:
        make()
    return caught.value.code


@pytest.mark.parametrize("cell", GATES)
def test_sizes(cell: str) -> None:
    weights = RNNWeights(cell, **_arrays(cell))
    assert weights.w_hh.shape == (S, GATES[cell] * H, H)
    assert weights.b_ih.shape == weights.b_hh.shape == (S, GATES[cell] * H)
    sizes = (weights.n_subjects, weights.n_inputs, weights.n_hidden, weights.n_outputs)
    assert sizes == (S, I, H, O)


@pytest.mark.parametrize("cell", GATES)
def test_flat_order_is_torchs(cell: str) -> None:
    torch = pytest.importorskip("torch")
    spec = dataclasses.replace(PRESETS["tiny"], cell=cell)
    kind = {"rnn": torch.nn.RNNCell, "gru": torch.nn.GRUCell, "lstm": torch.nn.LSTMCell}[cell]
    modules = [
        (kind(spec.n_inputs, spec.n_hidden), torch.nn.Linear(spec.n_hidden, spec.n_outputs))
        for _ in range(S)
    ]
    flat = np.stack(
        [
            torch.cat([p.detach().reshape(-1) for m in pair for p in m.parameters()]).numpy()
            for pair in modules
        ]
    )
    weights = RNNWeights.from_flat(flat, spec)
    assert flat.shape == (S, count_weights(spec))
    for s, (recurrent, readout) in enumerate(modules):
        for name, parameter in {
            "w_ih": recurrent.weight_ih,
            "w_hh": recurrent.weight_hh,
            "b_ih": recurrent.bias_ih,
            "b_hh": recurrent.bias_hh,
            "w_out": readout.weight,
            "b_out": readout.bias,
        }.items():
            np.testing.assert_array_equal(getattr(weights, name)[s], parameter.detach().numpy())
    assert weights.to_flat().tobytes() == flat.tobytes()


def test_from_flat_copies_nothing() -> None:
    spec = PRESETS["tiny"]
    flat = np.zeros((S, count_weights(spec)), np.float32)
    weights = RNNWeights.from_flat(flat, spec)
    assert all(np.shares_memory(getattr(weights, name), flat) for name in WEIGHT_NAMES)


def test_no_subjects() -> None:
    spec = PRESETS["tiny"]
    weights = RNNWeights.from_flat(np.empty((0, count_weights(spec)), np.float32), spec)
    assert weights.n_subjects == 0
    assert weights.to_flat().shape == (0, count_weights(spec))


@pytest.mark.parametrize("n_more", [-1, 1], ids=["one less", "one more"])
def test_flat_of_another_length(n_more: int) -> None:
    spec = PRESETS["tiny"]
    flat = np.zeros((S, count_weights(spec) + n_more), np.float32)
    assert _code(lambda: RNNWeights.from_flat(flat, spec)) == "shape"
    assert _code(lambda: RNNWeights.from_flat(flat[0], spec)) == "shape"


@pytest.mark.parametrize("name", WEIGHT_NAMES)
def test_every_shape_is_checked(name: str) -> None:
    arrays = _arrays()
    # The last axis of w_ih alone says what I is.
    for axis in range(2 if name == "w_ih" else arrays[name].ndim):
        grown = np.concatenate([arrays[name], arrays[name].take([0], axis)], axis)
        assert _code(lambda grown=grown: RNNWeights("rnn", **{**arrays, name: grown})) == "shape"
    assert _code(lambda: RNNWeights("rnn", **{**arrays, name: arrays[name][0]})) == "shape"
    assert _code(lambda: RNNWeights("rnn", **{**arrays, name: np.float32(1)})) == "shape"


def test_gates_of_another_cell() -> None:
    assert _code(lambda: RNNWeights("gru", **_arrays("lstm"))) == "shape"


@pytest.mark.parametrize("cell", ["transformer", "", None, 3, ["rnn"]], ids=repr)
def test_unknown_cell(cell: Any) -> None:
    assert _code(lambda: RNNWeights(cell, **_arrays())) == "cell"


@pytest.mark.parametrize("dtype", ["f2", ">f4", ">f8", "<f8", "i4", "u2", "f4"])
def test_dtypes_become_native_floats(dtype: str) -> None:
    arrays = _arrays(dtype=dtype)
    weights = RNNWeights("rnn", **arrays)
    wanted = np.float64 if dtype.endswith("8") else np.float32
    for name in WEIGHT_NAMES:
        got = getattr(weights, name)
        assert got.dtype == wanted
        assert got.dtype.isnative
        np.testing.assert_array_equal(got, arrays[name].astype(wanted))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_native_floats_are_not_copied(dtype: str) -> None:
    arrays = _arrays(dtype=dtype)
    weights = RNNWeights("rnn", **arrays)
    assert all(getattr(weights, name) is arrays[name] for name in WEIGHT_NAMES)


class _Stubborn:
    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise RuntimeError("lives on another device")


@pytest.mark.parametrize(
    "value",
    [
        [[1.0, 2.0], [3.0]],
        [[1.0], 2.0],
        ["a"],
        [None],
        [1j],
        [True],
        [10**400],
        np.ones(2, "g"),
        np.ma.masked_less(np.ones((S, H, H)), 2),
        np.ones(2, object),
        np.zeros(2, "datetime64[s]"),
        {},
        _Stubborn(),
    ],
    ids=[
        "ragged",
        "mixed ranks",
        "text",
        "none",
        "complex",
        "bool",
        "huge integer",
        "long double",
        "masked",
        "object",
        "dates",
        "dict",
        "refuses",
    ],
)
def test_other_things_are_refused(value: Any) -> None:
    assert _code(lambda: as_float(value, "w_hh")) == "dtype"
    assert _code(lambda: RNNWeights("rnn", **{**_arrays(), "w_hh": value})) == "dtype"


def test_select() -> None:
    weights = RNNWeights("rnn", **_arrays())
    for index in ([2, 0], slice(1, 3), np.array([True, False, True]), [], [-1]):
        some = weights.select(index)
        for name in WEIGHT_NAMES:
            np.testing.assert_array_equal(getattr(some, name), getattr(weights, name)[index])
    assert np.shares_memory(weights.select(slice(0, 2)).w_hh, weights.w_hh)


@pytest.mark.parametrize(
    ("index", "code"),
    [([3], "subject_index"), ([-4], "subject_index"), (["a"], "subject_index"), (1, "shape"),
     (np.array([True]), "subject_index")],
    ids=["beyond", "before", "text", "one number", "short mask"],
)  # fmt: skip
def test_select_nobody(index: Any, code: str) -> None:
    assert _code(lambda: RNNWeights("rnn", **_arrays()).select(index)) == code
