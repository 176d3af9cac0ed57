"""Results as ``dtwin intervene`` and ``dtwin evaluate`` write them, of a few people, reported."""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dtwin_fast.connectome import Connectomes
from dtwin_fast.interventions import Constraint, intervene
from dtwin_fast.interventions.files import write_intervention
from dtwin_fast.report import write_report
from dtwin_fast.twin import Twin

PEOPLE = 8
SCORES = runpy.run_path(str(Path(__file__).with_name("report_scores.py")))


def reported_results(twin: Twin, base: Path) -> Path:
    """A folder with an intervention and scores of ``PEOPLE`` people, and its report.

    It is made once in ``base``: the tests of its pages and those in a browser share it.
    """
    out = base / "reported-results"
    if not out.exists():
        subjects = SCORES["write_scores"](out / "scores", PEOPLE)
        _write_intervention(twin, out / "intervention", subjects)
        write_report(out)
    return out


def _write_intervention(twin: Twin, folder: Path, subjects: Sequence[str]) -> None:
    """Lower the right amygdala's response of people with drawn connectomes."""
    rng = np.random.default_rng(5)
    shared = rng.standard_normal((1, 200, 4)) @ rng.standard_normal((len(subjects), 4, 16))
    series = shared + rng.standard_normal((len(subjects), 200, 16))
    fc = np.stack([np.corrcoef(person.T) for person in series])
    connectomes = Connectomes.from_arrays(fc, regions=twin.regions, subjects=list(subjects))
    small = Constraint(budget=1.0)
    done = intervene(twin, connectomes, "amygdala-right", constraint=small, n_steps=4, n_random=5)
    write_intervention(done, folder)
