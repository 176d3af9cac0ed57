"""Calls that take a while, beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

T = TypeVar("T")


async def beside(executor: Executor, function: Callable[..., T], *arguments: object) -> T:
    """Call a function in a thread of an executor.

    A caller that is cancelled goes once the executor has let go of the call, which is not begun
    any more: until then the arguments are in memory, and whoever counts them must be there.
    """
    wanted = True

    def call() -> T | None:
        return function(*arguments) if wanted else None

    def leave() -> None:
        nonlocal wanted
        wanted = False

    done: asyncio.Future[Any] = asyncio.get_running_loop().run_in_executor(executor, call)
    result: T = await outlast(done, leave)
    return result


async def outlast(done: asyncio.Future[T], leave: Callable[[], None]) -> T:
    """The result of a future, which a caller that is cancelled does not cancel, but waits for.

    Args:
        done: the future.
        leave: called first where the caller is cancelled; may end the future.
    """
    done.add_done_callback(seen)
    try:
        await asyncio.wait((done,))
    except asyncio.CancelledError:
        leave()
        await asyncio.wait((done,))
        raise
    return done.result()


def seen(done: asyncio.Future[Any]) -> None:
    """Keep asyncio from logging an error that nobody waits for: it may hold a person's numbers."""
    if not done.cancelled():
        done.exception()
