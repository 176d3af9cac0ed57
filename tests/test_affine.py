"""The hypernetwork's layers in the engine, beside float64, and the bits of their rows."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtwin_fast._core import affine

SIZES = [
    (1, 1, 1),
    (1, 3, 70),
    (2, 129, 1),
    (5, 128, 64),
    (7, 257, 65),
    (33, 300, 200),
    (50, 17, 129),
    (100, 131, 63),
    (500, 40, 130),
]


def draw(n_rows: int, n_in: int, n_out: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    return {"x": normal(n_rows, n_in), "weight": normal(n_out, n_in), "bias": normal(n_out)}


def run(x: Any, weight: Any, bias: Any, n_threads: int = 2) -> np.ndarray:
    y = np.full((len(x), weight.shape[0 if bias is not None else 1]), np.nan, np.float32)
    affine(x=x, weight=weight, bias=bias, y=y, n_threads=n_threads)
    return y


@pytest.mark.parametrize("sizes", SIZES)
def test_equals_float64(sizes: tuple[int, int, int], tolerances: ModuleType) -> None:
    parts = draw(*sizes)
    x, weight, bias = (each.astype(np.float64) for each in parts.values())
    tolerances.assert_close(run(**parts), x @ weight.T + bias, "affine", "float32")
    d_y = draw(sizes[0], sizes[2], 1, seed=1)["x"]
    wanted = d_y.astype(np.float64) @ weight
    tolerances.assert_close(run(d_y, parts["weight"], None), wanted, "affine", "float32")


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.integers(0, 119), min_size=1, max_size=250),
    n_in=st.integers(1, 300),
    n_out=st.integers(1, 150),
    n_threads=st.integers(1, 5),
)
def test_a_row_has_the_same_bits_at_any_place_of_any_batch(
    rows: list[int], n_in: int, n_out: int, n_threads: int
) -> None:
    parts = draw(120, n_in, n_out)
    whole = run(**parts)
    some = parts | {"x": parts["x"][rows]}
    assert run(**some, n_threads=n_threads).tobytes() == whole[rows].tobytes()
    back = parts | {"x": draw(120, n_out, 1)["x"], "bias": None}
    whole = run(**back)
    some = back | {"x": back["x"][rows]}
    assert run(**some, n_threads=n_threads).tobytes() == whole[rows].tobytes()


def test_what_is_not_finite_stays_in_its_row() -> None:
    parts = draw(40, 200, 70)
    wanted = run(**parts)
    parts["x"][7, 3] = np.nan
    parts["x"][9] = np.inf
    got = run(**parts)
    others = ~np.isin(np.arange(40), [7, 9])
    assert got[others].tobytes() == wanted[others].tobytes()
    assert np.isnan(got[7]).all()
    assert not np.isfinite(got[9]).any()


def test_nobody() -> None:
    parts = draw(0, 5, 3)
    assert run(**parts).shape == (0, 3)


@pytest.mark.parametrize(
    "change",
    [
        {"x": np.zeros((4, 6), np.float32)},
        {"x": np.zeros(5, np.float32)},
        {"weight": np.zeros(5, np.float32)},
        {"weight": np.zeros((3, 10), np.float32)[:, ::2]},
        {"bias": np.zeros(4, np.float32)},
        {"y": np.zeros((4, 4), np.float32)},
        {"y": np.zeros((8, 3), np.float32)[::2]},
        {"n_threads": -1},
    ],
    ids=lambda change: "-".join(map(str, change)),
)
def test_what_does_not_fit_is_refused(change: dict[str, Any]) -> None:
    y = np.zeros((4, 3), np.float32)
    with pytest.raises(ValueError, match=r"wanted|contiguous|n_threads"):
        affine(**(draw(4, 5, 3) | {"y": y, "n_threads": 1} | change))
    assert not y.any()


def test_another_dtype_is_refused() -> None:
    parts = draw(4, 5, 3)
    with pytest.raises(TypeError):
        affine(**(parts | {"x": parts["x"].astype(np.float64)}), y=np.zeros((4, 3)), n_threads=1)
