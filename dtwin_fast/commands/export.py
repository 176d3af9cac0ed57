"""``dtwin export MODEL``: a trained twin for other runtimes, verified against the engine."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from ..errors import DTwinInputError
from ..prediction_files import NOTICE
from ..twin_files import load
from .options import check_writable

FILES = {
    "onnx": (
        "twin",
        "connectomes -> choices, reaction times, BOLD and contrasts of the twin's runs",
    ),
    "rollout": ("rollout", "connectomes and inputs of your own -> the main RNN's outputs"),
    "vjp": ("vjp", "the same as --onnx, and gradients with respect to the connectome"),
    "hypernetwork": ("hypernetwork", "connectomes -> weights of the main RNN"),
}
"""Option -> part, and what it computes."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="a model folder")
    group = parser.add_argument_group("ONNX files, one or more of")
    for option, (_, text) in FILES.items():
        group.add_argument(f"--{option}", type=Path, metavar="FILE", help=text)
    parser.add_argument("--json", action="store_true", help="print a JSON summary on stdout")


def run(args: argparse.Namespace) -> int:
    """Export, verify and write."""
    from ..export import export_onnx

    wanted = {option: file for option in FILES if (file := getattr(args, option)) is not None}
    if not wanted:
        raise DTwinInputError(
            "argument",
            "nothing is to be written",
            field="dtwin export",
            wanted=" or ".join(f"--{option} FILE" for option in FILES),
            got="none of them",
            fix="Name a file",
        )
    for file in wanted.values():
        check_writable(file)
    twin = load(args.model)
    written: list[dict[str, Any]] = []
    for option, file in wanted.items():
        start = time.monotonic()
        done = export_onnx(twin, file, FILES[option][0])
        written.append(
            {
                "file": str(file),
                "part": FILES[option][0],
                "bytes": file.stat().st_size,
                "verified_on": done.n_people,
                "errors": done.errors,
                "seconds": round(time.monotonic() - start, 3),
            }
        )
    if args.json:
        print(json.dumps({"files": written, "notice": NOTICE}))
        return 0
    for one in written:
        errors = ", ".join(
            f"{name} {error:.1e} ({one['errors']['engine'][name]:.1e})"
            for name, error in one["errors"]["onnxruntime"].items()
        )
        print(
            f"{one['file']}: {one['part']}, {one['bytes']:,} bytes, verified on "
            f"{one['verified_on']} connectomes; largest errors (the engine's): {errors}"
        )
    print(NOTICE)
    return 0
