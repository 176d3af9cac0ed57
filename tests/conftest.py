"""Fixtures shared by the tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from dtwin_fast.spec import PRESETS
from dtwin_fast.tasks import TASKS
from dtwin_fast.twin import Twin

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    """The tests' products are tiny: torch's threads would spend the time waiting for each other."""
    torch.set_num_threads(1)


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


@pytest.fixture(scope="session")
def tiny_twin() -> Twin:
    """An untrained twin of preset ``tiny`` with both tasks; regions ``region_00`` to ``_15``.

    Its constants are drawn too, so that a mean, an SD or a projection left out of a
    computation changes the result.
    """
    torch = pytest.importorskip("torch")
    pytest.importorskip("nilearn")
    from dtwin_fast.tasks.design import contrast_projection
    from dtwin_fast.training import HyperNetwork

    spec = PRESETS["tiny"]
    rng = np.random.default_rng(20260728)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(20260728)
        layers = HyperNetwork(spec).numpy_layers()
    schedules = {name: task.make_schedule(0) for name, task in TASKS.items()}
    return Twin(
        spec=spec,
        regions=tuple(f"region_{i:02d}" for i in range(spec.n_regions)),
        layers=layers,
        edge_mean=rng.uniform(-0.3, 0.5, spec.n_edges).astype(np.float32),
        edge_sd=rng.uniform(0.1, 0.3, spec.n_edges).astype(np.float32),
        bold_sd=rng.uniform(0.5, 2, len(spec.bold_regions)).astype(np.float32),
        schedules=schedules,
        projections={
            name: contrast_projection(
                schedule, TASKS[name].contrasts, tr_s=spec.tr_s, dt_s=spec.dt_s
            )
            for name, schedule in schedules.items()
        },
        contrasts={name: tuple(TASKS[name].contrasts) for name in schedules},
        training={"seed": 7, "people": 0},
    )
