"""A folder with the state of a training, and what tells whose it is."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..cohort import Cohort
from ..errors import DTwinInputError
from ..files import as_path, write_atomic
from ..provenance import input_digest, package_version
from ..spec import TwinSpec
from .recipes import Config, recipe_name

CHECKPOINT_FILE = "training.json"


def open_checkpoint(
    folder: str | Path, cohort: Cohort, spec: TwinSpec, config: Config, device: str
) -> Path:
    """Make the folder, or check that it is of the same training.

    Raises:
        DTwinInputError: it is of another training (code ``checkpoint``).
    """
    path = as_path(folder, field="checkpoint")
    training: dict[str, Any] = {
        "recipe": recipe_name(config),
        "config": asdict(config),
        "spec": json.loads(json.dumps(spec.to_dict())),
        "input_sha256": input_digest(cohort.connectomes),
        "tasks_sha256": _tasks_digest(cohort),
        "device": device,
        "dtwin_fast": package_version(),
    }
    path.mkdir(parents=True, exist_ok=True)
    marker = path / CHECKPOINT_FILE
    if not marker.exists():
        if any(path.iterdir()):
            raise _error(path, "files of something else")
        write_atomic(marker, json.dumps(training, indent=1))
        return path
    try:
        found = json.loads(marker.read_text())
    except ValueError as error:
        raise _error(path, f"a {CHECKPOINT_FILE} that is not JSON") from error
    different = [
        key
        for key, value in training.items()
        if not isinstance(found, dict) or found.get(key) != value
    ]
    if different:
        raise _error(path, f"another {', '.join(different)}")
    return path


def _tasks_digest(cohort: Cohort) -> str:
    """SHA-256 of what people did: other halves of their trials are another training."""
    digest = hashlib.sha256()
    for name, data in cohort.tasks.items():
        digest.update(json.dumps([name, data.schedule.to_dict()]).encode())
        for part in (data.choice, data.rt_s, data.bold):
            if part is not None:
                digest.update(str(part.shape).encode())
                digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def _error(path: Path, got: str) -> DTwinInputError:
    return DTwinInputError(
        "checkpoint",
        "this folder does not hold the state of this training",
        field=str(path),
        wanted="an empty folder, or that of the same cohort, spec, settings and device",
        got=got,
        fix="Name a new folder, or train with the same settings",
    )
