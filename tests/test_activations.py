"""tanh and sigmoid of csrc/simd/vec.h against libm, on every instruction set of this machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

STRIDE = os.environ.get("DTWIN_ACTIVATIONS_STRIDE", "499")
"""Every how many of the 2^32 float32 are looked at: all of them, 1, in ``make exhaustive``."""


def test_errors_in_units_of_the_last_place(
    native_isa: str,
    build_program: Callable[[str], Path],
    run_program: Callable[..., str],
    tolerances: ModuleType,
) -> None:
    """The program itself fails where NaN, a sign, a range or a limit is not kept."""
    said = run_program(build_program(f"activations_{native_isa}"), STRIDE)
    print(said)  # make exhaustive shows it
    lines = [line.split() for line in said.splitlines()]
    assert [line[:2] for line in lines] == [
        [function, precision]
        for precision in ("float32", "float64")
        for function in ("tanh", "sigmoid")
    ]
    for function, precision, ulp, _ in lines:
        # A correctly rounded function has half a unit: less would say that nothing was compared.
        assert 0.5 <= float(ulp) <= tolerances.TOLERANCES[f"{function}_ulp"][precision]
