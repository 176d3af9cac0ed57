"""Fixtures shared by the tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the repository; tests are skipped where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real data are not beside the repository ({folder.name} is absent)")
    return folder


@pytest.fixture(scope="session")
def tolerances() -> ModuleType:
    """tests/tolerances.py: the one table of tolerances."""
    spec = importlib.util.spec_from_file_location("tolerances", ROOT / "tests" / "tolerances.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
