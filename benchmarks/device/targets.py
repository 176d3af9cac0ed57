"""The figures that the GPU engine has to reach, worked out from one run. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..verify import MAX_REL_ERR
from .cases import is_ours, precision_of

Row = dict[str, Any]

TORCH_FORMS = ("torch-graph", "torch-unbind", "torch-compile")
"""The fastest counts; without ``torch-graph`` there is no ratio, which would flatter."""


@dataclass(frozen=True)
class Ratio:
    """``dtwin-cuda`` in float32 is at least so many times as fast as the best form of torch."""

    case: str
    op: str
    wanted: float
    what: str = "times the best torch form"

    def measured(self, rows: list[Row]) -> float | None:
        """None where the engine or the CUDA graph was not timed."""
        each = _medians(rows, self.case, self.op)
        if not {"dtwin-cuda", "torch-graph"} <= each.keys():
            return None
        return min(each[name] for name in TORCH_FORMS if name in each) / each["dtwin-cuda"]


@dataclass(frozen=True)
class Floor:
    """``dtwin-cuda`` in float32 runs the steps in at most 100 / ``wanted`` times their floor."""

    case: str
    op: str
    wanted: float
    what: str = "% of the floor"

    def measured(self, rows: list[Row]) -> float | None:
        """None where the engine was not timed or the clock is not known."""
        for row in rows:
            if (row["case"], row["op"], row["impl"]) == (self.case, self.op, "dtwin-cuda"):
                percent: float | None = row["percent_of_floor"]
                return percent
        return None


TARGETS: tuple[Ratio | Floor, ...] = (
    Ratio("contrast434-h128-s4096", "fwd", 20),
    Ratio("plain23-h128-s4096", "fwd", 20),
    Ratio("contrast434-h128-s4096", "fwd_bwd", 10),
    Ratio("plain23-h128-s4096", "fwd_bwd", 10),
    Ratio("paper-s256", "fwd", 5),
    Floor("recurrence-h128", "fwd", 50),
)


def judge(rows: list[Row], left_out: list[Row]) -> list[Row]:
    """Each target with what was measured: ``met``, ``missed`` or ``not measured``."""
    found = []
    for target in TARGETS:
        measured = target.measured(rows)
        found.append(
            {"case": target.case, "op": target.op, "what": target.what}
            | {"wanted": f">= {target.wanted:g}", "measured": measured}
            | {"verdict": _verdict(None if measured is None else measured >= target.wanted)}
        )
    for precision, limit in MAX_REL_ERR.items():
        found.append(_correct(precision, limit, rows, left_out))
    return found


def _correct(precision: str, limit: float, rows: list[Row], left_out: list[Row]) -> Row:
    """The worst error of the engine's timed calls; a refused call is a miss."""

    def mine(found: list[Row]) -> list[Row]:
        return [r for r in found if is_ours(r["impl"]) and precision_of(r["impl"]) == precision]

    timed = mine(rows)
    is_refused = any(row["refused"] for row in mine(left_out))
    worst = max((max(r["rel_err"], r["rel_norm_err"]) for r in timed), default=None)
    is_right = not is_refused if timed or is_refused else None
    return {
        "case": "all",
        "op": "all",
        "what": f"largest relative error, {precision}",
        "wanted": f"<= {limit:.0e}",
        "measured": worst,
        "verdict": _verdict(is_right),
    }


def _verdict(is_met: bool | None) -> str:
    return "not measured" if is_met is None else "met" if is_met else "missed"


def _medians(rows: list[Row], case: str, op: str) -> dict[str, float]:
    return {row["impl"]: row["median_s"] for row in rows if (row["case"], row["op"]) == (case, op)}
