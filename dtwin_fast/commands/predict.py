"""``dtwin predict MODEL INPUT --out OUT``: choices, reaction times and BOLD of a cohort."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from ..prediction_files import NOTICE, bids_labels, write_prediction
from ..twin_files import load
from .connectomes import add_engine, add_input, read_input
from .options import output_folder
from .progress import Progress


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="a model folder")
    add_input(parser)
    parser.add_argument("--out", type=Path, required=True, help="a new or empty folder")
    parser.add_argument(
        "--task",
        action="append",
        metavar="TASK",
        help="run this task only; may be given more than once",
    )
    parser.add_argument("--bold", action="store_true", help="also write the BOLD series")
    add_engine(parser)
    parser.add_argument("--json", action="store_true", help="print a JSON summary on stdout")


def run(args: argparse.Namespace) -> int:
    """Predict and write; 3 when subjects were rejected, else 0."""
    start = time.monotonic()
    with output_folder(args.out):
        twin = load(args.model)
        connectomes = read_input(args)
        bids_labels(connectomes.subjects)  # refused now, not after everyone was predicted
        with Progress("predict", "subjects") as progress:
            prediction = twin.predict(
                connectomes,
                args.task,
                missing=args.missing,
                bad_subjects="drop",
                bold=args.bold,
                backend=args.backend,
                n_threads=args.threads,
                progress=progress,
            )
        with Progress("write", "subjects") as progress:
            write_prediction(prediction, args.out, progress=progress)
    summary = {
        "out": str(args.out),
        "subjects": len(prediction.subjects),
        "rejected": len(prediction.rejected),
        "diverged": int(prediction.diverged.sum()),
        "flagged": sum(bool(flags) for flags in prediction.flags),
        "backend": prediction.provenance["backend"],
        "seconds": round(time.monotonic() - start, 3),
        "notice": NOTICE,
    }
    if args.json:
        print(json.dumps(summary))
    else:
        print(
            f"{summary['subjects']} subjects predicted, {summary['rejected']} rejected, "
            f"{summary['flagged']} flagged, {summary['diverged']} diverged -> {args.out}\n{NOTICE}"
        )
        for error in prediction.rejected[:5]:
            print(f"rejected: {error}")
        if len(prediction.rejected) > 5:
            print(f"... all of them in {args.out / 'rejected.tsv'}")
    return 3 if prediction.rejected else 0
