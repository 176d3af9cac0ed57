"""The page of a person."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from .cohort_page import map_r
from .figures.brain import GlassBrains
from .figures.canvas import Image
from .figures.edges import Matrices, own_limit
from .figures.effects import OwnDoses, OwnPlace
from .figures.predictions import OwnMeans, OwnTimes
from .intervention import EdgeMap, InRange, Intervention
from .material import INDEX, Material, page_name
from .page import facts, render
from .people import Person
from .reading import Float64
from .scores import Maps, Run, Scores
from .sections import Card, Part, Section, Table
from .tables import blocks_table, edges_table, person_blocks
from .words import method_name, number, percent, signed, significant, target_words


class SubjectPages:
    """Makes the pages of people; what they share is drawn once.

    Raises:
        DTwinInputError: something that was read is not what it should be.
        MissingExtraError: a package of the extra ``report`` is missing.
    """

    def __init__(self, material: Material) -> None:
        self._material = material

    @cached_property
    def _of_intervention(self) -> _InterventionFigures:
        assert self._material.intervention is not None
        return _InterventionFigures(self._material.intervention)

    @cached_property
    def _of_scores(self) -> _ScoreFigures:
        assert self._material.scores is not None
        return _ScoreFigures(self._material.scores)

    def page(self, place: int) -> str:
        """The HTML of the page of ``material.pages[place]``."""
        pages = self._material.pages
        person = pages[place]
        nav = [("All people", INDEX)]
        if place > 0:
            nav.append((f"Previous: {pages[place - 1].label}", page_name(pages[place - 1])))
        if place + 1 < len(pages):
            nav.append((f"Next: {pages[place + 1].label}", page_name(pages[place + 1])))
        sections = []
        run, row = self._material.intervention, person.row
        if run is not None and row is not None:
            sections += [_effects(run, row, self._of_intervention)]
            sections += [_map(run, row, self._of_intervention)]
        if self._material.scores is not None:
            sections.append(self._of_scores.section(person))
        sections.append(_background(self._material, person))
        return render(
            sections,
            title=f"{person.label}: {self._material.title} dtwin report",
            heading=f"{person.label}: {self._material.title}",
            nav_label="Pages and sections",
            nav=[*nav, *((section.title, f"#{section.id}") for section in sections)],
        )


class _InterventionFigures:
    """Figures of an intervention in which one person changes."""

    def __init__(self, run: Intervention) -> None:
        self.doses, self.place = OwnDoses(run), OwnPlace(run)
        self.matrices: dict[str, Matrices] = {}
        for method in run.methods:
            kinds = run.kinds_of_maps(method)
            if kinds:
                limits = [own_limit(run, method, kind) for kind in kinds]
                self.matrices[method] = Matrices(run, kinds, limits)


class _ScoreFigures:
    """Figures of scores in which one person changes."""

    def __init__(self, scores: Scores) -> None:
        self._means = OwnMeans(scores.runs)
        self._times = {
            run.name: OwnTimes(run)
            for run in scores.runs
            if run.trials is not None and np.isfinite(run.trials.rt_s).any()
        }
        self._runs = scores.runs
        self._brains = {
            (run.name, maps.contrast): GlassBrains(
                maps.regions, ("measured", "predicted"), (maps.measured, maps.predicted)
            )
            for run in scores.runs
            for maps in run.maps
        }

    def section(self, person: Person) -> Section:
        """Predictions against data of a person."""
        parts: list[Part] = [self._means.draw(person.source)]
        for run in self._runs:
            if run.name in self._times:
                parts.append(self._times[run.name].draw(person.source))
            parts += [self._brain(run, maps, person) for maps in run.maps]
        if not any(parts):
            parts = ["This person was not in the evaluation."]
        return Section("predictions", "Predictions against data", parts)

    def _brain(self, run: Run, maps: Maps, person: Person) -> Image | None:
        row = maps.row(person.source)
        if row is None:
            return None
        both = [maps.measured[row], maps.predicted[row]]
        if not all(np.isfinite(effects).any() for effects in both):
            return None
        r = number(map_r(*both))
        return self._brains[run.name, maps.contrast].draw(
            both,
            f"Glass brains with a dot for each region: {maps.contrast} of {person.label}, measured "
            f"and predicted; over regions r {r}.",
            f"{maps.contrast}: the person's own map, r over regions {r}. Dots stand at "
            "approximate centres; colours are the same for everybody.",
        )


def _effects(run: Intervention, row: int, figures: _InterventionFigures) -> Section:
    target = run.about.fields("target")
    unit = target.text("unit")
    cards, rows = [], []
    for method in run.methods:
        effects = run.effects[method]
        effect = float(effects.effect[row])
        cards.append(Card(f"{signed(effect)} SD", f"{method_name(method)}: effect"))
        values = (effects.pre[row], effects.post[row], effects.predicted[row])
        rows.append(
            [
                method_name(method),
                *map(significant, values),
                signed(effect),
                _place(effects.effect, row),
                effects.flags[row] or "none",
            ]
        )
    table = Table(
        f"{target.text('name')} ({unit}), wished {target.text('goal')}",
        ["method", "before", "after", "promised change", "effect (SD)", "place", "flags"],
        rows,
        frozenset({6}),
    )
    what = f"The target is {target_words(target.text('name'))}."
    return Section(
        "effects",
        "What the intervention does",
        [
            table,
            figures.place.draw(row),
            figures.doses.draw(row),
            _outcomes(run, row),
            _range(run, row),
        ],
        what,
        cards,
    )


def _place(effect: Float64, row: int) -> str:
    if not np.isfinite(effect[row]):
        return "n/a"
    known = effect[np.isfinite(effect)]
    rank = int((known > effect[row]).sum()) + 1
    return f"{rank} of {len(known)}; larger than {percent(float((known < effect[row]).mean()))}"


def _outcomes(run: Intervention, row: int) -> Table:
    outcomes = run.outcomes.get(run.labels[row], [])
    known = {(outcome.name, outcome.unit, outcome.method): outcome for outcome in outcomes}
    titles, rows = ["outcome", "unit"], []
    for method in run.methods:
        name = method_name(method)
        titles += [f"{name}: before", "after", "change"]
    for name, unit in dict.fromkeys((outcome.name, outcome.unit) for outcome in outcomes):
        cells = []
        for method in run.methods:
            found = known.get((name, unit, method))
            pre, post = (math.nan, math.nan) if found is None else (found.pre, found.post)
            cells += [significant(value) for value in (pre, post, post - pre)]
        rows.append([name, unit, *cells])
    return Table("Every outcome before and after", titles, rows, frozenset({1}))


def _range(run: Intervention, row: int) -> Table:
    def cells(scores: InRange) -> list[str]:
        return [
            scores.when,
            number(scores.deviation),
            percent(scores.beyond_share),
            number(scores.mahalanobis),
            significant(scores.min_eigenvalue),
            scores.flags or "none",
        ]

    return Table(
        "How far the connectome lies from those that the model was trained on",
        ["when", "deviation", "edges beyond", "Mahalanobis", "least eigenvalue", "flags"],
        [cells(scores) for scores in run.in_range.get(run.labels[row], [])],
        frozenset({5}),
    )


def _map(run: Intervention, row: int, figures: _InterventionFigures) -> Section:
    parts: list[Part] = []
    for method, matrices in figures.matrices.items():
        kinds = run.kinds_of_maps(method)
        maps = {kind: run.person_map(method, kind, row) for kind in kinds}
        name, whose = method_name(method), run.labels[row]
        parts.append(matrices.draw(list(maps.values()), f"{name}, {whose}"))
        parts += blocks_table(method, person_blocks(run, maps), whose, fold_rest=False)
        edges = EdgeMap(maps.get("gradient"), None, maps.get("change"))
        parts.append(edges_table(run, method, edges, whose))
    if not parts:
        parts.append("No maps of people were written.")
    return Section("where", "Where: the map of this person", parts)


def _background(material: Material, person: Person) -> Section:
    known: dict[str, object] = {"label": person.label, "id in the input": person.source}
    run = material.intervention
    flags: Sequence[str] = []
    if run is not None and person.row is not None:
        own = dict.fromkeys(run.effects[method].flags[person.row] for method in run.methods)
        flags = [flag for flag in own if flag]
    known["flags"] = flags
    if run is not None:
        known["provenance"] = run.about.fields("provenance").values
    return Section("background", "Flags and provenance", [facts("Of this person", known)])
