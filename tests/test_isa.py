"""Every instruction set that this machine has runs the engine's tests; DTWIN_ISA forces one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dtwin_fast._core import build_info

TESTS = Path(__file__).parent

ROLL_OUT = """
import numpy as np, dtwin_fast as dt, sys
rng = np.random.default_rng(0)
shapes = [(3, 63, 5), (3, 63, 63), (3, 63), (3, 63), (3, 7, 63), (3, 7)]
w = dt.RNNWeights("rnn", *(0.12 * rng.standard_normal(s) for s in shapes))
r = dt.rollout(w, rng.standard_normal((2, 100, 5)), backend="cpu", precision=sys.argv[2])
np.save(sys.argv[1], r.outputs)
"""


def run(isa: str, *args: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DTWIN_ISA": isa, "DTWIN_CONFIGURATIONS": "60"}
    return subprocess.run(
        [sys.executable, *args], env=environment, capture_output=True, text=True, check=False
    )


def test_the_widest_is_taken():
    build = build_info()
    assert build["isas"][0] == "baseline"
    forced = os.environ.get("DTWIN_ISA")
    assert build["isa"] == (forced or build["isas"][-1])


@pytest.mark.slow
@pytest.mark.parametrize("isa", build_info()["isas"])
def test_the_engine_tests_pass(isa):
    names = ("test_cells.py", "test_affine.py", "test_rollout.py", "test_determinism.py")
    tests = [str(TESTS / name) for name in names]
    options = ["-q", "-x", "-p", "no:cacheprovider", "-k", "not gradcheck"]
    done = run(isa, "-m", "pytest", *options, *tests)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_all_agree(tmp_path, tolerances, precision):
    import numpy as np

    results = []
    for isa in build_info()["isas"]:
        path = tmp_path / f"{isa}.npy"
        done = run(isa, "-c", ROLL_OUT, str(path), precision)
        assert done.returncode == 0, done.stderr
        results.append(np.load(path))
    for result in results[1:]:
        tolerances.assert_close(result, results[0], "outputs", precision)


def test_an_unknown_one_is_refused_by_name(tmp_path):
    done = run("sse9", "-c", ROLL_OUT, str(tmp_path / "none.npy"), "float32")
    assert done.returncode != 0
    assert "BackendUnavailableError: DTWIN_ISA='sse9'" in done.stderr
    assert "baseline" in done.stderr
