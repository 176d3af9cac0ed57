"""dtwin_fast.studies: floors against other libraries, scores against brute force, real numbers."""

from __future__ import annotations

import argparse
import gzip
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nilearn")
pytest.importorskip("torch")

import pandas as pd
from scipy import stats
from sklearn.covariance import oas
from sklearn.linear_model import Ridge

from dtwin_fast.cohort import NO_RESPONSE, NOT_MEASURED, WRONG_BUTTON
from dtwin_fast.commands import study
from dtwin_fast.errors import DTwinInputError
from dtwin_fast.studies import (
    STUDIES,
    dmcc_stroop,
    hcp_battery,
    latent,
    linear,
    pain_bold,
    pain_sites,
    regional_twin,
    result,
    scalar,
    scalar_twin,
    scores,
    tcp_behaviour,
    trial_twin,
)
from dtwin_fast.studies.battery import out_of_fold, shuffled_folds, training_means
from dtwin_fast.studies.reading import as_matrices, fisher_z
from dtwin_fast.studies.result import Measure, as_dict, as_markdown, rows_of

Array = np.ndarray[Any, np.dtype[Any]]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261123)


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what is scored: intervals have tests of their own."""
    monkeypatch.setattr(result, "N_RESAMPLES", 50)


def draw_fc(rng: np.random.Generator, n_people: int, n_regions: int, n_volumes: int) -> Array:
    """(S,E) float32 correlations of random series that share one component."""
    rows, columns = np.triu_indices(n_regions, 1)
    series = rng.normal(size=(n_people, n_regions, n_volumes))
    series += rng.normal(size=(n_regions, 1)) * rng.normal(size=(n_people, 1, n_volumes))
    return np.array([np.corrcoef(s)[rows, columns] for s in series], np.float32)


# Floors


@pytest.mark.parametrize(
    ("fit", "transform"), [(linear.ridge, np.asarray), (linear.krr, linear.unit_rows)]
)
def test_ridge_is_that_of_scikit_learn_with_the_penalty_of_brute_force(
    rng: np.random.Generator, fit: Callable[..., Any], transform: Callable[[Array], Array]
) -> None:
    x, x_new = rng.normal(size=(13, 29)), rng.normal(size=(4, 29))
    targets = (x @ rng.normal(size=(29, 6)) + 5 * rng.normal(size=(13, 6)) + 3).reshape(13, 2, 3)
    predicted = fit(x, np.eye(2), targets, seed=0).predict(x_new)

    features, y = transform(x), targets.reshape(13, 6)
    centred = features - features.mean(axis=0)
    unit = np.trace(centred @ centred.T) / 13
    errors = []
    for penalty in linear.PENALTIES * unit:
        out = [
            y[i]
            - Ridge(penalty)
            .fit(np.delete(features, i, 0), np.delete(y, i, 0))
            .predict(features[i : i + 1])[0]
            for i in range(13)
        ]
        errors.append((np.array(out) ** 2).sum())
    best = linear.PENALTIES[int(np.argmin(errors))] * unit
    expected = Ridge(best).fit(features, y).predict(transform(x_new))
    np.testing.assert_allclose(predicted.reshape(4, 6), expected, rtol=1e-7, atol=1e-9)


def test_penalties_of_each_target_are_those_of_the_target_alone(rng: np.random.Generator) -> None:
    x, x_new = rng.normal(size=(11, 7)), rng.normal(size=(3, 7))
    targets = np.stack([x[:, 0], 0.5 * x[:, 1] + rng.normal(size=11), rng.normal(size=11)], 1)
    together = linear.ridge_each(x, np.eye(3), targets[:, :, None], seed=0).predict(x_new)
    for k in range(3):
        alone = linear.ridge(x, np.eye(1), targets[:, k : k + 1, None], seed=0).predict(x_new)
        np.testing.assert_allclose(together[:, k], alone[:, 0], rtol=1e-9)


def test_a_missing_target_counts_as_average(rng: np.random.Generator) -> None:
    x, targets = rng.normal(size=(9, 5)), rng.normal(size=(9, 1, 2))
    targets[3, 0, 1] = np.nan
    filled = targets.copy()
    filled[3, 0, 1] = np.nanmean(targets[:, 0, 1])
    one, other = (linear.ridge(x, np.eye(1), t, seed=0).predict(x) for t in (targets, filled))
    np.testing.assert_allclose(one, other, rtol=1e-12)


def test_ridge_of_features_that_are_all_equal_predicts_the_mean(rng: np.random.Generator) -> None:
    targets = rng.normal(size=(6, 2, 2))
    predicted = linear.ridge(np.ones((6, 4)), np.eye(2), targets, seed=0).predict(np.ones((1, 4)))
    np.testing.assert_allclose(predicted[0], targets.mean(axis=0))


def test_cpm_takes_the_features_with_a_small_p(rng: np.random.Generator) -> None:
    x = rng.normal(size=(21, 60))
    y = x[:, 0] - x[:, 1] + 0.5 * rng.normal(size=21)
    predicted = linear.cpm(x, np.eye(1), y[:, None, None], seed=0).predict(x)[:, 0, 0]
    r, p = np.array([stats.pearsonr(column, y) for column in x.T]).T
    assert (p < 0.01).any()
    strength = x[:, (p < 0.01) & (r > 0)].sum(axis=1) - x[:, (p < 0.01) & (r < 0)].sum(axis=1)
    np.testing.assert_allclose(predicted, np.polyval(np.polyfit(strength, y, 1), strength))


def test_cpm_without_such_features_predicts_the_mean() -> None:
    x = np.array([[1.0], [-1.0], [1.0], [-1.0]])
    y = np.array([1.0, 2.0, 3.0, 4.0])
    predicted = linear.cpm(x, np.eye(1), y[:, None, None], seed=0).predict(x)
    np.testing.assert_array_equal(predicted, 2.5)


def test_activity_flow_is_ridge_regression_on_the_other_parcels(rng: np.random.Generator) -> None:
    fc, betas = draw_fc(rng, 3, 7, 40), rng.normal(size=(3, 2, 7)).astype(np.float32)
    flow = hcp_battery.activity_flow(hcp_battery.Battery(fc, betas, ("a", "b", "c"), ("x", "y")))
    assert flow.shape == (3, 3, 2, 7)
    for j, matrix in enumerate(as_matrices(fc.astype(np.float64), 1 + hcp_battery.FLOW_PENALTY)):
        for r in range(7):
            others = np.delete(np.arange(7), r)
            weights = np.linalg.solve(matrix[np.ix_(others, others)], matrix[others, r])
            np.testing.assert_allclose(flow[:, j, :, r], betas[:, :, others] @ weights, rtol=1e-5)


def test_fingerprint_is_ridge_over_parcels_without_intercept(rng: np.random.Generator) -> None:
    n, n_regions = 6, 5
    x, targets = fisher_z(draw_fc(rng, n, n_regions, 30)), rng.normal(size=(n, 2, n_regions))
    fc = as_matrices(x.astype(np.float64))
    deviation, y = fc - fc.mean(axis=0), (targets - targets.mean(axis=0)).transpose(0, 2, 1)
    unit = (deviation**2).sum() / n_regions

    def fitted(people: Array, penalty: float) -> Ridge:
        model = Ridge(penalty, fit_intercept=False)
        return model.fit(deviation[people].reshape(-1, n_regions), y[people].reshape(-1, 2))

    errors = [
        sum(
            ((fitted(np.delete(np.arange(n), i), p).predict(deviation[i]) - y[i]) ** 2).sum()
            for i in range(n)
        )
        for p in linear.PENALTIES * unit
    ]
    best = fitted(np.arange(n), linear.PENALTIES[int(np.argmin(errors))] * unit)
    expected = targets.mean(axis=0) + best.predict(deviation[1]).T
    predicted = hcp_battery.fingerprint(x, np.eye(2), targets, seed=0).predict(x[1:2])
    np.testing.assert_allclose(predicted[0], expected, rtol=1e-6, atol=1e-8)


def test_group_activations_through_fc_find_their_factor(rng: np.random.Generator) -> None:
    x, mean = fisher_z(draw_fc(rng, 8, 6, 30)), rng.normal(size=(3, 6))
    fc = as_matrices(x.astype(np.float64))
    targets = mean + 0.37 * np.einsum("mq,srq->smr", mean, fc - fc.mean(axis=0))
    fitted = hcp_battery.group_through_fc(x, np.eye(3), targets, seed=0)
    np.testing.assert_allclose(fitted.predict(x), targets, rtol=1e-6)


def test_partial_correlations_are_those_of_residuals(rng: np.random.Generator) -> None:
    series = rng.normal(size=(60, 4)) @ rng.normal(size=(4, 4))
    series = (series - series.mean(axis=0)) / series.std(axis=0)
    r = np.corrcoef(series.T)
    shrunk, shrinkage = oas(series, assume_centered=True)
    assert pain_sites.oas_shrinkage(r[None], 60)[0] == pytest.approx(shrinkage)
    z = np.arctanh(r[np.triu_indices(4, 1)])[None]
    # The regressions of two nodes on the two others, in the shrunk correlations.
    rest = shrunk[2:, 2:]
    left = shrunk[:2, :2] - shrunk[:2, 2:] @ np.linalg.solve(rest, shrunk[2:, :2])
    expected = left[0, 1] / np.sqrt(left[0, 0] * left[1, 1])
    assert pain_sites.partial_correlations(z, 60)[0, 0] == pytest.approx(expected)


def test_imputation_uses_the_training_people_only(rng: np.random.Generator) -> None:
    x = rng.normal(size=(5, 3)).astype(np.float32)
    x[1, 0] = np.nan
    x[:, 2] = np.nan
    seen: dict[str, Array] = {}

    def fit(x: Array, codes: Array, targets: Array, *, seed: int) -> Any:
        seen["x"] = x
        return linear.ridge(x, codes, targets, seed=seed)

    fitted = pain_sites.imputing(fit)(x, np.eye(1), rng.normal(size=(5, 1, 1)), seed=0)
    assert seen["x"][1, 0] == pytest.approx(np.nanmean(x[:, 0]))
    np.testing.assert_array_equal(seen["x"][:, 2], 0)
    at_mean = np.array([[np.nanmean(x[:, 0]), 1.0, 0.0]])
    missing = np.array([[np.nan, 1.0, np.nan]])
    np.testing.assert_allclose(fitted.predict(missing), fitted.predict(at_mean), rtol=1e-5)


# Folds and scores


@pytest.mark.parametrize(("n", "n_folds"), [(20, 10), (7, 3), (44, 10)])
def test_folds_are_even_in_people_and_groups(n: int, n_folds: int) -> None:
    groups = (np.arange(n) % 5 == 0).astype(int)
    folds = shuffled_folds(n, n_folds, 3, 11, groups)
    assert len({tuple(row) for row in folds}) == 3
    for row in folds:
        assert np.ptp(np.bincount(row, minlength=n_folds)) <= 1
        assert np.ptp([(groups[row == k] == 1).sum() for k in range(n_folds)]) <= 1


def test_no_model_has_seen_whom_it_predicts(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(11, 2)), rng.normal(size=(11, 1, 3))

    class Refusing:
        def __init__(self, x: Array, mean: Array) -> None:
            self.known, self.mean = {tuple(row) for row in x}, mean

        def predict(self, x: Array) -> Array:
            assert not self.known & {tuple(row) for row in x}
            return np.broadcast_to(self.mean, (len(x), 1, 3))

    def fit(x: Array, codes: Array, targets: Array, *, seed: int) -> Refusing:
        return Refusing(x, targets.mean(axis=0))

    folds = shuffled_folds(11, 4, 1, 0)[0]
    predicted = out_of_fold(fit, x, np.eye(1), y, folds, seed=0)
    np.testing.assert_allclose(predicted, training_means(y, folds))
    for i in range(11):
        np.testing.assert_allclose(predicted[i], y[folds != folds[i]].mean(axis=0))


def test_scores_of_rows(rng: np.random.Generator) -> None:
    predicted, observed = rng.normal(size=(2, 5, 3, 7))
    predicted[2] = 4.0
    r = scores.row_r(predicted, observed)
    assert r[2] == 0
    by_condition = scores.condition_r(predicted, observed)
    for i in (0, 1, 3, 4):
        assert r[i] == pytest.approx(np.corrcoef(predicted[i].ravel(), observed[i].ravel())[0, 1])
        each = [np.corrcoef(predicted[i, m], observed[i, m])[0, 1] for m in range(3)]
        assert by_condition[i] == pytest.approx(np.mean(each))


def test_identification_counts_ties_as_chance(rng: np.random.Generator) -> None:
    r = rng.normal(size=(6, 6))
    np.testing.assert_array_equal(scores.top_1(r), r.argmax(axis=1) == np.arange(6))
    below = [(r[i] < r[i, i]).sum() / 5 for i in range(6)]
    np.testing.assert_allclose(scores.rank(r), below)
    np.testing.assert_allclose(scores.top_1(np.zeros((4, 4))), 0.25)
    np.testing.assert_allclose(scores.rank(np.zeros((4, 4))), 0.5)


def test_own_minus_others_compares_within_the_fold(rng: np.random.Generator) -> None:
    observed, predicted = rng.normal(size=(2, 5, 9))
    folds = np.array([0, 0, 0, 1, 2])
    difference = scores.own_minus_others(observed, predicted, folds)
    r = np.corrcoef(observed, predicted)[:5, 5:]
    assert difference[0] == pytest.approx(r[0, 0] - (r[0, 1] + r[0, 2]) / 2)
    assert np.isnan(difference[3:]).all()


def test_rows_compare_models_with_every_floor_and_floors_with_the_first(
    rng: np.random.Generator,
) -> None:
    values = {name: rng.normal(size=17) for name in ("mean", "ridge", "twin")}
    values["twin"][4] = np.nan
    rows = rows_of("s", [Measure("split", "r | x", values)], ("mean", "ridge"), 3)
    pairs = [(row.model, row.floor_name) for row in rows]
    assert pairs == [("mean", ""), ("ridge", "mean"), ("twin", "mean"), ("twin", "ridge")]
    both = np.isfinite(values["twin"])
    assert rows[3].n == 16
    assert rows[3].score == pytest.approx(values["twin"][both].mean())
    assert rows[3].gain == pytest.approx((values["twin"] - values["ridge"])[both].mean())
    assert rows[3].gain_low < rows[3].gain < rows[3].gain_high
    found = as_dict("s", rows, people=17, flags=["one"], settings={"seed": 3})
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["rows"][0]["p"] is None
    table = [line for line in as_markdown(found).splitlines() if line.startswith("|")]
    assert table[0].endswith("| twin better by [95 %] |")
    assert all(line.startswith("| r \\| x | ") for line in table[2:])
    lines = {line.split(" | ")[1]: line for line in table[2:]}
    assert list(lines) == ["mean", "ridge", "twin"]
    gain = f"{rows[3].gain:.3f} [{rows[3].gain_low:.3f}, {rows[3].gain_high:.3f}]"
    assert lines["ridge"].endswith(f"| 17 | {gain} |")
    assert lines["twin"].endswith("| 16 |  |")


def test_tables_show_floors_without_a_row_and_notes_once() -> None:
    row = result.Row("s", "held out", "r", "twin", 0.5, 0.4, 0.6, 9, "mean", 0.1, 0.4, note="few")
    found = as_dict("s", [row, replace(row, metric="R2")], people=9, flags=[], settings={})
    lines = as_markdown(found).splitlines()
    assert "| r | mean | 0.100 |  |  |  | 0.400 |" in lines
    assert "| R2 | twin | 0.500 [0.400, 0.600] (1) |  |  | 9 |  |" in lines
    assert [line for line in lines if "few" in line] == ["1. few"]


def test_where_less_is_better_a_gain_is_positive() -> None:
    values = {"floor": np.array([2.0, 3.0, 5.0]), "model": np.array([1.0, 1.5, 4.0])}
    measure = Measure("split", "error", values, higher_is_better=False)
    assert rows_of("s", [measure], ("floor",), 0)[1].gain == pytest.approx(3.5 / 3)


def test_permutations_stay_within_groups_and_p_is_uniform_without_effect(
    rng: np.random.Generator,
) -> None:
    y, groups = rng.normal(size=12), np.repeat([0, 1, 2], 4)
    null = scalar.permuted(y, groups, 50, 5)
    for group in range(3):
        inside = null[groups == group]
        np.testing.assert_array_equal(
            np.sort(inside, axis=0), np.repeat(np.sort(y[groups == group])[:, None], 50, axis=1)
        )
    folds = shuffled_folds(12, 4, 1, 0, groups)
    x = rng.normal(size=(12, 30))
    everybody = {"groups": groups, "folds": folds, "seed": 0}
    p = []
    for _ in range(40):
        y = rng.normal(size=12)
        both = np.hstack([y[:, None], scalar.permuted(y, groups, 39, int(rng.integers(2**31)))])
        predicted, observed = scalar.cross_validated(linear.ridge_each, x, both, **everybody)
        p.append(scalar.p_value(predicted[:, 0], observed[:, 0], predicted[:, 1:], observed[:, 1:]))
    assert stats.kstest(p, "uniform").pvalue > 1e-3


# Folders as the studies read them, small


def write_battery(folder: Path, rng: np.random.Generator, n: int = 12, n_regions: int = 8) -> None:
    fc = draw_fc(rng, n, n_regions, 60)
    z = as_matrices(fisher_z(fc).astype(np.float64))
    betas = 3 * rng.normal(size=(2, n_regions)) + (
        z @ rng.normal(size=(n_regions, 2)) * 4
    ).transpose(0, 2, 1)
    pd.DataFrame({"subject": [f"p{i}" for i in range(n)]}).to_csv(folder / "subjects.csv")
    pd.DataFrame({"condition": ["a", "b"]}).to_csv(folder / "conditions.csv")
    np.save(folder / "fc_triu.npy", fc)
    np.save(folder / "task_betas.npy", betas.astype(np.float32))


def write_sites(folder: Path, rng: np.random.Generator) -> None:
    n = 40
    fc = draw_fc(rng, n, 9, 50)
    rows, _ = np.triu_indices(9, 1)
    fc[2, rows == 0] = np.nan
    pd.DataFrame(
        {
            "subject": [f"p{i}" for i in range(n)],
            "site": np.repeat(["east", "west"], n // 2),
            "included": (np.arange(n) % 9 > 0).astype(int),
            "pain_sensitivity": np.where(np.arange(n) == 5, np.nan, 3 * fc[:, 20] + 1),
            "meanFD": rng.uniform(0.05, 0.3, n),
        }
    ).to_csv(folder / "subjects.csv")
    np.save(folder / "fc_triu.npy", fc)


EFFECT = np.array([0.0, 2.0, -1.0, 0.5, 3.0])


def write_bold(folder: Path, rng: np.random.Generator) -> None:
    """Five regions with known effects of heat, one without signal in one person."""
    names = [f"p{i}" for i in range(5)]
    events, series = [], {run: [] for run in (1, 3)}
    for run, n_volumes in ((1, 130), (3, 111)):
        for person, name in enumerate(names):
            onset = 10 + 40 * np.arange(5) + rng.uniform(0, 8, 5)
            for k, start in enumerate(onset):
                shared = {"subject": name, "run": run, "regulate": "up" if run == 3 else None}
                events.append(
                    shared | {"onset_in_run": start, "duration": 12.5, "temperature": 42 + k,
                              "event": "heat"}
                )  # fmt: skip
                events.append(
                    shared | {"onset_in_run": start + 18, "duration": 11.0, "temperature": None,
                              "event": "rating"}
                )  # fmt: skip
            own = pd.DataFrame(events)
            own = own[(own["subject"] == name) & (own["run"] == run)]
            inputs = pain_bold._inputs(own, n_volumes, folder, name)
            design = pain_bold.design_matrix(inputs, n_volumes)
            bold = design[:, :1] * EFFECT + 0.3 * rng.normal(size=(n_volumes, 5))
            bold = np.hstack([bold.mean(axis=1, keepdims=True), bold, bold[:, :1]])
            bold[:, 6] *= person != 2
            series[run].append(bold)
        np.save(folder / f"bold_run-{run:02d}.npy", np.array(series[run], np.float32))
        table = pd.DataFrame({"subject": names})
        table.to_csv(folder / f"bold_run-{run:02d}_subjects.csv")
    pd.DataFrame(events).to_csv(folder / "events.csv")
    labels = ["GlobSig", "a", "b", "c", "d", "e", "dark"]
    pd.DataFrame({"label": labels}).to_csv(folder / "regions.csv")


def write_stroop(folder: Path, rng: np.random.Generator, n: int = 12) -> None:
    rows = []
    speed = rng.normal(0.8, 0.15, n)
    for person in range(n):
        for run in (1, 2):
            for item in rng.permutation(dmcc_stroop.N_ITEMS):
                name = list(dmcc_stroop.SETS)[item // 16]
                colours = dmcc_stroop.SETS[name]
                word, ink = colours[item // 4 % 4], colours[item % 4]
                rt_s = speed[person] + (0.1 if word != ink else 0) + 0.05 * rng.normal()
                row = {"subject": f"p{person}", "run": run, "word": word, "color": ink,
                       "item_set": name, "rt_ms": 1000 * rt_s, "response": ink,
                       "outcome": "1"}  # fmt: skip
                rows.append(row)
    for row, changed in (
        (0, {"outcome": "0", "response": rows[0]["word"]}),
        (1, {"outcome": "0", "response": "mauve"}),
        (2, {"outcome": "no.response", "response": None, "rt_ms": 0}),
        (3, {"outcome": "unintelligible", "response": None, "rt_ms": None}),
    ):
        rows[row] |= changed
    rows[0]["response"] = next(
        c for c in dmcc_stroop.SETS[rows[0]["item_set"]] if c != rows[0]["color"]
    )
    pd.DataFrame(rows).to_csv(folder / "trials.csv.gz", index=False)
    pd.DataFrame({"subject": [f"p{i}" for i in range(n)]}).to_csv(folder / "subjects.csv")
    colours = dmcc_stroop.SETS["mi"]
    items = [(word, ink) for ink in colours for word in colours]  # not the order of items
    pd.DataFrame(items, columns=["word", "color"]).to_csv(folder / "conditions.csv")
    betas = rng.normal(size=(n, 16, 5)) + 20 * speed[:, None, None]
    betas[:, :, 0] = [colours.index(word) * 4 + colours.index(ink) for word, ink in items]
    np.save(folder / "betas.npy", betas.astype(np.float32))


WRITERS = {
    hcp_battery: write_battery,
    pain_sites: write_sites,
    pain_bold: write_bold,
    dmcc_stroop: write_stroop,
}


def by_key(found: dict[str, Any]) -> dict[tuple[str, str, str], dict[str, Any]]:
    return {(row["split"], row["metric"], row["model"]): row for row in found["rows"]}


@pytest.mark.usefixtures("few_resamples")
def test_battery_study_takes_models_beside_its_floors(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    write_battery(tmp_path, rng, n=40)
    models = {"a model": linear.ridge}
    found = hcp_battery.run(tmp_path, models=models, seed=4, n_shuffles=2)
    rows = by_key(found)
    key = ("held-out people", "mean-removed r")
    assert rows[(*key, "fingerprint ridge")]["score"] > 0.5
    assert rows[(*key, "group mean")]["score"] == 0
    against = [r["floor_name"] for r in found["rows"] if r["model"] == "a model"]
    assert set(against) == {*hcp_battery.FLOORS, hcp_battery.FLOW, hcp_battery.FLOW_OTHER}
    same = [r for r in found["rows"] if (r["model"], r["floor_name"]) == ("a model", "ridge")]
    assert all(row["gain"] == 0 for row in same)
    assert found == hcp_battery.run(tmp_path, models=models, seed=4, n_shuffles=2)


@pytest.mark.usefixtures("few_resamples")
def test_sites_study_finds_the_edge_that_matters_and_flags_people(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sites(tmp_path, rng)
    monkeypatch.setattr(pain_sites, "N_SHUFFLES", 1)
    monkeypatch.setattr(pain_sites, "N_FOLDS", 4)
    found = pain_sites.run(tmp_path, n_permutations=99)
    rows = by_key(found)
    transfer = rows[("train east, test west", "r over people", "ridge")]
    assert transfer["score"] > 0.5
    assert transfer["p"] <= 0.05
    assert rows[("both sites, 4 folds", "R2", "ridge")]["score"] > 0.2
    assert rows[("both sites, 4 folds", "r over people", scalar.MEAN)]["score"] == 0
    assert rows[("train east, test west", "R2", pain_sites.MOTION)]["score"] < 0.5
    assert any(flag.startswith("p2: 1 region(s)") for flag in found["flags"])
    assert any("p5" in flag for flag in found["flags"])
    assert found["people"] == 40 - 5 - 1


@pytest.mark.usefixtures("few_resamples")
def test_bold_study_recovers_the_effects_that_were_put_in(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    write_bold(tmp_path, rng)
    data = pain_bold.read(tmp_path)
    assert data.train.bold.shape == (5, 130, 5)
    assert data.without_signal == ("dark",)
    assert data.test.regulated
    assert not data.train.regulated
    betas = pain_bold._betas(data.train)
    assert all(np.corrcoef(row, EFFECT)[0, 1] > 0.95 for row in betas)
    found = pain_bold.run(tmp_path)
    rows = by_key(found)
    for split in ("run 1 -> run 3, same people", "run 1 -> run 3, held-out people"):
        assert rows[(split, "time-course R2", pain_bold.GROUP)]["score"] > 0.5
        assert rows[(split, "time-course R2", pain_bold.ZERO)]["score"] == pytest.approx(
            0, abs=1e-12
        )
        pattern = rows[(split, "heat betas, group-pattern r", pain_bold.GROUP)]
        assert pattern["score"] > 0.95
        assert pattern["ceiling"] > 0.95


def test_events_fill_the_steps_they_cover(tmp_path: Path) -> None:
    events = pd.DataFrame(
        {
            "onset_in_run": [1.2, 3.0],
            "duration": [1.0, 9.0],
            "temperature": [46.0, np.nan],
            "event": ["heat", "rating"],
        }
    )
    inputs = pain_bold._inputs(events, 3, tmp_path, "p")
    assert inputs.shape == (12, 3)
    np.testing.assert_allclose(inputs[:5, 0], [0, 0, 0.6, 1, 0.4], atol=1e-6)
    np.testing.assert_allclose(inputs[:, 1], inputs[:, 0], atol=1e-6)
    np.testing.assert_allclose(inputs[:, 2], np.arange(12) >= 6)


@pytest.mark.usefixtures("few_resamples")
def test_stroop_study_reads_what_was_said(tmp_path: Path, rng: np.random.Generator) -> None:
    write_stroop(tmp_path, rng)
    data = dmcc_stroop.read(tmp_path)
    trials = data.trials
    assert trials.item.shape == (12, 64)
    said = trials.choice[0, :4].tolist()
    assert said[1:] == [WRONG_BUTTON, NO_RESPONSE, NOT_MEASURED]
    assert 0 <= said[0] < 4
    assert said[0] != trials.correct[0, 0]
    assert np.isnan(trials.rt_s[0, 2:4]).all()
    assert (trials.choice[1:] == trials.correct[1:]).all()
    np.testing.assert_array_equal(data.betas[:, :, 0], np.tile(np.arange(16), (12, 1)))
    assert (trials.only(1).choice[trials.run == 2] == NOT_MEASURED).all()

    found = dmcc_stroop.run(tmp_path, models={}, n_permutations=99)
    rows = by_key(found)
    within = "run 1 -> run 2, same people"
    assert rows[(within, "RT person-mean r", "own mean")]["score"] > 0.9
    assert rows[(within, "RT person-mean r", "own mean")]["ceiling"] > 0.9
    # Everybody is as slowed by conflict as everybody else.
    assert dmcc_stroop.stroop_effect(trials).mean() == pytest.approx(0.1, abs=0.02)
    from_betas = rows[("held-out people, betas to mean reaction time", "r over people", "ridge")]
    assert from_betas["score"] > 0.8
    assert from_betas["p"] == pytest.approx(1 / 100)


def test_stimulus_sequences_name_ink_word_and_set() -> None:
    inputs = dmcc_stroop.trial_sequences(window_s=0.4)
    assert inputs.shape == (32, 5, 9)
    assert len(np.unique(inputs[:, 0], axis=0)) == 32
    np.testing.assert_array_equal(inputs[:, :, :8].sum(axis=2), 2)
    item = np.arange(32)
    np.testing.assert_array_equal(inputs[:, 0, :4].argmax(axis=1), item % 4)
    con = dmcc_stroop.condition_of(item) == "con"
    np.testing.assert_array_equal((inputs[:, 0, :4] == inputs[:, 0, 4:8]).all(axis=1), con)


def test_people_without_reaction_times_are_left_out_and_flagged(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    write_stroop(tmp_path, rng)
    is_mute = {"subject": "p3", "run": 2}
    edit_csv(
        "trials.csv.gz",
        lambda t: t.assign(rt_ms=t["rt_ms"].where((t[list(is_mute)] != is_mute).any(axis=1))),
    )(tmp_path)
    data = dmcc_stroop.read(tmp_path)
    assert data.left_out == ("p3",)
    assert len(data.trials.item) == len(data.betas) == len(data.subjects) == 11
    assert any("p3" in flag for flag in dmcc_stroop._flags(data))


@pytest.mark.usefixtures("few_resamples")
def test_small_sites_and_unknown_motion_are_flagged(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sites(tmp_path, rng)
    monkeypatch.setattr(pain_sites, "N_SHUFFLES", 1)
    monkeypatch.setattr(pain_sites, "N_FOLDS", 2)
    edit_csv(
        "subjects.csv",
        lambda t: t.assign(
            site=t["site"].where(t.index != 7, "alone"), meanFD=t["meanFD"].where(t.index != 8)
        ),
    )(tmp_path)
    found = pain_sites.run(tmp_path, n_permutations=0)
    assert any(flag.startswith("site alone left out") for flag in found["flags"])
    assert any("no mean FD" in flag and "p8" in flag for flag in found["flags"])
    assert not any("alone" in row["split"] for row in found["rows"])
    assert all(row["score"] is not None for row in found["rows"])


def edit_csv(name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        change(pd.read_csv(folder / name)).to_csv(folder / name, index=False)

    return apply


def edit_array(name: str, change: Callable[[Array], Array]) -> Callable[[Path], None]:
    return lambda folder: np.save(folder / name, change(np.load(folder / name)))


def one_infinite(array: Array) -> Array:
    array[0, 0] = np.inf
    return array


BAD = {
    "no folder": (hcp_battery, lambda f: (f / "subjects.csv").unlink(), "file_missing"),
    "not an array": (
        hcp_battery,
        lambda f: (f / "fc_triu.npy").write_text("no array"),
        "study_data",
    ),
    "empty array file": (hcp_battery, lambda f: (f / "fc_triu.npy").write_bytes(b""), "file_empty"),
    "people missing": (hcp_battery, edit_array("fc_triu.npy", lambda a: a[1:]), "study_data"),
    "parcels missing": (
        hcp_battery,
        edit_array("task_betas.npy", lambda a: a[..., 1:]),
        "study_data",
    ),
    "infinite": (hcp_battery, edit_array("task_betas.npy", one_infinite), "study_data"),
    "integers": (hcp_battery, edit_array("fc_triu.npy", lambda a: a.astype(int)), "study_data"),
    "no column": (
        hcp_battery,
        edit_csv("conditions.csv", lambda t: t.drop(columns="condition")),
        "study_data",
    ),
    "no rows": (hcp_battery, edit_csv("subjects.csv", lambda t: t[:0]), "study_data"),
    "two people": (
        hcp_battery,
        lambda f: write_battery(f, np.random.default_rng(1), n=2),
        "study_data",
    ),
    "one site": (pain_sites, edit_csv("subjects.csv", lambda t: t.assign(site="x")), "study_data"),
    "infinite edge": (pain_sites, edit_array("fc_triu.npy", one_infinite), "study_data"),
    "person without events": (
        pain_bold,
        edit_csv("events.csv", lambda t: t[t["subject"] != "p3"]),
        "study_data",
    ),
    "heat without temperature": (
        pain_bold,
        edit_csv("events.csv", lambda t: t.assign(temperature=np.nan)),
        "study_data",
    ),
    "no signal": (pain_bold, edit_array("bold_run-03.npy", np.zeros_like), "study_data"),
    "other people in the runs": (
        pain_bold,
        edit_csv("bold_run-03_subjects.csv", lambda t: t.assign(subject=t["subject"] + "x")),
        "study_data",
    ),
    "unknown ink": (
        dmcc_stroop,
        edit_csv("trials.csv.gz", lambda t: t.assign(color="grey")),
        "study_data",
    ),
    "fewer trials": (dmcc_stroop, edit_csv("trials.csv.gz", lambda t: t[5:]), "study_data"),
    "an item twice": (
        dmcc_stroop,
        edit_csv("conditions.csv", lambda t: t.assign(word="red")),
        "study_data",
    ),
    "no gzip": (
        dmcc_stroop,
        lambda f: (f / "trials.csv.gz").write_text("subject,run"),
        "study_data",
    ),
    "torn gzip": (
        dmcc_stroop,
        lambda f: (f / "trials.csv.gz").write_bytes(gzip.compress(b"x" * 999)[:-9]),
        "study_data",
    ),
}


@pytest.mark.parametrize(("module", "spoil", "code"), BAD.values(), ids=BAD)
def test_bad_folders_are_refused_before_work_starts(
    module: Any,
    spoil: Callable[[Path], None],
    code: str,
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    WRITERS[module](tmp_path, rng)
    module.read(tmp_path)
    spoil(tmp_path)
    with pytest.raises(DTwinInputError) as caught:
        module.run(tmp_path)
    assert caught.value.code == code


@pytest.mark.usefixtures("few_resamples")
def test_command_writes_tables_and_rows(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    write_bold(data, rng)
    parser = argparse.ArgumentParser()
    study.add(parser)
    words = ["pain-bold", str(data), "--out", str(out), "--seed", "5"]
    assert study.run(parser.parse_args([*words, "--json"])) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((out / study.ROWS).read_text())
    assert printed["settings"]["seed"] == 5
    assert (out / study.TABLES).read_text() == as_markdown(printed)
    with pytest.raises(DTwinInputError, match="out_not_empty"):
        study.run(parser.parse_args(words))
    with pytest.raises(SystemExit):
        parser.parse_args(["no-study", *words[1:]])


# Twins


def test_regional_twin_finds_one_rule_for_all_parcels(rng: np.random.Generator) -> None:
    n, n_regions, n_conditions = 24, 12, 3
    x = fisher_z(draw_fc(rng, n, n_regions, 60))
    rule = rng.normal(size=(n_regions, n_conditions))
    mean = rng.normal(size=(n_conditions, n_regions))
    connected = regional_twin.connections(x, 1.0)
    targets = mean + ((connected - connected.mean(axis=0)) @ rule).transpose(0, 2, 1)
    targets += 0.05 * rng.normal(size=targets.shape)
    codes = np.eye(n_conditions, dtype=np.float32)
    twin = regional_twin.regional_twin(x[:20], codes, targets[:20], seed=3)
    predicted = twin.predict(x[20:])
    assert twin.fc_penalty == 1.0
    deviation = targets[20:] - targets[:20].mean(axis=0)
    assert (scores.row_r(predicted - targets[:20].mean(axis=0), deviation) > 0.8).all()
    # At the mean connectome of the training people there is nothing but the group's mean.
    weights = twin.weights(x[:20])
    np.testing.assert_allclose(weights.w_out.mean(axis=0), twin.w_out, atol=1e-4)
    np.testing.assert_allclose(
        twin.predict(x[:20]).mean(axis=0), targets[:20].mean(axis=0), atol=1e-3
    )


def test_left_out_error_of_the_encoder_is_that_of_brute_force(rng: np.random.Generator) -> None:
    x, z = rng.normal(size=(9, 30)).astype(np.float32), rng.normal(size=(9, 2))
    z[:, 0] += 3 * x[:, 0]
    unit = linear.unit_rows(x)
    centred = unit - unit.mean(axis=0)
    scale = (centred**2).sum() / 9
    errors = []
    for ridge in latent.RIDGES:
        left_out = []
        for i in range(9):
            model = Ridge(ridge * scale).fit(np.delete(unit, i, 0), np.delete(z, i, 0))
            left_out.append(z[i] - model.predict(unit[i : i + 1])[0])
        errors.append((np.array(left_out) ** 2).mean())
    encoder, error = latent.fit_encoder(x, z)
    assert error == pytest.approx(min(errors), rel=1e-4)
    best = Ridge(latent.RIDGES[int(np.argmin(errors))] * scale).fit(unit, z)
    x_new = rng.normal(size=(4, 30)) * 100
    np.testing.assert_allclose(encoder(x_new), best.predict(linear.unit_rows(x_new)), atol=1e-4)


def test_scalar_twin_says_what_its_latent_means(rng: np.random.Generator) -> None:
    x = rng.normal(size=(31, 6)).astype(np.float32)
    y = 40 + 7 * linear.unit_rows(x)[:, 0] + 0.1 * rng.normal(size=31)
    twin = scalar_twin.scalar_twin(
        x[:25], scalar.CODES, y[:25, None, None], seed=1, views=(np.square, np.asarray)
    )
    assert twin.view is np.asarray
    predicted = twin.predict(x[25:])
    assert predicted.shape == (6, 1, 1)
    z = twin.encoder(x[25:])[:, 0]
    np.testing.assert_allclose(predicted[:, 0, 0], y[:25].mean() + y[:25].std() * z, rtol=1e-4)
    assert np.corrcoef(predicted[:, 0, 0], y[25:])[0, 1] > 0.9


def test_series_twin_learns_the_gains_of_people(tmp_path: Path, rng: np.random.Generator) -> None:
    write_bold(tmp_path, rng)
    data = pain_bold.read(tmp_path)
    gain = np.array([0.2, 0.6, 1.0, 1.4, 1.8])
    people, x = np.array(data.subjects), np.eye(5, 9, dtype=np.float32)
    bold = data.train.bold * gain[:, None, None]
    twin = pain_bold.twin(people, x, data.train.inputs, bold, seed=2)
    predicted = twin.predict(people, x, data.test.inputs)
    assert predicted.shape == data.test.bold.shape
    size = np.linalg.norm(predicted - predicted.mean(axis=1, keepdims=True), axis=(1, 2))
    assert np.corrcoef(size, gain)[0, 1] > 0.95
    stranger = twin.predict(np.array(["stranger"]), x[:1], data.test.inputs[:1])
    assert not np.allclose(stranger, predicted[:1])
    again = pain_bold.twin(people, x, data.train.inputs, bold, seed=2)
    np.testing.assert_array_equal(again.predict(people, x, data.test.inputs), predicted)


def test_counts_of_presses_are_what_was_said_when() -> None:
    def one(item: int, choice: int, rt_s: float) -> dmcc_stroop.Trials:
        columns = ([[1]], [[item]], [[choice]], [[rt_s]])
        return dmcc_stroop.Trials(*map(np.array, columns))

    right = dmcc_stroop.press_counts(one(5, 1, 0.5))
    assert right.shape == (1, 32, 40, 9)
    assert right.sum() == right[0, 5].sum() == 7
    assert right[0, 5, :6, 0].all()
    assert right[0, 5, 6, 2] == 1
    assert dmcc_stroop.press_counts(one(5, WRONG_BUTTON, 0.5))[0, 5, 6, 1 + 4 + 1] == 1
    assert dmcc_stroop.press_counts(one(5, NO_RESPONSE, np.nan))[0, 5, :, 0].all()
    for nothing in (one(5, 1, np.nan), one(5, NOT_MEASURED, np.nan), one(5, 1, 3.3)):
        assert not dmcc_stroop.press_counts(nothing).any()


def test_recoloured_stimuli_ask_the_same(rng: np.random.Generator) -> None:
    inputs = dmcc_stroop.trial_sequences(window_s=0.4)
    shown, order = dmcc_stroop.recoloured(inputs, rng)
    assert sorted(order) == [0, 1, 2, 3]
    for item in range(32):
        ink, word = item % 4, item // 4 % 4
        assert shown[item, 0, :4].argmax() == order[ink]
        assert shown[item, 0, 4:8].argmax() == order[word]
    np.testing.assert_array_equal(shown[..., 8], inputs[..., 8])


def test_trial_twin_learns_who_is_slow_and_what_is_right(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_stroop(tmp_path, rng)
    monkeypatch.setattr(trial_twin, "GROUP_STEPS", 150)
    monkeypatch.setattr(trial_twin, "PEOPLE_STEPS", 80)
    data = dmcc_stroop.read(tmp_path)
    x = data.betas.reshape(len(data.betas), -1)
    train, inputs = data.trials.only(1), dmcc_stroop.trial_sequences()
    twin = dmcc_stroop.twin(data.subjects, x, inputs, train, seed=1)
    prob, rt_s = twin.predict(data.subjects, x)
    own = np.nanmean(data.trials.only(2).rt_s, axis=1)
    assert np.corrcoef(rt_s.mean(axis=1), own)[0, 1] > 0.8
    assert rt_s.mean() == pytest.approx(own.mean(), abs=0.1)
    correct = prob[:, np.arange(32), np.arange(32) % 4]
    assert correct.mean() > 0.5
    assert (prob.sum(axis=2) <= 1 + 1e-5).all()
    # The encoder tells strangers with the betas of the slow from those with betas of the quick.
    strangers = np.array([f"s{i}" for i in range(len(x))])
    assert np.corrcoef(twin.predict(strangers, x)[1].mean(axis=1), own)[0, 1] > 0.5


# Real people


@pytest.mark.realdata
def test_activity_flow_has_its_published_numbers(shared_data: Path) -> None:
    data = hcp_battery.read(shared_data / "hcp-rest-task30")
    flow = hcp_battery.activity_flow(data)
    betas, n = data.betas.astype(np.float64), len(data.betas)
    r = np.array([scores.condition_r(flow[:, j], betas) for j in range(n)]).T
    own = np.eye(n, dtype=bool)
    assert r[own].mean() == pytest.approx(0.781, abs=5e-4)
    assert r[~own].mean() == pytest.approx(0.710, abs=5e-4)
    assert scores.top_1(r).sum() == n == 20


@pytest.mark.realdata
@pytest.mark.slow
def test_floors_of_the_battery(shared_data: Path) -> None:
    rows = by_key(STUDIES["hcp-battery"](shared_data / "hcp-rest-task30", n_shuffles=1))
    deviation = {m: rows[("held-out people", "mean-removed r", m)] for m in hcp_battery.FLOORS}
    assert deviation["group mean"]["score"] == 0
    for name in ("group activations through own FC", "fingerprint ridge"):
        assert 0.05 < deviation[name]["score"] < 0.09
        assert deviation[name]["gain_low"] > 0


@pytest.mark.realdata
def test_pain_sites_flags_the_regions_without_signal(shared_data: Path) -> None:
    data = pain_sites.read(shared_data / "rest-fc-pain3site")
    flags = pain_sites._flags(data)
    assert sum("without signal" in flag for flag in flags) == 8
    assert np.isnan(data.sensitivity).sum() == 2
    assert data.fc_z.shape == (90, 7503)


@pytest.mark.realdata
def test_heat_peaks_in_the_insula(shared_data: Path) -> None:
    data = pain_bold.read(shared_data / "pain-bold33")
    assert data.left_out == ("sub-01",)
    labels = pd.read_csv(shared_data / "pain-bold33" / "regions.csv")["label"][1:]
    kept = [label for label in labels if label not in data.without_signal]
    for run in (data.train, data.test):
        t = stats.ttest_1samp(pain_bold._betas(run), 0).statistic
        assert kept[int(t.argmax())].startswith(("AINS", "PINS"))


@pytest.mark.realdata
def test_conflict_slows_nearly_everybody(shared_data: Path) -> None:
    data = dmcc_stroop.read(shared_data / "stroop-dmcc66")
    assert data.betas.shape == (44, 16, 360)
    assert (dmcc_stroop.stroop_effect(data.trials) > 0).mean() > 0.95
    right = data.trials.choice == data.trials.correct
    assert right.sum() == 9310


@pytest.mark.realdata
@pytest.mark.slow
def test_tcp_floors_are_those_of_the_protocol(shared_data: Path) -> None:
    found = tcp_behaviour.run(shared_data / "tcp-behaviour", models={}, n_folds=5)
    assert found["people"] == 152
    rows = {(r["split"].split(":")[0], r["split"].split(": ")[1], r["metric"]): r
            for r in found["rows"]}  # fmt: skip
    faces = rows[("held-out people", "faces", "RT person-mean r")]
    assert 0.2 < faces["score"] < 0.5
    assert not math.isnan(faces["floor"])
