"""Runs of ``dtwin`` that start in a moment, each in a process group of its own, and with faults."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

HERE = Path(__file__).parent
LIMIT_S = 60.0
"""No run here takes so long."""
JOURNAL_BYTES = 2**20


@dataclass(frozen=True)
class Call:
    """A call that writes: its number in the run, its kind and its path."""

    number: int
    kind: str
    path: Path


@dataclass(frozen=True)
class Ended:
    """What a run left behind: its exit code, or minus the signal that ended it, and its texts."""

    code: int
    out: str
    err: str


class Journal:
    """What the shim wrote down of a run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(bytes(JOURNAL_BYTES))

    @property
    def n_calls(self) -> int:
        """Calls that write, so far."""
        with self.path.open("rb", buffering=0) as file:
            return int(struct.unpack("q", file.read(8))[0])

    def calls(self) -> list[Call]:
        """All of them, in their order."""
        data = self.path.read_bytes()
        lines = data[16 : 16 + struct.unpack("qq", data[:16])[1]].decode().splitlines()
        calls = [Call(int(n), kind, Path(path)) for n, kind, path in map(str.split, lines)]
        return sorted(calls, key=lambda call: call.number)


class Launcher:
    """Starts runs of ``dtwin`` by forking a process that has imported it.

    Args:
        folder: for the shim, texts and journals.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._not_waited_for: set[int] = set()
        shim = build(HERE / "shim.c", folder)
        self._zygote = subprocess.Popen(
            [sys.executable, HERE / "zygote.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "LD_PRELOAD": str(shim)},
        )

    def __enter__(self) -> Launcher:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A test that failed may have left a run, even a stopped one.
        for pid in self._not_waited_for:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        self._zygote.kill()
        self._zygote.communicate()

    def start(
        self, *argv: object, below: Path | None = None, at: int = 0, action: str = ""
    ) -> Running:
        """Start ``dtwin ARGV``.

        Args:
            argv: words of the command line.
            below: the folder whose calls are written down, and fail.
            at: number of the call that fails.
            action: as ``shim.c`` says.
        """
        self._count += 1
        place = self._folder / f"run-{self._count}"
        journal = Journal(place.with_suffix(".journal"))
        faults = {"AT": str(at), "ACTION": action, "JOURNAL": str(journal.path)}
        faults["FOLDER"] = "" if below is None else str(below)
        request = {
            "start": [str(word) for word in argv],
            "stdout": str(place.with_suffix(".out")),
            "stderr": str(place.with_suffix(".err")),
            "env": {f"FAULTS_{name}": text for name, text in faults.items()},
        }
        pid = self.ask(request)
        self._not_waited_for.add(pid)
        return Running(self, pid, place, journal)

    def run(self, *argv: object, **faults: object) -> Ended:
        """The same, to its end."""
        return self.start(*argv, **faults).wait()  # type: ignore[arg-type]

    def wait(self, pid: int) -> int:
        """The status of a run when it has ended."""
        status = self.ask({"wait": pid})
        self._not_waited_for.discard(pid)
        return status

    def ask(self, request: dict[str, object]) -> int:
        """What the zygote answers; TimeoutError if it does not."""
        assert self._zygote.stdin is not None
        assert self._zygote.stdout is not None
        self._zygote.stdin.write(json.dumps(request).encode() + b"\n")
        self._zygote.stdin.flush()
        if not select.select([self._zygote.stdout], [], [], LIMIT_S)[0]:
            raise TimeoutError(f"no answer to {request}")
        return int(self._zygote.stdout.readline())


class Running:
    """A run that was started."""

    def __init__(self, launcher: Launcher, pid: int, place: Path, journal: Journal) -> None:
        self._launcher = launcher
        self._place = place
        self.pid = pid
        self.journal = journal

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the run alone."""
        os.kill(self.pid, number)

    def hold_up(self) -> None:
        """SIGSTOP to the run alone; all its threads have stopped when this returns."""
        self.signal(signal.SIGSTOP)
        until = time.monotonic() + LIMIT_S
        threads = Path(f"/proc/{self.pid}/task")
        while any(
            (thread / "stat").read_text().rpartition(")")[2].split()[0] != "T"
            for thread in threads.iterdir()
        ):
            assert time.monotonic() < until, "the run does not stop"
            time.sleep(0.001)

    def kill_all(self) -> None:
        """SIGKILL to the run and all its processes; it may have ended already."""
        os.killpg(self.pid, signal.SIGKILL)  # a zombie until wait(), so the number is still its own

    def wait_for(self, n_calls: int) -> None:
        """Wait until there were so many calls that write, or the run has ended."""
        until = time.monotonic() + LIMIT_S
        while self.journal.n_calls < n_calls and self.is_live:
            assert time.monotonic() < until, f"{self.journal.n_calls} of {n_calls} calls"
            time.sleep(0.001)

    @property
    def is_live(self) -> bool:
        """Whether it has not ended yet."""
        return self.pid in processes(self.pid)

    def wait(self) -> Ended:
        """Wait until the run has ended, and its processes with it."""
        try:
            status = self._launcher.wait(self.pid)
        except TimeoutError:
            self.kill_all()
            raise
        until = time.monotonic() + LIMIT_S
        while others := processes(self.pid):
            assert time.monotonic() < until, f"the run has ended, and {others} have not"
            time.sleep(0.005)
        texts = (self._place.with_suffix(end).read_text() for end in (".out", ".err"))
        return Ended(os.waitstatus_to_exitcode(status), *texts)


def processes(group: int) -> dict[int, str]:
    """Numbers and command lines of the live processes of a process group."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, of_group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            words = (folder / "cmdline").read_bytes().decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        if int(of_group) == group and state != "Z":
            found[int(folder.name)] = words.replace("\0", " ")
    return found


def build(source: Path, folder: Path) -> Path:
    """A library for LD_PRELOAD."""
    library = folder / f"{source.stem}.so"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, source, "-ldl"],
        check=True,
    )
    return library


def problems(err: str) -> list[str]:
    """The lines on stderr that are not the progress."""
    lines = re.split(r"[\r\n]+", err)
    return [line for line in lines if line and not line.startswith("screen:")]
