"""A run from its arguments to its results."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import DTwinInputError
from ..files import as_path, naming
from ..hypernetwork import BLOCK_SUBJECTS, count_parameters
from ..interventions.gradients import STATES_BYTES
from ..interventions.search import N_STEPS
from ..prediction_files import bids_labels
from ..provenance import package_version
from ..twin import CHUNK_BYTES, Twin
from ..twin_files import load
from ..weights import count_weights
from .arrays import import_zarr, layouts
from .config import Config
from .engines import ENGINES
from .index import IndexProgress
from .lock import Shard, locked, refuse_locked
from .manifest import Done, Manifest, RunFolder, identity_of, missing_shards, open_manifest
from .parquet import import_pyarrow
from .people import People, is_indexed, open_people
from .results import Summary, merge, summarise
from .shard import check_unit, no_numbers, nobody_of
from .worker import AHEAD, Job, Resources, Worker, forbid_core_dumps

SHARD_FLOP = 2e11
"""Of a shard, about: 1 to 2 s on two cores."""
LEAST_PEOPLE, MOST_PEOPLE = 8, 4096
"""Of a shard, if the memory allows it."""
PROCESS_BYTES = 200 * 2**20
"""Of a process without model and people: Python and what it imports."""
COPIES = 4
"""Arrays of edges in memory for each shard: as read, checked, in Fisher z, standardised."""

Progress = Callable[[int, int], None]
"""Called with (people done, people in all)."""


@dataclass(frozen=True, eq=False)
class Run:
    """A run that can be begun; use :func:`prepare`.

    Attributes:
        job: with the manifest of the folder, or the one that it would get.
        twin, people: of the job.
        part: (i, n), the shards that are this run's, or None: all.
        to_do: numbers of those that are not done.
        resources: what may be used.
    """

    job: Job
    twin: Twin
    people: People
    part: Shard | None
    to_do: list[int]
    resources: Resources

    @property
    def n_people_to_do(self) -> int:
        """People of the shards that are not done."""
        return sum(len(self.job.manifest.rows(shard)) for shard in self.to_do)

    @property
    def flop(self) -> float:
        """Multiplications and additions that are still to do, about."""
        return self.n_people_to_do * flop_of_person(self.twin, self.job.manifest.config)

    @property
    def memory_bytes(self) -> int:
        """At most, about."""
        return memory_bytes(
            self.twin,
            self.job.manifest.config,
            self.people.n_regions,
            self.job.manifest.shard_size,
            self.resources,
        )


def prepare(
    model: str | Path,
    people: dict[str, Any],
    out: str | Path,
    *,
    resume: bool = False,
    part: Shard | None = None,
    shard_size: int | None = None,
    mem_mb: int | None = None,
    resources: Resources | None = None,
    dry: bool = False,
    progress: IndexProgress | None = None,
    **settings: Any,
) -> Run:
    """Look at everything that a run needs; nothing is written but the index of a folder.

    The process is from now on one that leaves no connectomes in core dumps.

    Args:
        model: a model folder.
        people: arguments of :func:`open_people`.
        out: a new or empty folder, or with ``resume`` one that holds a run of the same model,
            people and settings. A part of a run may always join the other parts. A run that
            ended before any shard was done stands in nobody's way.
        resume: go on with the run that the folder holds, if any.
        part: (i, n) does the shards whose number modulo n is i.
        shard_size: people of a shard; None: what takes a second or two.
        mem_mb: memory in MiB that shards are made small enough for; None: no limit.
        resources: what may be used.
        dry: the index is not written either, and somebody else may work on the folder.
        progress: told the number of files found while a folder is indexed.
        settings: of :meth:`Config.of_twin`.

    Raises:
        DTwinInputError: model, people, folder or settings that cannot be used.
        MissingExtraError: pyarrow, zarr or what the input needs is not installed.
    """
    import_pyarrow()
    import_zarr()
    forbid_core_dumps()
    resources = resources or Resources()
    folder = RunFolder(as_path(out, field="out"))
    _check_folder(folder, resume or part is not None, part, dry)
    twin = load(model)
    config = Config.of_twin(twin, **settings)
    if not dry and is_indexed(people["path"]):
        # Everybody who takes part in the run reads it, and nobody lists the folder again.
        folder.state.mkdir(parents=True, exist_ok=True)
        people = {**people, "index_cache": folder.state / "index.parquet"}
    with no_numbers():
        opened = open_people(**people, progress=progress)
        check_unit(opened)
    twin.prepare(nobody_of(opened))  # regions of another atlas are refused now
    bids_labels(tuple(opened.subjects))
    size = _shard_size(twin, config, opened.n_regions, resources, shard_size, mem_mb)
    manifest = Manifest(
        **identity_of(twin),
        version=package_version(),
        people=json.loads(json.dumps(opened.identity)),
        config=config,
        n_people=len(opened.subjects),
        shard_size=min(size, len(opened.subjects)),
    )
    if folder.manifest.exists() and (folder.is_begun() or part is not None):
        manifest = open_manifest(folder, manifest)
    job = Job(folder.out, Path(model), people, manifest)
    return Run(job, twin, opened, part, _to_do(folder, manifest, part), resources)


def run(prepared: Run, *, engine: str = "local", progress: Progress | None = None) -> Summary:
    """Do the shards that are not done, and put the results together when all are.

    Whoever does the last shard of a run in parts puts the results together.

    Returns:
        What came of the whole run, or of a part the counts of its own shards where others are
        not done yet; the means are empty then.

    Raises:
        DTwinInputError: somebody else works on the folder (code ``locked``), it holds another
            run (see :func:`open_manifest`), input that cannot be read any more, or files of the
            folder that are not as they were written.
        BackendUnavailableError, BackendFailedError: the backend cannot run, or failed.
        ChildProcessError: a process was killed.
        OSError: results that cannot be written.
    """
    part, job = prepared.part, prepared.job
    folder = job.folder
    folder.state.mkdir(parents=True, exist_ok=True)
    with locked(folder, part):
        if part is None:
            folder.sweep()
            if folder.manifest.exists() and not folder.is_begun():
                folder.clear()
        # The manifest comes first: without one nobody would go on with a folder of other files.
        job = replace(job, manifest=open_manifest(folder, job.manifest))
        folder.make(list(layouts(prepared.twin, job.manifest.config)))
        to_do = _to_do(folder, job.manifest, part)
        with _log(folder, job, part, engine) as say:
            _work(prepared, job, to_do, engine, say, progress)
        if part is None:
            return merge(folder, job.manifest, prepared.twin)
    # Only now, when this part holds nothing any more: the last one to come here finds all done.
    if not missing_shards(folder, job.manifest):
        try:
            with locked(folder):
                return merge(folder, job.manifest, prepared.twin)
        except DTwinInputError as error:
            if error.code != "locked":  # by another part, which puts them together
                raise
    return summarise([Done.read(folder, k) for k in _shards(job.manifest, part)])


def merge_run(model: str | Path, out: str | Path) -> Summary:
    """Put together the results of a run whose shards are all done.

    Raises:
        DTwinInputError: shards that are not done (code ``results_incomplete``), a run of another
            model or version (``other_model``, ``other_version``), or one that somebody works on
            (``locked``).
    """
    folder = RunFolder(as_path(out, field="out"))
    manifest = Manifest.read(folder)
    twin = load(model)
    with locked(folder):
        here = replace(manifest, **identity_of(twin), version=package_version())
        open_manifest(folder, here)
        return merge(folder, manifest, twin)


def flop_of_person(twin: Twin, config: Config) -> float:
    """Multiplications and additions for one person, about."""
    n_sequences, n_steps = twin.encode(config.tasks).shape[:2]
    hyper = 2.0 * count_parameters(twin.spec)
    once = hyper + 2.0 * count_weights(twin.spec) * n_sequences * n_steps
    flop = once if config.rolls_out else 0.0
    if config.change is not None:
        # A gradient costs about two more of what it is the gradient of.
        flop += once * (2 if config.change.edit else 2 + 3 * N_STEPS)
    return flop


def memory_bytes(
    twin: Twin, config: Config, n_regions: int, shard_size: int, resources: Resources
) -> int:
    """Memory of a run at most, about; it does not grow with the number of people."""
    n_sequences, n_steps = twin.encode(config.tasks).shape[:2]
    outputs = n_sequences * n_steps * twin.spec.n_outputs
    weights = count_weights(twin.spec)
    edges = max(twin.spec.n_edges, n_regions * (n_regions - 1) // 2)
    results = sum(_size(layout.shape) for layout in layouts(twin, config).values())
    # Shards that were read ahead, the one that is computed, and those to be written.
    shard = 4 * shard_size * ((AHEAD + 1) * COPIES * edges + (AHEAD + 1) * results)
    chunk = min(CHUNK_BYTES, 4 * shard_size * (weights + (0 if config.folds else outputs)))
    if config.change is not None:
        states = n_sequences * n_steps * twin.spec.n_hidden
        people = min(shard_size, BLOCK_SUBJECTS)
        chunk += min(STATES_BYTES, 4 * people * (weights + states + 2 * outputs))
        shard += 4 * shard_size * 4 * edges
    process = PROCESS_BYTES + 4 * count_parameters(twin.spec) + shard + 2 * chunk
    # With several processes the first one waits, and has a model too.
    waiting = PROCESS_BYTES + 4 * count_parameters(twin.spec) if resources.nprocs > 1 else 0
    return int(resources.nprocs * process + waiting)


def _shard_size(
    twin: Twin,
    config: Config,
    n_regions: int,
    resources: Resources,
    wanted: int | None,
    mem_mb: int | None,
) -> int:
    """People of a shard."""
    size = wanted
    if size is None:
        # A power of two, so that it does not change with every small change of a model.
        ratio = SHARD_FLOP / max(flop_of_person(twin, config), 1.0)
        size = 2 ** round(math.log2(ratio)) if ratio > 1 else 1
        size = min(max(size, LEAST_PEOPLE), MOST_PEOPLE)
    if mem_mb is None:
        return size
    limit = mem_mb * 2**20
    while (least := memory_bytes(twin, config, n_regions, size, resources)) > limit and size > 1:
        size //= 2
    if least > limit:
        raise DTwinInputError(
            "argument",
            "this is too little memory for one person at a time",
            field="--mem-mb",
            wanted=f"at least {-(-least // 2**20)}",
            got=str(mem_mb),
            fix="Give more, or use fewer processes",
        )
    return size


def _size(shape: tuple[int, ...]) -> int:
    return math.prod(shape)


def _shards(manifest: Manifest, part: Shard | None) -> range:
    """Numbers of the shards of a part, done or not."""
    first, step = part or (0, 1)
    return range(first, manifest.n_shards, step)


def _to_do(folder: RunFolder, manifest: Manifest, part: Shard | None) -> list[int]:
    missing = set(missing_shards(folder, manifest))
    return [shard for shard in _shards(manifest, part) if shard in missing]


def _work(
    prepared: Run,
    job: Job,
    to_do: list[int],
    engine: str,
    say: Callable[..., None],
    progress: Progress | None,
) -> None:
    """Do these shards."""
    if not to_do:
        return
    total = sum(len(job.manifest.rows(shard)) for shard in to_do)
    done = 0
    worker = Worker(job, prepared.twin, prepared.people)
    with contextlib.closing(
        ENGINES[engine](job, worker, to_do, prepared.resources)  # type: ignore[type-var]
    ) as finished:
        for shard in finished:
            done += len(job.manifest.rows(shard))
            say("done", shard=shard, people=done, of=total)
            if progress is not None:
                progress(done, total)


@contextlib.contextmanager
def _log(
    folder: RunFolder, job: Job, part: Shard | None, engine: str
) -> Iterator[Callable[..., None]]:
    """A function that writes lines of JSON into a log of this run; nothing of people is in it."""
    stamp = time.strftime("%Y%m%dT%H%M%S")
    path = folder.logs / f"{stamp}-{socket.gethostname()}-{os.getpid()}.jsonl"
    start = time.monotonic()
    file = path.open("a", buffering=1)

    def say(event: str, **values: Any) -> None:
        line = {"ms": round(1000 * (time.monotonic() - start)), "event": event, **values}
        with naming(path):
            file.write(json.dumps(line) + "\n")

    try:
        say("start", dtwin_fast=job.manifest.version, engine=engine, part=part,
            shards=job.manifest.n_shards, shard_size=job.manifest.shard_size)  # fmt: skip
        yield say
        say("end")
    except BaseException as error:
        # Not its text, which may name a person.
        say("stopped", error=getattr(error, "code", None) or type(error).__name__)
        raise
    finally:
        with naming(path):
            file.close()


def _check_folder(folder: RunFolder, may_join: bool, part: Shard | None, dry: bool) -> None:
    """Refuse a folder that cannot be used, before the work."""
    out = folder.out
    try:
        holds_run = folder.manifest.exists()
        # A run that was killed at once may have left a folder without a manifest.
        others = [p for p in out.iterdir() if p.name != folder.state.name] if out.exists() else []
        there = next(place for place in (out, *out.absolute().parents) if place.exists())
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, f"no permission to write into {there}")
    except OSError as error:
        raise DTwinInputError(
            "out_unwritable",
            "this cannot be used as output folder",
            field=str(out),
            wanted="a new or empty folder",
            got=error.strerror or str(error),
            fix="Name a folder that you may write",
        ) from error
    if holds_run and not dry:
        refuse_locked(folder, part)
    holds_results = holds_run and folder.is_begun()
    if (holds_results and not may_join) or (others and not holds_run):
        raise DTwinInputError(
            "out_not_empty",
            "the output folder holds a run already"
            if holds_results
            else "there is something in the output folder, and nothing is overwritten",
            field=str(out),
            wanted="a new or empty folder",
            got="a run of dtwin screen" if holds_results else "files",
            fix="Give --resume to go on with it, or name another folder"
            if holds_results
            else "Name another folder, or remove this one",
        )
