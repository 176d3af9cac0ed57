"""A report on disk."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..cohort import NOT_MEASURED
from ..files import write_atomic
from ..prediction_files import write_json
from ..provenance import package_version
from ..tables import Cell, write_tsv
from ..tasks import TASKS
from .plots import draw_calibration, draw_delta, draw_person_means
from .protocol import Report
from .reaction_time import delta_plot
from .runner import RunResult
from .table import to_dict, to_markdown, write_table

SCORES_FILE = "scores.json"


def write_report(report: Report, folder: Path, bold_regions: Sequence[str]) -> None:
    """Write a report.

    ::

        scores.tsv, scores.csv              the table, a column for every predictor
        scores.md                           the table as it is printed
        predictions/SPLIT_RUN_trials.tsv    each trial of each test person: done and predicted
        predictions/SPLIT_RUN_contrasts.tsv their maps, measured and predicted
        figures/SPLIT_RUN_*.png             where matplotlib is installed
        scores.json                         table, exchanged connectomes, flags, settings; last
    """
    (folder / SCORES_FILE).unlink(missing_ok=True)
    for name in ("scores.tsv", "scores.csv"):
        write_table(folder / name, report.rows)
    write_atomic(folder / "scores.md", to_markdown(report.rows))
    for (split, run), result in report.runs.items():
        stem = folder / "predictions" / f"{split}_{run}"
        write_tsv(stem.with_name(f"{stem.name}_trials.tsv"), *_trials(result))
        if result.observed.contrasts is not None:
            path = stem.with_name(f"{stem.name}_contrasts.tsv")
            write_tsv(path, *_contrasts(result, bold_regions))
        if importlib.util.find_spec("matplotlib") is not None:
            _draw(folder / "figures", split, run, result)
    write_json(folder / SCORES_FILE, as_json(report))


def as_json(report: Report) -> dict[str, Any]:
    """Plain JSON form of the report without its predictions; what is not known is null."""
    return {
        **to_dict(report.rows),
        "information": [asdict(entry) for entry in report.information],
        "flags": report.flags,
        "settings": report.settings,
        "dtwin_fast": package_version(),
    }


def _trials(result: RunResult) -> tuple[list[str], Iterator[list[Cell]]]:
    schedule, observed, predicted = result.schedule, result.observed, result.predicted
    names = TASKS[schedule.task].action_names
    unknown = np.full((*observed.choice.shape, len(names)), np.nan, np.float32)
    prob = unknown if predicted.choice_prob is None else predicted.choice_prob
    rt_s = unknown[:, :, 0] if predicted.rt_s is None else predicted.rt_s

    def row(s: int, n: int) -> list[Cell]:
        done = [int(observed.choice[s, n]), float(observed.rt_s[s, n])]
        said = [*prob[s, n].tolist(), float(rt_s[s, n])]
        onset_s, correct = float(schedule.onset_s[n]), int(schedule.correct[n])
        return [result.subjects[s], n, onset_s, schedule.condition[n], correct, *done, *said]

    measured = np.argwhere(observed.choice != NOT_MEASURED).tolist()
    header = ["participant_id", "trial", "onset", "trial_type", "correct", "choice"]
    predictions = [*(f"p_{name}" for name in names), "predicted_response_time"]
    return [*header, "response_time", *predictions], (row(s, n) for s, n in measured)


def _contrasts(
    result: RunResult, bold_regions: Sequence[str]
) -> tuple[list[str], Iterator[list[Cell]]]:
    names = tuple(TASKS[result.schedule.task].contrasts)
    maps = {"measured": result.observed.contrasts, "predicted": result.predicted.contrasts}

    def rows() -> Iterator[list[Cell]]:
        for what, effects in maps.items():
            if effects is None:
                continue
            for subject, person in zip(result.subjects, effects, strict=True):
                for name, effect in zip(names, person, strict=True):
                    yield [subject, name, what, *effect.tolist()]

    return ["participant_id", "contrast", "map", *bold_regions], rows()


def _draw(folder: Path, split: str, run: str, result: RunResult) -> None:
    title = f"{run}, split {split}"
    means = result.rows["RT person-mean r"]
    if np.isfinite(means).any():
        draw_person_means(folder / f"{split}_{run}_person_means.png", means, title)
        delta = delta_plot(result.predicted, result.observed)
        draw_delta(folder / f"{split}_{run}_delta.png", delta, title)
    shares = result.rows["RT quantile miscalibration"]
    if np.isfinite(shares).any():
        mean = np.nanmean(shares, axis=0)
        draw_calibration(folder / f"{split}_{run}_calibration.png", mean, title)
