"""Well-formed inputs for the fuzz targets of tests/cpp: ``python tests/fuzz_corpus.py FOLDER``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dtwin_fast.hypernetwork import Layer, layer_sizes
from dtwin_fast.model_files import CONFIG_FILE, WEIGHTS_FILE, encode_safetensors
from dtwin_fast.spec import TwinSpec
from dtwin_fast.tasks import TASKS
from dtwin_fast.tasks.schedule import Schedule
from dtwin_fast.twin import Twin


def small_twin(cell: str, head: str, bold_regions: Sequence[str] = ("LH_V1", "Größe")) -> Twin:
    """A twin of a few hundred weights, with the first trials of its tasks."""
    rng = np.random.default_rng(7)
    spec = TwinSpec.from_dict(
        {
            "name": f"small {cell}",
            "n_regions": 6,
            "hyper_hidden": [3],
            "n_hidden": 2,
            "cell": cell,
            "bold_regions": list(bold_regions),
            "head": head,
            "standardize": head == "hazard",
        }
    )

    def draw(*shape: int) -> np.ndarray:
        return rng.uniform(-0.3, 0.3, shape).astype(np.float32)

    schedules = {name: first_trials(task.make_schedule(0), 2) for name, task in TASKS.items()}
    contrasts = {name: tuple(task.contrasts) for name, task in TASKS.items()}
    return Twin(
        spec=spec,
        regions=("a", "b", "c", "d", "e", "f"),
        layers=tuple(Layer(draw(n_out, n_in), draw(n_out)) for n_in, n_out in layer_sizes(spec)),
        edge_mean=draw(spec.n_edges),
        edge_sd=np.abs(draw(spec.n_edges)) + np.float32(0.1),
        bold_sd=np.ones(len(bold_regions), np.float32),
        schedules=schedules,
        projections={
            name: draw(len(contrasts[name]), s.n_steps(spec.dt_s)) for name, s in schedules.items()
        },
        contrasts=contrasts,
        training={"seed": 7, "losses": [1.5, 0.25], "note": None},
    )


def first_trials(schedule: Schedule, n: int) -> Schedule:
    """The first trials of a run, which ends with their windows."""
    cues = schedule.cue_onset_s < schedule.onset_s[n - 1]
    return replace(
        schedule,
        run_s=float((schedule.onset_s + schedule.window_s)[n - 1]),
        onset_s=schedule.onset_s[:n],
        duration_s=schedule.duration_s[:n],
        window_s=schedule.window_s[:n],
        condition=schedule.condition[:n],
        correct=schedule.correct[:n],
        stimulus=schedule.stimulus[:n],
        item=schedule.item[:n],
        cue_onset_s=schedule.cue_onset_s[cues],
        cue_duration_s=schedule.cue_duration_s[cues],
        cue=schedule.cue[cues],
    )


def write_corpus(folder: Path) -> dict[str, list[Path]]:
    """Write files for each target; target -> its files."""
    files: dict[str, list[Path]] = {"json": [], "safetensors": [], "model": []}

    def write(target: str, name: str, content: bytes) -> None:
        path = folder / target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        files[target].append(path)

    for cell, head in (("rnn", "hazard"), ("lstm", "sigmoid")):
        model = folder / f"model-{cell}"
        small_twin(cell, head).save(model)
        config = json.dumps(json.loads((model / CONFIG_FILE).read_text())).encode()
        weights = (model / WEIGHTS_FILE).read_bytes()
        write("model", cell, len(config).to_bytes(4, "little") + config + weights)
        write("json", f"{cell}-config", config)
        write("json", f"{cell}-header", weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    write("json", "escapes", rb'{"a\u00e9\ud83d\ude00\n": [-0, 1.5e+3, true, false, null, {}, []]}')
    tensors = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.ones(4, np.float32),
        "empty": np.empty((0, 5), np.float32),
    }
    write("safetensors", "three", encode_safetensors(tensors))
    return files


if __name__ == "__main__":
    write_corpus(Path(sys.argv[1]))
