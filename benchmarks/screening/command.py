"""``dtwin screen`` in a process of its own: seconds, peak memory and results of the command."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..memory import status
from .job import Job, forget, read_contrasts


@dataclass(frozen=True)
class Ran:
    """A command that ended well.

    Attributes:
        summary: what it printed as JSON.
        wall_s: with the start of Python.
        peak_bytes: resident set of the process, with Python and all that it imports. Files that
            are read are not mapped, so that the page cache is no part of it.
    """

    summary: dict[str, Any]
    wall_s: float
    peak_bytes: int


def dtwin_screen(job: Job, out: Path, *options: str) -> Ran:
    """Run the command on a job.

    Raises:
        RuntimeError: it failed.
    """
    words = [job.model, job.edges, out, "--regions", job.regions, "--json", *options]
    forget(job.edges)
    start = time.perf_counter()
    ran = subprocess.run(
        [sys.executable, "-m", __name__, "screen", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )
    wall_s = time.perf_counter() - start
    if ran.returncode:
        raise RuntimeError(f"dtwin screen ended with {ran.returncode}: {ran.stderr[-2000:]}")
    summary, peak_bytes = map(json.loads, ran.stdout.splitlines()[-2:])
    return Ran(summary, wall_s, peak_bytes)


def run_command(job: Job, outputs: Sequence[str]) -> dict[str, Any]:
    """What the command takes for these outputs, and the error of its contrasts.

    Raises:
        RuntimeError: the command failed, or people are missing.
    """
    out = job.new_path()
    ran = dtwin_screen(job, out, "--outputs", ",".join(outputs))
    if ran.summary["people"] != job.n_people:
        raise RuntimeError(f"{ran.summary['people']} of {job.n_people} people have results")
    return {
        "preset": job.twin.spec.name,
        "people": job.n_people,
        "outputs": list(outputs),
        "wall_s": ran.wall_s,
        "people_per_s": job.n_people / ran.wall_s,
        "input_bytes_per_s": job.edges.stat().st_size / ran.wall_s,
        "peak_bytes": ran.peak_bytes,
        "result_bytes": sum(path.stat().st_size for path in out.rglob("*") if path.is_file()),
        "rel_err": job.error(read_contrasts(out)),
    }


def main() -> int:
    """Run ``dtwin`` with the command line's words, and print the peak in bytes on a last line."""
    from ...cli import main as dtwin

    code = dtwin(sys.argv[1:])
    print(status("VmHWM"))
    return code


if __name__ == "__main__":
    sys.exit(main())
