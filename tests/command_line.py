"""The command line in the tests' process."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from dtwin_fast import cli


@dataclass(frozen=True)
class Ran:
    """What one run of the command line left behind."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


def runner(capsys: pytest.CaptureFixture[str], *first: str) -> Run:
    """Runs ``dtwin FIRST ...``; a traceback would be an exception."""

    def call(*argv: object) -> Ran:
        capsys.readouterr()
        before = signal.getsignal(signal.SIGTERM)
        try:
            code = cli.main([*first, *map(str, argv)])
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            signal.signal(signal.SIGTERM, before)
        return Ran(code, *capsys.readouterr())

    return call
