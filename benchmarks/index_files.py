"""Time to index a folder of many one-subject files, and to take up the kept index.

``python -m dtwin_fast.benchmarks.index_files --json FILE`` writes a tree of BIDS relmat
files of a few regions into a temporary folder, as many as ``--files`` says, and times
``open_people`` on it: without an index, making one, and from it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from ..files import write_atomic
from ..screening.people import open_people

TABLE = "Node\ta\tb\tc\na\t1\t0.3\t0.2\nb\t0.3\t1\t0.1\nc\t0.2\t0.1\t1\n"


def write_tree(folder: Path, n_files: int) -> None:
    """``sub-<id>/func/sub-<id>_task-rest_seg-demo_relmat.tsv`` of as many people."""
    for number in range(n_files):
        place = folder / f"sub-{number:06d}" / "func"
        place.mkdir(parents=True)
        (place / f"sub-{number:06d}_task-rest_seg-demo_relmat.tsv").write_text(TABLE)


def measure(folder: Path, cache: Path, n_files: int) -> dict[str, float]:
    """Seconds to open ``n_files`` people: by scanning, while keeping the index, and from it."""
    seconds: dict[str, float] = {}
    identities = []
    for label, kept in [("scan_s", None), ("scan_and_keep_s", cache), ("kept_s", cache)]:
        start = time.perf_counter()
        people = open_people(folder, index_cache=kept)
        seconds[label] = time.perf_counter() - start
        identities.append(people.identity)
    if len(people.subjects) != n_files or identities != identities[:1] * 3:
        raise AssertionError("the index is not the folder")
    start = time.perf_counter()
    people.read(0, min(1000, n_files))
    seconds["read_1000_s"] = time.perf_counter() - start
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000, help="people, one file each")
    parser.add_argument("--json", type=Path, help="write the seconds here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder, cache = Path(place) / "in", Path(place) / "index.parquet"
        write_tree(folder, options.files)
        seconds = measure(folder, cache, options.files)
        row = {"files": options.files, **{name: round(s, 3) for name, s in seconds.items()}}
        print(json.dumps(row), flush=True)  # taking the tree away may last longer than all of it
        if options.json:
            write_atomic(options.json, json.dumps(row, indent=2) + "\n")


if __name__ == "__main__":
    main()
