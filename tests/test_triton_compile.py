"""Every Triton kernel that can be launched, compiled for compute capability 9.0 with no GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dtwin_fast.kernels import limits

PROGRAM = Path(__file__).with_name("triton_compile.py")
SHARED_BYTES = 227 << 10
"""Of a program on compute capability 9.0."""

Compiled = dict[tuple[str, str, int, int], dict[str, Any]]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """Resources by configuration and kernel; from processes without the interpreter, one a core."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    # Nothing compiled before is taken.
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    n = len(os.sched_getaffinity(0))
    processes = [
        subprocess.Popen(
            [sys.executable, PROGRAM, str(i), str(n)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for i in range(n)
    ]
    found: Compiled = {}
    for process in processes:
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        found |= {tuple(key): kernels for key, kernels in map(json.loads, out.splitlines())}
    return found


ENTRIES = [
    (*pair, size, block)
    for pair, sizes in limits.WARPS.items()
    for size, (_, of_rows) in sizes.items()
    for block in ((1, limits.ROWS) if of_rows else (1,))
]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: "-".join(map(str, entry)))
def test_nothing_spills_and_all_fits(entry: tuple[str, str, int, int], compiled: Compiled) -> None:
    cell, precision, size, block = entry
    kernels = compiled[entry]
    keep = set() if cell == "rnn" else {"forward_loop_keep"}
    assert set(kernels) == {"forward_loop", "backward_loop"} | keep
    warps = limits.WARPS[cell, precision][size][block == limits.ROWS]
    for name, kernel in kernels.items():
        assert kernel["warps"] == warps
        assert (kernel["STACK"], kernel["LOCAL"]) == (0, 0), f"{name} spills: {kernel}"
        assert kernel["REG"] * 32 * warps <= 1 << 16, name
        assert kernel["dynamic_shared"] <= SHARED_BYTES, name
        # W_hh is on the chip: in registers with one sequence, else in shared memory.
        gates = {"rnn": 1, "gru": 3, "lstm": 4}[cell]
        n_bytes = gates * size * size * (2 if precision == "bfloat16" else 4)
        if block == 1:
            assert kernel["REG"] * 32 * warps * 4 > n_bytes, name
        else:
            assert kernel["dynamic_shared"] > n_bytes, name


def test_the_table_has_what_was_compiled(compiled: Compiled) -> None:
    assert set(compiled) == set(ENTRIES)
