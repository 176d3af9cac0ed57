"""``dtwin export MODEL``: a trained twin for other runtimes, verified against the engine."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DTwinInputError
from ..prediction_files import NOTICE
from ..twin_files import load
from .options import check_writable, output_folder

if TYPE_CHECKING:
    from ..export import Verification

PARTS = {
    "onnx": ("twin", "connectomes -> choices, reaction times, BOLD and contrasts in its runs"),
    "rollout": ("rollout", "connectomes and inputs of your own -> outputs of the main RNN"),
    "vjp": ("vjp", "as --onnx, and gradients with respect to the connectome"),
    "hypernetwork": ("hypernetwork", "connectomes -> weights of the main RNN"),
}
"""Option -> part of the twin, and what it computes."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="a model folder")
    files = parser.add_argument_group("what to write, one or more of")
    for option, (_, text) in PARTS.items():
        files.add_argument(f"--{option}", type=Path, metavar="FILE", help=f"an ONNX file: {text}")
    files.add_argument(
        "--triton-repository",
        type=Path,
        metavar="DIR",
        help="a model of that folder for Triton Inference Server, with libdtwin_ort where built",
    )
    parser.add_argument(
        "--mounted-at",
        type=Path,
        metavar="PATH",
        help="where the server sees DIR, such as /models (default: where it is)",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON summary on stdout")


def run(args: argparse.Namespace) -> int:
    """Export, verify and write."""
    from ..export import export_onnx, export_triton
    from ..export.triton import model_name

    files = {option: file for option in PARTS if (file := getattr(args, option)) is not None}
    if not files and args.triton_repository is None:
        raise DTwinInputError(
            "argument",
            "nothing is to be written",
            field="dtwin export",
            wanted=" or ".join((*(f"--{o} FILE" for o in PARTS), "--triton-repository DIR")),
            got="none of them",
            fix="Name a file",
        )
    for file in files.values():
        check_writable(file)
    twin = load(args.model)
    written = []
    for option, file in files.items():
        part, start = PARTS[option][0], time.monotonic()
        done = export_onnx(twin, file, part)
        written.append(_summary(file, part, done, time.monotonic() - start))
    if args.triton_repository is not None:
        folder, start = args.triton_repository / model_name(twin), time.monotonic()
        with output_folder(folder):
            model = export_triton(twin, args.triton_repository, args.mounted_at)
        summary = _summary(folder, "twin", model.verification, time.monotonic() - start)
        written.append(summary | {"op_library": model.has_library})
    if args.json:
        print(json.dumps({"written": written, "notice": NOTICE}))
    else:
        print("\n".join(map(_line, written)))
        print(NOTICE)
    return 0


def _summary(path: Path, part: str, done: Verification, seconds: float) -> dict[str, Any]:
    return {
        "path": str(path),
        "part": part,
        "verified_on": done.n_people,
        "compared": done.compared,
        "errors": done.errors,
        "seconds": round(seconds, 3),
    }


def _line(one: dict[str, Any]) -> str:
    errors = ", ".join(
        f"{name} {error:.1e} ({one['errors']['engine'][name]:.1e})"
        for name, error in one["errors"]["onnxruntime"].items()
    )
    library = {None: "", True: ", with libdtwin_ort", False: ", without libdtwin_ort"}
    return (
        f"{one['path']}: {one['part']}{library[one.get('op_library')]}; verified on "
        f"{one['verified_on']} connectomes, largest errors (the engine's): {errors}"
    )
