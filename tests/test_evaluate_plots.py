"""Figures: each is written as an image that shows what it was given."""

from __future__ import annotations

import struct
import sys

import numpy as np
import pytest

from dtwin_fast.errors import MissingExtraError
from dtwin_fast.evaluate.plots import draw_calibration, draw_curves, draw_delta, draw_person_means
from dtwin_fast.evaluate.reaction_time import QUANTILES, DeltaPlot

STEPS = np.array([0.1, 0.3, 0.5, 0.7, 0.9])


def delta(shift=0.0):
    mean = 0.6 + 0.5 * QUANTILES
    return DeltaPlot(mean, 0.05 + 0.2 * QUANTILES, mean + 0.02, 0.08 + 0.1 * QUANTILES + shift)


def means(seed, n_people=60):
    rng = np.random.default_rng(seed)
    observed = 0.85 + 0.16 * rng.normal(size=n_people)
    return np.stack(
        [0.85 + 0.6 * (observed - 0.85) + 0.06 * rng.normal(size=n_people), observed], 1
    )


def curves(scale=1.0):
    n = np.array([100, 300, 1000, 3000])
    return {"twin": (n, scale * np.log(n) / 20), "kernel ridge": (n, np.sqrt(n) / 150)}


def nothing(array):
    return np.full_like(array, np.nan)


DRAWINGS = {
    "delta": lambda path, k: draw_delta(path, delta(0.05 * k), "Stroop effect"),
    "calibration": lambda path, k: draw_calibration(path, STEPS ** (1 + k), "Faces"),
    "people": lambda path, k: draw_person_means(path, means(k), "Faces"),
    "curves": lambda path, k: draw_curves(path, curves(1 + k), "Learning", "people", "r"),
}
EMPTY = {
    "delta": lambda path: draw_delta(path, DeltaPlot(*[nothing(QUANTILES)] * 4), "nobody"),
    "calibration": lambda path: draw_calibration(path, nothing(QUANTILES), "nobody"),
    "people": lambda path: draw_person_means(path, nothing(means(0)), "nobody"),
    "one person": lambda path: draw_person_means(path, means(0, n_people=1), "one"),
    "curves": lambda path: draw_curves(path, {}, "nothing", "steps", "loss"),
    "a point": lambda path: draw_curves(
        path, {"loss": (np.zeros(1), np.ones(1))}, "one", "steps", "loss"
    ),
}


@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)
def test_a_figure_is_a_png_of_its_numbers(draw, tmp_path):
    first, again, other = (tmp_path / f"{name}.png" for name in ("first", "again", "other"))
    draw(first, 0)
    draw(again, 0)
    draw(other, 1)
    data = first.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert width >= 600
    assert height >= 500
    assert data == again.read_bytes()
    assert data != other.read_bytes()


@pytest.mark.parametrize("draw", EMPTY.values(), ids=EMPTY)
def test_a_figure_without_numbers_is_drawn_without_warnings(draw, tmp_path):
    draw(tmp_path / "empty.png")
    assert (tmp_path / "empty.png").stat().st_size > 1000


@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)
def test_without_matplotlib_the_extra_is_named(draw, tmp_path, monkeypatch):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"dtwin_fast\[report\]"):
        draw(tmp_path / "none.png", 0)
    assert not list(tmp_path.iterdir())
