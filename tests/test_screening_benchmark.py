"""The benchmark of screenings on tiny sizes: what is verified, refused, timed and written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dtwin_fast.benchmarks import timing
from dtwin_fast.benchmarks.screening import job, overheads, profile, report, suite, torch_job

WORDS = ["--preset", "tiny", "--people", "9"]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread, few people, and the fewest repeats."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr(torch_job, "BATCHES", (4,))
    monkeypatch.setattr(torch_job, "PROBES", 1)
    monkeypatch.setattr(suite, "BUDGET_S", 0.0)
    monkeypatch.setattr(suite, "COMMANDS", suite.COMMANDS[-1:])
    monkeypatch.setattr(suite, "SMALL", "tiny")
    monkeypatch.setattr(suite, "SMALL_TIMES", 2)
    monkeypatch.setattr(overheads, "BARE_SHARDS", 3)
    monkeypatch.setattr(overheads, "INDEXED_FILES", 20)
    monkeypatch.setattr(overheads, "PLANNED_PEOPLE", 1_000)
    monkeypatch.setattr(overheads, "TABLES", 2)
    monkeypatch.setattr(timing, "MIN_REPEATS", 2)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls that were timed, which take no time."""
    names: list[str] = []

    def take_turns(calls: dict[str, Any], first_s: Any, budget_s: float) -> dict[str, list[float]]:
        names.extend(calls)
        return {name: [1.0, 1.0] for name in calls}

    monkeypatch.setattr(suite, "take_turns", take_turns)
    return names


def test_screenings_are_verified_and_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.json"
    assert suite.main([*WORDS, "--memory-people", "5", "40", "--json", str(path)]) == 0
    results = json.loads(path.read_text("utf-8"))
    rows = {row["impl"]: row for row in results["rows"]}
    assert set(rows) == {suite.OURS, suite.KERNELS, *torch_job.FORMS}
    for row in rows.values():
        assert 0 < row["rel_err"] < 1e-5
        assert row["people_per_s"] == pytest.approx(9 / row["median_s"])
        assert row["over_ours"] == pytest.approx(row["median_s"] / rows[suite.OURS]["median_s"])
    assert rows[torch_job.TORCH]["batch"] == 4
    commands = {
        (row["people"], *row["outputs"]): row for row in (*results["commands"], *results["memory"])
    }
    asked = suite.COMMANDS[-1]
    assert set(commands) == {(9, *asked), (18, *asked), (5, *job.OUTPUTS), (40, *job.OUTPUTS)}
    for row in commands.values():
        assert 0 < row["rel_err"] < 1e-5
        assert row["peak_bytes"] > 2**24
    # 40 people have 280 numbers more than 5, and as many more names.
    more = commands[40, *job.OUTPUTS]["result_bytes"] - commands[5, *job.OUTPUTS]["result_bytes"]
    assert 4 * 8 * 35 < more < 20_000
    found = results["overheads"]
    assert found["bookkeeping"]["merge_s"] > 0
    assert found["plan"]["peak_bytes"] > 2**24
    assert found["index"]["kept_s"] > 0
    assert found["tables"]["person_s"] > 0
    printed = capsys.readouterr().out
    assert printed == report.as_markdown(results) + "\n"
    for words in ("| torch over dtwin |", "| 1,000,000 | 100 |", "5 and 40 people"):
        assert words in printed


def scaled(found: Any) -> Any:
    return found * np.float32(1.0001)


def one_person_off(found: Any) -> Any:
    found[-1] *= np.float32(1.0001)
    return found


def with_nan(found: Any) -> Any:
    found[0] = np.nan
    return found


@pytest.mark.parametrize(
    ("owner", "name", "change", "impl"),
    [
        (suite, "read_contrasts", one_person_off, suite.OURS),
        (job.Job, "compute", scaled, suite.KERNELS),
        (torch_job.TorchJob, "contrasts", with_nan, torch_job.TORCH),
    ],
)
def test_with_wrong_contrasts_nothing_is_timed(
    owner: Any,
    name: str,
    change: Callable[[Any], Any],
    impl: str,
    timed: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    right = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *words: change(right(*words)))
    assert suite.main([*WORDS, "--memory-people"]) == 1
    assert timed == []
    (line,) = (x for x in capsys.readouterr().out.splitlines() if x.startswith(f"| {impl} |"))
    assert "nothing is timed" in line


def test_kernels_that_do_other_work_are_not_timed(
    timed: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = job.Job.compute

    def rounded(self: job.Job, x: Any, shard_size: int) -> Any:
        found = right(self, x, shard_size)
        middle = found[4]  # nobody who is compared with float64
        middle[...] = np.nextafter(middle, np.float32(0))
        return found

    monkeypatch.setattr(job.Job, "compute", rounded)
    assert suite.main([*WORDS, "--memory-people"]) == 1
    assert timed == []
    assert "other bits" in capsys.readouterr().out


def test_a_profile_counts_each_second_once(tmp_path: Path) -> None:
    found = profile.profile(job.Job.write(tmp_path, "tiny", 6).screen)
    parts = {row["part"]: row for row in found["parts"]}
    assert len(parts) == len(profile.parts()) + 1
    main = [row["wall_s"] for row in found["parts"] if row["thread"] == profile.MAIN]
    assert sum(main) == pytest.approx(found["wall_s"])
    assert all(row["wall_s"] > 0 for row in found["parts"])
    for thread in (profile.READER, profile.WRITER):
        assert sum(r["wall_s"] for r in found["parts"] if r["thread"] == thread) < found["wall_s"]


def test_the_profile_leaves_no_trace(tmp_path: Path) -> None:
    before = [getattr(owner, name) for _, _, owner, name in profile.parts()]
    profile.profile(job.Job.write(tmp_path, "tiny", 2).screen)
    assert [getattr(owner, name) for _, _, owner, name in profile.parts()] == before


COSTS = report.Costs(
    person=0.02, start=2.0, shard=0.01, merge=0.001, shard_size=32, person_bytes=4e5, disk=1e9
)


def test_costs_of_a_cohort() -> None:
    assert COSTS.seconds(3200, 1) == pytest.approx(2 + 3200 * 0.02 + 100 * 0.001)
    assert COSTS.seconds(3200, 100) == pytest.approx(2 + 32 * 0.02 + 100 * 0.001)
    assert COSTS.bound(3200, 1) == "cores"
    assert COSTS.bound(3200, 100) == "start"
    assert COSTS.bound(32_000_000, 10_000) == "merge"


def test_a_slow_disk_is_the_bound() -> None:
    slow = report.Costs(**vars(COSTS) | {"disk": 1e7})
    assert slow.seconds(3200, 1) == pytest.approx(2 + 3200 * 0.04 + 100 * 0.001)
    assert slow.bound(3200, 1) == "disk"


def test_there_must_be_people() -> None:
    with pytest.raises(SystemExit):
        suite.main(["--people", "0"])
