"""``python -m dtwin_fast.benchmarks.serve_load``: a server with too many, slow or absent clients.

Clients and server share this machine. Every answer is compared with the twin's own, to the bit.
Overload: ten times as many questions as are answered at best. Slow: a client beside a thousand that
send a byte a second. Drain: SIGTERM while questions come. Soak: thousands of questions, good, bad
and left half sent; memory and descriptors are looked at on the way.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..files import write_atomic
from ..spec import PRESETS
from . import ukb
from .interventions import draw_people
from .machine import examine
from .report import as_table
from .serve_clients import (
    Client,
    Counts,
    Question,
    Served,
    ask_at_rate,
    ask_together,
    dripping,
    leave,
    percentile_ms,
    plain,
    post,
    questions,
    read_answer,
    served,
)

N_HIDDEN = 400
"""Of the twin under overload, as in the paper."""
PEOPLE = 64
BATCH = 16
OVERLOAD = 10
ROUNDS = 3
OVERLOAD_CLIENTS = 512
RAMP = 0.25
"""Of a load, before it is steady."""
SLOW_CLIENTS = 1000
DRIP_S = 1.0
NORMAL_CALLS = 500
SOAK = 20_000
LOOKS = 20
"""How often memory is looked at during a soak."""
GOODPUT, P99 = 0.9, 2.0
"""Least share of the peak under overload, and most of p99 beside slow clients."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run all of it, print; 1 if an answer was wrong or a question lost."""
    parser = argparse.ArgumentParser(prog="serve_load", description="Load a server.")
    parser.add_argument("--seconds", type=float, default=20, help="of each load (default 20)")
    parser.add_argument("--requests", type=int, default=SOAK, help=f"of the soak (default {SOAK})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to FILE")
    args = parser.parse_args(argv)
    results = {"machine": examine(), **run(args.seconds, args.requests)}
    if args.json is not None:
        write_atomic(args.json, json.dumps(results, indent=1) + "\n")
    for name, found in results.items():
        if name != "machine":
            print(f"{name}:")
            print(as_table(list(found), [tuple(map(_text, found.values()))]))
            print()
    loads = [found for name, found in results.items() if name != "machine"]
    return int(any(found["wrong"] or found["lost"] for found in loads))


def run(seconds: float, n_requests: int) -> dict[str, Any]:
    """All results."""
    spec = PRESETS["demo"]
    large = replace(spec, name="load", n_hidden=N_HIDDEN)
    r = draw_people(PEOPLE, spec.n_regions)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "large"
        asked = questions(ukb.make_twin(large).save(model), r)
        with served(model, queue=2 * BATCH, batch_size=BATCH) as server:
            found["overload"] = asyncio.run(overload(server, asked, seconds))
        model = Path(folder) / "model"
        twin = ukb.make_twin(spec).save(model)
        asked = questions(twin, r)
        with served(model) as server:
            found["slow"] = asyncio.run(
                slow(server, twin.spec.name, asked, SLOW_CLIENTS, NORMAL_CALLS, DRIP_S)
            )
        with served(model) as server:
            found["drain"] = asyncio.run(drain(server, asked, BATCH, seconds / 4))
        with served(model) as server:
            found["soak"] = asyncio.run(soak(server, twin.spec.name, asked, n_requests))
    return found


async def overload(server: Served, asked: Sequence[Question], seconds: float) -> dict[str, Any]:
    """The best rate of right answers, and the rate with ``OVERLOAD`` times as many questions."""
    await ask_together(server.port, asked, BATCH, seconds / 4, Counts())  # warm
    best, found = [], []
    calm_mib = server.rss_mib()
    for _ in range(ROUNDS):  # in turns, as neighbours come and go
        # All that the queue holds, and a batch that runs.
        calm = partial(ask_together, server.port, asked, 3 * BATCH, seconds)
        best.append(await _rates(server, seconds, calm))
        rate = OVERLOAD * best[-1].right_per_s
        over = partial(ask_at_rate, server.port, asked, OVERLOAD_CLIENTS, rate, seconds)
        found.append(await _rates(server, seconds, over))
    peak, goodput, offered = (
        statistics.median(rates)
        for rates in (
            [load.right_per_s for load in best],
            [load.right_per_s for load in found],
            [load.answers_per_s for load in found],
        )
    )
    cpu_of_peak = [
        over.right_per_cpu_s / calm.right_per_cpu_s for over, calm in zip(found, best, strict=True)
    ]
    every = [load.counts for load in (*best, *found)]
    return {
        "peak_per_s": peak,
        "offered_of_peak": offered / peak,
        "goodput_of_peak": goodput / peak,
        "per_cpu_of_peak": statistics.median(cpu_of_peak),
        "p99_ms": percentile_ms([s for load in found for s in load.counts.seconds], 99),
        "calm_mib": calm_mib,
        "most_mib": server.peak_mib(),
        **{name: sum(plain(counts)[name] for counts in every) for name in plain(Counts())},
    }


@dataclass(frozen=True)
class _Rates:
    """Of a load.

    Attributes:
        counts: all of it.
        right_per_s, answers_per_s: right answers, and these with refusals, once it is steady.
        right_per_cpu_s: by the server's processor time, of all of it: what it would do to whom
            no clients and neighbours took processors away.
    """

    counts: Counts
    right_per_s: float
    answers_per_s: float
    right_per_cpu_s: float


async def _rates(
    server: Served, seconds: float, load: Callable[[Counts], Awaitable[None]]
) -> _Rates:
    counts, start, cpu_s = Counts(), time.monotonic(), server.cpu_s()
    await load(counts)
    cpu_s = server.cpu_s() - cpu_s
    first, last = start + RAMP * seconds, start + seconds
    right, refused = (
        sum(first <= at < last for at in came) for came in (counts.right_at, counts.refused_at)
    )
    steady_s = last - first
    return _Rates(counts, right / steady_s, (right + refused) / steady_s, counts.right / cpu_s)


async def slow(
    server: Served, model: str, asked: Sequence[Question], n_slow: int, n_calls: int, drip_s: float
) -> dict[str, Any]:
    """A client that asks one thing after another, alone and beside slow ones."""

    async def normal() -> Counts:
        counts = Counts()
        client = Client(server.port, counts)
        for place in range(n_calls):
            await client.ask(asked[place % len(asked)])
        client.close()
        return counts

    await normal()  # warm
    alone, beside = [], []
    for _ in range(ROUNDS):
        alone.append(await normal())
        with dripping(server, model, n_slow, drip_s):
            beside.append(await normal())

    def at(percent: float, calls: list[Counts]) -> float:
        return statistics.median(percentile_ms(counts.seconds, percent) for counts in calls)

    return {
        "slow_clients": n_slow,
        "p50_alone_ms": at(50, alone),
        "p99_alone_ms": at(99, alone),
        "p50_beside_ms": at(50, beside),
        "p99_beside_ms": at(99, beside),
        "p99_ratio": at(99, beside) / at(99, alone),
        **{name: sum(plain(counts)[name] for counts in beside) for name in plain(Counts())},
    }


async def drain(
    server: Served, asked: Sequence[Question], n_clients: int, seconds: float
) -> dict[str, Any]:
    """SIGTERM after ``seconds`` while clients ask: what was sent before must be answered."""
    counts = Counts()
    asking = asyncio.ensure_future(
        ask_together(server.port, asked, n_clients, seconds + 60, counts)
    )
    await asyncio.sleep(seconds)
    counts.ending = time.monotonic()
    before = counts.right
    server.process.send_signal(signal.SIGTERM)
    await asking
    code = await asyncio.to_thread(server.process.wait, 60)
    return {
        "right_before": before,
        **plain(counts),
        "exit_code": code,
        "seconds": time.monotonic() - counts.ending,
    }


async def soak(
    server: Served, model: str, asked: Sequence[Question], n_requests: int
) -> dict[str, Any]:
    """Questions one after another by a few clients; every tenth is bad or left half sent."""
    counts = Counts()
    clients = [Client(server.port, counts) for _ in range(4)]
    bad = Question(post(model, b'{"inputs": [', 0), b"")
    shares = (0.3, 0.999, 1.0)
    found: list[tuple[int, float, int]] = []
    n_bad = n_left = 0

    async def some(client: Client, places: range) -> None:
        nonlocal n_bad, n_left
        for place in places:
            if place % 20 == 9:
                await _refused(server.port, bad)
                n_bad += 1
            elif place % 20 == 19:
                await leave(server.port, asked[place % len(asked)], shares[n_left % 3])
                n_left += 1
            else:
                await client.ask(asked[place % len(asked)])

    for look in range(LOOKS):
        start, stop = (n_requests * n // LOOKS for n in (look, look + 1))
        await asyncio.gather(
            *(some(client, range(start + i, stop, 4)) for i, client in enumerate(clients))
        )
        await asyncio.sleep(0.1)  # for the server to see who is gone
        found.append((stop, server.rss_mib(), server.open_files()))
    for client in clients:
        client.close()
    late = np.array(found[LOOKS // 2 :])
    slope = np.polyfit(late[:, 0], late[:, 1], 1)[0]
    return {
        "requests": n_requests,
        **plain(counts),
        "bad": n_bad,
        "left": n_left,
        "mib_first": found[0][1],
        "mib_half": found[LOOKS // 2][1],
        "mib_last": found[-1][1],
        "kib_per_1000": 1024 * 1000 * float(slope),
        "files_first": found[0][2],
        "files_last": found[-1][2],
    }


async def _refused(port: int, question: Question) -> None:
    """A question that must be refused as the client's fault.

    Raises:
        RuntimeError: it was not.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(question.data)
    status, _, body = await read_answer(reader)
    writer.close()
    if status != b"400" or not json.loads(body)["code"]:
        raise RuntimeError(f"a bad request was answered with {status.decode()}")


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
