"""The job that is timed: a model folder, an array of people on disk, their contrasts."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from ...dispatch import rollout
from ...hypernetwork import generate_weights
from ...screening import Config, open_results, prepare, run
from ...screening.shard import contrast_rows
from ...spec import PRESETS
from ...twin import Twin
from ...weights import RNNWeights
from .. import ukb

Float32 = npt.NDArray[np.float32]

OUTPUTS = ("contrasts",)
N_VERIFIED = 4


@dataclass(frozen=True, eq=False)
class Job:
    """Files of N random people and an untrained twin of a preset's sizes; use :meth:`write`.

    Attributes:
        folder: for all files.
        twin: what the model folder holds.
        n_people: N.
        inputs: (B,T,I) of all tasks.
        projection: (B,K,T) rows that turn BOLD into contrasts.
    """

    folder: Path
    twin: Twin
    n_people: int
    inputs: Float32
    projection: Float32
    _numbers: count[int] = field(default_factory=count)

    @classmethod
    def write(cls, folder: Path, preset: str, n_people: int) -> Job:
        """The same ones always."""
        twin = ukb.make_twin(PRESETS[preset]).save(folder / "model")
        config = Config.of_twin(twin, outputs=OUTPUTS)
        inputs, projection = twin.encode(config.tasks), contrast_rows(twin, config)
        job = cls(folder, twin, n_people, inputs, projection)
        write_people(job.edges, n_people, twin.spec.n_edges)
        job.regions.write_text("\n".join(twin.regions), "utf-8")
        return job

    @property
    def model(self) -> Path:
        """The model folder."""
        return self.folder / "model"

    @property
    def edges(self) -> Path:
        """(N,E) float32 Pearson r, an .npy file."""
        return self.folder / "edges.npy"

    @property
    def regions(self) -> Path:
        """Names of the regions, a line each."""
        return self.folder / "regions.txt"

    def new_path(self) -> Path:
        """Where nothing is yet."""
        return self.folder / f"out-{next(self._numbers)}"

    def screen(self, shard_size: int | None = None) -> Path:
        """The whole job by the product, from the files to a folder of results."""
        forget(self.edges)
        out = self.new_path()
        people = {"path": self.edges, "regions": self.regions}
        run(prepare(self.model, people, out, outputs=OUTPUTS, shard_size=shard_size))
        return out

    def hyper_input(self) -> Float32:
        """(N,E) what the hypernetwork reads, in memory."""
        edges = np.load(self.edges, allow_pickle=False)
        return self.twin.hyper_input(self.twin.prepare(edges), "reject")

    def compute(self, x: Float32, shard_size: int) -> Float32:
        """(N,B,K,O) by the kernels alone, from memory, in the chunks of a screening."""
        found = []
        for start in range(0, len(x), shard_size):
            shard = x[start : start + shard_size]
            for part in self.twin.chunks(len(shard), self.projection.shape[:2]):
                flat = generate_weights(self.twin.layers, shard[part])
                weights = RNNWeights.from_flat(flat, self.twin.spec)
                found.append(rollout(weights, self.inputs, time_projection=self.projection).outputs)
        return np.concatenate(found)

    def contrasts(self, outputs: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """(N,contrasts,regions) of projected outputs (N,B,K,O), or of BOLD alone."""
        bold = outputs[..., -len(self.twin.spec.bold_regions) :]
        names = self.twin.contrasts.values()
        return np.concatenate([bold[:, b, : len(each)] for b, each in enumerate(names)], axis=1)

    @property
    def verified(self) -> list[int]:
        """Rows of the people who are compared with float64: the first and the last ones."""
        n = min(N_VERIFIED, self.n_people)
        return [*range(n - n // 2), *range(self.n_people - n // 2, self.n_people)]

    @cached_property
    def expected(self) -> npt.NDArray[np.floating]:
        """(verified,contrasts,regions) in float64."""
        edges = np.load(self.edges, mmap_mode="r", allow_pickle=False)[self.verified]
        found = ukb.expect_contrasts(self.twin, edges, self.inputs, self.projection)
        return self.contrasts(found)

    def error(self, contrasts: npt.NDArray[np.floating]) -> float:
        """Largest error of the verified people's contrasts, in units of the largest one."""
        wanted = self.expected
        return float(np.abs(contrasts[self.verified] - wanted).max() / np.abs(wanted).max())


def read_contrasts(out: Path) -> Float32:
    """(N,contrasts,regions) of a folder of results."""
    return open_results(out).array("contrasts")


def write_people(path: Path, n_people: int, n_edges: int) -> None:
    """An .npy file of (N,E) float32 Pearson r, on the disk when it returns."""
    header = io.BytesIO()
    write_header(header, n_people, n_edges)
    ukb.write_edges(path, n_people, n_edges, header.getvalue())


def write_header(file: BinaryIO, n_people: int, n_edges: int) -> None:
    """The header of such a file."""
    layout = {"descr": "<f4", "fortran_order": False, "shape": (n_people, n_edges)}
    np.lib.format.write_array_header_1_0(file, layout)


def forget(path: Path) -> None:
    """Let the page cache forget a file, so that it is read from the disk."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
