"""The benchmark of interventions on tiny sizes: what is verified, refused, timed and written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dtwin_fast.benchmarks import interventions, timing

WORDS = ["--preset", "tiny", "--people", "3"]
COHORT = 12


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread, few people, and the fewest repeats."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr(interventions, "COHORT", COHORT)
    monkeypatch.setattr(interventions, "N_STEPS", 4)
    monkeypatch.setattr(interventions, "STEPS", 2)
    monkeypatch.setattr(interventions, "TORCH_PEOPLE", 2)
    monkeypatch.setattr(interventions, "BATCHES", (2,))
    monkeypatch.setattr(interventions, "PROBES", 1)
    monkeypatch.setattr(interventions, "BUDGET_S", 0.0)
    monkeypatch.setattr(timing, "MIN_REPEATS", 2)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls that were timed, which take no time."""
    names: list[str] = []

    def take_turns(calls: dict[str, Any], first_s: Any, budget_s: float) -> dict[str, list[float]]:
        names.extend(calls)
        return {name: [1.0, 1.0, 1.0] for name in calls}

    monkeypatch.setattr(interventions, "take_turns", take_turns)
    return names


def test_searches_and_maps_are_verified_and_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.json"
    assert interventions.main([*WORDS, "--full", "--json", str(path)]) == 0
    results = json.loads(path.read_text("utf-8"))
    assert results["machine"]["threads"] == 1
    ours, exact, torch = interventions.OURS, interventions.OURS_FLOAT32, interventions.TORCH
    loop = interventions.TORCH_LOOP
    verified = {(row["target"], row["impl"]): row for row in results["verified"]}
    targets = interventions.TARGETS
    assert set(verified) == {(t, i) for t in targets for i in (ours, exact, torch, loop)} | {
        ("z1", exact)
    }
    for target in targets:
        assert verified[target, exact]["rel_err"] < 1e-5
        assert verified[target, torch]["rel_err"] < 1e-5
        assert verified[target, loop]["rel_err"] < 1e-5
        # Rounded weights are told from others, by gradients that are still the same.
        assert verified[target, ours]["rel_err"] > 1e-4
        assert 0.999 < verified[target, ours]["cosine"] < 1
    rows = [row for row in results["rows"] if row["computed"]]
    times = {(row["op"], row["target"], row["impl"]): row for row in rows}
    for target in targets:
        reference = times["search", target, ours]
        for impl, n_people in ((ours, 3), (exact, 3), (torch, 2), (loop, 2)):
            row = times["search", target, impl]
            assert row["people"] == n_people
            assert row["per_s"] == pytest.approx(n_people * row["steps"] / row["median_s"])
            assert row["over_ours"] == pytest.approx(reference["per_s"] / row["per_s"])
            assert row["cohort_s"] == pytest.approx(COHORT * 4 / row["per_s"])
        assert times["search", target, torch]["batch"] == 2
        assert times["search", target, exact]["error_of_change"] < 1e-3
        assert times["controls", target, exact]["cohort_s"] > 0
    for impl in (ours, exact, torch, loop):
        parts = [times["search", target, impl]["cohort_s"] for target in targets]
        assert times["search", "all", impl]["cohort_s"] == pytest.approx(sum(parts))
    measured = [row for row in results["rows"] if not row["computed"]]
    assert {(row["op"], row["target"]) for row in measured} == {
        ("smoothgrad", "z1"),
        *((op, target) for op in ("search", "make valid") for target in (*targets, "all")),
    }
    assert all(row["people"] == COHORT and row["cohort_s"] > 0 for row in measured)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(verified) + len(results["rows"]) + 5


def scaled(gradients: Any) -> Any:
    return gradients * np.float32(1.001)


def one_edge_off(gradients: Any) -> Any:
    gradients[..., 0, np.abs(gradients[0, 0]).argmax()] *= np.float32(1.001)
    return gradients


def with_nan(gradients: Any) -> Any:
    gradients[0, 1, 5] = np.nan
    return gradients


@pytest.mark.parametrize("change", [scaled, one_edge_off, with_nan])
def test_with_a_wrong_gradient_nothing_is_timed(
    change: Callable[[Any], Any],
    timed: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    right = interventions.Simulator.gradients

    def wrong(self: Any, connectomes: Any) -> Any:
        values, gradients = right(self, connectomes)
        return values, change(gradients)

    monkeypatch.setattr(interventions.Simulator, "gradients", wrong)
    assert interventions.main(WORDS) == 1
    assert timed == []
    lines = capsys.readouterr().out.splitlines()
    refused = [line for line in lines if "wrong gradients: nothing is timed" in line]
    assert sum(interventions.OURS_FLOAT32 in line for line in refused) == 2


def too_large(right: Any, twin: Any, people: Any, direction: Any, rng: Any) -> Any:
    return 1.03 * right(twin, people, direction, rng)


def without_noise(right: Any, twin: Any, people: Any, direction: Any, rng: Any) -> Any:
    return right(twin, people, direction, np.random.default_rng(0))


@pytest.mark.parametrize("change", [too_large, without_noise])
def test_with_wrong_maps_nothing_is_timed(
    change: Callable[..., Any], timed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = interventions.smooth_gradients
    monkeypatch.setattr(interventions, "smooth_gradients", lambda *words: change(right, *words))
    assert interventions.main(WORDS) == 1
    assert timed == []


def test_a_search_that_finds_something_else_is_not_timed(
    timed: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = interventions.search

    def shorter(*words: Any, **options: Any) -> Any:
        found = right(*words, **options)
        return replace(found, change=found.change * np.float32(0.99))

    monkeypatch.setattr(interventions, "search", shorter)
    assert interventions.main([*WORDS, "--full"]) == 1
    assert set(timed) == {interventions.OURS_FLOAT32, interventions.TORCH}  # of SmoothGrad
    assert "another change than torch's loop" in capsys.readouterr().out


@pytest.mark.parametrize("number", ["0", str(COHORT + 1)])
def test_there_must_be_so_many_people(number: str) -> None:
    with pytest.raises(SystemExit):
        interventions.main(["--people", number])
