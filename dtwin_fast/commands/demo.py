"""``dtwin demo --out OUT``: simulate, train for about a minute, predict, print a table."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..prediction_files import NOTICE, write_json, write_prediction
from .options import add_training, integer, output_folder, show_step, train_config
from .progress import Progress

SUMMARY_FILE = "demo.json"
"""Written last; a folder with this file is an earlier demo's and may be replaced."""
MIN_PEOPLE = 20
"""Four of them are held out: correlations over people need three."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("demo-out"),
        help="a new or empty folder, or one of an earlier demo, which is replaced "
        "(default demo-out)",
    )
    parser.add_argument(
        "--people",
        type=integer(MIN_PEOPLE),
        default=228,
        metavar="N",
        help=f"simulated people, at least {MIN_PEOPLE} (default 228)",
    )
    add_training(parser)
    parser.add_argument("--json", action="store_true", help="print a JSON summary on stdout")


def run(args: argparse.Namespace) -> int:
    """Run the demo; files of an earlier demo in OUT are replaced."""
    from ..demo import as_table, run_demo
    from ..training import StagedConfig, TrainStep

    config = train_config(args, StagedConfig())
    with output_folder(args.out, may_hold=SUMMARY_FILE):
        with contextlib.ExitStack() as training:
            progress = Progress("train", "steps")

            def on_step(s: TrainStep) -> None:
                if s.step == 1:
                    training.enter_context(progress)
                show_step(progress, s)
                if s.step == s.n_steps:
                    training.close()
                    _say("predicting the held-out people ...")

            _say(f"simulating {args.people} people ...")
            result = run_demo(n_people=args.people, config=config, seed=args.seed, on_step=on_step)
        predictions = args.out / "predictions"
        if predictions.exists():
            # Folders of people whom this demo does not have must not stay among its own.
            shutil.rmtree(predictions)
        result.twin.save(args.out / "model")
        write_prediction(result.prediction, predictions)
        summary = {
            "people_trained": result.n_train,
            "people_held_out": result.n_test,
            "rows": [_plain(asdict(row)) for row in result.rows],
            "provenance": result.prediction.provenance,
            "notice": NOTICE,
        }
        write_json(args.out / SUMMARY_FILE, summary)
    if args.json:
        print(json.dumps(summary))
        return 0
    print(
        f"\nTrained on {result.n_train} simulated people, tested on {result.n_test} others.\n\n"
        f"{as_table(result.rows)}\n\n"
        "A model is worth something where it beats the floor: choices are correct almost always,\n"
        "and a group's mean map fits most people.\n"
        f"{NOTICE}\nWritten: {args.out}/model, {args.out}/predictions, {args.out}/{SUMMARY_FILE}"
    )
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    # JSON has no NaN: a correlation that does not exist is null.
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }
