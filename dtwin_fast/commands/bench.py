"""``dtwin bench``: the engine beside its peers, verified and timed."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..benchmarks.cases import CASES
from ..benchmarks.peers import DEFAULT_PEERS, PEERS
from ..errors import MissingExtraError
from ..prediction_files import write_json
from .options import check_writable, integer

UKB = "ukb"
EXIT_REFUSED = 1
"""Wrong results: something is broken."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    cases = (*CASES, UKB)
    parser.add_argument(
        "--cases",
        type=_names(cases),
        default=list(cases),
        metavar="NAME,...",
        help=f"all (default), or some of {', '.join(cases)}",
    )
    parser.add_argument(
        "--peers",
        type=_names(tuple(PEERS)),
        default=list(DEFAULT_PEERS),
        metavar="NAME,...",
        help=f"all, none, or some of {', '.join(PEERS)} (default {','.join(DEFAULT_PEERS)}; "
        "torch-compile takes minutes to compile)",
    )
    parser.add_argument(
        "--seconds",
        type=integer(1),
        default=20,
        metavar="N",
        help="time to spend on each case and direction, about (default 20)",
    )
    parser.add_argument(
        "--ukb-subjects",
        type=integer(1),
        default=256,
        metavar="N",
        help="subjects in a file under TMPDIR for the case ukb (default 256)",
    )
    parser.add_argument(
        "--no-memory",
        dest="memory",
        action="store_false",
        help="leave out peak memory, which takes a process for each implementation",
    )
    parser.add_argument(
        "--json", metavar="FILE", help="also write the results to FILE; - is stdout, alone"
    )


def run(args: argparse.Namespace) -> int:
    """Run the cases; the file is written anew after each of them."""
    if args.json not in (None, "-"):
        check_writable(Path(args.json))
    if importlib.util.find_spec("torch") is None:
        raise MissingExtraError("torch", "bench", "dtwin bench")
    from ..benchmarks.limits import Limits
    from ..benchmarks.machine import examine
    from ..benchmarks.report import HEADER, as_line
    from ..benchmarks.suite import run_cases
    from ..benchmarks.ukb import run_ukb

    table = sys.stderr if args.json == "-" else sys.stdout
    _say("measuring the limits of this machine")
    limits = Limits()
    results: dict[str, Any] = {"machine": examine(), "limits": {}, "rows": [], "left_out": []}
    print(HEADER, file=table, flush=True)

    def done(rows: list[dict[str, Any]], left_out: list[dict[str, Any]]) -> None:
        results["rows"] += rows
        results["left_out"] += left_out
        results["limits"] = limits.to_dict()
        for row in rows:
            print(as_line(row), file=table, flush=True)
        for row in left_out:
            _say(f"{row['case']} {row['op']}: without {row['impl']}: {row['reason']}")
        if args.json not in (None, "-"):
            write_json(Path(args.json), results)

    cases = {name: CASES[name] for name in args.cases if name != UKB}
    run_cases(
        cases,
        args.peers,
        limits,
        budget_s=args.seconds,
        memory=args.memory,
        say=_say,
        done=done,
    )
    if UKB in args.cases:
        done(*run_ukb(args.ukb_subjects, limits, say=_say))
    if args.json == "-":
        print(json.dumps(results, indent=1, allow_nan=False))
    return EXIT_REFUSED if any(row["refused"] for row in results["left_out"]) else 0


def _names(known: Sequence[str]) -> Callable[[str], list[str]]:
    """An argparse type: names of these, separated by commas."""

    def parse(text: str) -> list[str]:
        if text in ("all", "none"):
            return list(known) if text == "all" else []
        names = text.split(",")
        if odd := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{odd[0][:40]!r} is none of {', '.join(known)}")
        return list(dict.fromkeys(names))

    return parse


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
