"""A biobank in small: edges on disk -> weights -> contrasts, a chunk of subjects at a time.

The cohort is a file of random connectomes, the twin has the sizes of ``tcp434`` and random
parts; what is measured is the path, and memory does not grow with the cohort. The page cache
forgets the file before each pass, so that it is read from the disk. On tmpfs there is no disk:
the file is memory, and so is the disk limit. The row names the filesystem; TMPDIR chooses it.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..dispatch import rollout
from ..hypernetwork import Layer, layer_sizes, mish
from ..spec import PRESETS, TwinSpec
from ..tasks import TASKS
from ..twin import Twin
from ..weights import RNNWeights
from .limits import Limits
from .memory import growth
from .suite import Row, Say
from .threads import count_threads
from .timing import summarise
from .verify import MAX_REL_ERR

CASE = "ukb"
PRESET = "tcp434"
CHUNK = 64
"""Subjects in memory at once."""
PASSES = 3
"""Over the whole file; the median one counts."""
N_VERIFIED = 4

Float32 = npt.NDArray[np.float32]


def run_ukb(
    n_subjects: int, limits: Limits, *, say: Say, preset: str = PRESET
) -> tuple[list[Row], list[Row]]:
    """Verify the first subjects, then time PASSES over a temporary file of ``n_subjects``.

    Returns:
        One row, op ``stream``, with rates and the parts of the time and of the limits, and
        none left out; or none, and one left out because its contrasts were wrong.
    """
    who = {"case": CASE, "op": "stream", "impl": "dtwin-cpu"}
    spec = PRESETS[preset]
    twin = make_twin(spec)
    inputs, projection = _tasks(twin)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "edges.f32")
        kind = filesystem(path.parent)
        say(f"{CASE}: writing {n_subjects} subjects")
        write_edges(path, n_subjects, spec.n_edges)
        say(f"{CASE}: verifying")
        first = next(read_chunks(path, N_VERIFIED, spec.n_edges)).copy()
        error = _rel_err(twin, first, inputs, projection)
        if not error <= MAX_REL_ERR["float32"]:
            reason = f"relative error {error:.2e} of the contrasts: not timed"
            return [], [who | {"refused": True, "reason": reason}]
        disk_s = min(read_through(path, spec.n_edges) for _ in range(PASSES))
        say(f"{CASE}: timing")
        passes: list[dict[str, float]] = []

        def stream() -> None:
            passes.append(_stream(twin, path, inputs, projection))

        peak = growth(stream)
        for _ in range(PASSES - 1):
            stream()
    totals = [sum(parts.values()) for parts in passes]
    times = summarise(totals)
    median = times["median_s"]
    middle = passes[int(np.argsort(totals)[len(totals) // 2])]
    flop = n_subjects * (hyper_flop(spec) + _rollout_flop(spec, inputs, projection))
    n_bytes = 4 * n_subjects * spec.n_edges
    hyper_s = n_subjects * hyper_flop(spec) / limits.sgemm_flops
    row: Row = {
        "S": n_subjects,
        "rel_err": error,
        "verified_subjects": len(first),
        **times,
        "ratio_to_best_peer": None,
        "gflops": flop / median / 1e9,
        "percent_sgemm": 100 * flop / median / limits.sgemm_flops,
        "percent_w_hh_reads": None,
        "percent_copy": 100 * n_bytes / median / limits.copy_bytes_s,
        "peak_bytes": peak,
        "subjects_per_s": n_subjects / median,
        "edge_bytes_per_s": n_bytes / median,
        "filesystem": kind,
        # Were reading all there is to do, and were the hypernetwork one large product.
        "percent_of_disk_limit": 100 * disk_s / median,
        "percent_of_sgemm_limit": 100 * hyper_s / middle["personalize"],
    }
    shares = {f"percent_{part}": 100 * s / sum(middle.values()) for part, s in middle.items()}
    return [who | row | shares], []


def make_twin(spec: TwinSpec) -> Twin:
    """An untrained twin of these sizes with all tasks; contrast rows are random too."""
    rng = np.random.default_rng(0)

    def normal(*shape: int, scale: float) -> Float32:
        return np.float32(scale) * rng.standard_normal(shape, dtype=np.float32)

    # Hidden units of the hypernetwork come out near 0.2, so w_hh near 0.7 / sqrt(H): stable.
    sizes = layer_sizes(spec)
    scales = [1.0 for _ in sizes[:-1]] + [5 / np.sqrt(spec.n_hidden)]
    layers = tuple(
        Layer(normal(n_out, n_in, scale=scale / np.sqrt(n_in)), normal(n_out, scale=0.01))
        for (n_in, n_out), scale in zip(sizes, scales, strict=True)
    )
    schedules = {name: task.make_schedule(0) for name, task in TASKS.items()}
    contrasts = {name: tuple(task.contrasts) for name, task in TASKS.items()}
    return Twin(
        spec=spec,
        regions=tuple(f"region_{i:03d}" for i in range(spec.n_regions)),
        layers=layers,
        edge_mean=np.zeros(spec.n_edges, np.float32),
        edge_sd=np.ones(spec.n_edges, np.float32),
        bold_sd=np.ones(len(spec.bold_regions), np.float32),
        schedules=schedules,
        projections={
            name: normal(len(contrasts[name]), s.n_steps(spec.dt_s), scale=0.02)
            for name, s in schedules.items()
        },
        contrasts=contrasts,
    )


def hyper_flop(spec: TwinSpec) -> float:
    """Multiplications and additions of the hypernetwork for one subject."""
    return float(sum(2 * n_in * n_out for n_in, n_out in layer_sizes(spec)))


def write_edges(path: Path, n_subjects: int, n_edges: int, header: bytes = b"") -> None:
    """(S,E) float32 Pearson r, CHUNK subjects at a time, on the disk when it returns."""
    rng = np.random.default_rng(1)  # not the twin's, or edges would be its weights
    with path.open("wb") as file:
        file.write(header)
        for start in range(0, n_subjects, CHUNK):
            shape = (min(CHUNK, n_subjects - start), n_edges)
            file.write(np.tanh(0.3 * rng.standard_normal(shape, dtype=np.float32)).tobytes())
        file.flush()
        os.fsync(file.fileno())


def filesystem(folder: Path) -> str:
    """The type of the filesystem that a folder lies on, such as ext4 or tmpfs."""
    folder = folder.resolve()
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    # The longest one holds the folder, and of equal ones the last.
    holds = [(len(place), i, kind) for i, (place, kind) in enumerate(mounts)
             if folder.is_relative_to(place)]  # fmt: skip
    return max(holds)[2]


def read_chunks(path: Path, size: int, n_edges: int) -> Iterator[Float32]:
    """Edges of up to ``size`` subjects at a time, from the disk; one buffer for all of them."""
    buffer = np.empty((size, n_edges), np.float32)
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while n_bytes := _fill(file, buffer.data.cast("B")):
            yield buffer[: n_bytes // (4 * n_edges)]


def _fill(file: Any, view: memoryview) -> int:
    # A raw read may return less than was asked for.
    filled = 0
    while n_bytes := file.readinto(view[filled:]):
        filled += n_bytes
    return filled


def read_through(path: Path, n_edges: int) -> float:
    """Seconds of reading the file as the stream does, and nothing else."""
    start = time.perf_counter()
    for _ in read_chunks(path, CHUNK, n_edges):
        pass
    return time.perf_counter() - start


def _tasks(twin: Twin) -> tuple[Float32, Float32]:
    """(B,T,I) inputs of all tasks, and (B,K,T) of which each task's rows see its own sequence."""
    runs = [TASKS[name].encode(s, twin.spec.dt_s) for name, s in twin.schedules.items()]
    inputs = np.zeros((len(runs), max(map(len, runs)), twin.spec.n_inputs), np.float32)
    n_rows = max(map(len, twin.projections.values()))
    projection = np.zeros((len(runs), n_rows, inputs.shape[1]), np.float32)
    for b, (run, rows) in enumerate(zip(runs, twin.projections.values(), strict=True)):
        inputs[b, : len(run)] = run
        projection[b, : len(rows), : len(run)] = rows
    return inputs, projection


def _contrasts(
    twin: Twin, weights: RNNWeights, inputs: Float32, projection: Float32, **options: Any
) -> npt.NDArray[Any]:
    outputs = rollout(weights, inputs, time_projection=projection, **options).outputs
    return outputs[..., twin.spec.n_actions :]


def expect_contrasts(
    twin: Twin, edges: Float32, inputs: Float32, projection: Float32
) -> npt.NDArray[Any]:
    """(S,B,K,regions) contrasts by a float64 hypernetwork and rollout."""
    h = np.arctanh(edges.astype(np.float64))
    for i, layer in enumerate(twin.layers):
        h = (mish(h) if i else h) @ layer.weight.T.astype(np.float64) + layer.bias
    weights = RNNWeights.from_flat(h, twin.spec)
    return _contrasts(twin, weights, inputs, projection, backend="reference", precision="float64")


def _stream(twin: Twin, path: Path, inputs: Float32, projection: Float32) -> dict[str, float]:
    """Seconds of one pass, by what they went into."""
    spent = {"read": 0.0, "personalize": 0.0, "rollout": 0.0}
    last = time.perf_counter()

    def stop(part: str) -> None:
        nonlocal last
        now = time.perf_counter()
        spent[part] += now - last
        last = now

    for edges in read_chunks(path, CHUNK, twin.spec.n_edges):
        stop("read")
        weights = twin.personalize(edges)
        stop("personalize")
        _contrasts(twin, weights, inputs, projection, backend="cpu", n_threads=count_threads())
        stop("rollout")
    stop("read")  # finding the end of the file
    return spent


def _rel_err(twin: Twin, edges: Float32, inputs: Float32, projection: Float32) -> float:
    """Of contrasts against those in float64."""
    found = _contrasts(twin, twin.personalize(edges), inputs, projection, backend="cpu")
    wanted = expect_contrasts(twin, edges, inputs, projection)
    error: float = np.abs(found - wanted).max() / np.abs(wanted).max()
    return float(error)


def _rollout_flop(spec: TwinSpec, inputs: Float32, projection: Float32) -> float:
    n_sequences, n_steps, n_inputs = inputs.shape
    steps = n_steps * spec.n_hidden * (n_inputs + spec.n_hidden)
    read = projection.shape[1] * spec.n_hidden * (n_steps + spec.n_outputs)
    return float(2 * n_sequences * (steps + read))
