"""What regressions read of people: edges and covariates, scaled by the training people.

Each function takes the training people and returns the function that reads people, (S,D).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...cohort import Cohort
from .targets import mean_over_people

Array = npt.NDArray[Any]
Reader = Callable[[Cohort], Array]
Features = Callable[[Cohort], Reader]

N_COMPONENTS = 50
"""Principal components that :func:`principal_components` keeps, fewer with fewer people."""

AGE = ("age_years", "age")
SEX = ("sex", "gender")
SITE = ("site",)
GROUP = ("group", "diagnosis")
MOTION = ("mean_fd_mm", "mean_fd")
DEMOGRAPHIC = (AGE, SEX, SITE, GROUP, MOTION)
"""Columns of participants, each under any of its names."""


def complete_edges(train: Cohort) -> Reader:
    """(S,E) float32 Fisher z; a missing edge is the training people's mean, or 0."""
    mean = np.nan_to_num(mean_over_people(train.connectomes.fisher_z())).astype(np.float32)

    def read(people: Cohort) -> Array:
        z = people.connectomes.fisher_z()
        return np.where(np.isnan(z), mean, z)

    return read


def pearson_edges(train: Cohort) -> Reader:
    """Edges whose products are Pearson correlations between people (He et al. 2020).

    They are of deviations from the training people's mean connectome. What everyone shares
    would be most of the kernel, and predictions of simulated traits are worse with it.
    """
    complete = complete_edges(train)
    mean = complete(train).mean(axis=0)

    def read(people: Cohort) -> Array:
        z = complete(people) - mean
        z = z - z.sum(axis=1, keepdims=True) / max(z.shape[1], 1)
        length = np.linalg.norm(z, axis=1, keepdims=True)
        return np.asarray(z / np.where(length > 0, length, 1))

    return read


def standard_edges(train: Cohort) -> Reader:
    """Edges standardised over the training people."""
    return _standardised(complete_edges(train), train)


def principal_components(train: Cohort) -> Reader:
    """Scores on the first components of the training people's edges, in SD of the first."""
    complete = complete_edges(train)
    edges = complete(train)
    mean = edges.mean(axis=0)
    centred = edges - mean
    variance, vectors = np.linalg.eigh((centred @ centred.T).astype(np.float64))
    largest = variance.max()
    first = np.argsort(variance)[::-1][: min(N_COMPONENTS, len(train) - 1)]
    first = first[variance[first] > np.finfo(np.float32).eps * largest]
    # Unit components are centred' u / sqrt(variance).
    components = centred.T @ (vectors[:, first] / np.sqrt(variance[first] * largest / len(train)))
    return lambda people: (complete(people) - mean) @ components


def covariates(names: Sequence[tuple[str, ...]]) -> Features:
    """Columns of participants, standardised; what is missing is the training mean.

    Age and its square; sex, site and group as one column for each of the training people's
    values. No columns where the cohort has none of these.
    """

    def of(train: Cohort) -> Reader:
        columns = [
            _column(train, name, wanted)
            for wanted in names
            for name in wanted
            if name in train.participants
        ]

        def raw(people: Cohort) -> Array:
            parts = [column(people) for column in columns]
            return np.hstack(parts) if parts else np.empty((len(people), 0))

        return _standardised(raw, train)

    return of


def _column(train: Cohort, name: str, wanted: tuple[str, ...]) -> Reader:
    """(S,D) float64 numbers of one column of participants, NaN where it is missing."""
    column = train.participants[name]
    if wanted in (SEX, SITE, GROUP):
        values = [v for v in np.unique(column.astype(str)).tolist() if v not in _MISSING]

        def one_hot(people: Cohort) -> Array:
            text = people.participants[name].astype(str)[:, None]
            return np.where(np.isin(text, _MISSING), np.nan, text == np.array(values))

        return one_hot
    degrees = [1, 2] if wanted is AGE else [1]
    # Powers about the mean: age and its square are otherwise nearly the same.
    centre = mean_over_people(_numbers(column))

    def powers(people: Cohort) -> Array:
        numbers: Array = (_numbers(people.participants[name]) - centre)[:, None] ** degrees
        return numbers

    return powers


_MISSING = ["", "n/a", "nan"]


def _numbers(column: Array) -> Array:
    if column.dtype.kind in "iuf":
        return column.astype(np.float64)
    return np.array([float(c) if c not in _MISSING else np.nan for c in column.tolist()])


def _standardised(reader: Reader, train: Cohort) -> Reader:
    """Less the training mean, over the training SD and the root of the number of columns."""
    raw = reader(train)
    mean = mean_over_people(raw)
    sd = np.sqrt(mean_over_people((raw - mean) ** 2))
    scale = np.where(sd > 0, sd, np.inf) * np.sqrt(max(raw.shape[1], 1))
    mean, scale = mean.astype(raw.dtype), scale.astype(raw.dtype)
    return lambda people: np.nan_to_num((reader(people) - mean) / scale)
