"""Micro-batches: requests that agree in how people are run are run together.

A person's results are the same to the bit in any company, so nobody can tell.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ..errors import DTwinInputError
from .beside import outlast
from .metrics import Metrics
from .models import Answer, Work, joined
from .refusals import draining, internal, queue_full, too_large, where
from .settings import Settings

LOG = logging.getLogger("dtwin.serve")


@dataclass(eq=False)
class _Job:
    """A request that waits for its turn, of which it is told through ``done``."""

    work: Work
    done: asyncio.Future[Answer]
    arrived: float
    deadline: float

    @property
    def kind(self) -> tuple[object, ...]:
        return self.work.model.name, self.work.how, self.work.people.is_fisher_z


class Batcher:
    """The queue of a server, and the one thread that runs what comes out of it.

    Args:
        settings: how long requests wait for company, and how many people may wait.
        metrics: where queues and batches are counted.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._jobs: deque[_Job] = deque()
        self._waiting = 0
        self._arrived = asyncio.Event()
        self._engine = ThreadPoolExecutor(1, "engine")

    @property
    def is_full(self) -> bool:
        """Whether nobody can be taken."""
        return self._waiting >= self._settings.queue

    async def submit(self, work: Work, wait_s: float) -> Answer:
        """The answer to a request; one whose caller is cancelled leaves the queue.

        A caller that is cancelled while its people are run goes when they have been: until then
        they are in memory, and the engine is theirs.

        Args:
            work: the request.
            wait_s: how long it waits for its turn.

        Raises:
            DTwinInputError: the queue is full, or its turn did not come (codes ``queue_full``,
                ``too_large``, ``timeout``), or the engine failed (``internal``).
        """
        n_people = len(work.people)
        if n_people > self._settings.queue:
            raise too_large(
                "edges",
                f"at most {self._settings.queue} people",
                f"{n_people} people",
                "Send several requests",
            )
        if self._waiting + n_people > self._settings.queue:
            raise queue_full()
        loop = asyncio.get_running_loop()
        job = _Job(work, loop.create_future(), loop.time(), loop.time() + wait_s)
        self._jobs.append(job)
        self._count(n_people)
        self._arrived.set()

        def leave() -> None:
            if job in self._jobs:
                self._jobs.remove(job)
                self._count(-n_people)
                job.done.cancel()

        return await outlast(job.done, leave)

    def refuse_all(self) -> None:
        """Refuse everybody who waits for a turn, as the server is ending."""
        for job in self._jobs:
            self._count(-len(job.work.people))
            job.done.set_exception(draining())
        self._jobs.clear()

    async def run(self) -> None:
        """Run batches until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._company()
            batch = self._take(loop.time())
            if not batch:
                continue
            try:
                answers = await loop.run_in_executor(self._engine, self._answers, batch)
            except asyncio.CancelledError:
                for job in batch:
                    job.done.set_exception(internal())
                raise
            for job, answer in zip(batch, answers, strict=True):
                if isinstance(answer, Answer):
                    job.done.set_result(answer)
                else:
                    job.done.set_exception(answer)

    async def _company(self) -> None:
        """Wait for a request, and for others that it can be run with."""
        while not self._jobs:
            self._arrived.clear()
            await self._arrived.wait()
        first = self._jobs[0]
        until = first.arrived + self._settings.batch_wait_ms / 1000
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                while self._alike(first) < self._settings.batch_size:
                    self._arrived.clear()
                    await self._arrived.wait()

    def _alike(self, first: _Job) -> int:
        return sum(len(job.work.people) for job in self._jobs if job.kind == first.kind)

    def _take(self, now: float) -> list[_Job]:
        """The next batch; those that waited too long go."""
        batch: list[_Job] = []
        rest: deque[_Job] = deque()
        n_people = 0
        for job in self._jobs:
            size = len(job.work.people)
            if now > job.deadline:
                self._count(-size)
                job.done.set_exception(_timeout())
            elif not batch or (
                job.kind == batch[0].kind and n_people + size <= self._settings.batch_size
            ):
                batch.append(job)
                n_people += size
                self._count(-size)
                self._metrics.queued(job.work.model.name, now - job.arrived)
            else:
                rest.append(job)
        self._jobs = rest
        return batch

    def _count(self, n_people: int) -> None:
        self._waiting += n_people
        self._metrics.queue_people.set(self._waiting)

    def _answers(self, batch: Sequence[_Job]) -> list[Answer | DTwinInputError]:
        """In the engine's thread: one answer for each request."""
        first = batch[0].work
        outputs = tuple(dict.fromkeys(name for job in batch for name in job.work.outputs))
        start = time.perf_counter()
        try:
            people = joined([job.work.people for job in batch])
            whole = first.model.run(first.how, people, outputs)
        except Exception as error:  # noqa: BLE001 - the server lives on, and says that it failed
            # No text of the error: it may hold numbers of a connectome.
            LOG.error(json.dumps({"failed": "batch", "error": where(error)}))
            return [internal() for _ in batch]
        self._metrics.ran(first.model.name, len(people), time.perf_counter() - start)
        answers: list[Answer | DTwinInputError] = []
        row = 0
        for job in batch:
            rows = slice(row, row := row + len(job.work.people))
            arrays = {name: whole.arrays[name][rows] for name in job.work.outputs}
            answers.append(Answer(arrays, whole.parameters))
        return answers


def _timeout() -> DTwinInputError:
    return DTwinInputError(
        "timeout", "its turn did not come in time", field="request", fix="Ask again later"
    )
