"""Writes models that were verified, and no others."""

from __future__ import annotations

from pathlib import Path

from ..files import as_path, write_atomic
from ..twin import Twin
from .to_onnx import build
from .verify import Verification, verify


def export_onnx(
    twin: Twin, file: str | Path, part: str = "twin", library: Path | None = None
) -> Verification:
    """Write a part of a twin as one ONNX file, and return what its verification measured.

    The file appears under its name when it is whole and verified; after an error there is none,
    or the one that was there before.

    Args:
        twin: the twin.
        file: where to.
        part: a key of ``PARTS``: ``twin``, ``rollout``, ``vjp`` or ``hypernetwork``.
        library: an op library that it is to work with too, as of :func:`verify`.

    Raises:
        DTwinInputError: no path, no such part (code ``argument``), or a twin that is too large
            for one file (``onnx_size``).
        VerificationError: the model does not compute what the engine does, or not with the
            library.
        MissingExtraError: onnx or onnxruntime is not installed.
    """
    path = as_path(file, field="file")
    model = build(twin, part)
    verification = verify(twin, part, model, library)
    write_atomic(path, model)
    return verification
