"""The page of a cohort."""

from __future__ import annotations

import numpy as np

from .controls import controls
from .figures.brain import GlassBrains
from .figures.canvas import Image
from .figures.edges import draw_circle, draw_matrices
from .figures.effects import (
    draw_doses,
    draw_effects,
    draw_off_target,
    draw_pre_post,
    mean_of_known,
)
from .figures.predictions import draw_person_means, draw_scores, draw_times, embed
from .intervention import Intervention
from .material import Material, page_name
from .page import facts, render
from .reading import Fields, Float64
from .scores import Maps, Run, Scores
from .sections import Card, Link, Part, Section, Table, Under
from .tables import blocks_table, edges_table, regions_table
from .words import (
    answer,
    edit_name,
    method_name,
    method_words,
    number,
    percent,
    signed,
    target_words,
)

HEADLINES = (
    "concordance",
    "NLL",
    "error-rate r",
    "RT person-mean r",
    "RT within-person r",
    "RT condition-effect r",
    "BOLD group-pattern r",
    "BOLD individual r",
    "BOLD mean-removed r",
)
"""Scores of the open table; the others are folded."""
MOST_LISTED = 500
"""People in the list of pages; more would make the page too large."""


def cohort_page(material: Material) -> str:
    """The HTML of the page.

    Raises:
        DTwinInputError: something that was read is not what it should be.
        MissingExtraError: a package of the extra ``report`` is missing.
    """
    run, scores = material.intervention, material.scores
    sections = []
    if run is not None:
        sections.append(_summary(run))
    if scores is not None:
        sections.append(_predictions(scores))
    if run is not None:
        sections += [_where(run), _people_and_doses(run)]
    sections += [_people(material), _background(material)]
    return render(
        sections,
        title=f"{material.title} dtwin report",
        heading=material.title,
        nav_label="Sections",
        nav=[(section.title, f"#{section.id}") for section in sections],
    )


def _summary(run: Intervention) -> Section:
    target = run.about.fields("target")
    goal, unit = target.text("goal"), target.text("unit")
    people = run.about.count("people")
    settings = run.about.fields("settings")
    what = target_words(target.text("name"))
    question = f"what would move {what} {goal}"
    if run.is_edit:
        question = f"what {edit_name(settings)} would do to {what}; {goal} is better"
    asked = (
        f"Asked: {question} (unit: {unit}; tasks: {', '.join(target.texts('tasks'))}), in {people} "
        f"people. Rejected: {run.about.count('rejected')}; flagged: {run.about.count('flagged')}."
    )
    cards, answers = [], []
    for method in run.methods:
        summary = run.about.fields("methods").fields(method)
        name = method_name(method)
        cards += [
            Card(f"{signed(summary.number('mean_effect'))} SD", f"{name}: mean effect"),
            Card(f"{number(summary.number('sd_effect'))} SD", f"{name}: spread over people"),
            Card(percent(summary.number("share_improved")), f"{name}: people who improve"),
        ]
        answers.append(f"{name}: {answer(summary, goal, unit, people)}")
    how = [f"{method_name(method)}: {method_words(method, settings)}." for method in run.methods]
    lines = controls(run)
    table = Table(
        "Controls: what else could explain the effect",
        ["control", *map(method_name, run.methods), "what it means"],
        [[line.name, *line.values, line.meaning] for line in lines],
        frozenset(range(1, len(run.methods) + 2)),
    )
    return Section("answer", "The question and the answer", [*answers, *how, table], asked, cards)


def _predictions(scores: Scores) -> Section:
    under = []
    for run in scores.runs:
        parts: list[Part] = [draw_times(run)]
        parts += [_drawn(run, kind) for kind in _DRAWN]
        parts += [_brains(run, maps) for maps in run.maps]
        under.append(Under(f"{run.name}, split {run.split}", parts))
    rows = [row for row in scores.rows if row.text("metric") in HEADLINES]
    every = f"All {len(scores.rows)} scores"
    legend = (
        "The floor is the best trivial baseline on the same people; the ceiling is what the "
        "reliability of the data allows; null p compares with models trained on connectomes "
        "exchanged between people. Split A: the same people later; B: people held out; C: a site "
        "left out; D: another run."
    )
    return Section(
        "predictions",
        "Predictions against data",
        [
            draw_scores(scores.rows),
            _score_table("The model beside its floor", rows),
            legend,
            _score_table(every, scores.rows, every),
            draw_person_means(scores.runs),
        ],
        under=under,
    )


_DRAWN = {
    "delta": (
        "The condition effect on reaction times against their mean, quantile by quantile, "
        "observed and predicted.",
        "Delta plot: the effect of the condition along the distribution.",
    ),
    "calibration": (
        "The share of observed times below each predicted quantile.",
        "Calibration: on the line, predicted distributions are as wide as the observed ones.",
    ),
}


def _drawn(run: Run, kind: str) -> Image | None:
    if kind not in run.figures:
        return None
    alt, caption = _DRAWN[kind]
    return embed(
        run.figures[kind], f"{run.name}. {alt}", f"{run.name}, split {run.split}. {caption}"
    )


def _brains(run: Run, maps: Maps) -> Image | None:
    known = np.isfinite(maps.measured).any(axis=0) & np.isfinite(maps.predicted).any(axis=0)
    if not known.any():
        return None
    means = [mean_of_known(effects) for effects in (maps.measured, maps.predicted)]
    r = map_r(*means)
    titles = ("measured, mean over people", "predicted, mean over people")
    brains = GlassBrains(maps.regions, titles, means)
    return brains.draw(
        means,
        f"Glass brains with a dot for each of {len(brains.drawn)} regions: measured and predicted "
        f"means of {maps.contrast} over {len(maps.people)} people; over regions r {number(r)}.",
        f"{maps.contrast}: mean maps of {len(maps.people)} people, r over regions {number(r)}. "
        "Dots stand at approximate centres.",
    )


def _score_table(caption: str, rows: list[Fields], folded: str = "") -> Table:
    titles = [
        "score",
        "split",
        "task",
        "model",
        "95 %",
        "floor",
        "the floor is",
        "against the floor",
    ]
    return Table(
        caption,
        [*titles, "ceiling", "null p", "people"],
        [_score_row(row) for row in rows],
        frozenset({1, 2, 6, 7}),
        folded,
        "scores.tsv" if folded else "",
    )


def _score_row(row: Fields) -> list[str]:
    unit = row.text("unit")
    low, high = row.number("low"), row.number("high")
    return [
        row.text("metric") + (f" ({unit})" if unit not in ("", "r") else ""),
        row.text("split"),
        row.text("task"),
        number(row.number("model"), 3),
        f"[{number(low, 3)}, {number(high, 3)}]" if np.isfinite([low, high]).all() else "n/a",
        number(row.number("floor"), 3),
        row.text("floor_name"),
        row.text("verdict"),
        number(row.number("ceiling"), 3),
        number(row.number("null_p"), 3),
        str(row.count("n_people")),
    ]


def _where(run: Intervention) -> Section:
    under = []
    for method in run.methods:
        maps = run.edges[method]
        what = "gradient" if maps.change is None else "change"
        parts: list[Part] = [
            draw_matrices(run, method),
            draw_circle(run, method, what),
            *blocks_table(method, run.blocks.get(method, []), "mean over people", fold_rest=True),
            edges_table(run, method, maps, "mean over people"),
        ]
        under.append(Under(method_name(method), parts))
    under.append(Under("Regions", list(regions_table(run))))
    intro = (
        "The gradient says how the target would move with an edge of the connectome, per unit of "
        "Fisher z; where weights are shifted, how the score along their direction would. The "
        "change is what the intervention does to the edge. Both are means over people, whose own "
        "maps are on their pages."
    )
    return Section("where", "Where: the map of the intervention", [intro], under=under)


def _people_and_doses(run: Intervention) -> Section:
    rows = [
        [method_name(method), row.outcome, row.unit, signed(row.mean), number(row.sd), str(row.n)]
        for method in run.methods
        for row in run.off_target.get(method, [])
    ]
    table = Table(
        "Changes of other outcomes, in SDs of the people before",
        ["method", "outcome", "unit", "mean", "SD over people", "people"],
        rows,
        frozenset({1, 2}),
    )
    return Section(
        "effects",
        "Doses, and how people differ",
        [draw_effects(run), draw_doses(run), draw_pre_post(run), draw_off_target(run), table],
    )


def _people(material: Material) -> Section:
    run = material.intervention
    methods = [] if run is None else list(run.methods)
    pages = {person.label for person in material.pages}
    rows = []
    for person in material.people[:MOST_LISTED]:
        has_page = person.label in pages
        effects = [_effect(run, method, person.row) for method in methods if run is not None]
        rows.append(
            [
                Link(person.label, page_name(person)) if has_page else person.label,
                person.source,
                *effects,
                _flags(run, person.row),
            ]
        )
    table = Table(
        "Everybody: the effect in SDs of the people before, and a page of their own",
        ["person", "id in the input", *map(method_name, methods), "flags"],
        rows,
        frozenset({1, 2 + len(methods)}),
    )
    left = len(material.people) - len(rows)
    more = (
        f"{left} more people are not listed; their pages are named by their label."
        if left
        else None
    )
    made = f"{len(material.pages)} of {len(material.people)} people have a page."
    return Section("people", "People", [made, table, more, _rejected(run)])


def _rejected(run: Intervention | None) -> Table | None:
    if run is None or not run.rejected:
        return None
    rows = [[source, reason] for source, reason in run.rejected[:MOST_LISTED]]
    caption = f"Left out of the intervention: {len(run.rejected)} people"
    return Table(caption, ["id in the input", "reason"], rows, frozenset({1}))


def _effect(run: Intervention, method: str, row: int | None) -> str:
    return "not in it" if row is None else signed(float(run.effects[method].effect[row]))


def _flags(run: Intervention | None, row: int | None) -> str:
    if run is None or row is None:
        return ""
    flags = dict.fromkeys(run.effects[method].flags[row] for method in run.methods)
    return "; ".join(filter(None, flags))


def _background(material: Material) -> Section:
    under = []
    for name, source in (("intervention", material.intervention), ("scores", material.scores)):
        if source is None:
            continue
        about = source.about
        flags = about.texts("flags")
        parts: list[Part] = [
            Table(f"Flags of the {name}", ["flag"], [[flag] for flag in flags])
            if flags
            else "No flags.",
            facts(f"Settings of the {name}", about.fields("settings").values),
        ]
        provenance = about.fields("provenance").values or _version(about)
        parts.append(facts(f"Provenance of the {name}", provenance))
        under.append(Under(name.capitalize(), parts))
    return Section("background", "Flags, settings and provenance", [], under=under)


def _version(about: Fields) -> dict[str, object]:
    return {"dtwin_fast": about.values.get("dtwin_fast")}


def map_r(first: Float64, second: Float64) -> float:
    """Correlation of two (R,) maps over the regions that both know; NaN with fewer than three."""
    known = np.isfinite(first) & np.isfinite(second)
    if known.sum() < 3 or np.ptp(first[known]) == 0 or np.ptp(second[known]) == 0:
        return float("nan")
    return float(np.corrcoef(first[known], second[known])[0, 1])
