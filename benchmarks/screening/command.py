"""``dtwin screen`` in a process of its own: seconds, peak memory and results of the command."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from ..memory import status
from .job import Job, forget, read_contrasts


def run_command(job: Job, outputs: Sequence[str]) -> dict[str, Any]:
    """What the command took, and the error of its contrasts.

    The peak is the resident set of the whole process with Python and all that it imports. Files
    that are read are not mapped, so that the page cache is no part of it.

    Raises:
        RuntimeError: the command failed, or people are missing.
    """
    out = job.new_path()
    words = ["screen", job.model, job.edges, out, "--regions", job.regions, "--json"]
    words += ["--outputs", ",".join(outputs)]
    forget(job.edges)
    start = time.perf_counter()
    ran = subprocess.run(
        [sys.executable, "-m", __name__, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    if ran.returncode:
        raise RuntimeError(f"dtwin screen ended with {ran.returncode}: {ran.stderr[-2000:]}")
    summary, peak = map(json.loads, ran.stdout.splitlines()[-2:])
    if summary["people"] != job.n_people:
        raise RuntimeError(f"{summary['people']} of {job.n_people} people have results")
    return {
        "preset": job.twin.spec.name,
        "people": job.n_people,
        "outputs": list(outputs),
        "wall_s": seconds,
        "people_per_s": job.n_people / seconds,
        "input_bytes_per_s": job.edges.stat().st_size / seconds,
        "peak_bytes": peak,
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
