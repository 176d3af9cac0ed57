"""Tenants: who may ask, how often, and for how many people at once."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import re
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DTwinInputError
from ..files import check_regular_file
from .settings import Settings, is_loopback

MAX_TOKENS_BYTES = 2**20
FORM = '[tenants.NAME] with sha256 = "64 hex digits", people_in_flight and requests_per_s'


@dataclass(eq=False)
class Tenant:
    """Somebody who may ask.

    Attributes:
        name: what logs call it.
        sha256: of its token.
        people_in_flight: people of its requests that are not answered yet, at most.
        requests_per_s: requests a second, at most; a second's worth may come at once.
    """

    name: str
    sha256: bytes = b""
    people_in_flight: int | None = None
    requests_per_s: float | None = None
    _people: int = field(default=0, init=False)
    _credit: float = field(default=0.0, init=False)
    _counted: float = field(default=float("-inf"), init=False)

    def count_request(self) -> None:
        """Count a request.

        Raises:
            DTwinInputError: too many of them (code ``tenant_rate``).
        """
        if (rate := self.requests_per_s) is None:
            return
        now, most = time.monotonic(), max(rate, 1.0)
        self._credit = min(most, self._credit + (now - self._counted) * rate)
        self._counted = now
        if self._credit < 1:
            raise _beyond("tenant_rate", f"{rate:g} requests a second")
        self._credit -= 1

    @contextlib.contextmanager
    def hold(self, n_people: int) -> Iterator[None]:
        """Count people while their request is not answered.

        Raises:
            DTwinInputError: too many of them (code ``tenant_people``).
        """
        if self.people_in_flight is not None and self._people + n_people > self.people_in_flight:
            raise _beyond("tenant_people", f"{self.people_in_flight} people at once")
        self._people += n_people
        try:
            yield
        finally:
            self._people -= n_people


class Tenants:
    """All of them; without a file everybody on this machine is the one tenant."""

    def __init__(self, settings: Settings) -> None:
        self._known = None if settings.tokens is None else read_tenants(settings.tokens)
        self._anybody = Tenant("")

    def find(self, authorization: str, host: str = "", origin: str = "") -> Tenant:
        """The tenant of a request.

        Args:
            authorization: the header, ``Bearer TOKEN``.
            host: of HTTP, whom the request is addressed to. Pages of the web reach servers of
                this machine by names of their own; no page can speak gRPC without a proxy.
            origin: of HTTP, whose page asks, if one does.

        Raises:
            DTwinInputError: no token or an unknown one (code ``unauthorized``); without a file of
                tokens, an address or a page that is not this machine's (code ``host``).
        """
        if self._known is None:
            for field, address in (("Host", host), ("Origin", origin)):
                name = re.sub(r":\d*$", "", address.partition("://")[2] or address)
                if address and not is_loopback(name.strip("[]")):
                    raise _not_here(field)
            return self._anybody
        scheme, _, token = authorization.partition(" ")
        digest = hashlib.sha256(token.strip().encode()).digest()
        found = None
        for tenant in self._known:  # all of them, so that time tells nothing
            if hmac.compare_digest(tenant.sha256, digest):
                found = tenant
        if found is None or scheme.lower() != "bearer":
            raise DTwinInputError(
                "unauthorized",
                "there is no token here that may ask",
                field="Authorization",
                wanted="Bearer TOKEN",
                fix="Send the token that you were given",
            )
        return found


def read_tenants(path: Path) -> list[Tenant]:
    """Read a TOML file of tenants, which holds the SHA-256 of their tokens and no token.

    Raises:
        DTwinInputError: a file that cannot be used (codes ``file_*``, ``tokens``).
    """
    check_regular_file(path, max_bytes=MAX_TOKENS_BYTES)
    try:
        parsed = tomllib.loads(path.read_text("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _bad_file(path, "no TOML") from error
    tenants = parsed.get("tenants")
    if set(parsed) != {"tenants"} or not isinstance(tenants, dict) or not tenants:
        raise _bad_file(path, "no tables of tenants, or others")
    found = [_tenant(path, name, table) for name, table in tenants.items()]
    if len({tenant.sha256 for tenant in found}) < len(found):
        raise _bad_file(path, "one token for two tenants")
    return found


def _tenant(path: Path, name: str, table: Any) -> Tenant:
    if not isinstance(table, dict) or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        raise _bad_file(path, f"the tenant {name[:64]!r}")
    sha256 = table.get("sha256")
    people, rate = table.get("people_in_flight"), table.get("requests_per_s")
    fits = (
        set(table) <= {"sha256", "people_in_flight", "requests_per_s"}
        and re.fullmatch(r"[0-9a-fA-F]{64}", str(sha256))
        and (people is None or (type(people) is int and people > 0))
        and (rate is None or (type(rate) in (int, float) and rate > 0))
    )
    if not fits or not isinstance(sha256, str):
        raise _bad_file(path, f"the tenant {name!r}")
    return Tenant(name, bytes.fromhex(sha256), people, rate)


def _bad_file(path: Path, got: str) -> DTwinInputError:
    return DTwinInputError(
        "tokens",
        "this is not a file of tokens",
        field=str(path),
        wanted=FORM,
        got=got,
        fix="Write a table for each tenant; printf %s TOKEN | sha256sum gives the digits",
    )


def _not_here(field: str) -> DTwinInputError:
    return DTwinInputError(
        "host",
        "the request is addressed to another machine, or a page of another asks",
        field=field,
        wanted="localhost, 127.0.0.1 or [::1]",
        fix="Ask this machine from itself, or start the server with --tokens",
    )


def _beyond(code: str, wanted: str) -> DTwinInputError:
    return DTwinInputError(
        code, "this is beyond your limit", field="request", wanted=wanted, fix="Ask again later"
    )
