"""Refusals: the errors of a server, and what HTTP and gRPC call them."""

from __future__ import annotations

import traceback
from pathlib import Path

from ..errors import DTwinInputError

RETRY_S = 1
"""What ``Retry-After`` says."""

HTTP_STATUS = {
    "unauthorized": 401,
    "host": 403,
    "path": 404,
    "model": 404,
    "method": 405,
    "slow": 408,
    "too_large": 413,
    "encoding": 415,
    "tenant_rate": 429,
    "tenant_people": 429,
    "client_gone": 499,
    "internal": 500,
    "queue_full": 503,
    "draining": 503,
    "timeout": 503,
}
"""Code -> status; every other code is 400."""

GRPC_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    413: "INVALID_ARGUMENT",
    415: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
"""Status of HTTP -> name of gRPC's."""


def http_status(error: DTwinInputError) -> int:
    """Of an answer that refuses."""
    return HTTP_STATUS.get(error.code, 400)


def may_retry(error: DTwinInputError) -> bool:
    """Whether the same request may be accepted a little later."""
    return http_status(error) in (429, 503)


def as_json(error: DTwinInputError) -> dict[str, str]:
    """The body of an answer that refuses; people are called by their row, never by name."""
    return {
        "error": str(error),
        "code": error.code,
        "field": error.field,
        "subject": error.subject or "",
        "wanted": error.wanted,
        "got": error.got,
        "fix": error.fix,
    }


def internal() -> DTwinInputError:
    """A fault of the server's own; what it was is in its log, without numbers."""
    return DTwinInputError(
        "internal", "the server failed", field="request", fix="Tell who runs the server"
    )


def draining() -> DTwinInputError:
    """The server is ending."""
    return DTwinInputError(
        "draining", "this server is ending", field="request", fix="Ask another one, or later"
    )


def queue_full() -> DTwinInputError:
    """More requests than are answered soon."""
    return DTwinInputError(
        "queue_full", "too many people wait", field="request", fix="Ask again later"
    )


def slow(field: str, seconds: float) -> DTwinInputError:
    """A body that does not come."""
    return DTwinInputError(
        "slow",
        "the request did not come in time",
        field=field,
        wanted=f"all of it within {seconds:g} s, and no slower than the least rate",
        fix="Send it at once, or in smaller parts",
    )


def crowded_out() -> DTwinInputError:
    """A message that had not come when too many others were waited for."""
    return DTwinInputError(
        "queue_full",
        "the request had not come, and too many others were waited for",
        field="body",
        fix="Ask again later",
    )


def too_large(field: str, wanted: str, got: str, fix: str) -> DTwinInputError:
    """A request or an answer beyond a limit."""
    return DTwinInputError(
        "too_large", "this is beyond a limit", field=field, wanted=wanted, got=got, fix=fix
    )


def where(error: Exception) -> str:
    """An error's type and place, and no word of it: it may hold numbers of a connectome."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"
