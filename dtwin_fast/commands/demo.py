"""``dtwin demo --out OUT``: the other commands one after the other, on simulated people."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import MissingExtraError
from ..prediction_files import NOTICE, write_json
from . import evaluate, intervene, report, simulate, train
from .doctor import EXTRAS
from .options import add_seed, integer, output_folder

SUMMARY_FILE = "demo.json"
"""Written last; a folder with this file is an earlier demo's and may be replaced."""
PARTS = ("cohort", "model", "scores", "intervention", "report")
"""The subfolders."""
MIN_PEOPLE = 20
"""Half of them are held out at a time, and models of the floors cross-validate the others."""
STEPS = 700
"""Fewer than by default: three trainings are to fit into four minutes on two cores."""
N_PAGES = 5
METRICS = (
    "concordance",
    "RT person-mean r",
    "RT trial r",
    "BOLD group-pattern r",
    "BOLD individual r",
)
"""Metrics of the table at the end; scores.json has them all."""

_FLOORS = """\
A model is worth something where it beats the floor: choices are correct almost always,
and a group's mean map fits most people. Two folds of people and few steps make this quick;
dtwin evaluate does it thoroughly: more folds, within people, controls and permuted connectomes."""


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
    parser.add_argument(
        "--steps",
        type=integer(1),
        default=STEPS,
        metavar="N",
        help="optimiser steps that fit people, of the model and of those that are scored, other "
        f"stages in proportion (default {STEPS}; fewer: faster, worse)",
    )
    add_seed(parser)
    parser.add_argument("--json", action="store_true", help="print a JSON summary on stdout")


def run(args: argparse.Namespace) -> int:
    """Run the commands, printing each as a user would type it; 3 where one of them says so."""
    _check_packages()
    with output_folder(args.out, may_hold=SUMMARY_FILE):
        _clear(args.out)
        try:
            # Only the summary goes to stdout with --json.
            with contextlib.redirect_stdout(sys.stderr if args.json else sys.stdout):
                code, done = _run_all(args)
            summary = _summary(args.out, done)
            write_json(args.out / SUMMARY_FILE, summary)
        except BaseException:
            # A demo that was stopped must not be in the way of the next.
            _clear(args.out)
            raise
    print(json.dumps(summary, allow_nan=False) if args.json else "\n".join(_lines(summary)))
    return code


def _check_packages() -> None:
    """Refuse now, not after minutes.

    Raises:
        MissingExtraError: a package of the extra ``demo`` is not installed.
    """
    for extra in ("torch", "neuro", "cli", "evaluate", "report"):
        for package in EXTRAS[extra]:
            try:
                importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError as error:
                raise MissingExtraError(package, "demo", "The demo") from error


def _clear(out: Path) -> None:
    (out / SUMMARY_FILE).unlink(missing_ok=True)
    for part in PARTS:
        if (out / part).exists():
            shutil.rmtree(out / part)


def _commands(args: argparse.Namespace) -> Iterator[tuple[ModuleType, list[str]]]:
    """Every command with its arguments."""
    out: Path = args.out
    cohort, model, scores, intervention, _ = (str(out / part) for part in PARTS)
    seed = ["--seed", str(args.seed)] if args.seed else []
    steps = ["--steps", str(args.steps), *seed]
    quick = ["--splits", "B", "--folds", "2", "--nulls", "0", "--controls", ""]
    yield simulate, ["--out", cohort, "--people", str(args.people), *seed]
    yield train, [cohort, "--out", model, *steps]
    yield evaluate, [cohort, "--out", scores, *quick, *steps]
    yield intervene, [model, cohort, "--target", "speed", "--out", intervention, *seed]
    yield report, [str(out), "--people", str(N_PAGES)]


def _run_all(args: argparse.Namespace) -> tuple[int, list[dict[str, Any]]]:
    """The largest exit code, and what was run with the seconds it took."""
    code, done = 0, []
    for module, words in _commands(args):
        name = module.__name__.rpartition(".")[2]
        line = shlex.join(["dtwin", name, *words])
        print(f"$ {line}", flush=True)
        parser = argparse.ArgumentParser(prog=f"dtwin {name}")
        module.add(parser)
        start = time.monotonic()
        code = max(code, module.run(parser.parse_args(words)))
        done.append({"command": line, "seconds": round(time.monotonic() - start, 1)})
        print(flush=True)
    return code, done


def _summary(out: Path, done: list[dict[str, Any]]) -> dict[str, Any]:
    from ..evaluate.report_files import SCORES_FILE
    from ..interventions.files import INTERVENTION_FILE

    scores = json.loads((out / "scores" / SCORES_FILE).read_bytes())
    intervention = json.loads((out / "intervention" / INTERVENTION_FILE).read_bytes())
    return {
        "notice": NOTICE,
        "commands": done,
        "scores": [row for row in scores["rows"] if row["metric"] in METRICS],
        "intervention": {key: intervention[key] for key in ("target", "people", "methods")},
        "report": str(out / "report" / "index.html"),
        "provenance": intervention["provenance"],
    }


def _lines(summary: dict[str, Any]) -> Iterator[str]:
    """What is printed at the end."""
    yield "Held-out people:"
    yield ""
    yield from _table(summary["scores"])
    yield ""
    yield _FLOORS
    yield ""
    target = summary["intervention"]["target"]
    yield f"Intervention on {target['name']} (minus the mean reaction time): mean effect in SDs"
    yield "over people, beside random directions of the same size"
    yield ""
    for method, effect in summary["intervention"]["methods"].items():
        random, truth = effect["random"], effect.get("truth") or {}
        yield (
            f"{method:<10}  {_number(effect['mean_effect'], '+.2f')}  random directions "
            f"{_number(random['mean_effect'], '+.2f')} (z {_number(random['z'], '.1f')}, "
            f"p {_number(random['p'], '.2g')})"
        )
        if "true_change" in truth:
            yield (
                f"{'':<10}  {_number(effect['mean_change_in_unit'], '+.3f')} {target['unit']} by "
                f"the twin, {_number(truth['true_change'], '+.3f')} {target['unit']} by the rules "
                "that made these people"
            )
    yield ""
    yield NOTICE
    yield f"{sum(step['seconds'] for step in summary['commands']):.0f} s. To look at:"
    yield summary["report"]


def _table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The rows as aligned text."""
    cells = [("task", "metric", "model", "[95 %]", "floor", "floor is", "model vs floor")]
    for row in rows:
        interval = f"[{_number(row['low'])}, {_number(row['high'])}]"
        model, floor = _number(row["model"]), _number(row["floor"])
        cells.append(
            (row["task"], row["metric"], model, interval, floor, row["floor_name"], row["verdict"])
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row_cells in cells:
        padded = (cell.ljust(width) for cell, width in zip(row_cells, widths, strict=True))
        yield "  ".join(padded).rstrip()


def _number(value: float | None, form: str = ".3f") -> str:
    return "n/a" if value is None else format(value, form)
