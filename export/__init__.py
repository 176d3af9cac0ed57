"""A trained twin for other runtimes; installs as ``dtwin_fast.export``.

:func:`export_onnx` writes one ONNX file, after it has been verified against the engine. onnx and
onnxruntime are imported where they are first needed.
"""

# A relative import fails loudly where the folder is imported as a top-level package.
from .to_onnx import PARTS, build
from .triton import TritonModel, export_triton
from .verify import Verification, verify
from .write import export_onnx

__all__ = [
    "PARTS",
    "TritonModel",
    "Verification",
    "build",
    "export_onnx",
    "export_triton",
    "verify",
]
