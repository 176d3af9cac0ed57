"""The service: what both protocols do with a request, whichever way it came."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ..errors import DTwinInputError
from ..twin import Twin
from .batcher import Batcher
from .beside import beside
from .metrics import Metrics
from .models import VERSION, Answer, Model, Work, served_models
from .page import Page
from .refusals import crowded_out, draining, internal, queue_full, slow, too_large, where
from .settings import BODIES_BYTES, FREE_S, MIN_BYTES_PER_S, Settings
from .tenants import Tenant, Tenants

LOG = logging.getLogger("dtwin.serve")
T = TypeVar("T")

REFUSALS_S = 0.25
"""Between refusals of a full queue."""
PARSERS = 2
"""Threads that check requests and write answers."""


class Service:
    """A twin that is served: its models, its queue, its tenants and what it counts.

    Args:
        twin: the model.
        settings: of the server.

    Attributes:
        ready: whether load balancers should send requests here.
        closing: whether new requests are refused.
    """

    def __init__(self, twin: Twin, settings: Settings) -> None:
        self.settings = settings
        self.models = served_models(twin)
        self.metrics = Metrics(tuple(self.models))
        self.batcher = Batcher(settings, self.metrics)
        self.page = Page(twin, settings)
        self.ready = False
        self.closing = False
        self._tenants = Tenants(settings)
        self._parsers = ThreadPoolExecutor(PARSERS, "parser")
        self._reading: set[asyncio.Timeout] = set()
        self._messages: dict[asyncio.Timeout, None] = {}  # of those, oldest first
        self._open = 0
        self._parsing = 0
        self._bodies = 0

    @property
    def unanswered(self) -> int:
        """Requests that have begun and not ended."""
        return self._open

    def enter(
        self, account: Account, authorization: str, host: str = "", origin: str = ""
    ) -> Tenant:
        """Who asks, which the account keeps; see :meth:`Tenants.find`.

        Raises:
            DTwinInputError: somebody who may not (codes ``unauthorized``, ``host``).
        """
        tenant = self._tenants.find(authorization, host, origin)
        account.tenant = tenant.name
        return tenant

    async def admit(self, tenant: Tenant) -> None:
        """Count a request that a model is to be run for, before its body is read.

        Those that come while the queue is full are refused together, ``REFUSALS_S`` after one
        another: one by one they would wake the server as often, which takes processors from the
        engine.

        Raises:
            DTwinInputError: there are too many (codes ``tenant_rate``, ``queue_full``).
        """
        tenant.count_request()
        if self._parsing >= self.settings.queue or self.batcher.is_full:
            await asyncio.sleep(REFUSALS_S - asyncio.get_running_loop().time() % REFUSALS_S)
            raise queue_full()

    def model(self, name: str, version: str = "") -> Model:
        """A model.

        Raises:
            DTwinInputError: there is none of this name and version (code ``model``).
        """
        if name in self.models and version in ("", VERSION):
            return self.models[name]
        raise DTwinInputError(
            "model",
            "there is no such model, or no such version of it",
            field="model",
            wanted=" | ".join(f"{known} version {VERSION}" for known in self.models),
            got=repr(f"{name[:80]} {version[:16]}".strip()),
            fix="Name one of these",
        )

    @contextlib.contextmanager
    def request(self, protocol: str, route: str, account: Account) -> Iterator[None]:
        """Count a request and write a line about it; faults become the code ``internal``.

        Raises:
            DTwinInputError: what the body of the context raised, or a fault of the server.
        """
        self._open += 1
        try:
            yield
        except DTwinInputError as error:
            account.code = error.code
            raise
        except asyncio.CancelledError:
            account.code = "client_gone"
            raise
        except Exception as error:
            account.code = "internal"
            LOG.error(json.dumps({"failed": route, "error": where(error)}))
            raise internal() from error
        finally:
            self._open -= 1
            self._release(account)
            if not account.nothing:
                self._tell(protocol, route, account)

    def _tell(self, protocol: str, route: str, account: Account) -> None:
        seconds = time.perf_counter() - account.start
        self.metrics.answered(protocol, account.model, account.code, seconds)
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "protocol": protocol,
            "route": route,
            "model": account.model if account.model in self.models else "",
            "tenant": account.tenant,
            "code": account.code,
            "ms": round(1000 * seconds, 1),
        }
        LOG.info(json.dumps(line))

    async def parse(self, function: Callable[..., T], *arguments: object) -> T:
        """Call a function that may take a while, beside the event loop."""
        self._parsing += 1
        try:
            return await beside(self._parsers, function, *arguments)
        finally:
            self._parsing -= 1

    async def answer(self, work: Work, tenant: Tenant, wait_s: float | None = None) -> Answer:
        """Run a request.

        Args:
            work: what to run.
            tenant: who asks.
            wait_s: how long its turn is waited for, if not as long as the settings say.

        Raises:
            DTwinInputError: it is not run, or the engine failed; see :meth:`Batcher.submit`.
        """
        most = float(self.settings.request_s)
        with tenant.hold(len(work.people)):
            return await self.batcher.submit(work, most if wait_s is None else min(wait_s, most))

    @contextlib.asynccontextmanager
    async def receiving(
        self, account: Account, seconds: float, *, in_parts: bool = False
    ) -> AsyncIterator[Callable[[int], None]]:
        """Time and memory of a body while it is read.

        Args:
            account: of the request.
            seconds: in which all of it must have come.
            in_parts: it comes in parts, and no slower than ``MIN_BYTES_PER_S``. What does not is
                counted when it is in memory; the oldest of ``settings.messages`` makes room for
                another.

        Yields:
            a function that counts the bytes of a part.

        Raises:
            DTwinInputError: it is too large or too slow, there is no memory for it, or the server
                is ending (codes ``too_large``, ``slow``, ``queue_full``, ``draining``).
        """
        if self.closing:
            raise draining()
        start = asyncio.get_running_loop().time()

        def until() -> float:
            by_rate = FREE_S + account.n_bytes / MIN_BYTES_PER_S if in_parts else seconds
            return start + min(seconds, by_rate)

        def count(n_bytes: int) -> None:
            self._hold(account, n_bytes)
            if not (self.closing or timeout.expired()):
                timeout.reschedule(until())

        timeout = asyncio.timeout_at(until())
        try:
            async with timeout:
                self._reading.add(timeout)
                if not in_parts:
                    self._make_room()
                    self._messages[timeout] = None
                yield count
        except TimeoutError as error:
            if self.closing:
                raise draining() from error
            crowded = not in_parts and timeout not in self._messages
            raise (crowded_out() if crowded else slow("body", seconds)) from error
        finally:
            self._reading.discard(timeout)
            self._messages.pop(timeout, None)

    def close(self) -> None:
        """Refuse new requests, and those whose bodies have not come."""
        self.closing = True
        for timeout in self._reading:
            _end(timeout)

    def _make_room(self) -> None:
        while len(self._messages) >= self.settings.messages:
            oldest = next(iter(self._messages))
            del self._messages[oldest]
            _end(oldest)

    def _hold(self, account: Account, n_bytes: int) -> None:
        if account.n_bytes + n_bytes > self.settings.body_bytes:
            raise body_too_large(self.settings)
        if self._bodies + n_bytes > BODIES_BYTES:
            raise queue_full()
        account.n_bytes += n_bytes
        self._bodies += n_bytes
        self.metrics.bodies_bytes.set(self._bodies)

    def _release(self, account: Account) -> None:
        self._bodies -= account.n_bytes
        self.metrics.bodies_bytes.set(self._bodies)


def _end(timeout: asyncio.Timeout) -> None:
    if not timeout.expired():
        timeout.reschedule(asyncio.get_running_loop().time())


class Account:
    """What is known of a request when it ends.

    Attributes:
        code: ``ok`` or that of its refusal.
        model: which is to be run, or "".
        tenant: who asks.
        n_bytes: of its body, in memory until it ends.
        received: whether all of its body has come.
        start: when it began, by ``time.perf_counter``.
        nothing: no request came, and nothing is said of it.
    """

    def __init__(self) -> None:
        self.code = "ok"
        self.model = ""
        self.tenant = ""
        self.n_bytes = 0
        self.received = False
        self.start = time.perf_counter()
        self.nothing = False


def body_too_large(settings: Settings) -> DTwinInputError:
    """A body beyond the limit."""
    return too_large(
        "body", f"at most {settings.body_mib} MiB", "more", "Send fewer people at once"
    )
