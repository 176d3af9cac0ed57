"""Arrays of a screening as Zarr v3: axis 0 is the person, and a shard's people are one chunk.

A shard's worker encodes its own chunks and writes each as one file. The metadata, without which
no reader opens an array, are written when all shards are done: a chunk that is not there yet, which
Zarr would read as NaN, is never taken for a result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import MissingExtraError
from ..tasks import TASKS
from ..twin import Twin
from .config import Config

Float32 = npt.NDArray[np.float32]

LEVEL = 1
"""Of zstd: float32 numbers that look like noise gain nothing from more."""


@dataclass(frozen=True)
class Layout:
    """One array.

    Attributes:
        shape: of one person.
        dims: names of all axes, the person's first.
        attributes: units, and the names along the axes.
    """

    shape: tuple[int, ...]
    dims: tuple[str, ...]
    attributes: dict[str, Any]


def layouts(twin: Twin, config: Config) -> dict[str, Layout]:
    """The arrays that a screening writes, by name."""
    schedules = {task: twin.schedules[task] for task in config.tasks}
    n_trials = sum(s.n_trials for s in schedules.values())
    regions = list(twin.spec.bold_regions)
    trials = {
        "trial_task": [task for task, s in schedules.items() for _ in range(s.n_trials)],
        "trial_condition": [c for s in schedules.values() for c in s.condition],
        "trial_onset_s": [float(t) for s in schedules.values() for t in s.onset_s],
    }
    made: dict[str, Layout] = {}
    if "behaviour" in config.outputs:
        actions = {task: list(TASKS[task].action_names) for task in config.tasks}
        made["choice_prob"] = Layout(
            (n_trials, twin.spec.n_actions),
            ("person", "trial", "action"),
            {"units": "1", "long_name": "probability of each action", "action": actions, **trials},
        )
        made["rt_s"] = Layout(
            (n_trials,),
            ("person", "trial"),
            {"units": "s", "long_name": "mean reaction time, given a response", **trials},
        )
    if "contrasts" in config.outputs:
        names = {task: list(twin.contrasts[task]) for task in config.tasks}
        made["contrasts"] = Layout(
            (sum(map(len, names.values())), len(regions)),
            ("person", "contrast", "region"),
            {
                "units": "SD of the training cohort's BOLD",
                "long_name": "GLM contrast effects",
                "contrast": [name for of_task in names.values() for name in of_task],
                "contrast_task": [task for task, of_task in names.items() for _ in of_task],
                "region": regions,
            },
        )
    if "bold" in config.outputs:
        tr_s = twin.spec.tr_s
        volumes = {task: s.n_volumes(tr_s) for task, s in schedules.items()}
        made["bold"] = Layout(
            (sum(volumes.values()), len(regions)),
            ("person", "volume", "region"),
            {
                "units": "SD of the training cohort's BOLD",
                "long_name": "BOLD at TR, the runs one after another",
                "region": regions,
                "repetition_time_s": tr_s,
                "volumes_of_task": volumes,
            },
        )
    return made


class ZarrGroup:
    """A Zarr group in memory, of which files are made.

    Args:
        layouts: its arrays.
        n_people: length of axis 0.
        shard_size: people of a chunk.

    Raises:
        MissingExtraError: zarr is not installed.
    """

    def __init__(self, layouts: Mapping[str, Layout], n_people: int, shard_size: int) -> None:
        zarr = import_zarr()
        self._bytes: dict[str, Any] = {}
        self._shard_size = shard_size
        group = zarr.create_group(zarr.storage.MemoryStore(self._bytes), zarr_format=3)
        self._arrays = {
            name: group.create_array(
                name,
                shape=(n_people, *layout.shape),
                chunks=(shard_size, *layout.shape),
                dtype="float32",
                fill_value=float("nan"),
                dimension_names=layout.dims,
                attributes=layout.attributes,
                # Without slashes a chunk is one file in a folder that is there already.
                chunk_key_encoding={"name": "default", "separator": "."},
                compressors=[zarr.codecs.ZstdCodec(level=LEVEL), zarr.codecs.Crc32cCodec()],
                # Chunks of NaN too: a chunk that is not there is a shard that is not done.
                config={"write_empty_chunks": True},
            )
            for name, layout in layouts.items()
        }

    def chunk(self, name: str, shard: int, rows: Float32) -> tuple[str, bytes]:
        """Path below the group, and bytes, of the chunk of a shard's people (rows, ...)."""
        start = shard * self._shard_size
        array = self._arrays[name]
        array[start : start + len(rows)] = rows
        key = chunk_path(name, shard, array.ndim)
        return key, self._bytes.pop(key).to_bytes()

    def metadata(self) -> Iterator[tuple[str, bytes]]:
        """Paths below the group, and bytes, of all that says what is in it; the group's last."""
        for key in sorted(self._bytes, reverse=True):
            yield key, self._bytes[key].to_bytes()


def chunk_path(name: str, shard: int, n_dims: int) -> str:
    """Path of a shard's chunk below the group."""
    return f"{name}/c.{shard}" + (n_dims - 1) * ".0"


def open_array(folder: Path, name: str) -> Any:
    """The Zarr array of this name in the group at ``folder``, for reading."""
    return import_zarr().open_array(folder / name, mode="r")


def import_zarr() -> Any:
    """The package zarr.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import zarr
        import zarr.codecs
        import zarr.storage
    except ImportError as error:
        raise MissingExtraError("zarr", "screen", "Arrays of a screening") from error
    return zarr
