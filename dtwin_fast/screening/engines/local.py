"""Shards on this machine: in this process, or in several that share the cores."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import FrameType

from ..worker import Job, Resources, Worker, cores

STOP_S = 30.0
"""How long workers may take to write what they have begun."""


def run(job: Job, opened: Worker, shards: Sequence[int], resources: Resources) -> Iterator[int]:
    """Do shards; see ``engines.Engine``.

    Raises:
        ChildProcessError: a process was killed.
        Exception: what a worker raised.
    """
    nprocs = min(resources.nprocs, len(shards))
    if nprocs <= 1:
        yield from opened.run(shards)
        return
    start = multiprocessing.get_context("spawn")
    workers: dict[Connection, SpawnProcess] = {}
    try:
        for i in range(nprocs):
            ours, theirs = start.Pipe(duplex=False)
            mine = cores()[i::nprocs] or cores()
            process = start.Process(target=_work, args=(job, shards[i::nprocs], mine, theirs))
            process.start()
            theirs.close()
            workers[ours] = process
        while workers:
            for ready in wait(list(workers)):
                assert isinstance(ready, Connection)
                try:
                    said = ready.recv()
                except EOFError:
                    raise _died(workers[ready]) from None
                if said is None:
                    workers.pop(ready).join()
                elif isinstance(said, BaseException):
                    raise said
                else:
                    yield said
    finally:
        _stop(list(workers.values()))


def _work(job: Job, shards: Sequence[int], cpus: Sequence[int], parent: Connection) -> None:
    """What a process does: says the number of each shard that is done, then None, or an error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the parent sends SIGTERM
    signal.signal(signal.SIGTERM, _on_sigterm)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    os.sched_setaffinity(0, cpus)
    try:
        for shard in job.open().run(shards):
            parent.send(shard)
        parent.send(None)
    except Exception as error:  # noqa: BLE001 - the parent raises it
        with contextlib.suppress(BrokenPipeError):
            parent.send(error)


def _on_sigterm(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


def _die_with_parent() -> None:
    # Shards of a run that was killed are done by the next one.
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _died(process: SpawnProcess) -> ChildProcessError:
    process.join()
    code = process.exitcode or 0
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return ChildProcessError(
        f"worker process {process.pid} ended with {how} before its shards were done; what is done "
        "is kept, and the same command with --resume goes on (of SIGKILL the cause is often too "
        "little memory: fewer --nprocs, or --mem-mb)"
    )


def _stop(processes: Sequence[SpawnProcess]) -> None:
    """End processes, which first write what they have begun."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(STOP_S)
        if process.is_alive():
            process.kill()
            process.join()
