"""``dtwin study NAME [FOLDER] --out OUT``: models beside floors on public or simulated data."""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path
from typing import Any

from ..errors import DTwinInputError, MissingExtraError
from ..files import write_atomic
from ..prediction_files import write_json
from ..studies import SIMULATED, STUDIES
from ..studies.result import as_markdown
from .options import add_seed, output_folder
from .progress import Progress

TABLES, ROWS = "results.md", "results.json"


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", choices=list(STUDIES), metavar="NAME", help=", ".join(STUDIES))
    parser.add_argument(
        "folder",
        type=Path,
        nargs="?",
        metavar="FOLDER",
        help=f"the study's data; {', '.join(sorted(SIMULATED))} has none",
    )
    parser.add_argument("--out", type=Path, required=True, help="a new or empty folder")
    add_seed(parser)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON on stdout")


def run(args: argparse.Namespace) -> int:
    """Run the study and write its tables, ``results.md``, and rows, ``results.json``."""
    if importlib.util.find_spec("nilearn") is None:
        raise MissingExtraError("nilearn", "evaluate", "dtwin study")
    if args.folder is None and args.name not in SIMULATED:
        raise DTwinInputError(
            "folder",
            "this study reads data",
            field="FOLDER",
            wanted="a folder",
            got="none",
            fix=f"dtwin study {args.name} FOLDER --out OUT",
        )
    with output_folder(args.out):
        result = _result(args)
        tables = as_markdown(result)
        write_atomic(args.out / TABLES, tables)
        write_json(args.out / ROWS, result)
    print(json.dumps(result, allow_nan=False) if args.json else tables)
    return 0


def _result(args: argparse.Namespace) -> dict[str, Any]:
    study = STUDIES[args.name]
    if args.name not in SIMULATED:
        return study(args.folder, seed=args.seed)
    with Progress(args.name, "step") as progress:
        return study(args.folder, seed=args.seed, progress=progress)
