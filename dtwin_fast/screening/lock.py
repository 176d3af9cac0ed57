"""Who works on a folder: a whole run alone, or runs of some shards each beside one another.

Locks are the kernel's (flock), so that none is left by a process that was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import DTwinInputError
from ..files import naming
from .manifest import RunFolder

Shard = tuple[int, int]
"""(i, n): shards whose number modulo n is i."""


@contextlib.contextmanager
def locked(folder: RunFolder, part: Shard | None = None) -> Iterator[None]:
    """Hold a folder.

    Args:
        folder: with its state folder made.
        part: None holds all of it; (i, n) that part, beside others.

    Raises:
        DTwinInputError: somebody else holds it (code ``locked``), naming them.
    """
    run = folder.state / "run.lock"
    with contextlib.ExitStack() as held:
        if part is None:
            _hold(held, run, fcntl.LOCK_EX, folder)
        else:
            _hold(held, run, fcntl.LOCK_SH, folder)
            _hold(held, _part_lock(folder, part), fcntl.LOCK_EX, folder)
        yield


def refuse_locked(folder: RunFolder, part: Shard | None = None) -> None:
    """Raise what :func:`locked` would, without holding anything or making a folder."""
    if folder.state.is_dir():
        with locked(folder, part):
            pass


def _part_lock(folder: RunFolder, part: Shard) -> Path:
    return folder.state / "run-{}-of-{}.lock".format(*part)


def _hold(held: contextlib.ExitStack, path: Path, kind: int, folder: RunFolder) -> None:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    held.callback(os.close, handle)  # which lets go of the lock
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise _refusal(folder, path) from error
    if kind == fcntl.LOCK_EX:
        holder = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        with naming(path):
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(holder).encode(), 0)


def _refusal(folder: RunFolder, path: Path) -> DTwinInputError:
    # Parts that are being run hold run.lock too, but say who they are in their own files.
    parts = [other for other in folder.state.glob("run-*.lock") if _is_held(other)]
    holders = [_holder(other) for other in (parts or [path])]
    return DTwinInputError(
        "locked",
        "another run is working on this folder",
        field=str(folder.out),
        wanted="one run at a time",
        got="; ".join(holders[:5]),
        fix="Wait until it has ended, or stop it and go on with --resume",
    )


def _is_held(path: Path) -> bool:
    handle = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_bytes())
        return f"pid {holder['pid']} on {holder['host']} since {holder['started']}"
    except (OSError, ValueError, KeyError, TypeError):
        return f"a process that has not yet said which in {path.name}"
