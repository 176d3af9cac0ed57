"""What is said of one person, as plain numbers and as the sections of a page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..connectome_checks import triangle
from ..interventions import Intervention, RangeScores
from ..interventions.out_of_range import LIMITS
from ..interventions.workbench import DOSE
from ..networks import network_of
from ..prediction_files import NOTICE, condition_means
from ..report.networks import strongest
from ..report.page import render
from ..report.sections import Card, Part, Section, Table
from ..report.words import number, percent, signed, significant, target_words
from .person import Person

TOP_EDGES, TOP_BLOCKS, TOP_REGIONS = 20, 12, 15
WORDS_OF_RANGE = {
    "deviation": "distance from the training mean (root mean square, SDs)",
    "beyond_share": "edges beyond 3 SDs of the training cohort",
    "min_eigenvalue": "least eigenvalue (below 0: no correlation matrix)",
}
"""Scores of a connectome alone; Mahalanobis distances need people to compare with."""


@dataclass(frozen=True)
class Edge:
    """An edge of a person's map.

    Attributes:
        regions, networks: of its ends.
        change: of Fisher z.
        gradient: of the target, by Fisher z.
    """

    regions: tuple[str, str]
    networks: tuple[str, str]
    change: float
    gradient: float


@dataclass(frozen=True)
class Block:
    """The edges between two networks, or within one.

    Attributes:
        networks: both.
        n_edges: how many edges these are.
        change: mean over them, Fisher z.
        squares: their share of the squares of all changes.
    """

    networks: tuple[str, str]
    n_edges: int
    change: float
    squares: float


def top_edges(done: Intervention) -> list[Edge]:
    """The ``TOP_EDGES`` edges that changed most."""
    regions, change, gradient = _map(done)
    networks = network_of(regions)
    first, second = triangle(len(regions))
    return [
        Edge(
            (regions[first[edge]], regions[second[edge]]),
            (networks[first[edge]], networks[second[edge]]),
            float(change[edge]),
            float(gradient[edge]),
        )
        for edge in strongest(change, TOP_EDGES)
    ]


def top_blocks(done: Intervention) -> list[Block]:
    """The ``TOP_BLOCKS`` pairs of networks with most of the change."""
    regions, change, _ = _map(done)
    names = list(dict.fromkeys(network_of(regions)))
    place = np.array([names.index(name) for name in network_of(regions)])
    first, second = triangle(len(regions))
    low, high = np.minimum(place[first], place[second]), np.maximum(place[first], place[second])
    block = low * len(names) + high
    size = np.bincount(block, minlength=len(names) ** 2)
    total = np.bincount(block, change, len(size))
    squares = np.bincount(block, change**2, len(size)) / np.sum(change**2)
    return [
        Block(
            (names[b // len(names)], names[b % len(names)]),
            int(size[b]),
            float(total[b] / size[b]),
            float(squares[b]),
        )
        for b in strongest(squares, TOP_BLOCKS).tolist()
    ]


def _map(done: Intervention) -> tuple[tuple[str, ...], npt.NDArray[Any], npt.NDArray[Any]]:
    """Regions, and (E,) float64 change and gradient."""
    effect, regions = done.effects["connectome"], done.connectomes.regions
    assert effect.change is not None  # it is a change of the connectome
    assert regions is not None  # a twin's connectomes have its regions
    return regions, effect.change[0].astype(np.float64), effect.gradient[0].astype(np.float64)


def as_results(person: Person) -> dict[str, Any]:
    """Everything as plain numbers, NaN where one does not exist."""
    done = person.prediction
    return {
        "notice": NOTICE,
        "flags": list(person.flags),
        "conditions": {name: float(mean[0]) for name, mean in condition_means(done).items()},
        "contrasts": {
            name: dict(zip(done.bold_regions, done.contrasts[0, k].tolist(), strict=True))
            for k, name in enumerate(done.contrast_names)
        },
        "range": _range(person.range),
        "intervention": None if person.intervention is None else _moved(person),
        "provenance": done.provenance,
    }


def _range(scores: RangeScores) -> dict[str, float]:
    return {name: float(getattr(scores, name)[0]) for name in WORDS_OF_RANGE}


def _moved(person: Person) -> dict[str, Any]:
    done = person.intervention
    assert done is not None
    effect = done.effects["connectome"]
    assert effect.range_after is not None
    outcomes = zip(
        done.outcomes,
        done.outcome_units,
        effect.outcomes_pre[:, 0].tolist(),
        effect.outcomes_post[:, 0].tolist(),
        strict=True,
    )
    return {
        "target": done.target,
        "unit": done.unit,
        "goal": done.goal,
        "before": float(effect.pre[0]),
        "after": float(effect.post[0]),
        "promised_change": float(effect.predicted[0]),
        "budget_fisher_z": person.budget,
        "used_fisher_z": float(np.linalg.norm(_map(done)[1])),
        "outcomes": [
            {"name": name, "unit": unit, "before": before, "after": after}
            for name, unit, before, after in outcomes
        ],
        "range_after": _range(effect.range_after),
        "edges": [vars(edge) for edge in top_edges(done)],
        "networks": [vars(block) for block in top_blocks(done)],
        "notes": list(done.notes),
    }


def as_sections(person: Person) -> list[Section]:
    """The same for a reader: what is predicted, how unusual that is, what was moved."""
    sections = [_predicted(person), _usual(person)]
    if person.intervention is not None:
        sections.append(_intervention(person, person.intervention))
    return sections


def as_report(person: Person, sections: list[Section]) -> str:
    """A page of the report that holds everything itself, to be kept."""
    return render(
        sections,
        title=f"One person: {person.twin.spec.name} dtwin report",
        heading=f"One person: {person.twin.spec.name}",
        nav_label="Sections",
        nav=[(section.title, f"#{section.id}") for section in sections],
    )


def _predicted(person: Person) -> Section:
    done = person.prediction
    means = condition_means(done)
    rows = []
    for task, schedule in done.schedules.items():
        for condition in dict.fromkeys(schedule.condition):
            correct, silent, rt_s = (
                float(means[f"{task}_{condition}_{name}"][0])
                for name in ("p_correct", "p_no_response", "rt_s")
            )
            rows.append([f"{task}: {condition}", _share(correct), _share(silent), number(rt_s, 3)])
    behaviour = Table(
        "Choices and reaction times, means over the trials of a condition",
        ["task: condition", "correct answer", "no response", "reaction time (s)"],
        rows,
    )
    contrasts = [
        Table(
            name,
            ["region", "effect (SD)"],
            [
                [done.bold_regions[r], signed(float(effects[r]), 3)]
                for r in strongest(effects, TOP_REGIONS)
            ],
        )
        for name, effects in zip(done.contrast_names, done.contrasts[0], strict=True)
        if done.bold_regions
    ]
    words = (
        f"Contrasts of predicted BOLD: up to {TOP_REGIONS} regions with the largest effects, in "
        "SDs of the training cohort's BOLD. The numbers to download have all regions."
    )
    parts: list[Part] = [behaviour, *([words] if contrasts else []), *contrasts]
    return Section("predictions", "What the twin predicts", parts)


def _share(value: float) -> str:
    return f"{100 * value:.1f} %" if np.isfinite(value) else "n/a"


def _usual(person: Person) -> Section:
    after = None
    if person.intervention is not None:
        after = person.intervention.effects["connectome"].range_after
    columns = [_range(scores) for scores in (person.range, after) if scores is not None]
    rows = [
        [what, *(significant(column[name]) for column in columns), _limit(name)]
        for name, what in WORDS_OF_RANGE.items()
    ]
    titles = ["score", *(["before", "after"] if after else ["value"]), "flagged"]
    table = Table("How far the connectome lies from the training cohort", titles, rows)
    flags = f"Flags: {', '.join(person.flags)}." if person.flags else "No flags."
    lead = "What a twin says of unusual connectomes may be no more than a guess."
    return Section("range", "How unusual the connectome is", [table, flags], lead)


def _limit(name: str) -> str:
    return f"{'below' if name == 'min_eigenvalue' else 'above'} {significant(LIMITS[name])}"


def _intervention(person: Person, done: Intervention) -> Section:
    moved = _moved(person)
    change = moved["after"] - moved["before"]
    cards = [
        Card(f"{signed(change, 3)} {done.unit}", f"change of {done.target}, wished {done.goal}"),
        Card(significant(moved["before"]), f"before ({done.unit})"),
        Card(significant(moved["after"]), f"after ({done.unit})"),
    ]
    words = (
        f"The target is {target_words(done.target)}. The connectome changes by "
        f"{number(moved['used_fisher_z'])} (norm of Fisher z), at most "
        f"{number(person.budget)}: {number(DOSE, 0)} SDs of the training cohort along this "
        "person's gradient, were edges independent. It stays a correlation matrix and goes "
        f"through the whole model again; the gradient alone promised "
        f"{signed(moved['promised_change'], 3)} {done.unit}. One person has no controls over "
        "people: dtwin intervene gives them for a cohort."
    )
    return Section(
        "intervention", f"In silico: {done.target}", [words, *_tables(moved)], NOTICE, cards
    )


def _tables(moved: dict[str, Any]) -> Iterator[Table]:
    yield Table(
        "Every outcome before and after",
        ["outcome", "unit", "before", "after", "change"],
        [
            [
                outcome["name"],
                outcome["unit"],
                *map(significant, (outcome["before"], outcome["after"])),
                significant(outcome["after"] - outcome["before"]),
            ]
            for outcome in moved["outcomes"]
        ],
        frozenset({1}),
    )
    yield Table(
        f"The {len(moved['edges'])} edges that change most",
        ["region", "region", "networks", "change (Fisher z)", "gradient"],
        [
            [
                *edge["regions"],
                " – ".join(edge["networks"]),
                signed(edge["change"], 3),
                significant(edge["gradient"]),
            ]
            for edge in moved["edges"]
        ],
        frozenset({1, 2}),
    )
    yield Table(
        "The pairs of networks with most of the change",
        ["network", "network", "edges", "mean change (Fisher z)", "share of the change"],
        [
            [
                *block["networks"],
                str(block["n_edges"]),
                significant(block["change"]),
                percent(block["squares"]),
            ]
            for block in moved["networks"]
        ],
        frozenset({1}),
    )
