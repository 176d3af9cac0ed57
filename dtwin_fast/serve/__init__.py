"""A server of a twin, which clients of the Open Inference Protocol talk to.

In silico, not clinical.
"""

from __future__ import annotations

from ..errors import MissingExtraError

try:
    from .server import serve
    from .settings import Settings
except ModuleNotFoundError as error:
    package = (error.name or "").partition(".")[0]
    if package == "dtwin_fast":
        raise
    raise MissingExtraError(package, "serve", "A server") from error

__all__ = ["Settings", "serve"]
