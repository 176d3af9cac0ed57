"""What a server is told: where it listens, and its limits."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from ..errors import DTwinInputError

MIN_BYTES_PER_S = 16 * 1024
"""A body that comes more slowly, after :data:`FREE_S`, is not waited for."""
FREE_S = 5.0
BODIES_BYTES = 1024 * 2**20
"""Bodies of requests in memory at once, all of them together."""
JSON_NUMBERS = 4 * 2**20
"""Numbers of a request or an answer in JSON; each takes some 32 bytes while it is read."""
JSON_BYTES = 2**20
"""The JSON of a request whose numbers come as bytes after it."""
ANSWER_BYTES = 256 * 2**20
"""Numbers of one answer."""
READ_BYTES = 128 * 1024
"""What is read of a connection of HTTP at once, and so the headers of a request at most. Each part
of a body costs two threads a turn: with 16 KiB a body of 24 MB took three times as long."""
METADATA_BYTES = 16 * 1024
"""Metadata of a call of gRPC."""
CONNECTIONS = 8192
"""Connections at once; slow ones must not keep others out."""
MESSAGES_BYTES = 16 * 2**30
"""Messages of gRPC that are waited for at once, were all as large as they may be: how large one is,
is not known before it has come."""
STREAM_IDLE_S = 300.0
"""A gRPC stream that asks nothing for so long is ended."""


@dataclass(frozen=True)
class Settings:
    """Of one server.

    Attributes:
        host: address to listen on, no name; other than loopback only with ``tokens``.
        port, grpc_port: of HTTP and of gRPC.
        tokens: file of who may ask (:func:`dtwin_fast.serve.tenants.read_tenants`).
        batch_size: people that are run together at most; larger requests run alone.
        batch_wait_ms: how long a request waits for company, in milliseconds.
        queue: people that wait at most, so those of one request too.
        body_mib: largest body of a request, in MiB.
        header_s, body_s: seconds in which the headers and the whole body must have come.
        request_s: seconds that a request waits for its turn.
        drain_s: seconds after SIGTERM in which the server has ended.

    Raises:
        DTwinInputError: ports that are the same, no address, or one that others can reach
            without ``tokens`` (code ``argument``).
    """

    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int = 8001
    tokens: Path | None = None
    batch_size: int = 64
    batch_wait_ms: float = 2.0
    queue: int = 1024
    body_mib: int = 64
    header_s: int = 10
    body_s: int = 30
    request_s: int = 30
    drain_s: int = 25

    def __post_init__(self) -> None:
        if self.port == self.grpc_port:
            raise DTwinInputError(
                "argument",
                "HTTP and gRPC cannot share a port",
                field="--grpc-port",
                got=str(self.port),
                fix="Give two ports",
            )
        if _address(self.host) is None:
            raise DTwinInputError(
                "argument",
                "this is no address",
                field="--host",
                wanted="an address of this machine such as 127.0.0.1 or ::1, no name",
                got=self.host,
                fix="Give its address",
            )
        if self.tokens is None and not self.is_loopback:
            raise DTwinInputError(
                "argument",
                "others can reach this address, and nothing says who may ask",
                field="--host",
                wanted="a loopback address such as 127.0.0.1, or --tokens FILE",
                got=self.host,
                fix="Give a file of tokens, or listen on 127.0.0.1 behind a proxy of your own",
            )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)

    @property
    def url_host(self) -> str:
        """The address as it stands before a port."""
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def body_bytes(self) -> int:
        """Largest body, in bytes."""
        return self.body_mib * 2**20

    @property
    def messages(self) -> int:
        """Messages of gRPC that are waited for at once."""
        return MESSAGES_BYTES // self.body_bytes


def is_loopback(host: str) -> bool:
    """Whether a name or address, without its port, is this machine itself."""
    if host == "localhost":
        return True
    address = _address(host)
    return address is not None and address.is_loopback


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
