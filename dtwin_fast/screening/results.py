"""The results of a run, once all its shards are done.

::

    dataset_description.json  provenance, and the digests of the tables; written last
    scores.parquet            a row for each person with results, in the order of the input
    rejected.parquet          people without results: code, reason and the way out
    scores.json, rejected.json  what the columns are
    arrays.zarr/              Zarr v3, axis 0 is the person; NaN for those without results
    .bidsignore, logs/, .dtwin/

The bytes of every result depend on the model, the people and the settings alone, and on the
instruction set that ran.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DTwinInputError
from ..files import as_path, write_atomic
from ..interventions import find_target
from ..interventions.effect import improvement
from ..prediction_files import DESCRIPTION_FILE, NOTICE, write_json
from ..twin import Twin
from .arrays import ZarrGroup, chunk_path, layouts, open_array
from .manifest import Done, Manifest, RunFolder, damaged, incomplete, missing_shards, read_verified
from .parquet import SCORES, decode, import_pyarrow, write_joined

Float32 = npt.NDArray[np.float32]

TABLES = ("scores", "rejected")
IGNORED = "scores.*\nrejected.*\narrays.zarr\nlogs\n"
"""What is not BIDS: .bidsignore."""

TARGET_UNIT = "target"
DESCRIPTIONS = {
    "row": ("position in the input, and on axis 0 of the arrays", ""),
    "participant_id": ("BIDS label of the person", ""),
    "session_id": ("BIDS label of the session, where names in the input say it", ""),
    "source_id": ("name in the input", ""),
    "flags": ("what was done to the input and what is unusual in it, with commas between", ""),
    "diverged": ("whether the simulation left the finite numbers", ""),
    "p_correct": ("probability of the correct action, mean over the condition's trials", "1"),
    "p_no_response": ("probability of no response, mean over the condition's trials", "1"),
    "rt_s": ("reaction time given a response, mean over the condition's trials", "s"),
    "deviation": (
        "root mean square over edges of the distance from the training cohort's mean",
        "SD of the training cohort",
    ),
    "beyond_share": ("share of edges beyond 3 SDs of the training cohort", "1"),
    "min_eigenvalue": ("smallest eigenvalue of the connectome", "1"),
    "pre": ("target of the intervention before it", TARGET_UNIT),
    "post": ("target of the intervention after it", TARGET_UNIT),
    "change_norm": ("size of the change of the connectome", "Fisher z"),
    "effect": ("improvement of the target", "SD over people before"),
    "code": ("why the person was rejected: name of the error", ""),
    "reason": ("why the person was rejected, in words", ""),
    "fix": ("the way out", ""),
    "wanted": ("what was expected", ""),
    "got": ("what was found, but no number of a connectome", ""),
}
"""Column, or the end of its name -> what it is, and its unit."""


@dataclass(frozen=True)
class Summary:
    """What came of a run.

    Attributes:
        complete: whether it is of everybody; else of a part, while others are not done.
        people: how many have results.
        rejected: code -> how many were rejected for it.
        flags: kind -> how many are flagged.
        diverged: how many left the finite numbers.
        ran: backends and instruction sets; of several, people differ in their last digits.
        scores: column -> mean and SD over people, None where there is none.
    """

    complete: bool
    people: int
    rejected: dict[str, int]
    flags: dict[str, int]
    diverged: int
    ran: tuple[str, ...]
    scores: dict[str, tuple[float | None, float | None]]


def merge(folder: RunFolder, manifest: Manifest, twin: Twin) -> Summary:
    """Make the results of a run whose shards are all done; nobody else may be writing.

    Every file of every shard is read, and must be as it was written.

    Raises:
        DTwinInputError: shards that are not done (code ``results_incomplete``), or files that
            are not as they were written (``results_damaged``).
    """
    if missing := missing_shards(folder, manifest):
        raise incomplete(folder, missing)
    description = folder.out / DESCRIPTION_FILE
    description.unlink(missing_ok=True)
    folder.sweep()
    shards = [Done.read(folder, shard) for shard in range(manifest.n_shards)]
    arrays = layouts(twin, manifest.config)
    for name, layout in arrays.items():
        for done in shards:
            path = folder.arrays / chunk_path(name, done.shard, 1 + len(layout.shape))
            read_verified(folder, done, path)
    tables = {table: folder.out / f"{table}.parquet" for table in TABLES}
    write_joined(tables["scores"], _scores(folder, manifest, shards))
    write_joined(tables["rejected"], _parts(folder, shards, "rejected"))
    for path in tables.values():
        names = _column_names(path)
        write_json(path.with_suffix(".json"), {name: _describe(name, manifest) for name in names})
    write_atomic(folder.out / ".bidsignore", IGNORED)
    for key, data in ZarrGroup(arrays, manifest.n_people, manifest.shard_size).metadata():
        write_atomic(folder.arrays / key, data)
    write_json(
        description,
        {
            "Name": "dtwin_fast screening",
            "BIDSVersion": "1.10.0",
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "dtwin_fast", "Version": manifest.version}],
            "Notice": NOTICE,
            "Provenance": {
                "model": manifest.model,
                "model_sha256": manifest.model_sha256,
                "model_config_sha256": manifest.model_config_sha256,
                "dtwin_fast": manifest.version,
                "training_seed": twin.training.get("seed"),
                "settings": manifest.config.to_dict(),
                "ran": _ran(shards),
                "shard_size": manifest.shard_size,
                "input_sha256": _sha256(*(done.input_sha256.encode() for done in shards)),
            },
            "Subjects": sum(done.people for done in shards),
            "Rejected": sum(sum(done.rejected.values()) for done in shards),
            "Diverged": sum(done.diverged for done in shards),
            "Arrays": list(arrays),
            "SHA256": {path.name: _file_sha256(path) for path in tables.values()},
        },
    )
    return summarise(shards, tables["scores"])


@dataclass(frozen=True)
class Results:
    """The results of a screening on disk; use :func:`open_results`.

    Attributes:
        folder: where they are.
        manifest: of the run.
        description: dataset_description.json.
    """

    folder: RunFolder
    manifest: Manifest
    description: dict[str, Any]

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the arrays."""
        return tuple(self.description["Arrays"])

    def scores(self) -> Any:
        """The ``pyarrow.Table`` of people with results."""
        return self._table("scores.parquet")

    def rejected(self) -> Any:
        """The ``pyarrow.Table`` of the others."""
        return self._table("rejected.parquet")

    def array(self, name: str, start: int = 0, stop: int | None = None) -> Float32:
        """Rows ``start`` to ``stop - 1`` of an array, people in the order of the input.

        Raises:
            DTwinInputError: no such array (code ``argument``), or a chunk that is missing or not
                as it was written (``results_damaged``).
        """
        if name not in self.arrays:
            raise DTwinInputError(
                "argument",
                "these results have no such array",
                field="name",
                wanted=" | ".join(self.arrays) or "none",
                got=repr(name)[:80],
                fix="Name one of these",
            )
        try:
            array = open_array(self.folder.arrays, name)
        except (OSError, ValueError, KeyError, TypeError) as error:
            path = self.folder.arrays / name
            raise damaged(path, "the metadata of this array cannot be read", error) from error
        start, stop, _ = slice(start, stop).indices(self.manifest.n_people)
        size = self.manifest.shard_size
        for shard in range(start // size, -(-stop // size)):
            path = self.folder.arrays / chunk_path(name, shard, array.ndim)
            read_verified(self.folder, Done.read(self.folder, shard), path)
        rows: Float32 = array[start:stop]
        return rows

    def _table(self, name: str) -> Any:
        path = self.folder.out / name
        try:
            data = path.read_bytes()
        except OSError as error:
            raise damaged(path, "this table cannot be read", error) from error
        if _sha256(data) != self.description["SHA256"][name]:
            raise damaged(path, "this table is not as it was written", "other bytes")
        return decode(data)


def open_results(folder: str | Path) -> Results:
    """The results of a screening.

    What is read of them is compared with the digests that the run wrote down; a chunk of an
    array that is not there is an error, never NaN or zeros.

    Raises:
        DTwinInputError: no screening, or one that is not finished (code ``results_incomplete``),
            or files that are not as they were written (``results_damaged``).
    """
    run = RunFolder(as_path(folder, field="folder"))
    manifest = Manifest.read(run)
    if missing := missing_shards(run, manifest):
        raise incomplete(run, missing)
    path = run.out / DESCRIPTION_FILE
    try:
        description = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DTwinInputError(
            "results_incomplete",
            "the shards of this run are done, but its results were not put together",
            field=str(run.out),
            wanted=DESCRIPTION_FILE,
            got="none",
            fix="Run the same command with --resume",
        ) from error
    except (OSError, ValueError) as error:
        raise damaged(path, "this is not the description of a screening", error) from error
    return Results(run, manifest, description)


def summarise(shards: Sequence[Done], scores: Path | None = None) -> Summary:
    """Counts of these shards, and means over all people of a table of scores if there is one."""
    rejected, flags = Counter[str](), Counter[str]()
    for done in shards:
        rejected.update(done.rejected)
        flags.update(done.flags)
    return Summary(
        complete=scores is not None,
        people=sum(done.people for done in shards),
        rejected=dict(rejected.most_common()),
        flags=dict(flags.most_common()),
        diverged=sum(done.diverged for done in shards),
        ran=tuple(_ran(shards)),
        scores={} if scores is None else dict(_moments(scores)),
    )


def _ran(shards: Sequence[Done]) -> list[str]:
    return sorted({done.ran for done in shards} - {""})


def _parts(folder: RunFolder, shards: Sequence[Done], table: str) -> Iterator[Any]:
    for done in shards:
        yield decode(read_verified(folder, done, folder.part(done.shard, table)))


def _scores(folder: RunFolder, manifest: Manifest, shards: Sequence[Done]) -> Iterator[Any]:
    """Parts of the table of scores, with what only everybody together has: effect sizes."""
    change = manifest.config.change
    if change is None:
        yield from _parts(folder, shards, "scores")
        return
    pre, post = (
        np.concatenate([part[name].to_numpy() for part in _parts(folder, shards, "scores")])
        for name in ("pre", "post")
    )
    effect = np.full(len(pre), np.nan)
    known = np.isfinite(pre) & np.isfinite(post)
    if known.any():
        effect[known] = improvement(pre[known], post[known], find_target(change.target).goal)
    pa, _ = import_pyarrow()
    start = 0
    for part in _parts(folder, shards, "scores"):
        yield part.append_column("effect", pa.array(effect[start : start + len(part)]))
        start += len(part)


def _moments(path: Path) -> Iterator[tuple[str, tuple[float | None, float | None]]]:
    """Mean and SD of each column of numbers, one in memory at a time."""
    _, pq = import_pyarrow()
    with pq.ParquetFile(path) as file:
        for name in file.schema_arrow.names:
            if name not in SCORES:
                values = file.read([name])[name].to_numpy()
                values = values[np.isfinite(values)]
                yield (
                    name,
                    (
                        float(values.mean()) if len(values) else None,
                        float(values.std(ddof=1)) if len(values) > 1 else None,
                    ),
                )


def _column_names(path: Path) -> list[str]:
    _, pq = import_pyarrow()
    return list(pq.read_schema(path).names)


def _describe(column: str, manifest: Manifest) -> dict[str, str]:
    """An entry of a sidecar."""
    text, unit = next(
        entry for end, entry in DESCRIPTIONS.items() if f"_{column}".endswith(f"_{end}")
    )
    change = manifest.config.change
    if unit == TARGET_UNIT and change is not None:
        unit, text = find_target(change.target).unit, f"{text}: {change.target}"
    return {"Description": text, **({"Units": unit} if unit else {})}


def _sha256(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
