"""What every reader is given besides its file, and how its failures become one error."""

from __future__ import annotations

import re
import struct
import tokenize
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from csv import Error as CsvError
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError
from zipfile import BadZipFile

import numpy.typing as npt

from ..connectome import BadSubjects, Connectomes
from ..connectome_checks import first_few
from ..errors import DTwinInputError

PARSER_ERRORS: tuple[type[Exception], ...] = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    OSError,
    EOFError,
    MemoryError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zlib.error,
    BadZipFile,
    CsvError,
    ExpatError,
)
"""What numpy, zipfile, zlib, nibabel and h5py were seen to raise on damaged files."""


@dataclass(frozen=True)
class Request:
    """The arguments of ``read_connectomes`` after checking.

    Attributes:
        regions: names for sources that have none, the wanted order for those that have.
        subjects: names in file order, or in the wanted order for sources with their own
            ids; None to take them from the source.
        atlas: label image and its table, for 4-D NIfTI.
        is_fisher_z, bad_subjects: as in ``Connectomes.from_arrays``.
    """

    regions: tuple[str, ...] | None
    subjects: tuple[str, ...] | None
    atlas: tuple[Path, Path] | None
    is_fisher_z: bool
    bad_subjects: BadSubjects

    def connectomes(
        self,
        path: Path,
        fc: npt.NDArray[Any],
        *,
        regions: tuple[str, ...] | None = None,
        subjects: tuple[str, ...] | None = None,
        ids: tuple[str, ...] | None = None,
        is_fisher_z: bool | None = None,
    ) -> Connectomes:
        """Checked connectomes of a file's arrays and, where it has them, its names.

        Args:
            subjects: what to call the subjects when nothing else names them.
            ids: the subjects' names inside the file, which ``self.subjects`` must repeat.
        """
        names = ids or subjects
        if self.subjects is not None:
            names = match_subjects(ids, self.subjects, field=path.name) if ids else self.subjects
        made = Connectomes.from_arrays(
            fc,
            regions=self.regions if regions is None else regions,
            subjects=names,
            is_fisher_z=self.is_fisher_z if is_fisher_z is None else is_fisher_z,
            bad_subjects=self.bad_subjects,
            field=path.name,
        )
        if self.subjects is not None:
            made = in_order(made, self.subjects)
        if regions is not None and self.regions is not None:
            return made.align(self.regions, bad_subjects=self.bad_subjects)
        return made


def match_subjects(ids: Sequence[str], wanted: Sequence[str], *, field: str) -> tuple[str, ...]:
    """The wanted names in the order of a source's own ids.

    ``01`` and ``sub-01`` are one subject, and so are ``NDAR_INV1`` and ``sub-NDARINV1``.

    Raises:
        DTwinInputError: not the same subjects (code ``subject_mismatch``).
    """
    named = {plain_id(name): name for name in wanted}
    own = [plain_id(name) for name in ids]
    if sorted(own) != sorted(map(plain_id, wanted)) or len(named) != len(own):
        raise DTwinInputError(
            "subject_mismatch",
            "the subjects named are not the subjects of the source",
            field=field,
            wanted=first_few([name for name in wanted if plain_id(name) not in own] or wanted),
            got=first_few([name for name in ids if plain_id(name) not in named] or ids),
            fix="Name every subject of the source once, in any order, as sub-<id> or <id>; "
            "or leave subjects= out",
        )
    return tuple(named[name] for name in own)


def in_order(made: Connectomes, subjects: Sequence[str]) -> Connectomes:
    """``made`` with its subjects in the order of names that include them all."""
    place = {name: position for position, name in enumerate(made.subjects)}
    order = [place[name] for name in subjects if name in place]
    return made if order == sorted(order) else made.select(order)


def plain_id(subject: str) -> str:
    """A subject's name without what different tables write differently."""
    return subject.removeprefix("sub-").replace("NDAR_INV", "NDARINV")


@contextmanager
def parsing(path: Path, *more_errors: type[Exception]) -> Iterator[None]:
    """Turn what a parser raises on a damaged file into one error (code ``unreadable``)."""
    try:
        yield
    except DTwinInputError:
        raise
    except (*PARSER_ERRORS, *more_errors) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else ""
        raise DTwinInputError(
            "unreadable",
            "this file is damaged or not in the format its name says",
            field=path.name,
            got=f"{type(error).__name__}: {reason}",
            fix="Export the file again, or rename it to the ending of its format",
        ) from error


def subject_of(path: Path) -> str:
    """BIDS subject of a file: ``sub-<id>`` in its name or folders, else the name's stem.

    Folders named ``NDAR_INV<id>`` count as ``sub-NDARINV<id>``, as the Transdiagnostic
    Connectome Project names its people in BIDS.
    """
    for part in reversed(path.parts):
        if found := re.search(r"(?:sub-)?NDAR_?INV([A-Za-z0-9]+)", part):
            return f"sub-NDARINV{found[1]}"
        if found := re.match(r"sub-[A-Za-z0-9]+", part):
            return found[0]
    return path.name.split(".")[0]


def entity_of(path: Path, entity: str) -> str:
    """``_<entity>-<value>`` of a BIDS file name, or empty text."""
    found = re.search(rf"_{entity}-[A-Za-z0-9]+", path.name)
    return found[0] if found else ""


def size_error(path: Path, wanted: str, got: str) -> DTwinInputError:
    """The bytes in the file are not those its header declares."""
    return DTwinInputError(
        "file_size",
        "the header declares other data than the file holds",
        field=path.name,
        wanted=wanted[:200],
        got=got,
        fix="Copy or export the file again; it is cut off or damaged",
    )
