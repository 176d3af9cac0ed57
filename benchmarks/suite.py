"""One run: each case is verified, timed beside its peers and written down."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from ..errors import BackendUnavailableError
from . import ours
from .cases import OPS, Case
from .limits import Limits
from .memory import available_bytes, growth, peak_bytes
from .peers import PEERS
from .problem import Call, Prepare, Problem, draw
from .threads import count_threads
from .timing import summarise, take_turns, time_once
from .verify import MAX_REL_ERR, Expected, expect, rel_err

MAX_CALL_S = 30.0
"""A peer whose call would take longer runs on a part of the subjects, and its row says so."""
GLIBC_MMAP_BYTES = 32 * 2**20
"""DEFAULT_MMAP_THRESHOLD_MAX of glibc's malloc on 64 bits."""
MIN_SUBJECTS = 4
"""That part is an eighth of the subjects, but at least so many, and a multiple of the cores."""

Row = dict[str, Any]
Say = Callable[[str], None]


def run_case(
    name: str,
    case: Case,
    op: str,
    peers: Iterable[str],
    limits: Limits,
    *,
    budget_s: float,
    memory: bool,
    say: Say,
) -> tuple[list[Row], list[Row]]:
    """Verify, then time one case and op.

    Args:
        peers: keys of PEERS.
        budget_s: seconds for the timing, about.
        memory: also measure each implementation's peak memory, in processes of their own.
        say: told what is going on.

    Returns:
        A row for each implementation that was timed, and one for each that was not, with
        ``reason``; ``refused`` is true where its results were wrong.
    """
    rows, left_out = _verify_and_time(name, case, op, peers, budget_s, say)
    for impl, row in rows.items():
        fitted = replace(case, S=row["S"])
        row |= _shares(fitted, op, impl, row["median_s"], limits)
        if memory:
            say(f"{name} {op}: memory of {impl}")
            row["peak_bytes"] = peak_bytes(fitted, op, impl)
    _compare(rows)
    where = {"case": name, "op": op}
    return (
        [where | {"impl": impl} | row for impl, row in rows.items()],
        [where | row for row in left_out],
    )


def _verify_and_time(
    name: str, case: Case, op: str, peers: Iterable[str], budget_s: float, say: Say
) -> tuple[dict[str, Row], list[Row]]:
    """Rows by implementation, and those left out. All arrays are gone when it returns."""
    problem = draw(case)
    say(f"{name} {op}: float64 reference")
    expected = expect(problem, op)
    implementations, left_out = _implementations(case, op, peers)
    calls: dict[str, Callable[[], Any]] = {}
    first_s: dict[str, float] = {}
    rows: dict[str, Row] = {}
    for impl, prepare in implementations.items():
        say(f"{name} {op}: verifying {impl}")
        try:
            if impl.startswith(ours.PREFIX):
                fitted, call, note = problem, prepare(problem), ""
            else:
                fitted, call, note = _fit(problem, prepare, _worst_bytes(case, op, impl))
            first_s[impl], result = time_once(call.run)
        except BackendUnavailableError as error:
            left_out.append({"impl": impl, "refused": False, "reason": str(error)})
            continue
        err = rel_err(call.arrays(result), fitted.case.S, expected)
        del result
        tolerance = MAX_REL_ERR["bfloat16" if impl.endswith("bf16") else "float32"]
        # Written so that NaN is refused.
        if not err <= tolerance:
            reason = f"relative error {err:.2e} above {tolerance:.0e}: not timed"
            left_out.append({"impl": impl, "refused": True, "reason": reason})
            continue
        calls[impl] = call.run
        rows[impl] = _verified_row(fitted, err, expected, note)
    if calls:
        say(f"{name} {op}: timing {', '.join(calls)}")
        for impl, times in take_turns(calls, first_s, budget_s).items():
            rows[impl] |= summarise(times)
    return rows, left_out


def _implementations(
    case: Case, op: str, peers: Iterable[str]
) -> tuple[dict[str, Prepare], list[Row]]:
    """Those that can run, and the peers that cannot with the reason."""
    found = ours.variants(case, op)
    left_out = []
    for peer in peers:
        reason = PEERS[peer].why_not(case)
        if reason is None:
            found |= PEERS[peer].variants(case, op)
        else:
            left_out.append({"impl": peer, "refused": False, "reason": reason})
    return found, left_out


def _fit(problem: Problem, prepare: Prepare, worst_bytes: int) -> tuple[Problem, Call, str]:
    """The problem cut down to what a peer does within limits, its call, and a note on that.

    A trial on an eighth of the subjects tells what all of them would take; ``worst_bytes`` is
    what it may not show.
    """
    n_all = problem.case.S
    rounds = -(-max(MIN_SUBJECTS, n_all // 8) // count_threads())
    n = min(n_all, rounds * count_threads())  # or what one core does alone would count in full
    part = problem.select(slice(n))
    trial = prepare(part)
    if n < n_all:
        # The first call also warms the second one up.
        needed_bytes = max(growth(trial.run) * n_all / n, worst_bytes)
        needed_s = time_once(trial.run)[0] * n_all / n
        if needed_s <= MAX_CALL_S and needed_bytes <= available_bytes() / 2:
            return problem, prepare(problem), ""
        note = (
            f"{n} of {n_all} subjects: all might take {needed_s:.0f} s "
            f"and {needed_bytes / 2**30:.1f} GiB a call"
        )
        return part, trial, note
    return part, trial, ""


def _worst_bytes(case: Case, op: str, impl: str) -> int:
    """What glibc may keep of the gradients of w_hh that torch's autograd makes at each step.

    Freed blocks below its largest mmap threshold stay in the heap, where the next one does not
    fit once a small block that lives on has taken a piece. It happens in some calls only.
    """
    block = case.S * case.w_hh_bytes()
    is_at_risk = impl.startswith("torch-") and op == "fwd_bwd" and block < GLIBC_MMAP_BYTES
    return case.T * block if is_at_risk else 0


def _verified_row(problem: Problem, error: float, expected: Expected, note: str) -> Row:
    row = {
        "S": problem.case.S,
        "rel_err": error,
        "verified_subjects": sum(subject < problem.case.S for subject in expected.subjects),
    }
    return row | ({"note": note} if note else {})


def _shares(case: Case, op: str, impl: str, median_s: float, limits: Limits) -> Row:
    """Rates, and what part of the machine's limits they are."""
    flops = case.flop(op) / median_s
    shares: Row = {
        "gflops": flops / 1e9,
        "percent_sgemm": 100 * flops / limits.sgemm_flops,
        "percent_copy": 100 * case.n_bytes(op) / median_s / limits.copy_bytes_s,
        "percent_w_hh_reads": None,
    }
    if case.B == 1:
        # With one sequence w_hh is read at every step, on the way back too.
        size = case.w_hh_bytes() // (2 if impl.endswith("bf16") else 1)
        rate = limits.read_bytes_s(size)
        n_read = case.S * case.T * size * (1 if op == "fwd" else 2)
        shares["percent_w_hh_reads"] = rate and 100 * n_read / rate / median_s
    return shares


def _compare(rows: dict[str, Row]) -> None:
    """Times are compared per subject: a row may stand for fewer of them."""
    each = {impl: row["median_s"] / row["S"] for impl, row in rows.items()}
    peers = [time_s for impl, time_s in each.items() if not impl.startswith(ours.PREFIX)]
    for impl, row in rows.items():
        row["ratio_to_best_peer"] = min(peers) / each[impl] if peers else None


def run_cases(
    cases: dict[str, Case],
    peers: Iterable[str],
    limits: Limits,
    *,
    budget_s: float,
    memory: bool,
    say: Say,
    done: Callable[[list[Row], list[Row]], None],
) -> None:
    """All cases and ops in turn; ``done`` gets the rows of each as :func:`run_case` returns."""
    peers = tuple(peers)
    for name, case in cases.items():
        for op in OPS:
            done(
                *run_case(name, case, op, peers, limits, budget_s=budget_s, memory=memory, say=say)
            )
