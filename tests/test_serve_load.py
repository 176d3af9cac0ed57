"""dtwin serve with too many, slow and absent clients: nobody gets a wrong answer, nothing grows.

Times are of ``python -m dtwin_fast.benchmarks.serve_load``; here counts are tested.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from dtwin_fast.benchmarks import serve_load
from dtwin_fast.benchmarks.serve_clients import (
    Client,
    Counts,
    Question,
    Served,
    ask_together,
    leave,
    questions,
    served,
)
from serve_process import some_edges

from dtwin_fast.twin import Twin

E = 120
QUEUE = 8
MIB_OF_SOAK = 16
"""What allocators may take and keep after the warm half; a leak of a body each would be more."""


@pytest.fixture(scope="module")
def model(tiny_twin: Twin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loaded") / "model"
    tiny_twin.save(folder)
    return folder


@pytest.fixture(scope="module")
def asked(tiny_twin: Twin) -> list[Question]:
    return questions(tiny_twin, some_edges(16, E))


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Served]:
    with served(model, body_s=2) as running:
        yield running


def metric(server: Served, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics") as answer:
        rows = [line.rpartition(" ") for line in answer.read().decode().splitlines()]
    return sum(float(value) for key, _, value in rows if key.partition("{")[0] == name)


def lets_go(server: Served) -> bool:
    """Whether the server comes to hold nothing of anybody, and goes on so for half a second.

    One look is not enough: the last requests may still lie in its sockets.
    """
    calm, until = 0, time.monotonic() + 30
    while calm < 10 and time.monotonic() < until:
        held = metric(server, "dtwin_bodies_bytes") + metric(server, "dtwin_queue_people")
        calm = 0 if held else calm + 1
        time.sleep(0.05)
    return calm == 10


def test_too_many_are_refused_and_nobody_is_answered_wrongly(
    model: Path, asked: list[Question]
) -> None:
    with served(model, queue=QUEUE, batch_size=4, batch_wait_ms=20) as server:
        counts = Counts()
        asyncio.run(ask_together(server.port, asked, 10 * QUEUE, 2, counts))
        assert counts.right > 0
        assert counts.refused > counts.right  # most of them were too many
        assert (counts.wrong, counts.lost) == (0, 0)
        assert metric(server, "dtwin_queue_people") == 0
        calm = Counts()
        asyncio.run(ask_together(server.port, asked, 2, 0.5, calm))
        assert (calm.right, calm.refused) == (calm.asked, 0)


def test_the_benchmark_of_overload(
    model: Path, asked: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_load, "OVERLOAD_CLIENTS", 32)
    monkeypatch.setattr(serve_load, "BATCH", 4)
    monkeypatch.setattr(serve_load, "ROUNDS", 1)
    with served(model, queue=QUEUE, batch_size=4, batch_wait_ms=20) as server:
        found = asyncio.run(serve_load.overload(server, asked, 1))
    assert found["right"] > 0
    assert (found["wrong"], found["lost"]) == (0, 0)
    assert found["goodput_of_peak"] > 0
    assert found["most_mib"] >= found["calm_mib"] > 0
    assert all(math.isfinite(value) for value in found.values())


def test_a_client_beside_slow_ones_is_answered(
    server: Served, asked: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_load, "ROUNDS", 1)
    found = asyncio.run(serve_load.slow(server, "tiny", asked, 200, 50, 0.5))
    assert found["right"] == 50
    assert lets_go(server)


def test_an_end_loses_nobody(model: Path, asked: list[Question]) -> None:
    with served(model) as server:
        found = asyncio.run(serve_load.drain(server, asked, 16, 1))
    assert found["right"] > found["right_before"] > 0
    assert (found["wrong"], found["lost"], found["exit_code"]) == (0, 0, 0)


def test_clients_that_go_leave_nothing(server: Served, asked: list[Question]) -> None:
    async def go() -> tuple[Counts, int, int]:
        counts = Counts()
        client = Client(server.port, counts)
        await client.ask(asked[0])
        before = server.open_files()
        for place in range(200):
            await leave(server.port, asked[place % len(asked)], (0.05, 0.5, 0.999, 1)[place % 4])
            if place % 10 == 0:
                await client.ask(asked[place % len(asked)])
        for _ in range(100):
            if server.open_files() <= before:
                break
            await asyncio.sleep(0.05)
        after = server.open_files()
        client.close()
        return counts, before, after

    counts, before, after = asyncio.run(go())
    assert (counts.right, counts.asked) == (21, 21)
    assert after <= before
    assert lets_go(server)


@pytest.mark.slow
def test_memory_and_files_stay_as_they_are(server: Served, asked: list[Question]) -> None:
    found = asyncio.run(serve_load.soak(server, "tiny", asked, 2000))
    assert found["right"] == 1800
    assert (found["bad"], found["left"]) == (100, 100)
    assert found["mib_last"] - found["mib_half"] < MIB_OF_SOAK
    assert found["files_last"] <= found["files_first"]


@pytest.mark.slow
def test_schemathesis_finds_nothing(server: Served, tmp_path: Path) -> None:
    """What /openapi.json says is what is served, for requests that fit it and that do not.

    No schema can say that there are as many numbers as the shape has, or that bytes are a file of
    numpy, so requests that fit the schema may be refused; test_serve.py has those that may not.
    """
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run"),
            *(f"http://127.0.0.1:{server.port}/openapi.json", "--max-examples=10", "--seed=1"),
            *("--exclude-checks=positive_data_acceptance", "--no-color"),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (tested,) = re.findall(r"Tested: (\d+)", ran.stdout)
    assert int(tested) > 20


def test_results_are_plain_json(asked: list[Question]) -> None:
    counts = Counts(right=1, seconds=[0.1])
    assert json.loads(json.dumps(serve_load.plain(counts)))["right"] == 1
