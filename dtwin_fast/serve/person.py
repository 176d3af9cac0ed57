"""One person: what a twin says of the connectome in a file, and of one intervention on it.

In silico, not clinical.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from ..connectome import Connectomes, MissingPolicy
from ..errors import DTwinInputError
from ..interventions import Constraint, Intervention, RangeScores, find_target, target_gradients
from ..interventions.gradients import check_target, in_fisher_z
from ..interventions.out_of_range import range_scores
from ..interventions.workbench import DOSE
from ..prediction import Prediction
from ..readers import read_connectomes
from ..twin import Twin
from .models import UNITS

ENDINGS = (".npy", ".tsv", ".csv")
"""Files that the page takes: arrays, and tables of one person."""
TARGETS = ("speed", "amygdala")
"""Interventions that the page offers."""
KNOWN: dict[str, tuple[str, ...]] = {
    "format": ENDINGS,
    "unit": UNITS,
    "missing": get_args(MissingPolicy),
    "target": ("", *TARGETS),
}
"""Parameters of the page's address, and their values."""
THREADS = 1
"""Of a person's work; the other cores are for requests."""


@dataclass(frozen=True)
class Wanted:
    """What a page asks for.

    Attributes:
        format: one of ``ENDINGS``.
        unit: ``r`` or ``z``.
        missing: policy for missing regions.
        target: one of ``TARGETS``, or "": no intervention.
    """

    format: str
    unit: str = "r"
    missing: MissingPolicy = "reject"
    target: str = ""

    @classmethod
    def read(cls, parameters: Mapping[str, str]) -> Wanted:
        """Of the parameters of an address.

        Raises:
            DTwinInputError: one that there is not, or a value (code ``parameter``).
        """
        for name, value in {"format": "", **parameters}.items():
            if name not in KNOWN:
                raise _parameter("parameters", KNOWN, name)
            if value not in KNOWN[name]:
                raise _parameter(name, KNOWN[name], value)
        return cls(**parameters)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Person:
    """What is said of one person.

    Attributes:
        twin: of which it is said.
        prediction: of this person alone.
        range: how unusual the connectome is.
        intervention: of this person alone, or None.
        budget: of the intervention, Fisher z.
    """

    twin: Twin
    prediction: Prediction
    range: RangeScores
    intervention: Intervention | None = None
    budget: float = 0.0

    @property
    def flags(self) -> tuple[str, ...]:
        """Of the input, of the rollout and of the range."""
        done = self.prediction
        diverged = ("diverged",) if done.diverged[0] else ()
        return (*done.flags[0], *diverged, *self.range.flags()[0])


def look_at(twin: Twin, body: bytes, wanted: Wanted) -> Person:
    """Read a person's file, predict, and intervene where that is wanted.

    Args:
        twin: the model.
        body: the bytes of the file, which no disk ever holds.
        wanted: what to do.

    Raises:
        DTwinInputError: a file that cannot be used (codes of the readers and of
            :meth:`Twin.prepare`, ``one_person``), or a target that the twin does not have or
            cannot move (``target``, ``constraint``).
    """
    if wanted.target:
        check_target(twin, find_target(wanted.target))
    people = read_person(twin, body, wanted)
    # With the regions that the twin has, and what was done about those that are missing.
    z = in_fisher_z(twin.prepare(people, missing=wanted.missing))
    done = twin.predict(people, missing=wanted.missing, bold=False, n_threads=THREADS)
    scores = range_scores(z.edges, twin.edge_mean, twin.edge_sd)
    if not wanted.target:
        return Person(twin, done, scores)
    budget = _budget(twin, people, wanted)
    moved = twin.intervene(
        people,
        wanted.target,
        constraint=Constraint(budget=budget, valid=True),
        n_random=0,  # their effects are in SDs over people
        missing=wanted.missing,
        n_threads=THREADS,
    )
    return Person(twin, done, scores, moved, budget)


def read_person(twin: Twin, body: bytes, wanted: Wanted) -> Connectomes:
    """The one person of a file.

    Raises:
        DTwinInputError: see :func:`look_at`.
    """
    with _in_memory(body, f"connectome{wanted.format}") as path:
        people = read_connectomes(path, regions=twin.regions, is_fisher_z=wanted.unit == "z")
    if len(people) != 1:
        raise DTwinInputError(
            "one_person",
            "this file holds several people",
            field=path.name,
            wanted="one connectome",
            got=f"{len(people)}",
            fix="Save one person's connectome, or send all of them to the infer interface",
        )
    return people


@contextlib.contextmanager
def _in_memory(body: bytes, name: str) -> Iterator[Path]:
    """A path of that name to bytes in memory: readers tell formats by names."""
    with (
        os.fdopen(os.memfd_create("connectome"), "wb") as file,
        tempfile.TemporaryDirectory() as folder,
    ):
        file.write(body)
        file.flush()
        path = Path(folder, name)
        path.symlink_to(f"/proc/self/fd/{file.fileno()}")
        yield path


def _budget(twin: Twin, people: Connectomes, wanted: Wanted) -> float:
    """``DOSE`` SDs of the training cohort along the person's gradient, edges independent.

    One person does not say how far people differ.
    """
    gradient = target_gradients(
        twin,
        in_fisher_z(people),
        wanted.target,
        missing=wanted.missing,
        n_threads=THREADS,
    ).edges[0].astype(np.float64)  # fmt: skip
    length = float(np.linalg.norm(gradient))
    if not 0 < length < np.inf:
        return DOSE  # nothing to follow, which the intervention refuses by itself
    return DOSE * float(np.linalg.norm(gradient * twin.edge_sd)) / length


def _parameter(field: str, known: Iterable[str], got: str) -> DTwinInputError:
    return DTwinInputError(
        "parameter",
        "there is no such parameter, or no such value",
        field=field,
        wanted=" | ".join(name for name in known if name),
        got=repr(got[:80]),
        fix="Name one of these",
    )
