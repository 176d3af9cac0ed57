"""A worker: reads, computes and writes shards of a run, the three at the same time."""

from __future__ import annotations

import hashlib
import json
import os
import resource
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import MissingExtraError
from ..files import write_atomic
from ..provenance import package_version
from ..twin import Twin
from ..twin_files import load
from .arrays import ZarrGroup, layouts
from .manifest import Done, Manifest, RunFolder, identity_of, open_manifest
from .parquet import REJECTED, SCORES, encode
from .people import People, open_people
from .shard import Computed, Loaded, load_shard, run_shard

AHEAD = 2
"""Shards at most that are read and not computed, and that are computed and not written."""


@dataclass(frozen=True)
class Job:
    """A run, as any process of any machine with the same files can take part in it.

    Attributes:
        out: the folder of results.
        model: a model folder.
        people: arguments of :func:`open_people`.
        manifest: of the run.
    """

    out: Path
    model: Path
    people: dict[str, Any]
    manifest: Manifest

    @property
    def folder(self) -> RunFolder:
        """Where the files of the run are."""
        return RunFolder(self.out)

    def open(self) -> Worker:
        """A worker with a twin and people of its own.

        Raises:
            DTwinInputError: a model or input that cannot be used, or is not the one that the run
                began with; a folder of results that this machine does not see.
        """
        twin, people = load(self.model), open_people(**self.people)
        Manifest.read(self.folder)
        here = replace(
            self.manifest,
            **identity_of(twin),
            version=package_version(),
            people=json.loads(json.dumps(people.identity)),
        )
        return Worker(replace(self, manifest=open_manifest(self.folder, here)), twin, people)


@dataclass(frozen=True)
class Resources:
    """What an engine may use.

    Attributes:
        nprocs: processes that do shards, each with its share of the cores.
        ray_address: of a Ray cluster; None: the engine ``ray`` starts one on this machine.
    """

    nprocs: int = 1
    ray_address: str | None = None


class Worker:
    """Does shards of a job.

    The process is from now on one that leaves no connectomes in core dumps.

    Args:
        job: the run.
        twin, people: of the job.
    """

    def __init__(self, job: Job, twin: Twin, people: People) -> None:
        forbid_core_dumps()
        self._folder, self._manifest = job.folder, job.manifest
        self._twin, self._people = twin, people
        self._layouts = layouts(twin, job.manifest.config)
        self._zarr = ZarrGroup(self._layouts, job.manifest.n_people, job.manifest.shard_size)

    def run(self, shards: Iterable[int]) -> Iterator[int]:
        """Do these shards; yields the number of each when it is on the disk.

        An error ends the run when what was begun is written; no file is ever half there.

        Raises:
            DTwinInputError: input that cannot be read any more.
            BackendUnavailableError, BackendFailedError: the backend cannot run, or failed.
            OSError: results that cannot be written.
        """
        waiting = iter(shards)
        reading: deque[tuple[int, Future[Loaded]]] = deque()
        writing: deque[Future[int]] = deque()
        with (
            one_blas_thread(),
            ThreadPoolExecutor(1, "reader") as reader,
            ThreadPoolExecutor(1, "writer") as writer,
        ):

            def read_ahead() -> None:
                while len(reading) < AHEAD and (shard := next(waiting, None)) is not None:
                    reading.append((shard, reader.submit(self._read, shard)))

            try:
                read_ahead()
                while reading:
                    shard, future = reading.popleft()
                    loaded = future.result()
                    del future  # which holds what was read
                    read_ahead()
                    computed = run_shard(self._twin, self._manifest.config, self._layouts, loaded)
                    del loaded
                    writing.append(writer.submit(self._write, shard, computed))
                    del computed
                    while len(writing) > AHEAD or (writing and writing[0].done()):
                        yield writing.popleft().result()
                while writing:
                    yield writing.popleft().result()
            finally:
                for _, unread in reading:
                    unread.cancel()

    def _read(self, shard: int) -> Loaded:
        manifest = self._manifest
        return load_shard(self._people, self._twin, manifest.config, manifest.rows(shard))

    def _write(self, shard: int, computed: Computed) -> int:
        files = {
            self._folder.part(shard, "scores"): encode(computed.scores, SCORES),
            self._folder.part(shard, "rejected"): encode(computed.rejected, REJECTED),
        }
        for name, rows in computed.arrays.items():
            key, data = self._zarr.chunk(name, shard, rows)
            files[self._folder.arrays / key] = data
        for path, data in files.items():
            write_atomic(path, data)
        codes = computed.rejected["code"]
        Done(
            shard=shard,
            people=len(computed.scores["row"]),
            rejected={code: codes.count(code) for code in sorted(set(codes))},
            flags=computed.flags,
            diverged=computed.diverged,
            input_sha256=computed.input_sha256,
            ran=computed.ran,
            files={
                path.relative_to(self._folder.out).as_posix(): hashlib.sha256(data).hexdigest()
                for path, data in files.items()
            },
        ).write(self._folder)
        return shard


def forbid_core_dumps() -> None:
    """Of this process and those that it starts: connectomes tell who somebody is."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def one_blas_thread() -> Any:
    """A context in which numpy's linear algebra uses one thread.

    More round in another way, and results must not depend on how many cores there are.

    Raises:
        MissingExtraError: threadpoolctl is not installed.
    """
    try:
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise MissingExtraError("threadpoolctl", "screen", "A screening") from error
    return threadpool_limits(1, user_api="blas")


def cores() -> list[int]:
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0))
