"""Seconds of calls that take turns, and of the run as a whole."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

MIN_ROUNDS, MAX_ROUNDS = 3, 25
FIRST_GUESS_S = 20.0
"""Of a case and op, while none has been timed."""

Run = Callable[[], Any]
Now = Callable[[], float]


def event_seconds(run: Run) -> float:
    """Between events on torch's stream, from before the first launch to after the last."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3


def host_seconds(run: Run) -> float:
    """By the host's clock, of a call on streams of its own that returns when it has finished."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def clock_of(impl: str) -> Callable[[Run], float]:
    """JAX's streams take no events of torch."""
    return host_seconds if impl.startswith("jax-") else event_seconds


def take_turns(
    runs: dict[str, list[Run]],
    budget_s: float,
    clock: Callable[[str], Callable[[Run], float]] = clock_of,
    now: Now = time.monotonic,
) -> tuple[dict[str, list[float]], dict[str, Exception]]:
    """Seconds of each implementation's calls, A B A B, over its sets in turn.

    Args:
        runs: for each implementation a call for each set of arguments.
        budget_s: seconds for all of them, which MIN_ROUNDS may exceed.

    Returns:
        MIN_ROUNDS to MAX_ROUNDS seconds of each, and what those that failed raised.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    failed: dict[str, Exception] = {}
    n_sets = max(map(len, runs.values()), default=0)
    start = now()
    for turn in range(-n_sets, MAX_ROUNDS):  # before 0: warm-up, every set once
        if turn >= MIN_ROUNDS and now() - start >= budget_s:
            break
        for name, calls in runs.items():
            if name in failed:
                continue
            try:
                seconds = clock(name)(calls[turn % len(calls)])
            except Exception as error:  # noqa: BLE001 - one that fails must not end the others
                failed[name] = error
                continue
            if turn >= 0:
                times[name].append(seconds)
    return times, failed


class Budget:
    """The time of the whole run.

    Args:
        seconds: that it may take.
        started: when it began, by ``now``.
    """

    def __init__(self, seconds: float, started: float, now: Now = time.monotonic) -> None:
        self._end = started + seconds
        self._now = now
        self._longest_s = FIRST_GUESS_S
        self._begun = started

    @property
    def left_s(self) -> float:
        """Seconds that are left."""
        return self._end - self._now()

    def begin(self) -> bool:
        """Whether one more case and op fits, were it as long as the longest so far."""
        self._begun = self._now()
        return self.left_s >= self._longest_s

    def finish(self) -> None:
        """The case and op that was begun has ended."""
        self._longest_s = max(self._longest_s, self._now() - self._begun)
