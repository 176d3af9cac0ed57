"""``dtwin screen MODEL INPUT OUT``: a cohort of any size, in shards that survive being stopped."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DTwinInputError
from ..prediction_files import NOTICE
from .connectomes import add_input_options
from .options import integer, names
from .progress import Progress

if TYPE_CHECKING:
    from ..screening import Filters, Run, Summary

LEVELS = ("participant", "group")
USAGE = """dtwin screen MODEL INPUT OUT [options]
       dtwin screen BIDS_DIR OUTPUT_DIR participant|group --model MODEL [options]"""

SBATCH = """#!/bin/bash
#SBATCH --job-name=dtwin-screen
#SBATCH --array=0-{last}
#SBATCH --cpus-per-task={cores}
#SBATCH --mem={mem_mb}M
#SBATCH --time=04:00:00
#SBATCH --requeue
# The last task to end puts the results together. A task that ran into its time goes on when it
# is submitted again: sbatch --array=NUMBER. More tasks: change the array and the number below.
srun {command} --shard "$SLURM_ARRAY_TASK_ID/{tasks}"
"""
SBATCH_TASKS, SBATCH_CORES, SBATCH_MB = 16, 4, 4096


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from ..interventions import EDIT_FORMS, TARGETS
    from ..screening import DEFAULT_OUTPUTS, ENGINES, OUTPUTS

    parser.usage = USAGE
    parser.add_argument(
        "places",
        nargs=3,
        metavar="PLACE",
        help="MODEL (a model folder), INPUT (connectomes: an array file, a folder of one-subject "
        "files, or a cohort folder) and OUT (a folder for results); or, as BIDS apps have it, "
        "BIDS_DIR, OUTPUT_DIR and participant, or group, which puts together what participants "
        "left",
    )
    parser.add_argument("--model", metavar="MODEL", help="the model, where places are BIDS's")
    add_input_options(parser)
    for option, named in (
        ("participant", "people, as 01 or sub-01"),
        ("session", "sessions, as 1 or ses-1"),
    ):
        parser.add_argument(
            f"--{option}-label",
            f"--{option}_label",
            nargs="+",
            default=[],
            metavar="LABEL",
            help=f"these {named}, of a folder of files",
        )
    parser.add_argument(
        "--bids-filter-file",
        "--bids_filter_file",
        metavar="FILE",
        help="JSON: the entities of the files that are meant, of a folder of files",
    )
    what = parser.add_argument_group("what is asked of each person")
    what.add_argument(
        "--task", action="append", metavar="TASK", help="this task only; may be given again"
    )
    what.add_argument(
        "--outputs",
        type=names,
        default=list(DEFAULT_OUTPUTS),
        metavar="NAME,...",
        help="; ".join(f"{name}: {text}" for name, text in OUTPUTS.items())
        + f" (default {','.join(DEFAULT_OUTPUTS)})",
    )
    what.add_argument(
        "--target",
        metavar="TARGET",
        help=f"an intervention on each person: {', '.join(TARGETS)}, or TASK:CONTRAST:REGION",
    )
    what.add_argument(
        "--budget",
        type=float,
        metavar="X",
        help="largest norm of a search's change, Fisher z (default: a tenth of how far people of "
        "the training are from their mean)",
    )
    what.add_argument(
        "--edit", metavar="EDIT", help="in place of a search: " + ", ".join(EDIT_FORMS)
    )
    how = parser.add_argument_group("how the work is done")
    how.add_argument(
        "--nprocs",
        type=integer(1, 1024),
        default=1,
        metavar="N",
        help="processes, which share the cores (default 1, which uses all cores too); of a Ray "
        "cluster, actors on all nodes together",
    )
    how.add_argument(
        "--engine",
        choices=tuple(ENGINES),
        default="local",
        help="local (default): this machine; ray: the nodes of a Ray cluster, of which one is "
        "started on this machine if no address is given",
    )
    how.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="HOST:PORT of a Ray cluster, or auto: the one that runs here",
    )
    how.add_argument(
        "--mem-mb",
        "--mem_mb",
        type=integer(1),
        metavar="MIB",
        help="memory that shards are made small enough for",
    )
    how.add_argument(
        "--shard-size",
        type=integer(1),
        metavar="N",
        help="people of a shard (default: what takes a second or two)",
    )
    how.add_argument(
        "--device",
        default="auto",
        metavar="DEVICE",
        help="auto (default), cpu, cuda or cuda:N; what is named runs or is refused",
    )
    how.add_argument(
        "--resume", action="store_true", help="go on with the run that OUT holds, if any"
    )
    how.add_argument(
        "--shard",
        type=_part,
        metavar="I/N",
        help="the I-th of N parts, from 0: those of a Slurm array of 0 to N-1; may always be run "
        "again, and the last to end puts the results together",
    )
    how.add_argument(
        "--dry-run", action="store_true", help="say what would be done, and write nothing"
    )
    how.add_argument(
        "--sbatch", action="store_true", help="print a script for Slurm that does this, and end"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON summary on stdout")


def run(args: argparse.Namespace) -> int:
    """Screen; 3 when people were rejected, else 0."""
    from ..screening import Resources, merge_run, prepare
    from ..screening import run as run_shards

    start = time.monotonic()
    model, source, out, level = _places(args)
    if args.ray_address is not None and args.engine != "ray":
        raise _argument("--ray-address", "only Ray has an address", "--engine ray", args.engine)
    if args.sbatch and args.shard is not None:
        what = "the script for Slurm says the shards of its tasks itself"
        raise _argument("--shard", what, "--sbatch without --shard", "both")
    if args.sbatch:
        print(_sbatch(args), end="")
        return 0
    if level == "group":
        return _report(args, merge_run(model, out), out, start)
    with contextlib.closing(_Indexing()) as indexing:
        prepared = prepare(
            model,
            _people(args, source),
            out,
            resume=args.resume,
            part=args.shard,
            shard_size=args.shard_size,
            mem_mb=args.mem_mb,
            resources=Resources(args.nprocs, args.ray_address),
            dry=args.dry_run,
            progress=indexing,
            tasks=args.task,
            outputs=args.outputs,
            missing=args.missing,
            backend=_backend(args.device),
            target=args.target,
            budget=args.budget,
            edit=args.edit,
        )
    if args.dry_run:
        plan = _plan(prepared)
        print(json.dumps(plan) if args.json else "\n".join(_plan_lines(plan)))
        return 0
    with Progress("screen", "people") as progress:
        summary = run_shards(prepared, engine=args.engine, progress=progress)
    return _report(args, summary, out, start)


class _Indexing:
    """A bar of the files found, for inputs that are folders of files."""

    def __init__(self) -> None:
        self._bar = contextlib.ExitStack()
        self._progress: Progress | None = None

    def __call__(self, found: int) -> None:
        if self._progress is None:
            self._progress = self._bar.enter_context(Progress("index", "files"))
        self._progress(found, found)

    def close(self) -> None:
        """The bar."""
        self._bar.close()


def _places(args: argparse.Namespace) -> tuple[Path, Path, Path, str]:
    """Model, input, folder of results and level."""
    first, second, third = args.places
    if args.model is None and third in LEVELS:
        what = "BIDS_DIR OUTPUT_DIR participant|group need a model"
        raise _argument("--model", what, "--model MODEL, or ./ before the name of a folder", third)
    if args.model is None:
        return Path(first), Path(second), Path(third), "participant"
    if third not in LEVELS:
        raise _argument(
            "--model",
            "with --model the places are BIDS_DIR OUTPUT_DIR participant|group",
            " | ".join(LEVELS),
            third,
        )
    return Path(args.model), Path(first), Path(second), third


def _people(args: argparse.Namespace, source: Path) -> dict[str, Any]:
    """Arguments of ``open_people``."""
    return {
        "path": source,
        "regions": args.regions,
        "subjects": args.subjects,
        "is_fisher_z": args.fisher_z,
        "atlas": tuple(args.atlas) if args.atlas else None,
        "filters": _filters(args),
    }


def _filters(args: argparse.Namespace) -> Filters | None:
    """Which files of a folder are meant, or None: all."""
    from ..screening import Filters

    labels, sessions = args.participant_label, args.session_label
    if not (labels or sessions or args.bids_filter_file):
        return None
    return Filters.of(participants=labels, sessions=sessions, file=args.bids_filter_file)


def _part(text: str) -> tuple[int, int]:
    """An argparse type: I/N, from 0."""
    found = re.fullmatch(r"(\d{1,7})/(\d{1,7})", text)
    if found is None or not int(found[1]) < int(found[2]):
        raise argparse.ArgumentTypeError(
            f"I/N with I from 0 to N-1 is wanted, such as 0/16, not {text[:40]!r}"
        )
    return int(found[1]), int(found[2])


def _backend(device: str) -> str:
    """The backend of a device; a GPU that is named by its number becomes the only one."""
    if device in ("auto", "cpu", "cuda"):
        return device
    found = re.fullmatch(r"cuda:(\d{1,3})", device)
    if found is None:
        raise DTwinInputError(
            "device",
            "there is no such device",
            field="--device",
            wanted="auto | cpu | cuda | cuda:N",
            got=repr(device[:40]),
            fix="Name one of these",
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = None if visible is None else [gpu for gpu in visible.split(",") if gpu]
    number = int(found[1])
    if gpus is not None and number >= len(gpus):
        raise DTwinInputError(
            "device",
            "CUDA_VISIBLE_DEVICES does not name so many GPUs",
            field="--device",
            wanted=f"a number below {len(gpus)}" if gpus else "auto | cpu",
            got=device,
            fix="Name another device",
        )
    os.environ["CUDA_VISIBLE_DEVICES"] = str(number) if gpus is None else gpus[number]
    return "cuda"


def _plan(prepared: Run) -> dict[str, Any]:
    manifest = prepared.job.manifest
    return {
        "model": manifest.model,
        "model_sha256": manifest.model_sha256,
        "input": str(prepared.job.people["path"]),
        "out": str(prepared.job.out),
        "people": manifest.n_people,
        "people_to_do": prepared.n_people_to_do,
        "shards": manifest.n_shards,
        "shards_to_do": len(prepared.to_do),
        "shard_size": manifest.shard_size,
        "processes": prepared.resources.nprocs,
        "memory_mb": round(prepared.memory_bytes / 2**20),
        "gflop": round(prepared.flop / 1e9, 1),
        "settings": manifest.config.to_dict(),
    }


def _plan_lines(plan: dict[str, Any]) -> Iterator[str]:
    yield f"model      {plan['model']}, sha256 {plan['model_sha256'][:12]}"
    yield f"input      {plan['input']}: {plan['people']:,} people"
    yield f"results    {plan['out']}"
    yield (
        f"to do      {plan['people_to_do']:,} people in {plan['shards_to_do']:,} of "
        f"{plan['shards']:,} shards of {plan['shard_size']}"
    )
    settings = plan["settings"]
    yield f"tasks      {', '.join(settings['tasks'])}"
    yield f"outputs    {', '.join(settings['outputs']) or 'none'}"
    if change := settings["change"]:
        how = change["edit"] or f"search within a budget of {change['budget']:.3g}"
        yield f"change     {change['target']}, {how}"
    yield f"memory     {plan['memory_mb']:,} MiB at most, about, in {plan['processes']} processes"
    yield f"work       {plan['gflop']:,} GFLOP, about"
    yield "A dry run: nothing was written."


def _report(args: argparse.Namespace, summary: Summary, out: Path, start: float) -> int:
    rejected = sum(summary.rejected.values())
    seconds = round(time.monotonic() - start, 3)
    if args.json:
        values = {
            "out": str(out),
            "complete": summary.complete,
            "people": summary.people,
            "rejected": summary.rejected,
            "flags": summary.flags,
            "diverged": summary.diverged,
            "ran": list(summary.ran),
            "scores": {
                name: {"mean": mean, "sd": sd} for name, (mean, sd) in summary.scores.items()
            },
            "seconds": seconds,
            "notice": NOTICE,
        }
        print(json.dumps(values, allow_nan=False))
    else:
        print("\n".join(_lines(summary)))
        if rejected and summary.complete:
            print(f"Who was rejected, and why: {out / 'rejected.parquet'}")
        print(f"{NOTICE}\nWritten in {seconds:.1f} s: {out}")
    return 3 if rejected else 0


def _lines(summary: Summary) -> Iterator[str]:
    counts = [("people with results", summary.people)]
    counts += [(f"rejected: {code}", n) for code, n in summary.rejected.items()]
    counts += [(f"flagged: {kind}", n) for kind, n in summary.flags.items()]
    counts += [("diverged", summary.diverged)]
    width = max(len(name) for name, _ in [*counts, *summary.scores.items()])
    for name, n in counts:
        yield f"{name:<{width}}  {n:>10,}"
    if summary.scores:
        yield ""
        yield f"{'score':<{width}}  {'mean':>10}  {'SD':>10}"
    for name, moments in summary.scores.items():
        texts = ["n/a" if value is None else f"{value:.4g}" for value in moments]
        yield f"{name:<{width}}  {texts[0]:>10}  {texts[1]:>10}"
    if len(summary.ran) > 1:
        yield (
            f"Shards ran on {', '.join(summary.ran)}, which differ in the last digits: with "
            "DTWIN_ISA=baseline or avx2 on every machine they do not."
        )
    if not summary.complete:
        yield "Other parts are not done yet; the last of them puts the results together."


def _sbatch(args: argparse.Namespace) -> str:
    skipped = {"--sbatch", "--dry-run", "--resume"}
    words = [word for word in sys.argv[1:] if word not in skipped]
    if args.mem_mb is None:
        words += ["--mem-mb", str(SBATCH_MB)]
    return SBATCH.format(
        last=SBATCH_TASKS - 1,
        tasks=SBATCH_TASKS,
        cores=SBATCH_CORES,
        mem_mb=args.mem_mb or SBATCH_MB,
        command=shlex.join(["dtwin", *words]),
    )


def _argument(field: str, what: str, wanted: str, got: str) -> DTwinInputError:
    return DTwinInputError(
        "argument", what, field=field, wanted=wanted, got=repr(got[:80]), fix="Give one of these"
    )
