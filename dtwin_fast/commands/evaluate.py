"""``dtwin evaluate COHORT``: a model beside floors, ceilings and nulls on the same trials."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..cohort_files import load_cohort
from ..errors import DTwinInputError
from ..spec import PRESETS
from .options import add_training, integer, names, output_folder, train_config
from .progress import Progress

if TYPE_CHECKING:
    from ..evaluate.predictor import Predictor
    from ..evaluate.protocol import Report

TWIN = "twin"
HEADLINES = ("NLL", "error-rate r", "RT person-mean r", "BOLD individual r", "BOLD mean-removed r")
"""Metrics whose controls are printed; scores.json has them all."""
PIPE_COLUMNS = 180


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("cohort", type=Path, metavar="COHORT", help="a cohort folder")
    parser.add_argument(
        "--model",
        default=TWIN,
        metavar="NAME",
        help="what is evaluated: twin (default), or a baseline such as krr",
    )
    parser.add_argument(
        "--model-config",
        default="default",
        metavar="CONFIG",
        help="how twins are trained: default, paper (Takahashi et al. 2026), or a TOML file like "
        "theirs",
    )
    parser.add_argument(
        "--preset", choices=tuple(PRESETS), default="demo", help="sizes of twins (default demo)"
    )
    parser.add_argument(
        "--device",
        default="cpu",
        metavar="NAME",
        help="where twins are trained: cpu (default), cuda, cuda:N, or auto",
    )
    parser.add_argument(
        "--splits",
        type=names,
        default=["A", "B"],
        metavar="A,B,C,D",
        help="A within person, B held-out people, C left-out site, D second run (default A,B)",
    )
    parser.add_argument(
        "--folds", type=integer(2), default=10, metavar="N", help="folds of split B (default 10)"
    )
    parser.add_argument(
        "--repeats", type=integer(1), default=1, metavar="N", help="of split B (default 1)"
    )
    parser.add_argument(
        "--nulls",
        type=integer(0),
        default=3,
        metavar="N",
        help="trainings on permuted connectomes for every fold (default 3, which costs little "
        "and can give no p below 0.25; 19 can give 0.05)",
    )
    parser.add_argument(
        "--baselines", type=names, metavar="NAMES", help="floors, by commas (default all)"
    )
    parser.add_argument(
        "--controls", type=names, metavar="NAMES", help="variants of the twin (default all)"
    )
    parser.add_argument("--out", type=Path, help="a new or empty folder for the results")
    add_training(parser)
    parser.add_argument("--json", action="store_true", help="print the scores as JSON on stdout")


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the table and write the files."""
    from ..evaluate.protocol import evaluate
    from ..evaluate.report_files import as_json, write_report

    def work() -> Report:
        predictors, floors = _predictors(args)
        cohort = load_cohort(args.cohort)
        if cohort.connectomes.n_edges == 0 and args.controls is None:
            for name in _OF_CONNECTOMES:
                predictors.pop(name, None)
        with contextlib.ExitStack() as stack:
            bar = Progress("evaluate", "trainings")

            def progress(done: int, total: int, note: str) -> None:
                if done == 0:
                    print(f"evaluate: {total} trainings ({note})", file=sys.stderr)
                    stack.enter_context(bar)
                bar(done, total, note)

            report = evaluate(
                cohort,
                predictors,
                model=args.model,
                null=_NULL if args.nulls else None,
                floors=floors,
                splits=args.splits,
                n_folds=args.folds,
                n_repeats=args.repeats,
                n_nulls=args.nulls,
                seed=args.seed,
                progress=progress,
            )
        others = (*floors, args.model, _NULL)
        report.settings["controls"] = [name for name in predictors if name not in others]
        if args.model == TWIN:
            report.settings.update(
                model_config=args.model_config,
                steps=args.steps,
                preset=args.preset,
                device=args.device,
            )
        if args.out is not None:
            write_report(report, args.out, cohort.bold_regions)
        return report

    if args.out is None:
        report = work()
    else:
        with output_folder(args.out):
            report = work()
    if args.json:
        print(json.dumps(as_json(report), allow_nan=False))
    else:
        _print(report)
    return 0


_NULL = "permuted"
_OF_CONNECTOMES = ("twin-demographics", "twin-with-demographics", "direct-input")
"""Controls that are no others than the twin, or twin-zero, where nobody has a connectome."""


def _predictors(args: argparse.Namespace) -> tuple[dict[str, Callable[[], Predictor]], list[str]]:
    """Everything that is trained, and the names of the floors."""
    from ..evaluate.baselines import BASELINES
    from ..evaluate.controls import PermutedConnectomes

    floors = _known("--baselines", args.baselines, list(BASELINES))
    predictors = {name: BASELINES[name] for name in floors}
    if args.model == TWIN:
        from ..evaluate.twin import twin_predictors
        from ..training.config_files import load_config

        fields, config = load_config(args.model_config)
        config = train_config(args, config)
        twins = twin_predictors(config, replace(PRESETS[args.preset], **fields), args.device)
        controls = [name for name in twins if name not in (TWIN, _NULL)]
        nulls = [_NULL] if args.nulls else []
        chosen = [TWIN, *nulls, *_known("--controls", args.controls, controls)]
        return predictors | {name: twins[name] for name in chosen}, floors
    _known("--model", [args.model], [TWIN, *BASELINES])
    make = BASELINES[args.model]
    null = {_NULL: lambda: PermutedConnectomes(make)} if args.nulls else {}
    return predictors | {args.model: make} | null, floors


def _known(option: str, names: list[str] | None, known: list[str]) -> list[str]:
    if names is None:
        return known
    if unknown := [name for name in names if name not in known]:
        raise DTwinInputError(
            "predictor",
            "there is no such predictor",
            field=option,
            wanted=", ".join(known),
            got=", ".join(unknown),
            fix="Name some of these, with commas between them",
        )
    return names


def _own_or_not(report: Report) -> Iterator[str]:
    """What the model makes of a person's own connectome, beside those that do not have it."""
    known = {(e.split, e.task, e.metric): e for e in report.information}
    for row in report.rows:
        if row.metric not in HEADLINES or math.isnan(row.model):
            continue
        line = f"{row.split} {row.task}, {row.metric}: own {row.model:.3f}"
        if entry := known.get((row.split, row.task, row.metric)):
            line += f", another's connectome {entry.others:.3f} (p {entry.p:.3f})"
        if math.isfinite(row.null_mean):
            line += f", trained on permuted {row.null_mean:.3f} (p {row.null_p:.3f})"
        controls = [name for name in report.settings["controls"] if name in row.baselines]
        yield line + "".join(f", {name} {row.baselines[name]:.3f}" for name in controls)


def _print(report: Report) -> None:
    from ..evaluate.table import to_markdown, to_rich

    for flag in report.flags:
        print(f"note: {flag}", file=sys.stderr)
    for line in _own_or_not(report):
        print(line)
    if importlib.util.find_spec("rich") is None:
        print(to_markdown(report.rows))
        return
    from rich.console import Console

    # A file or pipe has no width; 80 columns would break words.
    Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS).print(to_rich(report.rows))
