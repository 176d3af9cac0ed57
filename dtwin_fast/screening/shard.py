"""One shard: from its people's connectomes to arrays and tables, which depend on nothing else.

A person's results are the same to the bit in any company, so in any shard of any size.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..connectome import Connectomes, stack
from ..connectome_checks import FATAL_CODES
from ..dispatch import isa, rollout
from ..errors import DTwinInputError
from ..hypernetwork import generate_weights
from ..interventions import find_target, parse_edit, range_scores
from ..interventions.constraints import Constraint
from ..interventions.gradients import Simulator, edited
from ..interventions.out_of_range import BEYOND_SD, RangeScores
from ..interventions.search import PRECISION, search
from ..prediction_files import bids_labels, condition_means
from ..provenance import input_digest
from ..spec import n_edges
from ..twin import Twin
from ..weights import RNNWeights
from .arrays import Layout
from .config import Change, Config
from .people import People

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

UNIT_PEOPLE = 9
"""People who are looked at before a run for the unit of them all."""
ENTITIES = re.compile(r"sub-[0-9A-Za-z]+(_[a-z]+-[0-9A-Za-z]+)+")
"""The name of a person of whom there are several files."""

SECRET_CODES = {
    *("asymmetric", "diagonal", "fisher_z_as_r", "r_out_of_range", "z_out_of_range"),
    *("table_names", "table_number"),
}
"""Errors that quote a number of a connectome, which is neither written down nor printed."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """What was read of a shard.

    Attributes:
        rows: positions of its people.
        subjects: their names.
        people: those who can be used, in Fisher z, regions in the twin's order.
        x: (S,E) what the hypernetwork reads of them, where contrasts alone are wanted.
        range: their range scores, where wanted.
        input_sha256: digest of what was read.
    """

    rows: range
    subjects: tuple[str, ...]
    people: Connectomes
    x: Float32 | None
    range: RangeScores | None
    input_sha256: str


@dataclass(frozen=True, eq=False)
class Computed:
    """The results of a shard.

    Attributes:
        scores: columns of the table of scores, a row for each of S people with results.
        rejected: columns of the table of the others.
        arrays: (rows,...) of everybody, NaN for those without results.
        flags: kind -> how many people have it.
        diverged: how many people.
        ran: backend and instruction set.
        input_sha256: of ``Loaded``.
    """

    scores: dict[str, Any]
    rejected: dict[str, list[Any]]
    arrays: dict[str, Float32]
    flags: dict[str, int]
    diverged: int
    ran: str
    input_sha256: str


def load_shard(people: People, twin: Twin, config: Config, rows: range) -> Loaded:
    """Read a shard's people.

    Raises:
        DTwinInputError: mistakes of the whole input; those of one person are kept in
            ``people.rejected``.
    """
    with no_numbers():
        given = _read(people, rows)
    known = twin.prepare(given, missing=config.missing, bad_subjects="drop")
    in_z = replace(known, edges=known.fisher_z(), is_fisher_z=True)
    return Loaded(
        rows,
        tuple(people.subjects[rows.start : rows.stop]),
        in_z,
        twin.hyper_input(in_z, config.missing) if config.folds else None,
        _range(twin, config, in_z) if {"range", "eigenvalue"} & set(config.outputs) else None,
        input_digest(given),
    )


def run_shard(twin: Twin, config: Config, layouts: dict[str, Layout], loaded: Loaded) -> Computed:
    """The results of a shard.

    Args:
        twin, config: of the run.
        layouts: its arrays.
        loaded: what :func:`load_shard` returned.

    Raises:
        BackendUnavailableError, BackendFailedError: the backend cannot run, or failed.
    """
    people = loaded.people
    place = {name: i for i, name in enumerate(loaded.subjects)}
    kept = np.array([place[name] for name in people.subjects], np.int64)
    diverged = np.zeros(len(people), np.bool_)
    columns: dict[str, Any] = {}
    arrays: dict[str, Float32] = {}
    ran = ""
    if loaded.x is not None:
        arrays["contrasts"], diverged, ran = _contrasts(twin, config, loaded.x)
    elif config.rolls_out:
        said = twin.predict(
            people,
            config.tasks,
            missing=config.missing,
            bold="bold" in config.outputs,
            backend=config.backend,
            precision=config.precision,
        )
        diverged, ran = said.diverged, f"{said.provenance['backend']} {said.provenance['isa']}"
        if "behaviour" in config.outputs:
            columns |= condition_means(said)
        arrays = {name: getattr(said, name) for name in layouts}
    if loaded.range is not None:
        columns |= {"deviation": loaded.range.deviation, "beyond_share": loaded.range.beyond_share}
        if "eigenvalue" in config.outputs:
            columns["min_eigenvalue"] = loaded.range.min_eigenvalue
    if config.change is not None:
        moved, ran = _change(twin, config, config.change, people)
        columns |= moved
        diverged |= np.isnan(moved["pre"]) | np.isnan(moved["post"])
    participants, sessions = _labels(people.subjects)
    flags = people.flags
    if loaded.range is not None:
        pairs = zip(flags, loaded.range.flags(), strict=True)
        flags = tuple((*old, *new) for old, new in pairs)
    return Computed(
        scores={
            "row": loaded.rows.start + kept,
            "participant_id": participants,
            "session_id": sessions,
            "source_id": list(people.subjects),
            "flags": [",".join(of_person) for of_person in flags],
            "diverged": diverged,
            **columns,
        },
        rejected=_rejected(people.rejected, place, loaded.rows.start),
        arrays={
            name: _spread(arrays[name], kept, len(loaded.rows), layout)
            for name, layout in layouts.items()
        },
        flags=dict(sorted(Counter(_kinds(flags)).items())),
        diverged=int(diverged.sum()),
        ran=ran,
        input_sha256=loaded.input_sha256,
    )


@contextlib.contextmanager
def no_numbers() -> Iterator[None]:
    """Let errors leave out numbers of connectomes: a few of those tell who somebody is."""
    try:
        yield
    except DTwinInputError as error:
        if error.code in SECRET_CODES:
            error.got = ""
            error.args = (str(error),)
        raise


def check_unit(people: People) -> None:
    """Refuse an input in another unit than was announced, by people spread over it.

    Raises:
        DTwinInputError: more than half of them look like Fisher z announced as r (code
            ``fisher_z_as_r``). Fewer are mistakes of single people.
    """
    n_people = len(people.subjects)
    looked_at = sorted({i * n_people // UNIT_PEOPLE for i in range(UNIT_PEOPLE)})
    errors = []
    for i in looked_at:
        try:
            people.read(i, i + 1)
        except DTwinInputError as error:
            if error.code not in FATAL_CODES:
                raise
            errors.append(error)
    if 2 * len(errors) > len(looked_at):
        raise errors[0]


def _read(people: People, rows: range) -> Connectomes:
    """These people; who looks like Fisher z among others who do not is rejected alone."""
    try:
        return people.read(rows.start, rows.stop)
    except DTwinInputError as error:
        if error.code not in FATAL_CODES:
            raise
    parts, rejected = [nobody_of(people)], []
    for i in rows:
        try:
            part = people.read(i, i + 1)
        except DTwinInputError as error:
            if error.code not in FATAL_CODES:
                raise
            rejected.append(error)
            continue
        parts.append(replace(part, rejected=()))
        rejected += part.rejected
    return replace(stack(parts), rejected=tuple(rejected))


def nobody_of(people: People) -> Connectomes:
    """Nobody, with the regions of these people."""
    return Connectomes(
        edges=np.empty((0, n_edges(people.n_regions)), np.float32),
        subjects=(),
        regions=people.regions,
        is_fisher_z=people.is_fisher_z,
        missing=np.empty((0, people.n_regions), np.bool_),
        flags=(),
    )


def contrast_rows(twin: Twin, config: Config) -> Float32:
    """(B,K,T) time projections of the tasks' runs, each with its own rows and then zeros."""
    inputs = twin.encode(config.tasks)
    rows = [twin.projections[task] for task in config.tasks]
    projection = np.zeros((len(rows), max(map(len, rows)), inputs.shape[1]), np.float32)
    for b, of_task in enumerate(rows):
        projection[b, : len(of_task), : of_task.shape[1]] = of_task
    return projection


def _contrasts(
    twin: Twin, config: Config, x: Float32
) -> tuple[Float32, npt.NDArray[np.bool_], str]:
    """(S,K,regions) contrasts, (S,) who diverged, and what ran."""
    inputs, projection = twin.encode(config.tasks), contrast_rows(twin, config)
    found, diverged = [], []
    for part in twin.chunks(len(x), projection.shape[:2]):
        result = rollout(
            RNNWeights.from_flat(generate_weights(twin.layers, x[part]), twin.spec),
            inputs,
            backend=config.backend,
            precision=config.precision,
            time_projection=projection,
        )
        effects = result.outputs[..., twin.spec.n_actions :]
        of_tasks = [
            effects[:, b, : len(twin.contrasts[task])] for b, task in enumerate(config.tasks)
        ]
        found.append(np.concatenate(of_tasks, axis=1).astype(np.float32, copy=False))
        diverged.append(result.diverged)
    ran = f"{result.backend} {isa(result.backend)}"
    return np.concatenate(found), np.concatenate(diverged), ran


def _range(twin: Twin, config: Config, people: Connectomes) -> RangeScores:
    """Range scores, the eigenvalue only where it is asked for."""
    lowest = np.full(len(people), np.nan)
    if "eigenvalue" in config.outputs:
        scores = range_scores(people.edges, twin.edge_mean, twin.edge_sd)
        lowest = scores.min_eigenvalue
    deviation, beyond = np.full((2, len(people)), np.nan)
    apart = np.empty(people.n_edges, np.float32)
    for i, z in enumerate(people.edges):  # a row at a time stays in cache
        np.divide(np.subtract(z, twin.edge_mean, out=apart), twin.edge_sd, out=apart)
        known = apart if not people.missing[i].any() else apart[~np.isnan(z)]
        if len(known):
            beyond[i] = np.count_nonzero(np.abs(known) > BEYOND_SD) / len(known)
            deviation[i] = np.sqrt(np.square(known, out=known).mean(dtype=np.float64))
    return RangeScores(deviation, beyond, np.full(len(people), np.nan), lowest)


def _change(
    twin: Twin, config: Config, change: Change, people: Connectomes
) -> tuple[dict[str, Float64], str]:
    """Columns of an intervention, and what ran."""
    target = find_target(change.target)
    options: dict[str, Any] = {"missing": config.missing, "backend": config.backend}
    simulator = Simulator(twin, [target], precision=config.precision, **options)
    if change.edit is not None:
        moved = parse_edit(change.edit).change(people.edges, twin.regions).astype(np.float32)
    else:
        assert change.budget is not None
        moved = search(
            Simulator(twin, [target], precision=PRECISION, **options),
            people,
            Constraint(budget=change.budget, valid=True),
            change.budget,
            1.0 if target.goal == "up" else -1.0,
        ).change
    found = {
        "pre": simulator.values(simulator.hidden(people))[0],
        "post": simulator.values(simulator.hidden(edited(people, moved)))[0],
        "change_norm": np.sqrt(np.square(moved.astype(np.float64)).sum(axis=1)),
    }
    return found, f"{simulator.backend} {isa(simulator.backend)}"


def _labels(names: tuple[str, ...]) -> tuple[list[str], list[str | None]]:
    """BIDS labels of people, and of their sessions where names such as ``sub-1_ses-2`` say them."""
    participants = bids_labels(names)
    sessions: list[str | None] = [None] * len(names)
    for i, name in enumerate(names):
        if ENTITIES.fullmatch(name):
            participants[i], *others = name.split("_")
            sessions[i] = next((other for other in others if other.startswith("ses-")), None)
    return participants, sessions


def _rejected(
    errors: tuple[DTwinInputError, ...], place: dict[str, int], start: int
) -> dict[str, list[Any]]:
    """Columns of the table of people without results, in the order of the input."""
    found = sorted((place[str(error.subject)], error) for error in errors)
    errors = tuple(error for _, error in found)
    return {
        "row": [start + i for i, _ in found],
        "source_id": [str(error.subject) for error in errors],
        "code": [error.code for error in errors],
        "reason": [error.what for error in errors],
        "fix": [error.fix for error in errors],
        "wanted": [error.wanted for error in errors],
        "got": ["" if error.code in SECRET_CODES else error.got for error in errors],
    }


def _spread(rows: Float32, kept: npt.NDArray[np.int64], n_rows: int, layout: Layout) -> Float32:
    """(n_rows,...) with NaN where nobody was kept."""
    whole = np.full((n_rows, *layout.shape), np.nan, np.float32)
    whole[kept] = rows
    return whole


def _kinds(flags: tuple[tuple[str, ...], ...]) -> Iterator[str]:
    """The kind of each flag, without its number; a kind once for each person."""
    for of_person in flags:
        yield from {flag.partition(":")[0] for flag in of_person}
