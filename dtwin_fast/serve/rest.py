"""HTTP: the Open Inference Protocol's REST interface, health and metrics, as an ASGI app."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..errors import DTwinInputError
from ..provenance import package_version
from . import json_tensors
from .beside import seen
from .models import VERSION, configuration
from .openapi import openapi
from .person import Wanted
from .refusals import RETRY_S, as_json, http_status, may_retry
from .service import Account, Service, body_too_large
from .tenants import Tenant

JSON_LENGTH = "Inference-Header-Content-Length"
EXTENSIONS = ["binary_tensor_data", "model_configuration", "statistics", "model_repository"]
OPEN = ("/v2/health/live", "/v2/health/ready", "/")
"""What everybody may ask: load balancers have no tokens, and the page asks for one."""

LAST = ("slow", "draining", "too_large")
"""Codes after which a connection is closed."""
LINGER_S = 2.0

Handler = Callable[[Request, Account, Tenant], Awaitable[Response]]
T = TypeVar("T")


def app(service: Service) -> Starlette:
    """The app of a service."""
    rest = Rest(service)
    routes: list[tuple[str, str, Handler]] = []
    for prefix in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        routes += [
            ("POST", f"{prefix}/infer", rest.infer),  # routes are tried in this order
            ("GET", prefix, rest.model),
            ("GET", f"{prefix}/ready", rest.model_ready),
            ("GET", f"{prefix}/config", rest.config),
            ("GET", f"{prefix}/stats", rest.statistics),
        ]
    routes += [
        ("GET", "/v2/health/live", rest.live),
        ("GET", "/v2/health/ready", rest.ready),
        ("GET", "/v2", rest.server),
        ("POST", "/v2/repository/index", rest.index),
        ("GET", "/metrics", rest.metrics),
        ("GET", "/openapi.json", rest.openapi),
        ("GET", "/", rest.page),
        ("POST", "/page/person", rest.person),
    ]
    return Starlette(
        routes=[
            Route(path, rest.guard(path, handler), methods=[method])
            for method, path, handler in routes
        ],
        exception_handlers={HTTPException: rest.no_route},
    )


class Rest:
    """The handlers."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def guard(self, route: str, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """The handler with what every one needs: who asks, an account, typed refusals."""

        async def guarded(request: Request) -> Response:
            account = Account()
            try:
                with self._service.request("http", route, account):
                    tenant = Tenant("") if route in OPEN else self._enter(request, account)
                    response = await handler(request, account, tenant)
            except DTwinInputError as error:
                if not account.received and error.code not in ("slow", "client_gone"):
                    await self._discard(request)
                response = self._refusal(error)
            response.headers.setdefault("Cache-Control", "no-store")
            return response

        return guarded

    def _enter(self, request: Request, account: Account) -> Tenant:
        headers = request.headers
        # No Host at all is no address of this machine.
        host = headers.get("host") or "none"
        origin = headers.get("origin", "")
        return self._service.enter(account, headers.get("authorization", ""), host, origin)

    def _refusal(self, error: DTwinInputError) -> Response:
        # What is left of a body is not waited for.
        headers = {"Connection": "close"} if error.code in LAST else {}
        if may_retry(error):
            headers["Retry-After"] = str(RETRY_S)
        if error.code == "unauthorized":
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(as_json(error), http_status(error), headers)

    async def no_route(self, request: Request, error: Exception) -> Response:
        """Addresses and methods that there are not."""
        status = error.status_code if isinstance(error, HTTPException) else 500
        code = "method" if status == 405 else "path"
        await self._discard(request)
        refusal = DTwinInputError(
            code,
            "there is nothing at this address, or not by this method",
            field="request",
            fix="See /openapi.json",
        )
        response = self._refusal(refusal)
        if isinstance(error, HTTPException):
            response.headers.update(error.headers or {})
        return response

    async def live(self, request: Request, account: Account, tenant: Tenant) -> Response:
        """The process runs."""
        return JSONResponse({"live": True})

    async def ready(self, request: Request, account: Account, tenant: Tenant) -> Response:
        """Requests are welcome."""
        return JSONResponse({"ready": self._service.ready}, 200 if self._service.ready else 503)

    async def server(self, request: Request, account: Account, tenant: Tenant) -> Response:
        """What serves."""
        return JSONResponse(
            {"name": "dtwin_fast", "version": package_version(), "extensions": EXTENSIONS}
        )

    async def index(self, request: Request, account: Account, tenant: Tenant) -> Response:
        """All models."""
        state = {"version": VERSION, "state": "READY", "reason": ""}
        return JSONResponse([{"name": name, **state} for name in self._service.models])

    async def model(self, request: Request, account: Account, tenant: Tenant) -> Response:
        """What a model takes and gives."""
        return JSONResponse(json_tensors.facts(self._service.model(**_which(request))))

    async def model_ready(self, request: Request, account: Account, tenant: Tenant) -> Response:
        """A model can be asked."""
        model, ready = self._service.model(**_which(request)), self._service.ready
        return JSONResponse({"name": model.name, "ready": ready}, 200 if ready else 503)

    async def config(self, request: Request, account: Account, tenant: Tenant) -> Response:
        """A model's configuration, as Triton has it."""
        return JSONResponse(configuration(self._service.model(**_which(request))))

    async def statistics(self, request: Request, account: Account, tenant: Tenant) -> Response:
        """What a model has done, as Triton has it."""
        model = self._service.model(**_which(request))
        return JSONResponse({"model_stats": [self._service.metrics.triton(model.name)]})

    async def metrics(self, request: Request, account: Account, tenant: Tenant) -> Response:
        """What the server has done, for Prometheus."""
        text = self._service.metrics.text()
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def openapi(self, request: Request, account: Account, tenant: Tenant) -> Response:
        """This interface."""
        return JSONResponse(openapi(self._service.models))

    async def infer(self, request: Request, account: Account, tenant: Tenant) -> Response:
        """Run a model."""
        service = self._service
        await service.admit(tenant)
        model = service.model(**_which(request))
        account.model = model.name
        body = await self._body(request, account)
        asked = await service.parse(
            json_tensors.parse, body, request.headers.get(JSON_LENGTH), model,
            service.settings.queue,
        )  # fmt: skip
        del body
        wait_s = None if asked.wait_us is None else asked.wait_us / 1e6
        answer = await self._unless_gone(request, service.answer(asked.work, tenant, wait_s))
        data, json_length = await service.parse(json_tensors.write, model, asked, answer)
        if json_length is None:
            return Response(data, media_type="application/json")
        return Response(
            data,
            media_type="application/octet-stream",
            headers={JSON_LENGTH: str(json_length)},
        )

    async def page(self, request: Request, account: Account, tenant: Tenant) -> Response:
        """For people."""
        page = self._service.page
        return Response(page.html, media_type="text/html; charset=utf-8", headers=page.headers)

    async def person(self, request: Request, account: Account, tenant: Tenant) -> Response:
        """What is said of the person of a file, for the page."""
        await self._service.admit(tenant)
        wanted = Wanted.read(request.query_params)
        body = await self._body(request, account)
        with tenant.hold(1):
            work = self._service.page.look(body, wanted)
            data = await self._unless_gone(request, work)
        return Response(data, media_type="application/json")

    async def _body(self, request: Request, account: Account) -> bytes:
        headers, settings = request.headers, self._service.settings
        if "content-length" in headers and "transfer-encoding" in headers:
            raise DTwinInputError(
                "header",
                "the body has two lengths",
                field="Content-Length",
                fix="Send Content-Length or Transfer-Encoding",
            )
        if headers.get("content-encoding", "identity") != "identity":
            raise DTwinInputError(
                "encoding",
                "compressed bodies are not read",
                field="Content-Encoding",
                wanted="identity",
                got=repr(headers["content-encoding"][:32]),
                fix="Send the body as it is",
            )
        length = headers.get("content-length", "0")
        if len(length) > 18 or int(length) > settings.body_bytes:
            raise body_too_large(settings)
        parts = []
        try:
            async with self._service.receiving(account, settings.body_s, in_parts=True) as count:
                async for part in request.stream():
                    count(len(part))
                    parts.append(part)
        except ClientDisconnect as error:
            raise _client_gone() from error
        account.received = True
        return b"".join(parts)

    async def _discard(self, request: Request) -> None:
        """Read what is left of a refused body for a moment.

        A client that is still sending would see its connection break, and not the refusal.
        """
        left = self._service.settings.body_bytes
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while left > 0:
                    message = await request.receive()
                    if not message.get("more_body"):
                        return
                    left -= len(message["body"])

    async def _unless_gone(self, request: Request, work: Coroutine[Any, Any, T]) -> T:
        """The answer; a request whose client has gone is taken out of the queue."""
        answer = asyncio.ensure_future(work)
        answer.add_done_callback(seen)
        gone = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
            answer.cancel()
            await asyncio.wait((answer,))  # what it holds is counted until it is let go
            raise _client_gone()
        finally:
            answer.cancel()
            gone.cancel()


def _which(request: Request) -> dict[str, str]:
    """Name and version of the model that an address names."""
    known = request.path_params
    return {"name": known["model"], "version": known.get("version", "")}


def _client_gone() -> DTwinInputError:
    return DTwinInputError("client_gone", "the client has gone", field="request", fix="Ask again")


async def _gone(request: Request) -> None:
    message: dict[str, Any] = {"type": ""}
    while message["type"] != "http.disconnect":
        message = dict(await request.receive())
