"""A folder of ``dtwin evaluate --out``, written by the evaluation itself, of a few people."""

from __future__ import annotations

import runpy
from pathlib import Path

from dtwin_fast.evaluate.baselines import BASELINES
from dtwin_fast.evaluate.controls import PermutedConnectomes
from dtwin_fast.evaluate.protocol import evaluate
from dtwin_fast.evaluate.report_files import write_report

SHORT_RUNS = runpy.run_path(str(Path(__file__).with_name("short_runs.py")))


def write_scores(folder: Path, n_people: int = 8) -> tuple[str, ...]:
    """Score kernel ridge regression beside the group's mean; the people's ids."""
    cohort = SHORT_RUNS["short_cohort"](n_people, 16, seed=3, n_trials=30)
    krr = BASELINES["krr"]
    report = evaluate(
        cohort,
        {
            "group": BASELINES["group"],
            "krr": krr,
            "permuted": lambda: PermutedConnectomes(krr),
        },
        model="krr",
        null="permuted",
        floors=["group"],
        splits=["B"],
        n_folds=2,
        n_nulls=2,
        n_swaps=2,
        n_resamples=50,
    )
    write_report(report, folder, cohort.bold_regions)
    return cohort.connectomes.subjects
