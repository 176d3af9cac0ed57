"""``python -m dtwin_fast.benchmarks.ray_overhead``: what Ray adds to a screening.

The same shards of about 2 s by processes of the local engine and by as many actors of a Ray of
this machine, in turns; both start their processes and read the model in each turn. Ray itself is
started once before, and that is told apart. Results of both must be the same bytes, else nothing
is said of times.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files import write_atomic
from ..screening import Resources, prepare, run
from ..screening.engines.ray import connected
from ..spec import PRESETS
from .machine import examine
from .screening.job import OUTPUTS, Job, forget
from .timing import summarise

PRESET = "tcp434"
SHARDS = 16
SHARD_S = 2.0
TURNS = 5
GOAL = 0.05
"""Largest overhead."""
PROBE = 16
"""People of the shards by which the size of the others is found."""


def main(argv: Sequence[str] | None = None) -> int:
    """Time, print a table; 1 if results differed."""
    parser = argparse.ArgumentParser(prog="ray_overhead", description="Time the engine ray.")
    parser.add_argument(
        "--preset", choices=tuple(PRESETS), default=PRESET, help=f"sizes (default {PRESET})"
    )
    parser.add_argument("--nprocs", type=int, default=2, metavar="K", help="processes (default 2)")
    parser.add_argument(
        "--shards", type=int, default=SHARDS, metavar="N", help=f"of a run (default {SHARDS})"
    )
    parser.add_argument(
        "--turns", type=int, default=TURNS, metavar="N", help=f"runs of each (default {TURNS})"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to FILE")
    args = parser.parse_args(argv)
    if min(args.nprocs, args.shards, args.turns) < 1:
        parser.error("--nprocs, --shards, --turns: 1 or more")
    results = measure(args.preset, args.nprocs, args.shards, args.turns)
    if args.json is not None:
        write_atomic(args.json, json.dumps(results, indent=1).encode() + b"\n")
    print(as_markdown(results))
    return int("reason" in results)


def measure(preset: str, nprocs: int, n_shards: int, turns: int) -> dict[str, Any]:
    """All results; ``reason`` in place of times where engines differ."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "probe").mkdir()
        size = shard_size(Path(folder, "probe"), preset, nprocs)
        job = Job.write(Path(folder), preset, size * n_shards)
        found: dict[str, Any] = {
            "machine": examine(),
            "preset": preset,
            "nprocs": nprocs,
            "shards": n_shards,
            "shard_size": size,
        }
        start = time.perf_counter()
        with connected(nprocs=nprocs):
            found["cluster_s"] = time.perf_counter() - start
            times: dict[str, list[float]] = {"local": [], "ray": []}
            bytes_of = set()
            for turn in range(turns):
                for engine, spent in times.items():
                    seconds, out = screen(job, size, nprocs, engine)
                    say(f"turn {turn}: {engine} {seconds:.1f} s")
                    spent.append(seconds)
                    bytes_of.add(digest(out))
        if len(bytes_of) > 1:
            return found | {"reason": "the engines' results are not the same bytes"}
    rows = {engine: summarise(spent) for engine, spent in times.items()}
    local, ray = (rows[engine]["median_s"] for engine in ("local", "ray"))
    found["shard_s"] = local * nprocs / n_shards
    of_turns = [b / a - 1 for a, b in zip(times["local"], times["ray"], strict=True)]
    return found | {
        "rows": rows,
        "overhead": ray / local - 1,
        "overhead_of_turns": of_turns,
        "overhead_paired": statistics.median(of_turns),
    }


def shard_size(folder: Path, preset: str, nprocs: int) -> int:
    """People of whom one process, beside the others, makes a shard in ``SHARD_S``."""
    job = Job.write(folder, preset, 4 * nprocs * PROBE)
    few, _ = screen(job, 4 * PROBE, nprocs, "local")
    with tempfile.TemporaryDirectory() as more:
        larger = Job.write(Path(more), preset, 12 * nprocs * PROBE)
        many, _ = screen(larger, 4 * PROBE, nprocs, "local")
    of_person = (many - few) / (8 * PROBE)
    return max(1, round(SHARD_S / of_person))


def screen(job: Job, size: int, nprocs: int, engine: str) -> tuple[float, Path]:
    """Seconds of a run, and its results."""
    forget(job.edges)
    out = job.new_path()
    people = {"path": job.edges, "regions": job.regions}
    prepared = prepare(
        job.model, people, out, outputs=OUTPUTS, shard_size=size, resources=Resources(nprocs)
    )
    start = time.perf_counter()
    run(prepared, engine=engine)
    return time.perf_counter() - start, out


def digest(out: Path) -> str:
    """Of all files of results."""
    found = hashlib.sha256()
    for path in sorted(out.rglob("*")):
        if path.is_file() and path.relative_to(out).parts[0] not in (".dtwin", "logs"):
            found.update(path.relative_to(out).as_posix().encode() + path.read_bytes())
    return found.hexdigest()


def as_markdown(results: dict[str, Any]) -> str:
    """The table, or why there is none."""
    if "reason" in results:
        return f"Wrong: {results['reason']}."
    lines = [
        f"{results['shards']} shards of {results['shard_size']} people ({results['shard_s']:.2f} s "
        f"each) of {results['preset']}, {results['nprocs']} processes; starting Ray took "
        f"{results['cluster_s']:.1f} s, which the table leaves out.",
        "",
        "| engine | median s | quartiles | runs |",
        "|---|---|---|---|",
    ]
    for engine, row in results["rows"].items():
        quartiles = f"{row['q1_s']:.2f} to {row['q3_s']:.2f}"
        lines.append(f"| {engine} | {row['median_s']:.2f} | {quartiles} | {row['repeats']} |")
    met = "met" if results["overhead"] < GOAL else "**not met**"
    lines += [
        "",
        f"Overhead of Ray: {results['overhead']:+.1%}, by pairs {results['overhead_paired']:+.1%} "
        f"(goal: below {GOAL:.0%}, {met}).",
    ]
    return "\n".join(lines)


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
