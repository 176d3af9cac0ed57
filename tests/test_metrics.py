"""Scores on cases worked out by hand or by scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dtwin_fast.metrics import concordance, pearson

ROUNDING = 1e-12  # float64 sums of a few dozen terms


def test_pearson_equals_scipy():
    rng = np.random.default_rng(0)
    x = rng.normal(size=40)
    y = 0.4 * x + rng.normal(size=40)
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=ROUNDING)


def test_pearson_leaves_out_pairs_with_a_gap():
    x = np.array([1.0, 2, 3, 4, np.nan, 6])
    y = np.array([2.0, 1, 4, 3, 100, np.nan])
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x[:4], y[:4]).statistic, abs=ROUNDING)


@pytest.mark.parametrize(
    ("x", "y"),
    [([1.0, 1, 1, 1], [1.0, 2, 3, 4]), ([1.0, 2], [2.0, 1]), ([np.nan] * 5, [1.0] * 5)],
    ids=["constant", "two-points", "nothing"],
)
def test_pearson_of_nothing_is_nan(x, y):
    assert np.isnan(pearson(np.array(x), np.array(y)))


def test_pearson_of_a_constant_with_rounding_noise_is_nan():
    x = np.full(50, 0.1) + np.random.default_rng(0).choice([0, 2**-56], 50)
    assert np.isnan(pearson(x, np.arange(50.0)))


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e-8, 1.0, 1e8, 1e200], ids=str)
@pytest.mark.parametrize("offset", [0.0, 1e6], ids=["centred", "far from zero"])
def test_pearson_does_not_depend_on_the_unit(scale, offset):
    x = scale * (offset + np.array([1.0, 2, 3, 5]))
    y = np.array([2.0, 1, 4, 4])
    wanted = stats.pearsonr([1.0, 2, 3, 5], y).statistic
    assert pearson(x, y) == pytest.approx(wanted, abs=1e-9)
    assert pearson(y, x) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e-300, 1e-8, 1e8, 1e200], ids=str)
def test_pearson_of_a_constant_is_nan_in_every_unit(value):
    assert np.isnan(pearson(np.full(7, value), np.arange(7.0)))


def test_concordance_counts_no_response_as_wrong():
    observed = np.array([[0, 1, -1, 2], [0, 0, 0, 0]])
    predicted = np.array([[0, 1, 1, 1], [0, 0, 0, 0]])
    assert concordance(predicted, observed) == 0.75
