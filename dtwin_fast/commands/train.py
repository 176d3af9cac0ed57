"""``dtwin train COHORT --out MODEL``: train a twin on a cohort folder."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..cohort_files import load_cohort
from ..spec import PRESETS
from .options import add_training, output_folder, show_step, train_config
from .progress import Progress


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("cohort", type=Path, metavar="COHORT", help="a cohort folder")
    parser.add_argument("--out", type=Path, required=True, help="a new or empty folder")
    parser.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        default="demo",
        help="sizes of hypernetwork and RNN (default demo); regions are the cohort's",
    )
    add_training(parser)
    parser.add_argument(
        "--device",
        default="cpu",
        metavar="NAME",
        help="cpu (default), cuda, cuda:N, or auto: cuda where there is a GPU, else cpu",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON summary on stdout")


def run(args: argparse.Namespace) -> int:
    """Train and save the model."""
    from ..training import fit
    from ..training.device import find_device
    from ..training.sizes import fit_spec

    with output_folder(args.out):
        find_device(args.device)  # Before a large cohort is read in vain.
        cohort = load_cohort(args.cohort)
        spec = fit_spec(PRESETS[args.preset], cohort)
        config = train_config(args)
        with Progress("train", "steps") as progress:
            twin = fit(
                cohort,
                spec,
                config,
                device=args.device,
                on_step=lambda step: show_step(progress, step),
            )
        twin = twin.save(args.out)
    if args.json:
        summary = {
            "out": str(args.out),
            "people": len(cohort),
            "steps": config.n_steps,
            "device": twin.training["device"],
            "model_sha256": twin.sha256,
        }
        print(json.dumps(summary))
    else:
        device = twin.training["device"]
        print(f"{len(cohort)} people, {config.n_steps} steps on {device} -> {args.out}")
    return 0
