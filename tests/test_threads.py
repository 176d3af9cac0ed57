"""Calls from several C++ threads at once; ``make tsan`` and ``make asan`` build them sanitized."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def test_concurrent_calls_have_the_bits_of_one_alone(
    native_isa: str, build_program: Callable[[str], Path], run_program: Callable[..., str]
) -> None:
    said = run_program(build_program("threads"), DTWIN_ISA=native_isa)
    assert said == f"{native_isa}: 234 problems, 4 calls of each at once, 0 differ\n"
