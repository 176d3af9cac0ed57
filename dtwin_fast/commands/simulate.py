"""``dtwin simulate --out OUT``: a simulated cohort whose truth is known."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..cohort_files import save_cohort
from ..readers.tables import REGION_COLUMNS, read_names
from ..simulate import simulate
from ..simulate.files import save_simulation
from .options import add_seed, integer, output_folder


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--out", type=Path, required=True, help="a new or empty folder")
    parser.add_argument(
        "--people", type=integer(1), default=228, metavar="N", help="how many (default 228)"
    )
    regions = parser.add_mutually_exclusive_group()
    regions.add_argument(
        "--n-regions", type=integer(16), default=100, metavar="N", help="how many (default 100)"
    )
    regions.add_argument(
        "--regions", metavar="FILE[:COLUMN]", help="table of region names of your own parcellation"
    )
    parser.add_argument(
        "--factors",
        type=integer(2),
        default=20,
        metavar="N",
        help="in which connectomes differ and on which traits load; more of them make traits "
        "harder to predict (default 20)",
    )
    add_seed(parser)
    parser.add_argument("--json", action="store_true", help="print a JSON summary on stdout")


def run(args: argparse.Namespace) -> int:
    """Simulate and write the cohort."""
    with output_folder(args.out):
        names = None
        if args.regions is not None:
            names = read_names(args.regions, REGION_COLUMNS, "regions")
        n_regions = args.n_regions if names is None else len(names)
        simulated = simulate(
            args.people, n_regions, seed=args.seed, n_factors=args.factors, region_names=names
        )
        save_simulation(simulated, args.out, names)
        save_cohort(simulated.cohort, args.out)
    if args.json:
        print(json.dumps({"out": str(args.out), "people": args.people, "regions": n_regions}))
    else:
        print(f"{args.people} simulated people, {n_regions} regions -> {args.out}")
    return 0
