"""The script that ``dtwin screen --sbatch`` prints, run as Slurm runs it."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dtwin_fast.screening import prepare, run
from dtwin_fast.twin import Twin

pytest.importorskip("pyarrow")
pytest.importorskip("zarr")

N_PEOPLE, TASKS = 48, 4


def digests(out: Path) -> dict[str, str]:
    """SHA-256 of every file of results."""
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.relative_to(out).parts[0] not in (".dtwin", "logs")
    }


def test_tasks_of_an_array_make_the_unbroken_run(tiny_twin: Twin, tmp_path: Path) -> None:
    model, fc, regions = (tmp_path / name for name in ("model", "fc.npy", "regions.tsv"))
    tiny_twin.save(model)
    rng = np.random.default_rng(5)
    np.save(fc, np.tanh(rng.normal(0.1, 0.25, (N_PEOPLE, tiny_twin.spec.n_edges))))
    regions.write_text("\n".join(["name", *tiny_twin.regions]) + "\n")
    run(prepare(model, {"path": fc, "regions": regions}, tmp_path / "whole", shard_size=5))

    # srun starts the command where Slurm has given the cores; here there are no others.
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "srun").write_text('#!/bin/sh\nexec "$@"\n')
    (commands / "srun").chmod(0o755)
    path = os.pathsep.join([str(commands), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path}
    out = tmp_path / "my results"
    words = [str(word) for word in (model, fc, out, "--regions", regions, "--shard-size", 5)]
    script = subprocess.run(
        ["dtwin", "screen", *words, "--sbatch"], env=environment, capture_output=True, check=True
    ).stdout.decode()
    # Fewer tasks, as the script says how.
    script = re.sub(r"--array=0-\d+", f"--array=0-{TASKS - 1}", script)
    script = re.sub(r"(SLURM_ARRAY_TASK_ID)/\d+", rf"\1/{TASKS}", script)
    tasks = [
        subprocess.Popen(
            ["bash", "-c", script],
            env=environment | {"SLURM_ARRAY_TASK_ID": str(task)},
            stdout=subprocess.PIPE,
        )
        for task in range(TASKS)
    ]
    said = [task.communicate()[0].decode() for task in tasks]
    assert [task.returncode for task in tasks] == [0] * TASKS
    assert any("Other parts are not done yet" not in text for text in said)
    assert digests(out) == digests(tmp_path / "whole")
