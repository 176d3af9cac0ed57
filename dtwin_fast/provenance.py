"""Where a result comes from: package version, digest of the input."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata

import numpy as np

from .connectome import Connectomes


@functools.cache  # reading the metadata takes a millisecond, as long as a small prediction
def package_version() -> str:
    """Version of the installed package; pyproject.toml holds the only copy."""
    return importlib.metadata.version("dtwin_fast")


def input_digest(connectomes: Connectomes) -> str:
    """SHA-256 over edges (native float32 bytes), their scale, subject ids and region names."""
    digest = hashlib.sha256()
    digest.update(np.ascontiguousarray(connectomes.edges, np.float32).tobytes())
    digest.update(b"z" if connectomes.is_fisher_z else b"r")
    for names in (connectomes.subjects, connectomes.regions or ()):
        digest.update("\x00".join(names).encode() + b"\x01")
    return digest.hexdigest()
