"""The queue of dtwin serve, in this process: faults, company, and people that nobody waits for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from serve_process import some_edges

from dtwin_fast.connectome import Connectomes
from dtwin_fast.errors import DTwinInputError
from dtwin_fast.serve.batcher import Batcher
from dtwin_fast.serve.beside import beside
from dtwin_fast.serve.metrics import Metrics
from dtwin_fast.serve.models import Answer, How, Predictions, Work
from dtwin_fast.serve.service import Account, Service
from dtwin_fast.serve.settings import Settings
from dtwin_fast.serve.tenants import Tenant
from dtwin_fast.serve.tensors import Asked
from dtwin_fast.twin import Twin


class Failing(Predictions):
    """A model with a fault, whose words hold a number of a connectome."""

    def run(self, how: How, people: Connectomes, outputs: Sequence[str]) -> Answer:
        raise FloatingPointError(f"edge {people.edges[0, 0]}")


class Held(Predictions):
    """A model whose runs begin and wait until they are released."""

    def __init__(self, twin: Twin, name: str) -> None:
        super().__init__(twin, name)
        self.begun, self.released = threading.Event(), threading.Event()

    def run(self, how: How, people: Connectomes, outputs: Sequence[str]) -> Answer:
        self.begun.set()
        assert self.released.wait(60)
        return super().run(how, people, outputs)


def work(model: Predictions, edges: Any, *outputs: str, **parameters: str) -> Work:
    return model.accept(Asked({"edges": edges}, outputs or None, parameters))


def run(model: Predictions, settings: Settings, works: Sequence[Work], wait_s: float = 30) -> Any:
    """What each request gets, an answer or an error, and what was counted."""
    metrics = Metrics((model.name,))

    async def ask() -> list[Any]:
        batcher = Batcher(settings, metrics)
        running = asyncio.create_task(batcher.run())
        jobs = [batcher.submit(one, wait_s) for one in works]
        found = await asyncio.gather(*jobs, return_exceptions=True)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        return found

    return asyncio.run(ask()), metrics.statistics[model.name]


def test_company_changes_no_bit(tiny_twin: Twin) -> None:
    model = Predictions(tiny_twin, "tiny")
    rng = np.random.default_rng(3)
    for _ in range(5):
        sizes = rng.integers(1, 9, 12)
        parts = [some_edges(int(n), 120, int(rng.integers(1000))) for n in sizes]
        wanted = [("rt_s",), ("bold", "diverged"), ("contrasts", "choice_prob", "flags")]
        works = [work(model, edges, *wanted[i % 3]) for i, edges in enumerate(parts)]
        settings = Settings(batch_size=int(rng.integers(1, 60)), batch_wait_ms=5)
        answers, counted = run(model, settings, works)
        assert counted.people == sizes.sum()
        for answer, one, edges in zip(answers, works, parts, strict=True):
            alone = tiny_twin.predict(edges)
            assert tuple(answer.arrays) == one.outputs
            for name in set(one.outputs) - {"flags"}:
                np.testing.assert_array_equal(answer.arrays[name], getattr(alone, name))


def test_batches_hold_people_that_are_run_alike(tiny_twin: Twin) -> None:
    model = Predictions(tiny_twin, "tiny")
    edges = some_edges(1, 120)
    kinds: list[dict[str, str]] = [{}, {"unit": "z"}, {"tasks": "faces"}, {"missing": "mask"}]
    works = [work(model, edges, "rt_s", **kind) for kind in kinds * 3]
    answers, counted = run(model, Settings(batch_wait_ms=5), works)
    assert counted.batches == len(kinds)
    for i, answer in enumerate(answers):
        np.testing.assert_array_equal(answer.arrays["rt_s"], answers[i % 4].arrays["rt_s"])
    assert not np.array_equal(answers[0].arrays["rt_s"], answers[1].arrays["rt_s"])


def test_a_fault_is_told_without_numbers(tiny_twin: Twin, caplog: pytest.LogCaptureFixture) -> None:
    model = Failing(tiny_twin, "tiny")
    edges = some_edges(1, 120)
    answers, counted = run(model, Settings(batch_wait_ms=5), [work(model, edges)] * 2)
    assert [answer.code for answer in answers] == ["internal"] * 2
    assert counted.batches == 0
    (record,) = caplog.records
    said = json.loads(record.message)
    assert said["failed"] == "batch"
    assert said["error"].startswith("FloatingPointError at test_serve_batcher.py:")
    assert str(edges[0, 0]) not in caplog.text


def test_more_than_the_queue_holds(tiny_twin: Twin) -> None:
    model = Predictions(tiny_twin, "tiny")
    parts = [work(model, some_edges(n, 120), "rt_s") for n in (2, 1, 1, 4)]
    answers, counted = run(model, Settings(queue=3, batch_wait_ms=5), parts)
    codes = [error.code for error in answers if isinstance(error, DTwinInputError)]
    assert codes == ["queue_full", "too_large"]
    assert counted.people == 3


def test_a_turn_that_does_not_come(tiny_twin: Twin) -> None:
    model = Predictions(tiny_twin, "tiny")
    settings = Settings(batch_wait_ms=50)
    answers, counted = run(model, settings, [work(model, some_edges(1, 120))], wait_s=0.001)
    assert answers[0].code == "timeout"
    assert counted.people == 0


def test_people_whose_caller_goes_leave_the_queue_at_once(tiny_twin: Twin) -> None:
    model = Predictions(tiny_twin, "tiny")
    some = work(model, some_edges(2, 120), "rt_s")

    async def go() -> None:
        batcher = Batcher(Settings(queue=2), Metrics((model.name,)))  # which nobody runs
        for _ in range(2):
            gone = asyncio.create_task(batcher.submit(some, 30))
            await asyncio.sleep(0)
            assert batcher.is_full
            gone.cancel()
            with pytest.raises(asyncio.CancelledError):
                await gone
            assert not batcher.is_full

    asyncio.run(go())


def test_an_end_does_not_wait_for_the_engine(tiny_twin: Twin) -> None:
    model = Held(tiny_twin, "tiny")

    async def go() -> list[asyncio.Task[Answer]]:
        batcher = Batcher(Settings(batch_wait_ms=1), Metrics((model.name,)))
        tasks = [asyncio.create_task(batcher.run())]
        some = work(model, some_edges(1, 120), "rt_s")
        tasks += [asyncio.create_task(batcher.submit(some, 30)) for _ in range(2)]
        assert await asyncio.to_thread(model.begun.wait, 20)
        tasks[1].cancel()
        await asyncio.sleep(0.01)
        tasks[1].cancel()  # as often as one likes
        return tasks

    try:
        tasks = asyncio.run(go())  # which cancels what is left, and waits for it
    finally:
        model.released.set()
    assert all(task.done() for task in tasks)


def test_a_caller_that_goes_while_its_people_are_run_goes_after_them(tiny_twin: Twin) -> None:
    model = Held(tiny_twin, "tiny")

    async def go() -> None:
        batcher = Batcher(Settings(batch_wait_ms=1), Metrics((model.name,)))
        running = asyncio.create_task(batcher.run())
        tenant = Tenant("a", people_in_flight=1)

        async def ask() -> Answer:
            with tenant.hold(1):
                return await batcher.submit(work(model, some_edges(1, 120), "rt_s"), 30)

        gone = asyncio.create_task(ask())
        assert await asyncio.to_thread(model.begun.wait, 20)
        gone.cancel()
        await asyncio.sleep(0.01)
        with pytest.raises(DTwinInputError, match="tenant_people"):
            await ask()
        model.released.set()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert (await ask()).arrays["rt_s"].shape[0] == 1
        running.cancel()

    asyncio.run(go())


def test_a_caller_that_goes_waits_for_its_thread_and_no_longer() -> None:
    held, ran = threading.Event(), []

    def call(name: str) -> str:
        assert held.wait(20)
        ran.append(name)
        return name

    async def go() -> None:
        with ThreadPoolExecutor(1) as executor:
            calls = [asyncio.create_task(beside(executor, call, name)) for name in "abc"]
            await asyncio.sleep(0.01)
            for gone in calls[:2]:
                gone.cancel()
            await asyncio.sleep(0.01)
            assert not any(each.done() for each in calls)
            held.set()
            assert await calls[2] == "c"
            assert all(gone.cancelled() for gone in calls[:2])
            assert ran == ["a", "c"]  # "b" was not begun

    asyncio.run(go())


def test_the_oldest_message_that_does_not_come_makes_room(
    tiny_twin: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Settings, "messages", 2)

    async def go() -> list[Any]:
        service = Service(tiny_twin, Settings())

        async def read(seconds: float) -> str:
            async with service.receiving(Account(), 20) as count:
                await asyncio.sleep(seconds)
                count(1)
            return "read"

        return await asyncio.gather(*map(read, (20, 0.2, 0.01, 0.01)), return_exceptions=True)

    first, *others = asyncio.run(go())
    assert first.code == "queue_full"
    assert [getattr(other, "code", other) for other in others] == ["queue_full", "read", "read"]
