"""What a screening costs beside its kernels: shards' bookkeeping, the index of a folder, tables of
text, and the plan of a large cohort."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...screening import open_people
from ...spec import PRESETS
from .. import index_files
from .command import dtwin_screen
from .job import Job, write_header
from .profile import profile

Row = dict[str, Any]
Say = Callable[[str], None]

BARE = "tiny"
"""A model that costs next to nothing."""
BARE_SHARDS = 500
"""Of one person each, so that bookkeeping is what remains."""
INDEXED_FILES = 100_000
PLANNED_PEOPLE = 1_000_000
TABLES = 16
"""One person's table each, of all regions."""


def measure(preset: str, say: Say) -> dict[str, Row]:
    """A row for each overhead, by name."""
    return {
        "bookkeeping": bookkeeping(say),
        "plan": plan(say),
        "index": index(say),
        "tables": tables(preset, say),
    }


def bookkeeping(say: Say) -> Row:
    """Seconds of a shard, and of putting it into the results."""
    say(f"bookkeeping of {BARE_SHARDS} shards")
    with tempfile.TemporaryDirectory() as folder:
        job = Job.write(Path(folder), BARE, BARE_SHARDS)
        found = profile(partial(job.screen, 1))
    merge_s = next(row["wall_s"] for row in found["parts"] if row["part"] == "merge")
    return {
        "shards": BARE_SHARDS,
        "shard_s": (found["wall_s"] - merge_s) / BARE_SHARDS,
        "merge_s": merge_s / BARE_SHARDS,
    }


def plan(say: Say) -> Row:
    """What a dry run takes, so what is there before the first shard: people's names above all."""
    say(f"plan for {PLANNED_PEOPLE} people")
    with tempfile.TemporaryDirectory() as folder:
        job = Job.write(Path(folder), BARE, 1)
        with job.edges.open("wb") as file:
            write_header(file, PLANNED_PEOPLE, job.twin.spec.n_edges)
            # Zeros that take no place on the disk.
            file.truncate(file.tell() + 4 * PLANNED_PEOPLE * job.twin.spec.n_edges)
        ran = dtwin_screen(job, job.new_path(), "--dry-run")
    if ran.summary["people_to_do"] != PLANNED_PEOPLE:
        raise RuntimeError(f"a plan for {ran.summary['people_to_do']} people")
    return {"people": PLANNED_PEOPLE, "wall_s": ran.wall_s, "peak_bytes": ran.peak_bytes}


def index(say: Say) -> Row:
    """Seconds of opening a folder of so many files: without an index, making one, and from it."""
    say(f"index of {INDEXED_FILES} files")
    with tempfile.TemporaryDirectory() as folder:
        root, cache = Path(folder, "people"), Path(folder, "index.parquet")
        index_files.write_tree(root, INDEXED_FILES)
        return {"files": INDEXED_FILES, **index_files.measure(root, cache, INDEXED_FILES)}


def tables(preset: str, say: Say) -> Row:
    """Seconds of reading a person's ``*_relmat.tsv`` of all regions."""
    n_regions = PRESETS[preset].n_regions
    say(f"tables of {n_regions} regions")
    rng = np.random.default_rng(2)
    with tempfile.TemporaryDirectory() as folder:
        for i in range(TABLES):
            matrix = np.asarray(np.corrcoef(rng.standard_normal((n_regions, 500))))
            write_table(Path(folder, f"sub-{i:02d}_relmat.tsv"), matrix)
        people = open_people(folder)
        start = time.perf_counter()
        read = people.read(0, TABLES)
        seconds = time.perf_counter() - start
    if len(read) != TABLES:
        raise RuntimeError(f"{len(read)} of {TABLES} tables were read")
    return {"tables": TABLES, "regions": n_regions, "person_s": seconds / TABLES}


def write_table(path: Path, matrix: npt.NDArray[np.float64]) -> None:
    """A BIDS ``relmat``: names of the regions in the first row, and in the first column."""
    names = [f"region_{i:03d}" for i in range(len(matrix))]
    lines = ["\t".join(("node", *names))]
    for name, row in zip(names, matrix, strict=True):
        lines.append("\t".join((name, *(f"{r:.8f}" for r in row))))
    path.write_text("\n".join(lines) + "\n", "utf-8")
