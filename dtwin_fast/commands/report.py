"""``dtwin report OUT``: a page of the cohort and a page of each person."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from ..prediction_files import NOTICE
from ..report import write_report
from .progress import Progress


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "out",
        type=Path,
        metavar="OUT",
        help="a folder with what dtwin intervene or dtwin evaluate wrote, itself or in its "
        "subfolders; the report goes into OUT/report",
    )
    parser.add_argument(
        "--people",
        type=_people,
        metavar="LABEL,...|N|none",
        help="whose pages to write: labels by commas, the first N, or none (default everybody)",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON summary on stdout")


def run(args: argparse.Namespace) -> int:
    """Write the report and print the path of its first page."""
    start = time.monotonic()
    with Progress("report", "pages") as progress:
        written = write_report(args.out, args.people, progress=progress)
    if args.json:
        summary = {
            "index": str(written.index),
            "people": written.people,
            "largest_bytes": written.largest_bytes,
            "seconds": round(time.monotonic() - start, 3),
            "notice": NOTICE,
        }
        print(json.dumps(summary))
    else:
        print(written.index)
    return 0


def _people(text: str) -> list[str] | int:
    if text == "none":
        return 0
    if text.isascii() and text.isdigit():
        return int(text)
    labels = [label.strip() for label in text.split(",") if label.strip()]
    if not labels:
        raise argparse.ArgumentTypeError("labels, a number or none are wanted")
    return labels
