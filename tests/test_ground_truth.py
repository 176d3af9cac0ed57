"""The study of simulated people, on small cohorts."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nilearn")

from dtwin_fast.commands import study
from dtwin_fast.errors import DTwinInputError
from dtwin_fast.evaluate.baselines import BASELINES
from dtwin_fast.evaluate.splits import blank
from dtwin_fast.evaluate.twin import twin_predictors
from dtwin_fast.simulate import simulate
from dtwin_fast.spec import PRESETS
from dtwin_fast.studies import ground_truth, result
from dtwin_fast.studies.linear import krr_each
from dtwin_fast.studies.oracle import Oracle
from dtwin_fast.studies.scalar import fit_predict
from dtwin_fast.training import StagedConfig


def test_oracle_expects_what_other_runs_of_the_same_people_show() -> None:
    whole = simulate(31, 17, seed=8, n_factors=9, with_bold=False)
    order = np.random.default_rng(8).permutation(31)[:23]
    some = whole.cohort.select(order)
    said = Oracle(whole.truth).predict(blank(some))
    for task, data in some.tasks.items():
        rt_s, choice_prob = said[task].rt_s, said[task].choice_prob
        assert rt_s is not None
        assert choice_prob is not None
        assert rt_s.shape == data.rt_s.shape
        assert np.isfinite(rt_s).all()
        assert (choice_prob.sum(axis=2) <= 1 + 1e-6).all()
        seen = np.where(data.pressed, data.rt_s, np.nan)
        means = np.nanmean(seen, axis=1), np.where(data.pressed, rt_s, 0).sum(axis=1)
        assert np.corrcoef(means[0], means[1] / data.pressed.sum(axis=1))[0, 1] > 0.95
        # Time and choice differ from the run itself, whose trial noise it does not know.
        assert np.nanstd(rt_s - seen) > 0.05
        likeliest = choice_prob.argmax(axis=2)
        assert (likeliest == data.choice)[data.pressed].mean() > 0.85


def test_kernel_is_of_deviations_from_the_training_mean() -> None:
    rng = np.random.default_rng(5)
    x, new, y = (rng.standard_normal(shape) for shape in ((19, 37), (7, 37), (19, 2)))
    shifted = rng.standard_normal(37) * 50
    found = fit_predict(ground_truth.krr, x + shifted, new + shifted, y, seed=0)
    wanted = fit_predict(krr_each, x - x.mean(axis=0), new - x.mean(axis=0), y, seed=0)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_first_layer_is_ridge_regression_on_standardised_edges() -> None:
    rng = np.random.default_rng(6)
    x, new = rng.standard_normal((13, 90)), rng.standard_normal((5, 90))
    y = 3 + rng.standard_normal((13, 2))
    x, new = (3 * rows.astype(np.float32) for rows in (x, new))
    mean, sd = x.mean(axis=0), x.std(axis=0, ddof=0)
    sd = np.sqrt((sd**2).mean())  # one for all edges, as in training
    scaled, y_0 = (x - mean) / sd, y.mean(axis=0)
    penalty = StagedConfig().ridge * (scaled**2).sum() / 13  # of the kernel's mean diagonal
    slope = np.linalg.solve(scaled.T @ scaled + penalty * np.eye(90), scaled.T @ (y - y_0))
    found = fit_predict(ground_truth.first_layer, x, new, y, seed=0)
    np.testing.assert_allclose(found, y_0 + (new - mean) / sd @ slope, atol=1e-3)


def by_key(found: dict[str, Any]) -> dict[tuple[str, str, str], dict[str, Any]]:
    return {(row["split"], row["metric"], row["model"]): row for row in found["rows"]}


def test_study_scores_twin_and_control_in_every_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result, "N_RESAMPLES", 60)
    config = StagedConfig(group_steps=6, n_steps=6)
    twins = twin_predictors(config, PRESETS["tiny"], "cpu")
    told: list[tuple[int, int, str]] = []
    found = ground_truth.run(
        models={name: twins[name] for name in ("twin", "twin-zero")},
        seed=4,
        people=18,
        n_regions=23,
        n_folds=2,
        n_cohorts=2,
        sizes=(11, 17),
        n_test=13,
        progress=lambda *tick: told.append(tick),
    )
    json.dumps(found, allow_nan=False)
    assert [done for done, _, _ in told] == list(range(told[0][1] + 1))
    rows = by_key(found)
    within = "within person, first half to second half: stroop"
    held_out = "held-out people: stroop"
    # One RNN for all tells nobody from anybody.
    for split in within, held_out:
        assert rows[split, "RT condition-effect r", "twin-zero"]["score"] == 0
        assert rows[split, "RT person-mean r", "oracle"]["score"] > 0.9
        share = rows[split, "RT person-mean r, share of the oracle's", "twin"]["score"]
        own, best = (rows[split, "RT person-mean r", m]["score"] for m in ("twin", "oracle"))
        assert share == pytest.approx(own / best)
    for trait, h2 in (("speed", 0.6), ("interference", 0.15), ("amygdala", 0.15)):
        row = rows["true traits of held-out people", f"r with true {trait}", "twin"]
        assert row["ceiling"] == pytest.approx(h2**0.5)
        assert row["n"] == 18
    null = rows["null trait", "r of held-out people", "KRR"]
    assert null["n"] == 2
    assert 0 <= null["p"] <= 1
    for size in 11, 17:
        curve = f"learning curve: {size} training people", "r with true speed"
        assert {name for *split, name in rows if tuple(split) == curve} == {
            "twin",
            ground_truth.KRR,
            ground_truth.TRUE_KRR,
        }
        assert rows[*curve, "twin"]["n"] == 13


def test_more_people_recover_the_trait_better_and_its_truth_best() -> None:
    whole = simulate(500, 24, seed=2, n_factors=4, with_bold=False)
    ticks = ground_truth._Ticks(None, 2)
    few, many = ground_truth._learning_curve(
        "krr", BASELINES["krr"], whole, (20, 300), 200, 2, ticks
    )
    score = {
        name: [measure.combine(measure.values[name]) for measure in (few, many)]
        for name in ("krr", ground_truth.TRUE_KRR)
    }
    true = score[ground_truth.TRUE_KRR]
    assert true[0] + 0.1 < true[1] < few.ceiling
    assert 0.2 < score["krr"][1] < true[1]


def test_folder_is_for_the_other_studies(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    study.add(parser)
    out = str(tmp_path / "out")
    for words in (["pain-bold"], ["ground-truth", str(tmp_path)]):
        with pytest.raises(DTwinInputError) as caught:
            study.run(parser.parse_args([*words, "--out", out]))
        assert caught.value.code == "folder"
