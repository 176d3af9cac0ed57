"""Connectomes on the command line: where they are, what they hold, and what runs them."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ..cohort_files import COHORT_FILE, load_cohort
from ..connectome import Connectomes
from ..errors import DTwinInputError
from ..readers import read_connectomes
from ..threads import MAX_THREADS
from .options import integer

MISSING_HELP = (
    "regions that a subject lacks: reject the subject (default), mask their edges, or impute "
    "the training cohort's mean"
)


def add_input(parser: argparse.ArgumentParser) -> None:
    """Declare INPUT and the options that :func:`read_input` reads, and ``--missing``."""
    parser.add_argument(
        "input",
        type=Path,
        metavar="INPUT",
        help="connectomes: a file (npy, npz, relmat/conmat/timeseries TSV, CIFTI ptseries or "
        "pconn, 4-D NIfTI, TCP HDF5), a folder of one-subject files, or a cohort folder of "
        "dtwin simulate",
    )
    add_input_options(parser)


def add_input_options(parser: argparse.ArgumentParser) -> None:
    """Declare what says how INPUT is to be read, and ``--missing``."""
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


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Declare ``--backend`` and ``--threads``."""
    parser.add_argument(
        "--backend",
        default="auto",
        metavar="NAME",
        help="auto (default), cpu or reference; see dtwin doctor",
    )
    parser.add_argument(
        "--threads", type=integer(1, MAX_THREADS), metavar="N", help="default: all cores"
    )


def is_cohort(folder: Path) -> bool:
    """Whether INPUT is a cohort folder."""
    return os.path.isfile(folder / COHORT_FILE)  # noqa: PTH113 - Path.is_file raises on long names


def read_input(args: argparse.Namespace) -> Connectomes:
    """The connectomes that were asked for; people who cannot be used are in ``rejected``.

    Raises:
        DTwinInputError: input that cannot be read, or options that a cohort folder does not need
            (code ``cohort_options``).
    """
    if not is_cohort(args.input):
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
