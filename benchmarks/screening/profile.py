"""Where the time of a screening goes: seconds of each of its parts, in the thread that does it.

The functions that are the parts are wrapped for one run. Seconds of a part are without those of
parts that it calls.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
import time
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from ...screening import array_files, arrays, manifest, shard, worker
from ...twin import Twin
from .. import screening
from ..threads import count_threads

Row = dict[str, Any]

MAIN, READER, WRITER = "main", "reader", "writer"
WAITING = "wait for reader or writer, and the rest"


def parts() -> list[tuple[str, str, Any, str]]:
    """Thread, part, and the function that is the part: where it is looked up, and its name."""
    # The package's attribute of this name is the function.
    run = importlib.import_module("dtwin_fast.screening.run")
    job = importlib.import_module(f"{screening.__name__}.job")
    return [
        (MAIN, "start: model, people, plan", job, "prepare"),
        (MAIN, "generate weights", shard, "generate_weights"),
        (MAIN, "roll out", shard, "rollout"),
        (MAIN, "around them", worker, "run_shard"),
        (MAIN, "merge", run, "merge"),
        (READER, "read", array_files.NpyRows, "read"),
        (READER, "check", array_files.ArrayPeople, "read"),
        (READER, "match regions", Twin, "prepare"),
        (READER, "digest", shard, "input_digest"),
        (READER, "Fisher z", worker, "load_shard"),
        (WRITER, "encode Parquet", worker, "encode"),
        (WRITER, "encode Zarr", arrays.ZarrGroup, "chunk"),
        (WRITER, "write and fsync", worker, "write_atomic"),
        (WRITER, "record and fsync", manifest.Done, "write"),
    ]


def profile(call: Callable[[], Any]) -> dict[str, Any]:
    """One call of a screening: its seconds, busy share of the cores, and a row for each part.

    ``cpu_s`` is of the part's own thread, so without the engine's other threads.
    """
    rows: dict[tuple[str, str], Row] = {}
    for thread, part, _, _ in parts():
        rows[thread, part] = {"thread": thread, "part": part, "wall_s": 0.0, "cpu_s": 0.0}
    before_s, before_cpu_s = time.perf_counter(), time.process_time()
    with _wrapped(rows):
        call()
    wall_s, cpu_s = time.perf_counter() - before_s, time.process_time() - before_cpu_s
    counted_s = sum(row["wall_s"] for row in rows.values() if row["thread"] == MAIN)
    waited: Row = {"thread": MAIN, "part": WAITING, "wall_s": wall_s - counted_s, "cpu_s": None}
    return {
        "wall_s": wall_s,
        "busy": cpu_s / wall_s / count_threads(),
        "parts": [*rows.values(), waited],
    }


@contextlib.contextmanager
def _wrapped(rows: dict[tuple[str, str], Row]) -> Iterator[None]:
    inside = _Inside()
    with contextlib.ExitStack() as stack:
        for thread, part, owner, name in parts():
            function = getattr(owner, name)
            setattr(owner, name, _timed(function, rows[thread, part], inside))
            stack.callback(setattr, owner, name, function)
        yield


class _Inside(threading.local):
    """Wall and CPU seconds of the parts that ended in this thread, for those around them."""

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = 0.0


def _timed(function: Callable[..., Any], row: Row, inside: _Inside) -> Callable[..., Any]:
    @wraps(function)
    def timed(*words: Any, **options: Any) -> Any:
        around = inside.wall_s, inside.cpu_s
        inside.wall_s = inside.cpu_s = 0.0
        wall_s, cpu_s = time.perf_counter(), time.thread_time()
        try:
            return function(*words, **options)
        finally:
            wall_s, cpu_s = time.perf_counter() - wall_s, time.thread_time() - cpu_s
            row["wall_s"] += wall_s - inside.wall_s
            row["cpu_s"] += cpu_s - inside.cpu_s
            inside.wall_s, inside.cpu_s = around[0] + wall_s, around[1] + cpu_s

    return timed
