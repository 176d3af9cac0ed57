"""Rules for the package's own sources: no pickles, and heavy packages only where they are used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(
    path
    for folder in ("dtwin_fast", "kernels", "export", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
)
PICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNSAFE_CALLS = {
    "torch.load",
    "torch.save",
    "torch.hub.load",
    "np.fromregex",
    "eval",
    "exec",
    "yaml.load",
}
HEAVY = (
    *("torch", "nilearn", "pandas", "scipy", "h5py", "nibabel", "xarray", "sklearn", "tqdm"),
    *("jax", "onnx", "onnxruntime", "triton", "rich", "matplotlib"),
)


def faults(source: str) -> list[str]:
    """What a source does that it must not do."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            names = []
        found += [f"imports {name}" for name in names if name.split(".")[0] in PICKLERS]
        found += [f"imports {name}" for name in names if name in UNSAFE_CALLS]
        if isinstance(node, ast.Call):
            if (name := ast.unparse(node.func)) in UNSAFE_CALLS:
                found.append(f"calls {name}")
            if any(
                word.arg == "allow_pickle" and not _is_false(word.value) for word in node.keywords
            ):
                found.append("allows pickles")
            loads = name in ("np.load", "numpy.load")
            if loads and not any(word.arg == "allow_pickle" for word in node.keywords):
                found.append("np.load without allow_pickle=False")
    return found


def _is_false(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is False


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_can_open_a_pickle(path: Path) -> None:
    assert faults(path.read_text("utf-8")) == []


def test_there_are_sources() -> None:
    assert len(SOURCES) > 40


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as p",
        "from pickle import loads",
        "import joblib.numpy_pickle",
        "import torch; torch.load('x')",
        "from torch import load",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "np.save(path, x, allow_pickle=1)",
        "np.load(path)",
        "eval(text)",
    ],
)
def test_the_rule_sees_what_it_forbids(source: str) -> None:
    assert faults(source)


def loaded_after(statement: str) -> set[str]:
    """The heavy packages in sys.modules of a fresh interpreter after a statement."""
    code = f"{statement}; import sys; print(*(m for m in {HEAVY!r} if m in sys.modules))"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(ran.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import dtwin_fast",
        "import dtwin_fast.cli",
        "import dtwin_fast.readers",
        "import dtwin_fast.simulate",
        "import dtwin_fast.tasks.design",
        "import dtwin_fast.cohort_files, dtwin_fast.prediction_files",
        "import dtwin_fast.kernels, dtwin_fast.export",
        "import dtwin_fast.datasets, dtwin_fast.studies",
        "import dtwin_fast.evaluate.report_files",
        "import dtwin_fast.interventions, dtwin_fast.commands.intervene",
        "import dtwin_fast.benchmarks.suite, dtwin_fast.benchmarks.report",
        "from dtwin_fast.commands.doctor import examine; examine()",
    ],
)
def test_importing_needs_numpy_alone(statement: str) -> None:
    assert loaded_after(statement) == set()


def test_the_probe_sees_what_is_loaded() -> None:
    pytest.importorskip("scipy")
    assert "scipy" in loaded_after("import scipy")
