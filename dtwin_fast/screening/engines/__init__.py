"""Engines: where the shards of a run are done. The manifest stays the truth of what is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..worker import Job, Resources, Worker
from . import local, ray

Engine = Callable[[Job, Worker, Sequence[int], Resources], Iterator[int]]
"""(job, a worker of this process, shards to do, what may be used) -> each shard when it is done.

Closing the iterator stops all work: shards that were begun are done then, or not done at all.
"""

ENGINES: dict[str, Engine] = {"local": local.run, "ray": ray.run}
"""Name -> engine."""
