"""What reads model folders in C++, under ASan and UBSan: cut anywhere and changed at random, its
files are refused or read, and nothing is allocated that is far larger than they are.

``make fuzz`` does the same for longer, with libFuzzer where clang is.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzz_corpus import write_corpus

pytestmark = pytest.mark.slow
SECONDS = 2
SEED = 20261129
OPTIONS = "max_allocation_size_mb=16:allocator_may_return_null=0"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def build_fuzzer(
    configure: Callable[..., Path], build_in: Callable[[Path, str], Path]
) -> Callable[[str], Path]:
    """Build a target with its sanitizers and the driver of tests/cpp."""
    folder = configure("-DDTWIN_SANITIZE=address,undefined", "-DDTWIN_CUDA=OFF")
    return lambda target: build_in(folder, f"fuzz_{target}")


@pytest.mark.skipif("DTWIN_CMAKE_OPTIONS" in os.environ, reason="it is a sanitized build already")
@pytest.mark.parametrize("target", ["json", "safetensors", "model"])
def test_no_file_crashes_what_reads_it(
    target: str, corpus: dict[str, list[Path]], build_fuzzer: Callable[[str], Path]
) -> None:
    files = corpus[target]
    ran = subprocess.run(
        [build_fuzzer(target), str(SECONDS), str(SEED), *files],
        capture_output=True,
        text=True,
        env={**os.environ, "ASAN_OPTIONS": OPTIONS},
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    cuts, changes = (int(part.split()[0]) for part in ran.stdout.split(", "))
    assert cuts == sum(path.stat().st_size + 1 for path in files)
    assert changes > 0
