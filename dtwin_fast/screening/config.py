"""What is asked of a screening: all that decides its results beside the model and the people."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..connectome import MissingPolicy
from ..errors import DTwinInputError
from ..files import check_regular_file
from ..interventions import find_target, parse_edit
from ..interventions.constraints import Constraint
from ..interventions.gradients import check_target
from ..twin import Twin

OUTPUTS = {
    "behaviour": "condition means, and choices and reaction times of every trial",
    "contrasts": "contrast effects in each BOLD region",
    "range": "how unusual connectomes are to the model",
    "eigenvalue": "their smallest eigenvalue too, which costs more than all the rest",
    "bold": "BOLD series of every region",
}
DEFAULT_OUTPUTS = ("behaviour", "contrasts", "range")

BUDGET = 0.1
"""Of a search without a budget: this part of how far people of the training are from their mean.

``dtwin intervene`` takes 2 SDs of the people given; here nobody's result may depend on others.
"""


@dataclass(frozen=True)
class Change:
    """An intervention on every person.

    Attributes:
        target: as ``interventions.find_target`` reads it.
        edit: as ``interventions.parse_edit`` reads it, or None: a search for each person.
        budget: norm of a search's change, Fisher z; None with an edit.
        edit_sha256: of the file that the edit names, else "".
    """

    target: str
    edit: str | None = None
    budget: float | None = None
    edit_sha256: str = ""


@dataclass(frozen=True)
class Config:
    """The settings of a screening; use :meth:`of_twin`, which checks them.

    Attributes:
        tasks: names of the tasks to run, in this order.
        outputs: keys of ``OUTPUTS``, in that order.
        missing, backend, precision: as of :meth:`dtwin_fast.twin.Twin.predict`.
        change: an intervention, or None.
    """

    tasks: tuple[str, ...]
    outputs: tuple[str, ...] = DEFAULT_OUTPUTS
    missing: MissingPolicy = "reject"
    backend: str = "auto"
    precision: str = "float32"
    change: Change | None = None

    @classmethod
    def of_twin(
        cls,
        twin: Twin,
        *,
        tasks: Sequence[str] | None = None,
        outputs: Sequence[str] = DEFAULT_OUTPUTS,
        missing: MissingPolicy = "reject",
        backend: str = "auto",
        target: str | None = None,
        budget: float | None = None,
        edit: str | None = None,
    ) -> Config:
        """Settings that fit a twin.

        Args:
            tasks: None runs all that the twin knows.
            outputs: keys of ``OUTPUTS``.
            missing, backend: as of :meth:`dtwin_fast.twin.Twin.predict`.
            target: of an intervention, or None: none.
            budget: of a search; None: ``BUDGET`` times the norm of the twin's ``edge_sd``.
            edit: an edit in place of a search.

        Raises:
            DTwinInputError: a task, output, target, edit or budget that there is not (codes
                ``task``, ``argument``, ``target``, ``edit``, ``constraint``, ``region``).
        """
        names = tuple(twin.schedules) if tasks is None else tuple(tasks)
        twin.encode(names)  # refuses tasks that the twin does not know
        if len(set(names)) < len(names):
            raise _argument("tasks", "a task is named twice", "every task once", names)
        if unknown := [name for name in outputs if name not in OUTPUTS]:
            raise _argument("outputs", "there is no such output", " | ".join(OUTPUTS), unknown)
        if target is None:
            if budget is not None or edit is not None:
                what = "an intervention is asked for, but no target"
                raise _argument("target", what, "a target", "none")
            change = None
        else:
            change = _change(twin, target, budget, edit)
        if not outputs and change is None:
            raise _argument("outputs", "nothing is asked for", " | ".join(OUTPUTS), "none")
        ordered = tuple(name for name in OUTPUTS if name in outputs)
        return cls(names, ordered, missing, backend, change=change)

    @property
    def folds(self) -> bool:
        """Whether contrasts are all that the rollouts are for: (T,O) outputs are never made."""
        return "contrasts" in self.outputs and not {"behaviour", "bold"} & set(self.outputs)

    @property
    def rolls_out(self) -> bool:
        """Whether anything but range scores and an intervention is asked for."""
        return bool({"behaviour", "contrasts", "bold"} & set(self.outputs))

    def to_dict(self) -> dict[str, Any]:
        """Plain form for JSON, the inverse of :meth:`from_dict`."""
        values = asdict(self)
        return values | {"tasks": list(self.tasks), "outputs": list(self.outputs)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Config:
        """Build from the JSON form."""
        change = values["change"]
        return cls(
            **values
            | {
                "tasks": tuple(values["tasks"]),
                "outputs": tuple(values["outputs"]),
                "change": None if change is None else Change(**change),
            }
        )


def _change(twin: Twin, target: str, budget: float | None, edit: str | None) -> Change:
    check_target(twin, find_target(target))
    if edit is None:
        if budget is None:
            budget = BUDGET * float(np.linalg.norm(twin.edge_sd.astype(np.float64)))
        Constraint(budget=budget, valid=True).check(twin.spec.n_edges)
        return Change(target, budget=float(budget))
    if budget is not None:
        what = "an edit is as large as it says, and has no budget"
        raise _argument("budget", what, "an edit or a budget", "both")
    # Refused now, not by every shard: a region that is not there, an edit that changes nothing.
    parse_edit(edit).change(twin.edge_mean[None], twin.regions)
    return Change(target, edit=edit, edit_sha256=_file_sha256(edit))


def _file_sha256(edit: str) -> str:
    """Of the file that an edit such as ``edges:FILE:STRENGTH`` reads; "" where it reads none."""
    kind, _, rest = edit.partition(":")
    if kind not in ("edges", "receptor"):
        return ""
    path = Path(rest.rpartition(":")[0])
    check_regular_file(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _argument(field: str, what: str, wanted: str, got: object) -> DTwinInputError:
    return DTwinInputError(
        "argument",
        what,
        field=field,
        wanted=wanted,
        got=str(got)[:80],
        fix="Name what is wanted",
    )
