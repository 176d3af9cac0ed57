"""``dtwin intervene MODEL INPUT --target TARGET --out OUT``: what would move a target of people."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DTwinInputError
from ..prediction_files import NOTICE, bids_labels
from ..simulate.files import load_truth
from ..twin_files import load
from .connectomes import add_engine, add_input, is_cohort, read_input
from .options import add_seed, integer, names, output_folder
from .progress import Progress

if TYPE_CHECKING:
    from ..interventions import Constraint, Effect, Intervention

ALLOW_FORMS = ("site:REGION[,REGION]", "network:BLOCK", "edges:FILE")
UNITS = {"search": "steps"}
"""What is counted; other stages count rollouts of everyone."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from ..interventions import EDIT_FORMS, TARGETS

    parser.add_argument("model", type=Path, metavar="MODEL", help="a model folder")
    add_input(parser)
    parser.add_argument(
        "--target",
        required=True,
        metavar="TARGET",
        help=f"{', '.join(TARGETS)}, or TASK:CONTRAST:REGION such as 'faces:faces>shapes:LH_V1'",
    )
    parser.add_argument("--out", type=Path, required=True, help="a new or empty folder")
    parser.add_argument(
        "--method",
        default="connectome",
        metavar="METHOD",
        help="connectome (default): search for a change of each connectome, and the paper's "
        "shift of the weights beside it; weights: that shift alone; or an edit: "
        + ", ".join(EDIT_FORMS),
    )
    parser.add_argument("--goal", choices=("up", "down"), help="default: the target's own")
    parser.add_argument(
        "--keep",
        type=names,
        default=[],
        metavar="TARGET,...",
        help="outcomes that are to stay as they are",
    )
    search = parser.add_argument_group("what a search may change (edges in Fisher z)")
    search.add_argument(
        "--budget",
        type=float,
        metavar="X",
        help="largest norm of a person's change (default: 2 SDs of these people along the "
        "group's gradient)",
    )
    search.add_argument(
        "--norm", choices=("l2", "linf"), default="l2", help="of the change (default l2)"
    )
    search.add_argument(
        "--top-k", type=integer(1), metavar="K", help="at most K edges of each person"
    )
    search.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="EDGES",
        help=f"these edges only: {', '.join(ALLOW_FORMS)}; may be given more than once",
    )
    search.add_argument(
        "--any-matrix",
        action="store_true",
        help="changed connectomes need not be correlation matrices",
    )
    search.add_argument("--group", action="store_true", help="one change for everyone")
    search.add_argument(
        "--steps", type=integer(1), default=50, metavar="N", help="gradients at most (default 50)"
    )
    parser.add_argument(
        "--random",
        type=integer(0),
        default=100,
        metavar="N",
        help="random directions to compare with (default 100)",
    )
    parser.add_argument(
        "--second",
        type=Path,
        metavar="MODEL",
        help="a model of another seed, to see whether it has the same maps",
    )
    add_engine(parser)
    add_seed(parser)
    parser.add_argument("--json", action="store_true", help="print a JSON summary on stdout")


def run(args: argparse.Namespace) -> int:
    """Intervene and write; 3 when subjects were rejected, else 0."""
    from ..interventions import (
        EDIT_FORMS,
        EDITS,
        find_target,
        intervene,
        parse_edit,
        write_intervention,
    )
    from ..interventions.files import as_json
    from ..interventions.intervene import METHODS

    with output_folder(args.out):
        find_target(args.target)
        kind = args.method.partition(":")[0]
        if args.method not in METHODS and kind not in EDITS:
            raise _unknown(
                "method", "there is no such method", (*METHODS, *EDIT_FORMS), args.method
            )
        method = args.method if args.method in METHODS else parse_edit(args.method)
        twin = load(args.model)
        connectomes = read_input(args)
        bids_labels(connectomes.subjects)  # refused now, not after the work
        with contextlib.closing(_Stages()) as stages:
            done = intervene(
                twin,
                connectomes,
                args.target,
                method=method,
                goal=args.goal,
                keep=args.keep,
                constraint=_constraint(args, twin.regions),
                scope="group" if args.group else "person",
                n_steps=args.steps,
                n_random=args.random,
                second=None if args.second is None else load(args.second),
                truth=load_truth(args.input) if is_cohort(args.input) else None,
                missing=args.missing,
                bad_subjects="drop",
                seed=args.seed,
                backend=args.backend,
                n_threads=args.threads,
                progress=stages,
            )
        write_intervention(done, args.out)
    if args.json:
        print(json.dumps({"out": str(args.out), **as_json(done)}, allow_nan=False))
    else:
        print("\n".join(_lines(done)))
        print(f"{NOTICE}\nWritten: {args.out}; pages to look at: dtwin report {args.out}")
    return 3 if done.connectomes.rejected else 0


class _Stages:
    """A bar for each stage of the work."""

    def __init__(self) -> None:
        self._stage = ""
        self._bar = contextlib.ExitStack()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != self._stage:
            self._bar.close()
            self._stage = stage
            self._progress = Progress(stage, UNITS.get(stage, "rollouts"))
            self._bar.enter_context(self._progress)
        self._progress(done, total)

    def close(self) -> None:
        """The last bar."""
        self._bar.close()


def _constraint(args: argparse.Namespace, regions: Sequence[str]) -> Constraint | None:
    """What was asked for; None where nothing was."""
    from ..interventions import Constraint

    given = (args.norm != "l2", args.budget is not None, args.top_k, args.allow, args.any_matrix)
    if not any(given):
        return None
    masks = [_allowed(text, regions) for text in args.allow]
    return Constraint(
        norm=args.norm,
        budget=args.budget,
        top_k=args.top_k,
        allowed=np.any(masks, axis=0) if masks else None,
        valid=not args.any_matrix,
    )


def _allowed(text: str, regions: Sequence[str]) -> Any:
    """(E,) mask of one --allow."""
    from ..interventions import listed_edges, network_edges, site_edges
    from ..interventions.presets import read_pairs

    kind, _, rest = text.partition(":")
    if kind == "site" and rest:
        return site_edges(regions, rest.split(","))
    if kind == "network" and rest:
        return network_edges(regions, rest)
    if kind == "edges" and rest:
        return listed_edges(regions, read_pairs(Path(rest)))
    raise _unknown("allow", "these are no edges", ALLOW_FORMS, text)


def _unknown(option: str, what: str, known: Sequence[str], got: str) -> DTwinInputError:
    return DTwinInputError(
        "argument",
        what,
        field=f"--{option}",
        wanted=" | ".join(known),
        got=repr(got[:80]),
        fix="Give one of these forms",
    )


def _lines(done: Intervention) -> Iterator[str]:
    """What is printed: effects with all their controls."""
    people = f"{len(done.subjects)} people"
    if done.connectomes.rejected:
        people += f", {len(done.connectomes.rejected)} rejected"
    yield f"target {done.target} ({done.unit}), goal {done.goal}: {people}"
    for method, effect in done.effects.items():
        yield ""
        yield f"{method}:"
        for name, text in _controls(done, effect):
            yield f"  {name:<22}{text}"
    for note in done.notes:
        yield f"note: {note}"


def _controls(done: Intervention, effect: Effect) -> Iterator[tuple[str, str]]:
    s = effect.summary()
    random, stability = s["random"], s["stability"]
    yield (
        "effect",
        f"{_number(s['mean_effect'])} SDs of people before (SD over people "
        f"{_number(s['sd_effect'])}), better in {_share(s['share_improved'])}, above 0.8 in "
        f"{_share(s['share_above_0.8'])}; mean change {s['mean_change_in_unit']:+.3g} {done.unit}",
    )
    if not math.isnan(s["predicted_r"]):
        yield "by the gradient", f"r {_number(s['predicted_r'])} with the change that it promised"
    if random["n"]:
        yield (
            "random directions",
            f"{random['n']} on {random['people']} people: mean effect "
            f"{_number(random['mean_effect'])} (z {_number(random['z'])}, p "
            f"{_number(random['p'])}), SD over people {_number(random['sd_effect_mean'])} against "
            f"{_number(random['sd_of_intervention'])} (z {_number(random['sd_z'])}, p "
            f"{_number(random['sd_p'])})",
        )
    yield "doses -3 to 3", f"monotone in {_share(s['monotone_share'])} of people; 2 is this one"
    if pls := s.get("pls"):
        yield (
            "direction in weights",
            f"r with target {_number(pls['in_sample_r'])} in sample (participation ratio "
            f"{pls['participation_ratio']:.1f}, noise gives {_number(pls['null_r'])}, p "
            f"{_number(pls['permutation_p'])}), {_number(pls['cv_r'])} cross-validated",
        )
    yield (
        "off target",
        ", ".join(f"{name} {change:+.2f}" for name, change in _off_target(done, effect)),
    )
    if effect.range_after is not None:
        before, after = s["range"]["flagged_before"], s["range"]["flagged_after"]
        yield "out of range", f"{before} people before, {after} after"
    yield (
        "map",
        f"halves of people r {_number(stability['split_half_r'])}, top 1 % overlap "
        f"{_number(stability['split_half_dice'])}; second model r "
        f"{_number(stability['seed_r'])}, overlap {_number(stability['seed_dice'])}",
    )
    yield "regression to mean", f"r {_number(s['regression_to_mean_r'])} of effect and value before"
    if truth := s.get("truth"):
        text = (
            f"map's cosine {_interval(truth, 'cosine')}, AUC of causal edges "
            f"{_interval(truth, 'auc')}"
        )
        if "slope" in truth:
            text += (
                f"; true mean change {truth['true_change']:+.3g}, slope of the twin's over the "
                f"true {_number(truth['slope'])}, r {_number(truth['slope_r'])}, same sign in "
                f"{_share(truth['sign_accuracy'])}"
            )
        yield "truth (simulated)", text


def _off_target(done: Intervention, effect: Effect) -> Iterator[tuple[str, float]]:
    for k, outcome in enumerate(done.outcomes[1:], start=1):
        yield outcome, float(effect.moved(k).mean())


def _number(value: float | None) -> str:
    return "n/a" if value is None or not math.isfinite(value) else f"{value:.3g}"


def _share(value: float) -> str:
    return "n/a" if not math.isfinite(value) else f"{value:.0%}"


def _interval(truth: dict[str, Any], name: str) -> str:
    low, high = truth[f"{name}_low"], truth[f"{name}_high"]
    return f"{truth[name]:.3f} [{low:.3f}, {high:.3f}]"
