"""The engine inside ONNX Runtime.

A session that ``libdtwin_ort`` is registered with runs the engine in place of the ``Scan`` that a
model of ``dtwin export`` holds; without it, the same file runs as standard ONNX.

    options = onnxruntime.SessionOptions()
    dtwin_fast.ort.register(options)
    session = onnxruntime.InferenceSession("twin.onnx", options)
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ._core import build_info
from .errors import BackendUnavailableError

if TYPE_CHECKING:
    from onnxruntime import SessionOptions

LIBRARY = "libdtwin_ort.so"
VARIABLE = "DTWIN_ORT_LIBRARY"
"""Environment variable that names a library built apart from the package."""


def library_path() -> Path:
    """The op library, for runtimes in any language.

    Raises:
        BackendUnavailableError: it was not built.
    """
    named = os.environ.get(VARIABLE)
    # An editable install keeps what was compiled apart from the sources.
    compiled = sys.modules[build_info.__module__].__file__
    path = Path(named) if named else Path(str(compiled)).with_name(LIBRARY)
    if path.is_file():
        return path
    raise BackendUnavailableError(
        f"{path} is not there: it is built where the C header of ONNX Runtime is found, which its "
        "wheels do not ship. Get the header (`make onnxruntime-header`, or docs/onnx.md) and "
        f"install dtwin_fast again, or name a library in {VARIABLE}. Without it, ONNX models run "
        "all the same, but slower"
    )


def register(session_options: SessionOptions) -> None:
    """Register the op library with options of sessions; every session's options need it.

    Raises:
        BackendUnavailableError: it was not built, or this onnxruntime refuses it: one older than
            1.17, or of another processor.
    """
    path = library_path()
    try:
        session_options.register_custom_ops_library(str(path))
    except Exception as error:  # onnxruntime has a type for each status code
        raise BackendUnavailableError(f"onnxruntime refuses {path}: {error}") from error
