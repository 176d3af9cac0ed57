"""The manifest of a run: what is run on whom, in which shards, and which shards are done.

::

    OUT/.dtwin/manifest.json          written once, by whoever starts first
    OUT/.dtwin/done/shard-00012.json  written last of a shard: with it the shard is done
    OUT/.dtwin/parts/                 tables of the shards
    OUT/arrays.zarr/                  a chunk of each array for each shard

A shard's results depend on the model, the people and the settings alone, so that a shard that is
done twice has the same bytes twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DTwinInputError
from ..files import naming, sync_folder, write_atomic
from ..prediction_files import DESCRIPTION_FILE
from ..twin import Twin
from .config import Config

FORMAT = 1
MODEL_FIELDS = ("model", "model_sha256", "model_config_sha256")


@dataclass(frozen=True)
class RunFolder:
    """Where the files of a run are.

    Attributes:
        out: the folder of results.
    """

    out: Path

    @property
    def state(self) -> Path:
        """All that is not a result."""
        return self.out / ".dtwin"

    @property
    def manifest(self) -> Path:
        """The manifest's file."""
        return self.state / "manifest.json"

    @property
    def arrays(self) -> Path:
        """The Zarr group."""
        return self.out / "arrays.zarr"

    @property
    def logs(self) -> Path:
        """Logs, which say nothing of people."""
        return self.out / "logs"

    def done(self, shard: int) -> Path:
        """The record of a shard that is done."""
        return self.state / "done" / f"shard-{shard:05d}.json"

    def part(self, shard: int, table: str) -> Path:
        """A shard's part of a table."""
        return self.state / "parts" / f"shard-{shard:05d}.{table}.parquet"

    def is_begun(self) -> bool:
        """Whether there are shards that are done, or results: else nothing to go on with."""
        if (self.out / DESCRIPTION_FILE).exists():
            return True
        try:
            with os.scandir(self.state / "done") as records:
                return any(record.name.startswith("shard-") for record in records)
        except FileNotFoundError:
            return False

    def clear(self) -> None:
        """Remove the manifest and files of a run without records; nobody may be working on it."""
        for files in (self.arrays, self.state / "parts"):
            if files.is_dir():
                shutil.rmtree(files)
        self.manifest.unlink(missing_ok=True)  # last: what is left without it is refused

    def make(self, arrays: Sequence[str]) -> None:
        """Make all folders, on the disk when it returns."""
        below = [self.state, self.state / "done", self.state / "parts", self.logs]
        below += [self.arrays, *(self.arrays / name for name in arrays)]
        for folder in below:
            folder.mkdir(parents=True, exist_ok=True)
        for folder in {self.out.parent, self.out, *below}:
            sync_folder(folder)

    def sweep(self) -> None:
        """Remove what killed writers left of unfinished files; nobody may be writing."""
        for litter in self.out.rglob(".*.part"):
            litter.unlink(missing_ok=True)


@dataclass(frozen=True)
class Manifest:
    """What a run is.

    Attributes:
        model, model_sha256, model_config_sha256: name of the twin, digest of its weights, and of
            all else that decides what it predicts (:func:`identity_of`).
        version: of this package.
        people: identity of the input (``People.identity``).
        config: settings.
        n_people: N.
        shard_size: people of a shard; the last one may have fewer.
    """

    model: str
    model_sha256: str
    model_config_sha256: str
    version: str
    people: dict[str, Any]
    config: Config
    n_people: int
    shard_size: int

    def of_model(self) -> dict[str, str]:
        """What it says of the model, as :func:`identity_of` does."""
        return {name: getattr(self, name) for name in MODEL_FIELDS}

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return -(-self.n_people // self.shard_size)

    def rows(self, shard: int) -> range:
        """Positions of a shard's people."""
        start = shard * self.shard_size
        return range(start, min(start + self.shard_size, self.n_people))

    def to_json(self) -> str:
        """The manifest's file."""
        values = vars(self) | {"format": FORMAT, "config": self.config.to_dict()}
        return json.dumps(values, indent=1, allow_nan=False) + "\n"

    @classmethod
    def read(cls, folder: RunFolder) -> Manifest:
        """The manifest of a folder.

        Raises:
            DTwinInputError: there is none (code ``results_incomplete``), or none that this
                version reads (``results_damaged``).
        """
        try:
            values = json.loads(folder.manifest.read_bytes())
            if values.pop("format") != FORMAT:
                raise ValueError(f"a format other than {FORMAT}")
            manifest = cls(**values | {"config": Config.from_dict(values["config"])})
            if not all(type(n) is int and n > 0 for n in (manifest.n_people, manifest.shard_size)):
                raise ValueError("sizes that are no numbers of people")
            return manifest
        except FileNotFoundError as error:
            raise _no_run(folder) from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise damaged(folder.manifest, "this is no manifest of a screening", error) from error


def identity_of(twin: Twin) -> dict[str, Any]:
    """Fields of a manifest that say which model a twin is."""
    config = json.dumps(twin.config(), sort_keys=True).encode()
    values = (twin.spec.name, twin.sha256, hashlib.sha256(config).hexdigest())
    return dict(zip(MODEL_FIELDS, values, strict=True))


def open_manifest(folder: RunFolder, wanted: Manifest) -> Manifest:
    """The folder's manifest, which is ``wanted`` where there was none.

    Of several that start at the same time one writes it, and all use that one. The shard size
    is that of the folder.

    Raises:
        DTwinInputError: the folder holds another model's run (code ``other_model``), another
            version's (``other_version``), one with other settings (``other_config``) or of
            other people (``input_changed``).
    """
    if not folder.manifest.exists():
        # A link, unlike a rename, fails where somebody else was first.
        draft = folder.manifest.with_name(f".{secrets.token_hex(8)}.part")
        try:
            with contextlib.suppress(FileExistsError), naming(folder.manifest):
                write_atomic(draft, wanted.to_json())
                os.link(draft, folder.manifest)
        finally:
            draft.unlink(missing_ok=True)
        sync_folder(folder.state)
    found = Manifest.read(folder)
    for code, what, here, there in (
        (
            "other_model",
            "this folder holds results of another model",
            *_differing(wanted.of_model(), found.of_model()),
        ),
        (
            "other_version",
            "this folder holds results of another version of dtwin_fast",
            wanted.version,
            found.version,
        ),
        (
            "other_config",
            "this folder holds results with other settings",
            *_differing(wanted.config.to_dict(), found.config.to_dict()),
        ),
        (
            "input_changed",
            "the input is not the one that this folder's run began with",
            *_differing(
                wanted.people | {"people": wanted.n_people},
                found.people | {"people": found.n_people},
            ),
        ),
    ):
        if here != there:
            raise DTwinInputError(
                code,
                what,
                field=str(folder.out),
                wanted=f"{here} (now)",
                got=f"{there} (in the folder)",
                fix="Name another folder, or run with what the folder's run began with",
            )
    return found


@dataclass(frozen=True)
class Done:
    """The record of a shard that is done.

    Attributes:
        shard: its number.
        people: how many have results.
        rejected: code -> how many were rejected for it.
        flags: kind -> how many are flagged.
        diverged: how many left the finite numbers.
        input_sha256: of the connectomes that were read.
        ran: backend and instruction set.
        files: path below the folder of results -> SHA-256.
    """

    shard: int
    people: int
    rejected: dict[str, int]
    flags: dict[str, int]
    diverged: int
    input_sha256: str
    ran: str
    files: dict[str, str]

    def write(self, folder: RunFolder) -> None:
        """Write the record; the files that it names are on the disk already."""
        text = json.dumps(vars(self), indent=1, allow_nan=False) + "\n"
        write_atomic(folder.done(self.shard), text)

    @classmethod
    def read(cls, folder: RunFolder, shard: int) -> Done:
        """The record of a shard.

        Raises:
            DTwinInputError: the shard is not done (code ``results_incomplete``), or the record
                is not one (``results_damaged``).
        """
        path = folder.done(shard)
        try:
            done = cls(**json.loads(path.read_bytes()))
        except FileNotFoundError as error:
            raise incomplete(folder, [shard]) from error
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise damaged(path, "this is no record of a shard", error) from error
        if done.shard != shard or not isinstance(done.files, dict):
            raise damaged(path, "this is no record of this shard", f"shard {done.shard}")
        return done


def missing_shards(folder: RunFolder, manifest: Manifest) -> list[int]:
    """Numbers of the shards that are not done."""
    try:
        names = set(os.listdir(folder.state / "done"))  # noqa: PTH208 - one call for 10^5 names
    except FileNotFoundError:
        names = set()
    return [k for k in range(manifest.n_shards) if folder.done(k).name not in names]


def read_verified(folder: RunFolder, done: Done, path: Path) -> bytes:
    """The bytes of a shard's file, which are those that were written.

    Raises:
        DTwinInputError: the file is missing or other bytes are in it (code ``results_damaged``).
    """
    name = path.relative_to(folder.out).as_posix()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise damaged(path, f"a file of shard {done.shard} cannot be read", error) from error
    if hashlib.sha256(data).hexdigest() != done.files.get(name):
        raise damaged(path, f"a file of shard {done.shard} is not as it was written", "other bytes")
    return data


def incomplete(folder: RunFolder, shards: Sequence[int]) -> DTwinInputError:
    """The error of results that lack shards."""
    some = ", ".join(map(str, shards[:10])) + (", ..." if len(shards) > 10 else "")
    return DTwinInputError(
        "results_incomplete",
        f"{len(shards)} shards of this run are not done",
        field=str(folder.out),
        wanted="all shards",
        got=f"without {some}",
        fix="Go on with the run: the same command with --resume, or the missing --shard",
    )


def damaged(path: Path, what: str, got: object) -> DTwinInputError:
    """The error of a file of results that is not as it was written."""
    return DTwinInputError(
        "results_damaged",
        what,
        field=str(path),
        got=got if isinstance(got, str) else f"{type(got).__name__}: {got}"[:200],
        fix="Remove the shard's record in .dtwin/done and go on with --resume, or run it anew",
    )


def _no_run(folder: RunFolder) -> DTwinInputError:
    return DTwinInputError(
        "results_incomplete",
        "this folder holds no screening",
        field=str(folder.out),
        wanted="a folder that dtwin screen writes",
        got=f"no {folder.manifest.relative_to(folder.out)}",
        fix="Name the folder of results",
    )


def _differing(here: dict[str, Any], there: dict[str, Any]) -> tuple[str, str]:
    """Both as text, of what differs alone."""
    keys = [key for key in here | there if here.get(key) != there.get(key)]
    return tuple(  # type: ignore[return-value]
        ", ".join(f"{key} {values.get(key)}" for key in keys) for values in (here, there)
    )
