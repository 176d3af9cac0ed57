"""Every call that is timed is first compared with a float64 reference of the unrounded weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..dispatch import rollout, rollout_vjp
from ..weights import WEIGHT_NAMES
from .problem import Arrays, Problem, gradient_names

MAX_REL_ERR = {"float32": 1e-5, "bfloat16": 1e-2}
"""By the precision of the weights, relative to the largest element of each array."""

VERIFIED_STEPS = 2**14
"""Subjects times sequences times steps that the reference computes at least, where there are
so many; subjects are independent, and the first and the last ones stand for the others."""
MIN_VERIFIED = 4


@dataclass(frozen=True)
class Expected:
    """Float64 results of some subjects."""

    subjects: list[int]
    arrays: Arrays


def expect(problem: Problem, op: str) -> Expected:
    """The reference's results for as many subjects as are verified."""
    case = problem.case
    n = min(case.S, max(MIN_VERIFIED, VERIFIED_STEPS // (case.B * case.T)))
    subjects = [*range(n - n // 2), *range(case.S - n // 2, case.S)]
    part = problem.select(subjects)
    options: dict[str, Any] = {
        "h0": part.h0 if len(part.h0) > 1 else part.h0[0],
        "backend": "reference",
        "precision": "float64",
        "time_projection": part.projection,
    }
    if op == "fwd":
        outputs = rollout(part.weights, part.inputs, **options).outputs
        return Expected(subjects, {"outputs": outputs})
    found = rollout_vjp(part.weights, part.inputs, part.d_outputs, **options)
    h0 = found.h0 if isinstance(found.h0, tuple) else (found.h0,)
    arrays = (*(getattr(found.weights, name) for name in WEIGHT_NAMES), found.inputs, *h0)
    return Expected(subjects, dict(zip(gradient_names(case), arrays, strict=True)))


def rel_err(found: Arrays, n_subjects: int, expected: Expected) -> float:
    """Largest error of any array, in units of that array's largest element; NaN spoils it.

    Args:
        found: results of the first ``n_subjects`` subjects.
    """
    rows = [row for row, subject in enumerate(expected.subjects) if subject < n_subjects]
    subjects = [expected.subjects[row] for row in rows]
    if found.keys() != expected.arrays.keys():
        return np.inf
    errors = []
    for name, array in expected.arrays.items():
        wanted = array[rows]
        if found[name].shape != (n_subjects, *wanted.shape[1:]):
            return np.inf
        # In float64, or the difference itself would be rounded.
        difference = found[name][subjects].astype(np.float64) - wanted
        errors.append(np.abs(difference).max() / np.abs(wanted).max())
    return float(np.max(errors))
