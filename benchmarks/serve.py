"""``python -m dtwin_fast.benchmarks.serve``: a server beside the engine called directly.

An untrained twin of a preset is served by a process of its own on this machine, and asked by
tritonclient in this one, so clients and server share the cores. Answers are first compared with the
twin's predictions bit by bit: where one differs, nothing is timed. Rounds of all ways take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import queue
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..files import write_atomic
from ..prediction import Prediction
from ..spec import PRESETS
from ..twin import Twin
from .interventions import draw_people, make_twin
from .machine import examine
from .report import as_table

PEOPLE = 64
"""Of a batch."""
BATCHES = 8
"""Of a round: as many people for every way."""
ROUNDS = 5
CALLS = 50
"""Single requests of a round."""
OUTPUTS = ("choice_prob", "rt_s", "contrasts")
IN_FLIGHT = 2
"""Batches that a client has asked for and has no answer of."""
MAIN = "import sys; from dtwin_fast.cli import main; sys.exit(main())"

Float32 = npt.NDArray[np.float32]
Ask = Callable[[Sequence[Float32]], list[dict[str, Any]]]
"""From requests to their answers, several at a time."""


def main(argv: Sequence[str] | None = None) -> int:
    """Verify, time, print; 1 if answers were wrong."""
    parser = argparse.ArgumentParser(prog="serve", description="Time a server.")
    parser.add_argument("--preset", choices=tuple(PRESETS), default="demo")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to FILE")
    args = parser.parse_args(argv)
    results = run(args.preset)
    if args.json is not None:
        write_atomic(args.json, json.dumps(results, indent=1) + "\n")
    if not results["verified"]:
        print("answers differ from predictions: nothing is timed", file=sys.stderr)
        return 1
    for table in ("throughput", "single"):
        head, *_ = rows = results[table]
        print(as_table(list(head), [tuple(map(_text, row.values())) for row in rows]))
        print()
    return 0


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def run(preset: str) -> dict[str, Any]:
    """All results."""
    r = draw_people(PEOPLE, PRESETS[preset].n_regions)
    with tempfile.TemporaryDirectory() as folder:
        twin = make_twin(preset, np.arctanh(r)).save(Path(folder) / "model")
        name = twin.spec.name
        with _served(Path(folder) / "model") as ports, _clients(name, *ports) as clients:
            return {"machine": examine(), "preset": preset, **_measure(twin, r, clients)}


def _measure(twin: Twin, r: Float32, clients: dict[str, Ask]) -> dict[str, Any]:
    wanted = twin.predict(r, bold=False)
    singles = [row[None] for row in r]
    for ask in clients.values():
        whole = ask([r])[0]
        alone = ask(singles)
        for name in OUTPUTS:
            expected = getattr(wanted, name)
            joined = np.concatenate([answer[name] for answer in alone])
            if not (np.array_equal(whole[name], expected) and np.array_equal(joined, expected)):
                return {"verified": False}

    def direct(parts: Sequence[Float32]) -> list[Prediction]:
        return [twin.predict(part, bold=False) for part in parts]

    seconds: dict[str, list[float]] = {}
    one_by_one: dict[str, list[float]] = {}
    ways: dict[str, Callable[[Sequence[Float32]], object]] = {"direct": direct, **clients}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            seconds.setdefault(f"{name}, 64 a request", []).append(_time(way, [r] * BATCHES))
            if name != "direct":
                took = _time(way, singles * BATCHES)
                seconds.setdefault(f"{name}, 1 a request", []).append(took)
            calls = [_time(way, [singles[0]]) for _ in range(CALLS)]
            one_by_one.setdefault(name, []).extend(calls)
    base = statistics.median(seconds["direct, 64 a request"])
    own_s = statistics.median(one_by_one["direct"])
    return {
        "verified": True,
        "throughput": [
            {
                "way": way,
                "people_per_s": PEOPLE * BATCHES / statistics.median(times),
                "of_direct": base / statistics.median(times),
            }
            for way, times in seconds.items()
        ],
        "single": [
            {
                "way": name,
                "p50_ms": 1000 * statistics.median(times),
                "p99_ms": 1000 * statistics.quantiles(times, n=100)[98],
                "beyond_direct_ms": 1000 * (statistics.median(times) - own_s),
            }
            for name, times in one_by_one.items()
        ],
    }


def _time(ask: Callable[[Sequence[Float32]], object], parts: Sequence[Float32]) -> float:
    start = time.perf_counter()
    ask(parts)
    return time.perf_counter() - start


@contextlib.contextmanager
def _served(model: Path) -> Iterator[tuple[int, int]]:
    """A server of the model; its ports."""
    with socket.socket() as one, socket.socket() as other:
        for probe in (one, other):
            probe.bind(("127.0.0.1", 0))
        ports = one.getsockname()[1], other.getsockname()[1]
    words = ["serve", str(model), f"--port={ports[0]}", f"--grpc-port={ports[1]}"]
    words.append("--header-s=600")  # else connections are closed while others have their turn
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen([sys.executable, "-c", MAIN, *words], stderr=log)
        try:
            while not _answers(ports[0]):
                if process.poll() is not None:
                    log.seek(0)
                    raise RuntimeError(log.read())
                time.sleep(0.05)
            yield ports
        finally:
            process.terminate()
            process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def _clients(model: str, port: int, grpc_port: int) -> Iterator[dict[str, Ask]]:
    from tritonclient import grpc, http
    from tritonclient.http import aio

    async def connect() -> Any:
        return aio.InferenceServerClient(f"127.0.0.1:{port}", conn_limit=IN_FLIGHT * PEOPLE)

    with asyncio.Runner() as runner:
        by_http = runner.run(connect())
        try:
            with (
                grpc.InferenceServerClient(f"127.0.0.1:{grpc_port}") as by_grpc,
                http.InferenceServerClient(f"127.0.0.1:{port}") as plain,
            ):
                one = _Client(http, plain, model, runner)
                yield {
                    "http": _Http(aio, by_http, model, runner, one).ask,
                    "grpc": _Grpc(grpc, by_grpc, model, runner).ask,
                }
        finally:
            runner.run(by_http.close())


@dataclass(frozen=True)
class _Client:
    """tritonclient's, of the model that it asks."""

    library: Any
    client: Any
    model: str
    runner: asyncio.Runner

    def arguments(self, edges: Float32) -> dict[str, Any]:
        tensor = self.library.InferInput("edges", list(edges.shape), "FP32")
        tensor.set_data_from_numpy(edges)
        outputs = [self.library.InferRequestedOutput(name) for name in OUTPUTS]
        return {"inputs": [tensor], "outputs": outputs}


@dataclass(frozen=True)
class _Http(_Client):
    """Its asyncio one for many requests, as greenlets of the plain one hardly overlap."""

    plain: _Client

    def ask(self, parts: Sequence[Float32]) -> list[dict[str, Any]]:
        """Answers, with as many requests at a time as the client has connections."""
        if len(parts) == 1:
            plain = self.plain
            return [_arrays(plain.client.infer(plain.model, **plain.arguments(parts[0])))]

        async def ask_all() -> list[dict[str, Any]]:
            return await asyncio.gather(*map(self._ask, parts))

        return self.runner.run(ask_all())

    async def _ask(self, part: Float32) -> dict[str, Any]:
        return _arrays(await self.client.infer(self.model, **self.arguments(part)))


class _Grpc(_Client):
    def ask(self, parts: Sequence[Float32]) -> list[dict[str, Any]]:
        """Answers, with so many people asked for at a time."""
        done: queue.Queue[tuple[int, Any, Any]] = queue.Queue()
        answers: dict[int, dict[str, Any]] = {}
        waiting = list(enumerate(parts))[::-1]
        flying = 0
        while waiting or flying:
            while waiting and flying + len(waiting[-1][1]) <= IN_FLIGHT * PEOPLE:
                i, part = waiting.pop()
                flying += len(part)
                self.client.async_infer(
                    self.model,
                    callback=lambda result, error, i=i: done.put((i, result, error)),
                    **self.arguments(part),
                )
            i, result, error = done.get()
            if error is not None:
                raise error
            flying -= len(parts[i])
            answers[i] = _arrays(result)
        return [answers[i] for i in range(len(parts))]


def _arrays(result: Any) -> dict[str, Any]:
    return {name: result.as_numpy(name) for name in OUTPUTS}


if __name__ == "__main__":
    sys.exit(main())
