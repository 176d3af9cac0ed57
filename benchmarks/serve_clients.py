"""Clients that are many, slow, or gone, and the server that they meet."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..twin import Twin

OUTPUTS = ("choice_prob", "rt_s", "contrasts")
MAIN = "import sys; from dtwin_fast.cli import main; sys.exit(main())"
REFUSALS = frozenset({b"429", b"503"})
"""Statuses of a server that has too much to do."""


@dataclass(frozen=True)
class Question:
    """One person's request as it is sent, and the bytes that its answer must end with."""

    data: bytes
    answer: bytes


def questions(twin: Twin, r: npt.NDArray[np.float32]) -> list[Question]:
    """A question for each row of (S,E) Pearson r."""
    wanted = twin.predict(r, bold=False)
    found = []
    for i, row in enumerate(r):
        head = json.dumps(
            {
                "inputs": [
                    {
                        "name": "edges",
                        "datatype": "FP32",
                        "shape": [1, len(row)],
                        "parameters": {"binary_data_size": row.nbytes},
                    }
                ],
                "outputs": [{"name": name} for name in OUTPUTS],
                "parameters": {"binary_data_output": True},
            }
        ).encode()
        answer = b"".join(getattr(wanted, name)[i].tobytes() for name in OUTPUTS)
        body = head + row.tobytes()
        found.append(Question(post(twin.spec.name, body, len(head)), answer))
    return found


def post(model: str, body: bytes, json_length: int, *, length: int | None = None) -> bytes:
    """A request of HTTP, which may say another length than the body has."""
    return (
        f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Length: {len(body) if length is None else length}\r\n"
        f"Inference-Header-Content-Length: {json_length}\r\n\r\n"
    ).encode() + body


@dataclass
class Counts:
    """What became of questions.

    Attributes:
        right: answered to the bit as the twin itself does.
        wrong: answered otherwise.
        refused: by a typed refusal of a server that has too much to do or is ending.
        lost: sent to the end, and the connection closed without an answer.
        late: the same of those that were sent after ``ending``.
        seconds: that right answers took.
        right_at, refused_at: when they came, by ``time.monotonic``.
        ending: when the server was told to end, by ``time.monotonic``.
    """

    right: int = 0
    wrong: int = 0
    refused: int = 0
    lost: int = 0
    late: int = 0
    seconds: list[float] = field(default_factory=list)
    right_at: list[float] = field(default_factory=list)
    refused_at: list[float] = field(default_factory=list)
    ending: float = float("inf")

    @property
    def asked(self) -> int:
        """All."""
        return self.right + self.wrong + self.refused + self.lost + self.late


class Client:
    """One connection at a time, kept open while the server keeps it."""

    def __init__(self, port: int, counts: Counts) -> None:
        self._port = port
        self._counts = counts
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, question: Question) -> bool:
        """Ask, and count what comes; False where nothing listens any more."""
        if self._streams is None:
            try:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            except ConnectionRefusedError:
                return False
        reader, writer = self._streams
        start = sent = time.monotonic()
        counts = self._counts
        try:
            writer.write(question.data)
            await writer.drain()
            sent = time.monotonic()
            status, headers, body = await read_answer(reader)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.close()
            if sent < counts.ending:
                counts.lost += 1
            else:
                counts.late += 1
            return True
        if status == b"200" and body.endswith(question.answer):
            counts.right += 1
            counts.right_at.append(time.monotonic())
            counts.seconds.append(counts.right_at[-1] - start)
        elif status in REFUSALS and json.loads(body)["code"]:
            counts.refused += 1
            counts.refused_at.append(time.monotonic())
        else:
            counts.wrong += 1
        if headers.get(b"connection") == b"close":
            self.close()
        return True

    def close(self) -> None:
        """The connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def read_answer(reader: asyncio.StreamReader) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """Status, headers in small letters, body."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).strip().split(b"\r\n")
    pairs = (line.partition(b":") for line in lines)
    headers = {name.lower(): value.strip().lower() for name, _, value in pairs}
    return first.split()[1], headers, await reader.readexactly(int(headers[b"content-length"]))


async def ask_together(
    port: int, asked: Sequence[Question], n_clients: int, seconds: float, counts: Counts
) -> None:
    """Clients that ask again as soon as they are answered."""
    end = time.monotonic() + seconds

    async def one(place: int) -> None:
        client = Client(port, counts)
        while time.monotonic() < end and await client.ask(asked[place % len(asked)]):
            place += n_clients
        client.close()

    await asyncio.gather(*map(one, range(n_clients)))


async def ask_at_rate(
    port: int,
    asked: Sequence[Question],
    n_clients: int,
    rate: float,
    seconds: float,
    counts: Counts,
) -> None:
    """Clients that ask at their times, ``rate`` a second in all, or as soon as they can."""
    start = time.monotonic()

    async def one(place: int) -> None:
        client = Client(port, counts)
        while (due := place / rate) < seconds and time.monotonic() - start < seconds:
            await asyncio.sleep(max(0.0, start + due - time.monotonic()))
            if not await client.ask(asked[place % len(asked)]):
                break
            place += n_clients
        client.close()

    await asyncio.gather(*map(one, range(n_clients)))


def drip(port: int, model: str, n_clients: int, pause_s: float) -> None:
    """Clients that send a byte of a body in ``pause_s``, and begin anew when they are cut."""
    begin = post(model, b"{", 0, length=10_000)

    async def one(place: int) -> None:
        await asyncio.sleep(pause_s * place / n_clients)
        while True:
            with contextlib.suppress(ConnectionError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    writer.write(begin)
                    while not writer.is_closing():
                        await asyncio.sleep(pause_s)
                        writer.write(b" ")
                        await writer.drain()
                finally:
                    writer.close()

    async def everybody() -> None:
        await asyncio.gather(*map(one, range(n_clients)))

    asyncio.run(everybody())


async def leave(port: int, question: Question, share: float) -> None:
    """Send a share of a question and go away."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(question.data[: int(share * len(question.data))])
    await writer.drain()
    writer.transport.abort()


class Served:
    """``dtwin serve`` in a process of its own.

    Attributes:
        process: of the server.
        port, grpc_port: where it listens.
    """

    def __init__(self, process: subprocess.Popen[str], port: int, grpc_port: int) -> None:
        self.process, self.port, self.grpc_port = process, port, grpc_port

    def rss_mib(self) -> float:
        """Memory that it holds."""
        return self._kib("VmRSS") / 1024

    def peak_mib(self) -> float:
        """The most memory that it has held."""
        return self._kib("VmHWM") / 1024

    def cpu_s(self) -> float:
        """Processor time that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def open_files(self) -> int:
        """Descriptors that it holds."""
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    def _kib(self, name: str) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith(name))
        return int(line.split()[1])


@contextlib.contextmanager
def served(model: Path, **options: object) -> Iterator[Served]:
    """A server of a model folder, which ends when the context does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8192)), hard))
    with socket.socket() as one, socket.socket() as other:
        for probe in (one, other):
            probe.bind(("127.0.0.1", 0))
        ports = one.getsockname()[1], other.getsockname()[1]
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    words += [f"--port={ports[0]}", f"--grpc-port={ports[1]}"]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", MAIN, "serve", str(model), *words], stderr=log, text=True
        )
        try:
            while not _listens(ports[0]):
                if process.poll() is not None:
                    log.seek(0)
                    raise RuntimeError(log.read())
                time.sleep(0.05)
            yield Served(process, *ports)
        finally:
            process.kill()
            process.wait()


@contextlib.contextmanager
def dripping(server: Served, model: str, n_clients: int, pause_s: float) -> Iterator[None]:
    """The clients of :func:`drip` in a process of their own, once all of them are there."""
    before = server.open_files()
    arguments = (server.port, model, n_clients, pause_s)
    process = multiprocessing.get_context("spawn").Process(target=drip, args=arguments)
    process.start()
    try:
        while server.open_files() < before + n_clients:
            if not process.is_alive():
                raise RuntimeError("the slow clients have ended")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.join()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def percentile_ms(seconds: Sequence[float], percent: float) -> float:
    """In milliseconds."""
    return float(1000 * np.percentile(seconds, percent)) if seconds else float("nan")


def plain(counts: Counts) -> dict[str, Any]:
    """What a table of results has of counts."""
    names = ("right", "wrong", "refused", "lost", "late")
    return {name: getattr(counts, name) for name in names}
