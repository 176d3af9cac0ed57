"""A server in a process of its own, for the tests of dtwin serve."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

MAIN = "import sys; from dtwin_fast.cli import main; sys.exit(main())"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """``dtwin serve`` with options, which ends when the context does.

    Attributes:
        port, grpc_port: where it listens.
        lines: what it has written.
    """

    def __init__(self, model: Path, *, main: str = MAIN, **options: object) -> None:
        self.port, self.grpc_port = free_port(), free_port()
        words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-c", main),
                *("serve", str(model), f"--port={self.port}", f"--grpc-port={self.grpc_port}"),
                *words,
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._started = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        assert self._started.wait(60)
        assert self.process.poll() is None, self.lines

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if "http://" in line:
                self._started.set()
        self._started.set()
        self.process.stderr.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def grpc_address(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    def records(self) -> list[dict[str, Any]]:
        """Its log, without what is no JSON."""
        return [json.loads(line) for line in self.lines if line.startswith("{")]

    def terminate(self, timeout: float = 30) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def ask(
        self, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers in small letters, body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body or None, named)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, found, answer.read()
        finally:
            connection.close()

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        text = self.ask("GET", "/metrics")[2].decode()
        rows = [line.rpartition(" ") for line in text.splitlines() if line[0] != "#"]
        return sum(float(value) for key, _, value in rows if key.partition("{")[0] == name)


def some_edges(n_people: int, n_edges: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(S,E) Pearson r."""
    rng = np.random.default_rng(seed)
    return np.tanh(rng.normal(0, 0.4, (n_people, n_edges))).astype(np.float32)


def request_body(edges: np.ndarray[Any, Any], **more: Any) -> bytes:
    """A request in JSON."""
    tensor = {
        "name": "edges",
        "datatype": "FP32",
        "shape": list(edges.shape),
        "data": edges.ravel().tolist(),
    }
    return json.dumps({"inputs": [tensor], **more}).encode()


def raw_request(path: str, body: bytes, *, length: int | None = None) -> bytes:
    """A request of HTTP as it is sent, perhaps with another length."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n"
    return head.encode() + f"Content-Length: {length or len(body)}\r\n\r\n".encode() + body


def everything(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)
