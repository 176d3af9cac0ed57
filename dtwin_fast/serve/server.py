"""The process that serves: its ports, its start and its end."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import resource
import signal
import socket
from collections.abc import Callable

import grpc.aio
import numpy as np
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server as Granian

from ..errors import DTwinInputError
from ..screening.worker import forbid_core_dumps
from ..twin import Twin
from .rest import app
from .rpc import grpc_server
from .service import Service
from .settings import CONNECTIONS, READ_BYTES, Settings

LOG = logging.getLogger("dtwin.serve")

NOTICE_S = 1.0
"""After SIGTERM requests are still taken for so long, while load balancers see it."""
LAST_S = 2.0
"""Kept of the time of an end, for the ports to close."""
REFUSE_S = 0.5
"""Before that, those who still wait for a turn are refused."""


def serve(twin: Twin, settings: Settings, started: Callable[[], None] | None = None) -> bool:
    """Serve a twin until SIGTERM or SIGINT; every request that has come by then is answered.

    Args:
        twin: the model.
        settings: ports and limits.
        started: called once requests are welcome.

    Returns:
        whether everything had ended in the time of an end. Those whose turn does not come in it
        are refused; what a thread is still at is given up.

    Raises:
        DTwinInputError: ports that are taken (code ``argument``), or a file of tokens that cannot
            be used.
    """
    forbid_core_dumps()
    _allow_connections()
    LOG.addHandler(logging.StreamHandler())
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    # Not asyncio.run, which would wait for what an end has given up.
    return loop.run_until_complete(_serve(twin, settings, started))


async def _serve(twin: Twin, settings: Settings, started: Callable[[], None] | None) -> bool:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    service = Service(twin, settings)
    for port, option in ((settings.port, "--port"), (settings.grpc_port, "--grpc-port")):
        _check_port(settings.host, port, option)
    some = np.full((1, twin.spec.n_edges), 0.5, np.float32)
    twin.predict(some, bold=False)  # the first run is the slowest
    rpc = grpc_server(service)
    rpc.add_insecure_port(f"{settings.url_host}:{settings.grpc_port}")
    http = Granian(
        app(service),
        address=settings.host,
        port=settings.port,
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        websockets=False,
        backlog=1024,
        backpressure=CONNECTIONS,
        http1_settings=HTTP1Settings(
            header_read_timeout=1000 * settings.header_s, max_buffer_size=READ_BYTES
        ),
        log_enabled=False,
    )
    batches = loop.create_task(service.batcher.run())
    gc.collect()
    gc.freeze()  # what is there now stays to the end: the collector need not look at it again
    await rpc.start()
    serving = loop.create_task(http.serve())
    stopping = loop.create_task(stop.wait())
    await asyncio.sleep(0)
    service.ready = True
    if started is not None:
        loop.call_soon(started)
    await asyncio.wait((batches, serving, stopping), return_when=asyncio.FIRST_COMPLETED)
    for task in (batches, serving):
        if task.done():
            task.result()
            raise RuntimeError("the server ended by itself")
    return await _drain(service, settings, rpc, http, serving)


async def _drain(
    service: Service,
    settings: Settings,
    rpc: grpc.aio.Server,
    http: Granian,
    serving: asyncio.Task[None],
) -> bool:
    """Refuse what is new, finish what has come, and wait no longer than the settings say."""
    loop = asyncio.get_running_loop()
    end = loop.time() + settings.drain_s
    service.ready = False
    await asyncio.sleep(min(NOTICE_S, settings.drain_s / 4))
    service.close()
    while service.unanswered and (left := end - LAST_S - loop.time()) > 0:
        if left < REFUSE_S:
            service.batcher.refuse_all()
        await asyncio.sleep(0.02)
    if unanswered := service.unanswered:
        LOG.error(json.dumps({"failed": "drain", "unanswered": unanswered}))
    # Answers that clients are still reading have the rest of the time.
    http.stop()  # type: ignore[no-untyped-call]
    await rpc.stop(max(0.0, end - loop.time() - LAST_S))
    await asyncio.wait([serving], timeout=max(LAST_S / 2, end - loop.time() - LAST_S / 2))
    return not unanswered


def _check_port(host: str, port: int, option: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise DTwinInputError(
            "argument",
            "nothing can listen there",
            field=option,
            wanted="a free port of an address of this machine",
            got=f"{host} port {port}: {error.strerror}",
            fix="Name another one",
        ) from error


def _allow_connections() -> None:
    """As many open sockets as the system lets a process have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
