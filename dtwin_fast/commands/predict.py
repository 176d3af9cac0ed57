"""``dtwin predict MODEL INPUT --out OUT``: choices, reaction times and BOLD of a cohort."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

from ..cohort_files import COHORT_FILE, load_cohort
from ..connectome import Connectomes
from ..dispatch import MAX_THREADS
from ..errors import DTwinInputError
from ..prediction_files import NOTICE, bids_labels, write_prediction
from ..readers import read_connectomes
from ..twin_files import load
from .options import integer, output_folder
from .progress import Progress

MISSING_HELP = (
    "regions that a subject lacks: reject the subject (default), mask their edges, or impute "
    "the training cohort's mean"
)


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="a model folder")
    parser.add_argument(
        "input",
        type=Path,
        metavar="INPUT",
        help="connectomes: a file (npy, npz, relmat/conmat/timeseries TSV, CIFTI ptseries or "
        "pconn, 4-D NIfTI, TCP HDF5), a folder of one-subject files, or a cohort folder of "
        "dtwin simulate",
    )
    parser.add_argument("--out", type=Path, required=True, help="a new or empty folder")
    parser.add_argument(
        "--regions", metavar="FILE[:COLUMN]", help="table of region names, for input without names"
    )
    parser.add_argument(
        "--subjects", metavar="FILE[:COLUMN]", help="table of subject ids, for arrays"
    )
    parser.add_argument(
        "--atlas",
        nargs=2,
        type=Path,
        metavar=("IMAGE", "LABELS"),
        help="label image and table of label names, for 4-D NIfTI",
    )
    parser.add_argument(
        "--fisher-z", action="store_true", help="the input holds Fisher z, not Pearson r"
    )
    parser.add_argument(
        "--missing", choices=("reject", "mask", "impute"), default="reject", help=MISSING_HELP
    )
    parser.add_argument(
        "--task",
        action="append",
        metavar="TASK",
        help="run this task only; may be given more than once",
    )
    parser.add_argument("--bold", action="store_true", help="also write the BOLD series")
    parser.add_argument(
        "--backend",
        default="auto",
        metavar="NAME",
        help="auto (default), cpu or reference; see dtwin doctor",
    )
    parser.add_argument(
        "--threads", type=integer(1, MAX_THREADS), metavar="N", help="default: all cores"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON summary on stdout")


def run(args: argparse.Namespace) -> int:
    """Predict and write; 3 when subjects were rejected, else 0."""
    start = time.monotonic()
    with output_folder(args.out):
        twin = load(args.model)
        connectomes = _read(args)
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


def _read(args: argparse.Namespace) -> Connectomes:
    if not os.path.isfile(args.input / COHORT_FILE):  # noqa: PTH113 - Path.is_file raises on long names
        return read_connectomes(
            args.input,
            regions=args.regions,
            subjects=args.subjects,
            atlas=tuple(args.atlas) if args.atlas else None,
            is_fisher_z=args.fisher_z,
            bad_subjects="drop",
        )
    if args.regions or args.subjects or args.atlas or args.fisher_z:
        raise DTwinInputError(
            "cohort_options",
            "a cohort folder names its own regions and subjects, and its unit",
            field=str(args.input),
            wanted="none of --regions, --subjects, --atlas, --fisher-z",
            got="at least one",
            fix=f"Leave them out, or name {args.input / 'connectomes.npy'} instead",
        )
    return load_cohort(args.input).connectomes
