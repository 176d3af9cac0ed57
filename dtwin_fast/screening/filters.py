"""Which files of a folder are meant: BIDS entities in file names, and values asked of them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..connectome_checks import first_few
from ..errors import DTwinInputError
from ..files import as_path, check_regular_file
from ..readers.request import parsing, plain_id

ENTITIES = {
    "subject": "sub",
    "session": "ses",
    "task": "task",
    "acquisition": "acq",
    "run": "run",
    "space": "space",
    "resolution": "res",
    "atlas": "seg",
    "segmentation": "seg",
    "measure": "meas",
    "statistic": "stat",
    "description": "desc",
    "suffix": "suffix",
}
"""Long name -> the key in file names; BIDS once wrote ``atlas-`` for ``seg-``."""
KEYS = tuple(dict.fromkeys(ENTITIES.values()))
MAX_FILTER_BYTES = 2**20


@dataclass(frozen=True)
class Filters:
    """Values that entities of a file's name must have; those not named may be anything.

    Attributes:
        wanted: key of ``KEYS`` -> the values that will do, None standing for "not there".
    """

    wanted: Mapping[str, tuple[str | None, ...]]

    @classmethod
    def of(
        cls,
        *,
        participants: Sequence[str] = (),
        sessions: Sequence[str] = (),
        tasks: Sequence[str] = (),
        runs: Sequence[str] = (),
        atlases: Sequence[str] = (),
        file: str | os.PathLike[str] | None = None,
    ) -> Filters:
        """Filters of labels and of a BIDS filter file; where both name an entity, labels hold.

        Args:
            participants, sessions, tasks, runs, atlases: labels as ``01`` or ``sub-01``; an
                empty list asks for nothing.
            file: JSON such as ``{"suffix": "relmat", "session": ["01", "02"]}``, or the
                same one level down, ``{"fc": {...}}``. ``null``: the name has no such
                entity; ``"*"``: it may be anything.

        Raises:
            DTwinInputError: labels that are no text, a file that is no such JSON, entities
                that are not known (code ``filters``).
        """
        wanted = {} if file is None else _read(file)
        labels = {"sub": participants, "ses": sessions, "task": tasks, "run": runs, "seg": atlases}
        for key, values in labels.items():
            if isinstance(values, str) or not all(isinstance(v, str) and v for v in values):
                raise _error(key, "labels are a list of text", str(values)[:100])
            if values:
                wanted[key] = tuple(_plain(key, value) for value in values)
        return cls(wanted)

    def take(self, entities: Mapping[str, str]) -> bool:
        """Whether the file of these entities is meant."""
        for key, values in self.wanted.items():
            value = entities.get(key)
            if (None if value is None else _plain(key, value)) not in values:
                return False
        return True

    def check_participants(self, subjects: Sequence[str]) -> None:
        """Refuse participants who have no file at all (code ``filters``)."""
        present = {plain_id(subject) for subject in subjects}
        asked = [label for label in self.wanted.get("sub", ()) if label is not None]
        if absent := [label for label in asked if label not in present]:
            raise _error("participants", "there is no file of these people", first_few(absent))


def entities_of(name: str) -> dict[str, str]:
    """The ``KEYS`` in a BIDS file name and their values."""
    *parts, suffix = name.split(".", 1)[0].split("_")
    entities = dict(part.split("-", 1) for part in [*parts, suffix] if "-" in part)
    if "atlas" in entities:
        entities.setdefault("seg", entities["atlas"])
    if "-" not in suffix:
        entities["suffix"] = suffix
    return {key: value for key, value in entities.items() if key in KEYS}


def _plain(key: str, label: str) -> str:
    """A label without what different tables write differently: ``sub-01``, ``run-1``."""
    if key == "sub":
        return plain_id(label)
    plain = label.removeprefix(f"{key}-")
    return (plain.lstrip("0") or "0") if key == "run" else plain


def _read(file: str | os.PathLike[str]) -> dict[str, tuple[str | None, ...]]:
    path = as_path(file, field="filter file")
    check_regular_file(path, field=path.name, max_bytes=MAX_FILTER_BYTES)
    with parsing(path, RecursionError):
        asked = json.loads(path.read_bytes())
    if isinstance(asked, dict) and len(asked) == 1:
        inner = next(iter(asked.values()))
        asked = inner if isinstance(inner, dict) else asked
    if not isinstance(asked, dict):
        raise _error(path.name, "this is no object of entities", type(asked).__name__)
    wanted: dict[str, tuple[str | None, ...]] = {}
    for name, value in asked.items():
        key = ENTITIES.get(name, name)
        if key not in KEYS:
            raise _error(path.name, "there is no such entity", str(name)[:60])
        values = value if isinstance(value, list) else [value]
        if values != ["*"]:
            wanted[key] = tuple(_value(path.name, key, one) for one in values)
    return wanted


def _value(field: str, key: str, value: Any) -> str | None:
    if value is None:
        return None
    if type(value) not in (str, int) or value == "":
        raise _error(field, f"this is no value of {key}", str(value)[:60])
    return _plain(key, str(value))


def _error(field: str, what: str, got: str) -> DTwinInputError:
    return DTwinInputError(
        "filters",
        what,
        field=field,
        wanted=" | ".join(ENTITIES),
        got=got,
        fix="Name labels and entities as the file names have them",
    )
