"""A screening that takes a moment, and what must be true of its folder whatever happened."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from short_runs import short_schedule

from dtwin_fast.tasks import TASKS
from dtwin_fast.tasks.design import contrast_projection
from dtwin_fast.twin import Twin

N_TRIALS = 10
REJECTED = (3, 12, 13)
"""Positions of people who are rejected."""
LITTER = re.compile(r"\.[0-9a-f]{16}\.part")


@dataclass(frozen=True)
class Job:
    """A screening.

    Attributes:
        model, people, regions: files.
        n_people: of the input.
        shard_size: of its shards.
        outputs: what is asked of each person.
    """

    model: Path
    people: Path
    regions: Path
    n_people: int
    shard_size: int
    outputs: str = "behaviour,contrasts,range"

    def words(self, out: Path, *more: object) -> list[object]:
        """The command line."""
        places = ["screen", self.model, self.people, out, "--regions", self.regions]
        return [*places, "--shard-size", self.shard_size, "--outputs", self.outputs, *more]


def short_twin(twin: Twin) -> Twin:
    """The same twin with the first trials of its tasks' runs."""
    schedules = {task: short_schedule(s, N_TRIALS) for task, s in twin.schedules.items()}
    projections = {
        task: contrast_projection(
            schedule, TASKS[task].contrasts, tr_s=twin.spec.tr_s, dt_s=twin.spec.dt_s
        )
        for task, schedule in schedules.items()
    }
    return replace(twin, schedules=schedules, projections=projections)


def make_job(folder: Path, twin: Twin, n_people: int, shard_size: int, **more: str) -> Job:
    """A job with a model and people in ``folder``, some of whom cannot be used."""
    folder.mkdir()
    twin.save(folder / "model")
    z = np.random.default_rng(n_people).normal(0.1, 0.3, (n_people, twin.spec.n_edges))
    edges = np.tanh(z).astype(np.float32)
    for row in REJECTED:
        edges[row, 7] = np.inf
    np.save(folder / "people.npy", edges)
    (folder / "regions.txt").write_text("\n".join(twin.regions) + "\n")
    files = (folder / name for name in ("model", "people.npy", "regions.txt"))
    return Job(*files, n_people, shard_size, **more)


def digests(out: Path) -> dict[str, str]:
    """SHA-256 of each file below a folder; not of logs, locks and unfinished files."""
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.rglob("*")
        if path.is_file() and not _passes(path.relative_to(out))
    }


def _passes(path: Path) -> bool:
    return path.parts[0] == "logs" or path.suffix == ".lock" or bool(LITTER.fullmatch(path.name))


def litter(out: Path) -> list[Path]:
    """Unfinished files."""
    return [path for path in out.rglob("*") if LITTER.fullmatch(path.name)]


def torn(out: Path, unbroken: dict[str, str]) -> list[str]:
    """Files of a run that is not finished which the unbroken run has not, or has otherwise."""
    return [name for name, digest in digests(out).items() if unbroken.get(name) != digest]


def shard_files(out: Path) -> dict[int, dict[Path, tuple[int, int]]]:
    """Of each shard of which there is anything: its files, and what changes if one is rewritten."""
    found: dict[int, dict[Path, tuple[int, int]]] = {}
    for path in out.rglob("*"):
        number = re.fullmatch(r"shard-(\d+)\..*|c\.(\d+)[.0]*", path.name)
        if number:
            stat = path.stat()
            of_shard = found.setdefault(int(number[1] or number[2]), {})
            of_shard[path] = (stat.st_ino, stat.st_mtime_ns)
    return found


def done_shards(out: Path) -> set[int]:
    """Numbers of the shards that have a record."""
    records = out.glob(".dtwin/done/shard-*.json")
    return {int(path.stem.removeprefix("shard-")) for path in records}


def logged(out: Path) -> Counter[int]:
    """How many times the logs say of a shard that it was done."""
    events: list[dict[str, Any]] = []
    for path in out.glob("logs/*"):
        # The last line of a run that was killed may be cut off.
        whole = path.read_text().rpartition("\n")[0]
        events += [json.loads(line) for line in whole.splitlines()]
    return Counter(event["shard"] for event in events if event["event"] == "done")


def rows(out: Path) -> Counter[int]:
    """How many times each person is in the results, as a score or as rejected."""
    tables = (out / "scores.parquet", out / "rejected.parquet")
    return Counter(row for table in tables for row in pq.read_table(table)["row"].to_pylist())
