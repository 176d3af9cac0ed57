"""Calls take turns, so that a busy minute of the machine falls on all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

MIN_REPEATS, MAX_REPEATS = 3, 25
SETTLE_S = 0.01
"""Between calls: thread pools that still wait for work do not disturb the next call."""


def time_once(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of one call, and its result."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def take_turns(
    calls: dict[str, Callable[[], Any]], first_s: dict[str, float], budget_s: float
) -> dict[str, list[float]]:
    """Seconds of each call's repeats, MIN_REPEATS to MAX_REPEATS of them.

    Args:
        calls: what to time; they have run once.
        first_s: seconds of that first call: slower ones are repeated less.
        budget_s: seconds for all of them together, which MIN_REPEATS may exceed.
    """
    share_s = budget_s / len(calls)
    repeats = {
        name: min(MAX_REPEATS, max(MIN_REPEATS, int(share_s / (first_s[name] + SETTLE_S))))
        for name in calls
    }
    # A call with fewer repeats spreads them evenly over the same time.
    turns = sorted(((i + 0.5) / n, name) for name, n in repeats.items() for i in range(n))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _, name in turns:
        time.sleep(SETTLE_S)
        times[name].append(time_once(calls[name])[0])
    return times


def summarise(times_s: Sequence[float]) -> dict[str, Any]:
    """What a row of results says of the repeats of a call, in seconds."""
    q1, median, q3 = statistics.quantiles(times_s, n=4, method="inclusive")
    return {
        "median_s": median,
        "min_s": min(times_s),
        "q1_s": q1,
        "q3_s": q3,
        "repeats": len(times_s),
    }
