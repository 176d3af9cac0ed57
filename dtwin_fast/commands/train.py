"""``dtwin train COHORT --out MODEL``: train a twin on a cohort folder."""

from __future__ import annotations

import argparse
import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..cohort_files import load_cohort
from ..spec import PRESETS, TwinSpec
from ..tables import write_tsv
from ..twin import Twin
from .options import add_training, output_folder, show_step, train_config
from .progress import Progress

if TYPE_CHECKING:
    from ..training.recipes import Config

LOSS_COLUMNS = ("stage", "action_loss", "bold_loss")


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("cohort", type=Path, metavar="COHORT", help="a cohort folder")
    parser.add_argument("--out", type=Path, required=True, help="a new or empty folder")
    parser.add_argument(
        "--config",
        default="default",
        metavar="CONFIG",
        help="settings: default, paper (Takahashi et al. 2026), or a TOML file like theirs",
    )
    parser.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        default="demo",
        help="sizes of hypernetwork and RNN (default demo); regions are the cohort's",
    )
    parser.add_argument(
        "--first-half",
        action="store_true",
        help="train on the first half of every run alone, as the paper does",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FOLDER",
        help="keep the state of the training there, and go on from it if it is of this training",
    )
    add_training(parser, seed=None)
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
        # Before a large cohort is read in vain.
        find_device(args.device)
        preset, config = _settings(args)
        cohort = load_cohort(args.cohort)
        if args.first_half:
            from ..evaluate.splits import halves

            cohort, _ = halves(cohort)
        with Progress("train", "steps") as progress:
            twin = fit(
                cohort,
                fit_spec(preset, cohort),
                config,
                device=args.device,
                on_step=lambda step: show_step(progress, step),
                checkpoint=args.checkpoint,
            )
        runs = "first half" if args.first_half else "whole"
        twin = replace(twin, training={**twin.training, "runs": runs}).save(args.out)
        _write_losses(twin, args.out)
    steps, device = len(twin.training["stage"]), twin.training["device"]
    if args.json:
        summary = {
            "out": str(args.out),
            "people": len(cohort),
            "recipe": twin.training["recipe"],
            "steps": steps,
            "device": device,
            "model_sha256": twin.sha256,
        }
        print(json.dumps(summary))
    else:
        print(f"{len(cohort)} people, {steps} steps on {device} -> {args.out}")
    return 0


def _settings(args: argparse.Namespace) -> tuple[TwinSpec, Config]:
    """The preset as the settings want it, under a name of its own if that differs."""
    from ..training.config_files import load_config
    from ..training.recipes import recipe_name

    overrides, config = load_config(args.config)
    preset = PRESETS[args.preset]
    spec = replace(preset, **overrides)
    if spec != preset:
        spec = replace(spec, name=f"{preset.name}-{recipe_name(config)}")
    return spec, train_config(args, config)


def _write_losses(twin: Twin, folder: Path) -> None:
    """``loss.tsv``, and ``loss.png`` where matplotlib is installed."""
    stage, action, bold = (twin.training[column] for column in LOSS_COLUMNS)
    step = range(1, len(stage) + 1)
    write_tsv(
        folder / "loss.tsv",
        ("step", *LOSS_COLUMNS),
        zip(step, stage, action, bold, strict=True),
    )
    if importlib.util.find_spec("matplotlib") is None:
        return
    from ..evaluate.plots import draw_curves

    curves = {}
    for name, losses in (("action", np.array(action)), ("BOLD", np.array(bold))):
        followed = losses > 0  # A stage follows one of them, and reports 0 of the other.
        if followed.any():
            curves[name] = np.array(step)[followed], losses[followed]
    draw_curves(folder / "loss.png", curves, "Training", "step", "loss")
