"""The study of maps of interventions: a perfect map scores 1, and the command knows the study."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("nilearn")
pytest.importorskip("scipy")

from dtwin_fast import cli
from dtwin_fast.errors import DTwinInputError
from dtwin_fast.simulate import simulate
from dtwin_fast.studies import STUDIES, intervention_maps
from dtwin_fast.training import StagedConfig


def test_a_perfect_map_scores_one_and_its_opposite_finds_the_edges_all_the_same() -> None:
    simulated = simulate(6, 16, seed=2, with_bold=False)
    true = simulated.truth.gradient[simulated.truth.trait_names.index("speed")]
    for sign in (1, -1):
        scores = dict(intervention_maps._scores(simulated, "speed", sign * 3 * true))
        assert scores["cosine with the true gradient"] == pytest.approx(sign)
        assert scores["AUC of the causal edges"] == 1
    noise = np.random.default_rng(0).standard_normal(len(true))
    assert abs(dict(intervention_maps._scores(simulated, "speed", noise))[
        "cosine with the true gradient"
    ]) < 0.5  # fmt: skip


def test_every_map_of_every_target_is_scored_on_every_cohort() -> None:
    told: list[tuple[int, int]] = []
    result = STUDIES["intervention-maps"](
        people=12,
        n_regions=24,
        n_cohorts=2,
        config=StagedConfig(n_steps=3, group_steps=3, seed=1),
        progress=lambda done, total, note: told.append((done, total)),
    )
    assert told == [(0, 2), (1, 2), (2, 2)]
    metrics = {row["metric"] for row in result["rows"]}
    assert metrics == {
        f"{target}: {what}"
        for target in intervention_maps.TARGETS
        for what in ("cosine with the true gradient", "AUC of the causal edges")
    }
    for row in result["rows"]:
        assert row["n"] == 2
        assert -1 <= row["score"] <= 1
    names = {row["model"] for row in result["rows"]}
    assert names == {
        intervention_maps.GRADIENT,
        intervention_maps.WEIGHTS,
        intervention_maps.KRR,
    }
    compared = [row for row in result["rows"] if row["model"] == intervention_maps.GRADIENT]
    assert {row["floor_name"] for row in compared} == {
        intervention_maps.WEIGHTS,
        intervention_maps.KRR,
    }


def test_it_reads_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DTwinInputError, match="simulates its people"):
        intervention_maps.run(tmp_path)
    assert (
        cli.main(["study", "intervention-maps", str(tmp_path), "--out", str(tmp_path / "o")]) == 4
    )
