"""What is measured: the whole job beside its kernels and beside torch, the command, its overheads.

Contrasts of every implementation are first compared with float64, and those of the kernels with the
screening's, which must be the same to the bit; where one of them is wrong, nothing is timed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...files import write_atomic
from ...screening import DEFAULT_OUTPUTS
from ...screening.manifest import Manifest, RunFolder
from ...spec import PRESETS
from .. import ukb
from ..machine import examine
from ..threads import count_threads
from ..timing import summarise, take_turns, time_once
from ..verify import MAX_REL_ERR
from . import overheads, report
from .command import run_command
from .job import OUTPUTS, Job, read_contrasts
from .profile import profile
from .torch_job import FORMS, TorchJob

Row = dict[str, Any]
Say = Callable[[str], None]

PRESET = "tcp434"
PEOPLE = 512
"""Of the timed runs."""
MEMORY_PEOPLE = (1_000, 20_000)
"""Of the runs whose memory is compared."""
BUDGET_S = 300.0
"""For the timing, about."""

OURS, KERNELS = "dtwin", "kernels"
COMMANDS = (OUTPUTS, DEFAULT_OUTPUTS, (*DEFAULT_OUTPUTS, "bold"))
"""Outputs that are asked of ``dtwin screen``."""
SMALL, SMALL_TIMES = "demo", 16
"""A second, smaller model for the command, and how many times the people it gets."""


def main(argv: Sequence[str] | None = None) -> int:
    """Verify, time, print tables; 1 if results were wrong."""
    parser = argparse.ArgumentParser(prog="screening", description="Time screenings.")
    parser.add_argument(
        "--preset", choices=tuple(PRESETS), default=PRESET, help=f"sizes (default {PRESET})"
    )
    parser.add_argument(
        "--people",
        type=int,
        default=PEOPLE,
        metavar="N",
        help=f"people of the timed runs (default {PEOPLE})",
    )
    parser.add_argument(
        "--memory-people",
        type=int,
        nargs="*",
        default=MEMORY_PEOPLE,
        metavar="N",
        help=f"people of the runs whose memory is compared (default {MEMORY_PEOPLE[0]} "
        f"{MEMORY_PEOPLE[1]}: many minutes and 8 GB on the disk of TMPDIR); none: no such runs",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to FILE")
    args = parser.parse_args(argv)
    if min((args.people, *args.memory_people)) < 1:
        parser.error("--people, --memory-people: 1 or more")
    results = run(
        args.preset, args.people, args.memory_people, lambda text: print(text, file=sys.stderr)
    )
    if args.json is not None:
        write_atomic(args.json, json.dumps(results, indent=1).encode() + b"\n")
    print(report.as_markdown(results))
    rows = (*results["rows"], *results["commands"], *results["memory"])
    return int(any("reason" in row for row in rows))


def run(preset: str, n_people: int, memory_people: Sequence[int], say: Say) -> dict[str, Any]:
    """All results; no times where the verification found something wrong."""
    import torch

    torch.set_num_threads(count_threads())
    results: dict[str, Any] = {"machine": examine(), "preset": preset}
    results |= {"commands": [], "memory": []}
    with tempfile.TemporaryDirectory() as folder:
        say(f"writing {n_people} people")
        job = Job.write(Path(folder), preset, n_people)
        results["filesystem"] = ukb.filesystem(job.folder)
        results["disk_bytes_per_s"] = job.edges.stat().st_size / min(
            ukb.read_through(job.edges, job.twin.spec.n_edges) for _ in range(3)
        )
        results |= compare(job, say)
        if any("reason" in row for row in results["rows"]):
            return results
        say("profile")
        results["profile"] = profile(job.screen)
        results["commands"] += run_commands(job, COMMANDS, say)
    results["commands"] += command_rows(SMALL, SMALL_TIMES * n_people, COMMANDS, say)
    for n in memory_people:
        results["memory"] += command_rows(preset, n, (OUTPUTS,), say)
    results["overheads"] = overheads.measure(preset, say)
    return results


def compare(job: Job, say: Say) -> dict[str, Any]:
    """A row for each implementation, with ``reason`` in place of times if one was wrong."""
    say(f"verifying {OURS}")
    first_s, out = time_once(job.screen)
    ours = read_contrasts(out)
    shard_size = Manifest.read(RunFolder(out)).shard_size
    calls: dict[str, Callable[[], Any]] = {OURS: job.screen}
    firsts = {OURS: first_s}
    rows: dict[str, Row] = {OURS: verdict(job, ours)}
    say(f"verifying {KERNELS}")
    calls[KERNELS] = partial(job.compute, job.hyper_input(), shard_size)
    firsts[KERNELS], outputs = time_once(calls[KERNELS])
    rows[KERNELS] = verdict(job, job.contrasts(outputs))
    if not np.array_equal(job.contrasts(outputs), ours):
        rows[KERNELS]["reason"] = "other bits than the screening's: nothing is timed"
    for form in FORMS:
        say(f"{form}: a batch")
        torch_job = TorchJob(job, form)
        batch = torch_job.best_batch()
        calls[form] = partial(torch_job.screen, batch)
        say(f"verifying {form}, {batch} people in a batch")
        firsts[form], path = time_once(calls[form])
        rows[form] = {"batch": batch} | verdict(job, np.load(path, allow_pickle=False))
    if not any("reason" in row for row in rows.values()):
        say(f"timing {', '.join(calls)}")
        for impl, times in take_turns(calls, firsts, BUDGET_S).items():
            rows[impl] |= summarise(times)
            rows[impl]["people_per_s"] = job.n_people / rows[impl]["median_s"]
        for row in rows.values():
            row["over_ours"] = row["median_s"] / rows[OURS]["median_s"]
    who = {"people": job.n_people}
    return {
        "shard_size": shard_size,
        "rows": [{"impl": impl} | who | row for impl, row in rows.items()],
    }


def verdict(job: Job, contrasts: Any) -> Row:
    """The error of contrasts, with ``reason`` if it is too large."""
    row: Row = {"rel_err": job.error(contrasts)}
    if not row["rel_err"] <= MAX_REL_ERR["float32"]:
        row["reason"] = "wrong contrasts: nothing is timed"
    return row


def command_rows(preset: str, n_people: int, asked: Sequence[Sequence[str]], say: Say) -> list[Row]:
    """:func:`run_commands` of people that are written for it."""
    with tempfile.TemporaryDirectory() as folder:
        say(f"{preset}: writing {n_people} people")
        return run_commands(Job.write(Path(folder), preset, n_people), asked, say)


def run_commands(job: Job, asked: Sequence[Sequence[str]], say: Say) -> list[Row]:
    """``dtwin screen`` of these people, once for each of the lists of outputs."""
    rows = []
    for outputs in asked:
        say(f"dtwin screen --outputs {','.join(outputs)}, {job.twin.spec.name}, {job.n_people}")
        row = run_command(job, outputs)
        if not row["rel_err"] <= MAX_REL_ERR["float32"]:
            row["reason"] = "wrong contrasts"
        rows.append(row)
    return rows
