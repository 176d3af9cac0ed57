"""``dtwin study NAME FOLDER --out OUT``: models beside floors on a public data set."""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path

from ..errors import MissingExtraError
from ..files import write_atomic
from ..prediction_files import write_json
from ..studies import STUDIES
from ..studies.result import as_markdown
from .options import add_seed, output_folder

TABLES, ROWS = "results.md", "results.json"


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", choices=list(STUDIES), metavar="NAME", help=", ".join(STUDIES))
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the study's data")
    parser.add_argument("--out", type=Path, required=True, help="a new or empty folder")
    add_seed(parser)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON on stdout")


def run(args: argparse.Namespace) -> int:
    """Run the study and write its tables, ``results.md``, and rows, ``results.json``."""
    if importlib.util.find_spec("nilearn") is None:
        raise MissingExtraError("nilearn", "evaluate", "dtwin study")
    with output_folder(args.out):
        result = STUDIES[args.name](args.folder, seed=args.seed)
        tables = as_markdown(result)
        write_atomic(args.out / TABLES, tables)
        write_json(args.out / ROWS, result)
    print(json.dumps(result, allow_nan=False) if args.json else tables)
    return 0
