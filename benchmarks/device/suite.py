"""One run on a GPU: each case is verified, timed beside the peers, and handed on at once."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from ...errors import BackendUnavailableError, DTwinInputError
from . import timing
from .cases import CASES, RECURRENCE_CASES, is_ours, precision_of
from .ceilings import floor_s
from .problem import Prepare, count_sets, draw
from .timing import Budget, Run, take_turns
from .verify import Verdict, choose_subjects, expect, verify

TIMING_S = 2.0
"""For the turns of one case and op."""
LEAST_LEFT_S = 8.0
"""With less time left no further implementation is prepared."""
MAX_REASON = 250

TIME_UP = "not timed: the time was up"
LOST = "not timed: an error before has made the CUDA device unusable"

Row = dict[str, Any]
Pair = tuple[str, str]


@dataclass(frozen=True)
class Setting:
    """What all cases of a run have in common.

    Attributes:
        device: of torch.
        seed: each case draws its own numbers from it.
        machine: of ``machine.examine``.
        ceilings: of ``ceilings.measure``.
        budget: the time of the run.
        say: told what is going on.
    """

    device: str
    seed: int
    machine: dict[str, Any]
    ceilings: dict[str, float]
    budget: Budget
    say: Callable[[str], None]


def run_pairs(
    pairs: Iterable[Pair],
    implementations: dict[str, Prepare],
    setting: Setting,
    done: Callable[[list[Row], list[Row]], None],
) -> None:
    """All cases and ops in turn; ``done`` gets the rows of each as :func:`run_pair` returns."""
    stopped = ""
    for name, op in pairs:
        if not stopped and not setting.budget.begin():
            stopped = TIME_UP
        if stopped:
            done([], [left_out(name, op, "all", stopped)])
            continue
        done(*run_pair(name, op, implementations, setting))
        setting.budget.finish()
        if _is_lost(setting.device):
            stopped = LOST


def run_pair(
    name: str, op: str, implementations: dict[str, Prepare], setting: Setting
) -> tuple[list[Row], list[Row]]:
    """Verify, then time one case and op.

    Returns:
        A row for each implementation that was timed, and one for each that was not, with
        ``reason``; ``refused`` is true where its results were wrong or the engine failed.
    """
    found = _Pair(name, op, setting)
    if name in RECURRENCE_CASES:
        implementations = {i: prepare for i, prepare in implementations.items() if is_ours(i)}
    try:
        found.run(implementations)
    except torch.OutOfMemoryError as error:
        found.leave_out("all", error)
    return found.rows, found.left_out


def left_out(name: str, op: str, impl: str, reason: str, *, refused: bool = False) -> Row:
    """A row that says why something was not timed."""
    return {"case": name, "op": op, "impl": impl, "refused": refused, "reason": reason[:MAX_REASON]}


class _Pair:
    """The rows of one case and op while they come together."""

    def __init__(self, name: str, op: str, setting: Setting) -> None:
        self.name, self.op, self.setting = name, op, setting
        self.case = CASES[name]
        self.rows: list[Row] = []
        self.left_out: list[Row] = []

    def run(self, implementations: dict[str, Prepare]) -> None:
        setting = self.setting
        seed = setting.seed + 1000 * list(CASES).index(self.name)
        problems = [draw(self.case, seed, setting.device)]
        n_sets = count_sets(problems[0].n_bytes, setting.machine["l2_bytes"])
        problems += [draw(self.case, seed + i, setting.device) for i in range(1, n_sets)]
        subjects = choose_subjects(problems[0], seed)
        expected = expect(problems[0], self.op, subjects)
        runs: dict[str, list[Run]] = {}
        verdicts: dict[str, Verdict] = {}
        for impl, prepare in implementations.items():
            if setting.budget.left_s < LEAST_LEFT_S:
                self.left_out.append(left_out(self.name, self.op, impl, TIME_UP))
                continue
            setting.say(f"{self.name} {self.op}: verifying {impl}")
            _free(setting.device)
            try:
                calls = prepare(problems, self.op)
                verdict = verify(calls[0], self.case.S, expected, subjects)
            except Exception as error:  # noqa: BLE001 - noted; the others go on
                self.leave_out(impl, error)
                continue
            # A peer need not repeat its bits: without it our ratio would flatter us.
            fault = verdict.fault(precision_of(impl), must_repeat=is_ours(impl))
            if fault is not None:
                self.left_out.append(left_out(self.name, self.op, impl, fault, refused=True))
                continue
            runs[impl] = [call.run for call in calls]
            verdicts[impl] = verdict
        if runs:
            setting.say(f"{self.name} {self.op}: timing {', '.join(runs)}")
        times, failed = take_turns(runs, TIMING_S, timing.clock_of)
        for impl, raised in failed.items():
            self.leave_out(impl, raised)
        for impl in runs.keys() - failed.keys():
            self.rows.append(self._row(impl, times[impl], verdicts[impl], n_sets))
        self.rows.sort(key=lambda row: list(implementations).index(row["impl"]))
        _compare(self.rows)

    def leave_out(self, impl: str, error: Exception) -> None:
        """Note what an implementation raised; of the engine only some errors are in order."""
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        in_order = isinstance(error, (BackendUnavailableError, torch.OutOfMemoryError)) or (
            isinstance(error, DTwinInputError) and error.code == "too_large"
        )
        refused = is_ours(impl) and not in_order
        self.left_out.append(left_out(self.name, self.op, impl, reason, refused=refused))

    def _row(self, impl: str, times: list[float], verdict: Verdict, n_sets: int) -> Row:
        case, ceilings = self.case, self.setting.ceilings
        q1, median, q3 = statistics.quantiles(times, n=4, method="inclusive")
        floor = floor_s(case, self.setting.machine) if case.B == 1 and self.op == "fwd" else None
        flops = case.flop(self.op) / median
        return {
            "case": self.name,
            "op": self.op,
            "impl": impl,
            "S": case.S,
            "median_s": median,
            "q1_s": q1,
            "q3_s": q3,
            "repeats": len(times),
            "sets": n_sets,
            "rel_err": verdict.rel_err,
            "rel_norm_err": verdict.rel_norm_err,
            "bit_equal": verdict.bit_equal,
            "gflops": flops / 1e9,
            "percent_sgemm": 100 * flops / ceilings["sgemm_flops"],
            "percent_copy": 100 * case.n_bytes(self.op) / median / ceilings["copy_bytes_s"],
            "percent_of_floor": floor and 100 * floor / median,
        }


def _compare(rows: list[Row]) -> None:
    peers = [row["median_s"] for row in rows if not is_ours(row["impl"])]
    for row in rows:
        row["ratio_to_best_peer"] = min(peers) / row["median_s"] if peers else None


def _free(device: str) -> None:
    """Give back what torch keeps for later: JAX and the drivers take memory of their own."""
    if device == "cuda" and not _is_lost(device):
        torch.cuda.empty_cache()


def _is_lost(device: str) -> bool:
    """Whether a kernel has failed so that nothing else can run in this process."""
    if device != "cuda":
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False
