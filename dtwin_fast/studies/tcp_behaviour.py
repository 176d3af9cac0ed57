"""Choices and reaction times of the Transdiagnostic Connectome Project, without brain data.

The people's connectomes are not public in this form, so models know them by their demographics
alone. The protocol is that of ``dtwin evaluate``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets import read_tcp_trials
from ..evaluate.baselines import BASELINES
from ..evaluate.predictor import Predictor
from ..evaluate.protocol import evaluate
from ..evaluate.splits import SPLITS
from ..evaluate.table import Row as Scored
from ..evaluate.twin import twin_predictors
from ..spec import PRESETS
from .result import Row, as_dict

STUDY = "tcp-behaviour"
FLOORS = ("always correct", "group", "item mean", "person mean", "person + item", "demographics")
REFERENCE = "demographics"
"""What is shown beside the other floors when there is no model."""
TWINS = {"A": "twin-random-id", "B": "twin-demographics"}
"""Split -> the twin that it is for: one knows who a person is, the other how old and the like."""


def run(
    folder: Path,
    *,
    models: Mapping[str, Callable[[], Predictor]] | None = None,
    seed: int = 0,
    splits: tuple[str, ...] = ("A", "B"),
    n_folds: int = 10,
) -> dict[str, Any]:
    """Evaluate the models beside the floors, within people (A) and on people held out (B).

    Args:
        folder: ``trials.csv.gz`` and ``participants.tsv``.
        models: name -> factory of a ``Predictor``, beside the floors; None is :data:`TWINS`.
        seed: of folds, models and bootstrap.
        splits: keys of ``evaluate.splits.SPLITS``.
        n_folds: of split B.
    """
    cohort = read_tcp_trials(folder)
    floors = {name: BASELINES[name] for name in FLOORS}
    rows: list[Row] = []
    flags: list[str] = []
    for name, make, of_splits in _entries(models, splits):
        report = evaluate(
            cohort,
            {**floors, name: make},
            model=name,
            floors=FLOORS,
            splits=of_splits,
            n_folds=n_folds,
            n_swaps=0,
            seed=seed,
        )
        rows += [row for scored in report.rows for row in _rows(scored, name)]
        flags += report.flags
    of_people = Counter(flag for person in cohort.connectomes.flags for flag in person)
    flags += [f"{flag}: {n} people" for flag, n in sorted(of_people.items())]
    if n_rejected := len(cohort.connectomes.rejected):
        flags.append(f"left out: {n_rejected} people without a first run")
    return as_dict(
        STUDY,
        rows,
        people=len(cohort),
        flags=list(dict.fromkeys(flags)),
        settings={"folds": n_folds, "seed": seed},
    )


def _entries(
    models: Mapping[str, Callable[[], Predictor]] | None, splits: tuple[str, ...]
) -> list[tuple[str, Callable[[], Predictor], tuple[str, ...]]]:
    """Name, factory and splits of every model."""
    if models is not None:
        made = models or {REFERENCE: BASELINES[REFERENCE]}
        return [(name, make, splits) for name, make in made.items()]
    twins = twin_predictors(None, PRESETS["demo"], "cpu")
    return [(TWINS[split], twins[TWINS[split]], (split,)) for split in splits if split in TWINS]


def _rows(scored: Scored, model: str) -> Iterator[Row]:
    """A row of every floor's score, without an interval, and the model's beside the best of them.

    All have the people that the model can be scored on.
    """
    about = Row(
        study=STUDY,
        split=f"{SPLITS[scored.split]}: {scored.task}",
        metric=f"{scored.metric}, {scored.unit}" if scored.unit != "r" else scored.metric,
        model=model,
        score=scored.model,
        low=scored.low,
        high=scored.high,
        n=scored.n_people,
        ceiling=scored.ceiling,
    )
    for name, score in scored.baselines.items():
        if name in FLOORS and np.isfinite(score):
            yield replace(about, model=name, score=score, low=np.nan, high=np.nan)
    yield replace(
        about,
        floor_name=scored.floor_name,
        floor=scored.floor,
        gain=scored.diff,
        gain_low=scored.diff_low,
        gain_high=scored.diff_high,
        note=scored.note,
    )
