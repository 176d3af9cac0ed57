"""``dtwin cohort tcp FOLDER --out COHORT``, ``dtwin cohort tables``: a cohort of real people."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..cohort import Cohort
from ..cohort_files import save_cohort
from ..datasets import read_tables, read_tcp_release, read_tcp_trials
from ..datasets.tcp import SERIES_FOLDER, BoldRegions
from ..datasets.tcp_trials import DEFAULT_RUNS
from ..errors import DTwinInputError
from ..readers.tables import read_text_table
from ..tables import write_tsv
from .options import output_folder

TCP_HELP = "a copy of OpenNeuro ds005237, or a folder with its trials.csv.gz and participants.tsv"
REGIONS_HELP = "table of region names, for series or connectomes without names"


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-commands."""
    sources = parser.add_subparsers(
        required=True, metavar="SOURCE", dest="source", help="where the data come from"
    )

    tcp = sources.add_parser("tcp", help="the Transdiagnostic Connectome Project")
    tcp.add_argument("folder", type=Path, metavar="FOLDER", help=TCP_HELP)
    tcp.add_argument(
        "--task",
        action="append",
        metavar="RUN",
        help="faces, stroop or stroop_run-2; may be given more than once (default faces, stroop)",
    )
    tcp.add_argument("--regions", metavar="FILE[:COLUMN]", help=REGIONS_HELP)
    tcp.add_argument(
        "--bold",
        metavar="FILE|all",
        help="also read the BOLD of all regions, or of the means in a table with the columns name "
        "(of the BOLD region) and region (a row for each of its parts)",
    )
    tcp.add_argument(
        "--phenotype",
        action="append",
        default=[],
        metavar="TABLE:TITLE",
        help="a column of phenotype/TABLE.tsv to add; may be given more than once",
    )

    tables = sources.add_parser("tables", help="tables of your own")
    tables.add_argument(
        "--trials", type=Path, required=True, metavar="FILE", help="a row a trial; see the docs"
    )
    tables.add_argument("--participants", type=Path, metavar="FILE", help="a row a person")
    tables.add_argument(
        "--connectomes", type=Path, metavar="PATH", help="what dtwin predict takes as INPUT"
    )
    tables.add_argument("--regions", metavar="FILE[:COLUMN]", help=REGIONS_HELP)
    tables.add_argument(
        "--fisher-z", action="store_true", help="connectomes hold Fisher z, not Pearson r"
    )
    tables.add_argument(
        "--tr", type=float, default=0.8, metavar="S", help="TR of the scans (default 0.8 s)"
    )
    for source in (tcp, tables):
        source.add_argument("--out", type=Path, required=True, help="a new or empty folder")
        source.add_argument("--json", action="store_true", help="print a JSON summary on stdout")


def run(args: argparse.Namespace) -> int:
    """Read and write the cohort; 3 when people were left out, else 0."""
    with output_folder(args.out):
        cohort = _read_tcp(args) if args.source == "tcp" else _read_tables(args)
        save_cohort(cohort, args.out)
        people = cohort.connectomes
        write_tsv(
            args.out / "flags.tsv",
            ["participant_id", "flag"],
            (
                [subject, flag]
                for subject, flags in zip(people.subjects, people.flags, strict=True)
                for flag in flags
            ),
        )
        write_tsv(
            args.out / "rejected.tsv",
            ["participant_id", "code", "reason", "fix"],
            ([e.subject or "n/a", e.code, e.what, e.fix] for e in people.rejected),
        )
    summary = _summary(cohort)
    if args.json:
        print(json.dumps({"out": str(args.out), **summary}))
    else:
        _print(summary, args.out)
    return 3 if cohort.connectomes.rejected else 0


def _read_tcp(args: argparse.Namespace) -> Cohort:
    tasks = tuple(dict.fromkeys(args.task or DEFAULT_RUNS))
    if any((args.folder / name).is_file() for name in ("trials.csv.gz", "trials.csv")):
        if args.regions or args.bold or args.phenotype:
            raise DTwinInputError(
                "cohort_options",
                "this folder has behaviour only",
                field=str(args.folder),
                wanted="none of --regions, --bold, --phenotype",
                got="at least one",
                fix="Leave them out, or name the folder of the whole release",
            )
        return read_tcp_trials(args.folder, tasks=tasks)
    if args.regions is None and (args.folder / SERIES_FOLDER).is_dir():
        raise DTwinInputError(
            "regions_unnamed",
            "the series of the release do not name their regions",
            field="--regions",
            wanted="a table of 434 names in the order of the rows",
            got="none",
            fix="Give --regions, e.g. the label column of the release's atlas",
        )
    return read_tcp_release(
        args.folder,
        tasks=tasks,
        regions=args.regions,
        bold_regions=_bold_regions(args.bold),
        phenotype=args.phenotype,
    )


def _read_tables(args: argparse.Namespace) -> Cohort:
    return read_tables(
        args.trials,
        participants=args.participants,
        connectomes=args.connectomes,
        regions=args.regions,
        is_fisher_z=args.fisher_z,
        tr_s=args.tr,
    )


def _bold_regions(source: str | None) -> BoldRegions:
    if source is None:
        return None
    if source == "all":
        return "all"
    path = Path(source)
    titles, rows = read_text_table(path)
    if sorted(titles) != ["name", "region"]:
        raise DTwinInputError(
            "names_column",
            "this table does not say which regions are averaged",
            field=path.name,
            wanted="the columns name and region",
            got=", ".join(titles)[:200],
            fix="Write a row for each region: the BOLD region's name, and the region",
        )
    parts: dict[str, Sequence[str]] = {}
    for row in rows:
        name, region = row[titles.index("name")], row[titles.index("region")]
        parts[name] = (*parts.get(name, ()), region)
    return parts


def _summary(cohort: Cohort) -> dict[str, Any]:
    people = cohort.connectomes
    return {
        "people": len(cohort),
        "regions": people.n_regions,
        "bold_regions": len(cohort.measured_bold_regions),
        "tasks": {
            name: {
                "people": int(data.measured.any(axis=1).sum()),
                "trials": data.schedule.n_trials,
                "measured": int(data.measured.sum()),
                "pressed": int(data.pressed.sum()),
                "correct": int(data.is_correct.sum()),
            }
            for name, data in cohort.tasks.items()
        },
        "participants": list(cohort.participants),
        "flagged": sum(bool(flags) for flags in people.flags),
        "rejected": len(people.rejected),
    }


def _print(summary: dict[str, Any], out: Path) -> None:
    print(
        f"{summary['people']} people, {summary['regions']} regions, "
        f"{summary['bold_regions']} BOLD regions, {summary['flagged']} flagged, "
        f"{summary['rejected']} left out -> {out}"
    )
    for name, task in summary["tasks"].items():
        print(
            f"{name}: {task['people']} people, {task['trials']} trials, "
            f"{task['measured']} measured, {task['pressed']} with a press, "
            f"{task['correct']} correct"
        )
    if summary["flagged"] or summary["rejected"]:
        print(f"see flags.tsv and rejected.tsv in {out}")
