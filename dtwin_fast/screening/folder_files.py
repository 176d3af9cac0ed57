"""People of one-subject files: each file is opened when its range is read."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..connectome import Connectomes, stack
from ..connectome_checks import FATAL_CODES, check_cohort_size, check_subjects, name_subjects
from ..errors import DTwinInputError
from ..files import check_regular_file
from ..readers import FOLDER_ENDINGS, folder_endings, ids_of, read_one, subjects_of
from ..readers.request import Request, subject_of
from .filters import KEYS, Filters, entities_of
from .index import IndexedFile, IndexProgress, files_digest, index_folder
from .input_checks import Stamp, check_range, check_unchanged, names_digest, stamp_of

N_FIRST = 100
"""Files tried for the first connectome, to whose regions all others are aligned."""


class FolderPeople:
    """One person per file; attributes and ``read`` are those of ``people.People``.

    ``unnamed`` are the positions of files whose name cannot be a subject's: they are rejected.
    """

    def __init__(
        self,
        folder: Path,
        files: Sequence[IndexedFile],
        subjects: tuple[str, ...],
        request: Request,
        unnamed: frozenset[int] = frozenset(),
    ) -> None:
        self._folder = folder
        self._files = files
        self._request = replace(request, bad_subjects="raise", subjects=None)
        self._unnamed = unnamed
        self.subjects = subjects
        first = self._first()
        self.regions = first.regions
        self.n_regions = first.n_regions
        self.is_fisher_z = first.is_fisher_z
        self._nobody = first.select([])
        self.identity: dict[str, Any] = {
            "kind": "files",
            "name": folder.name,
            "files": len(files),
            "bytes": sum(max(file.size, 0) for file in files),
            "files_sha256": files_digest(files),
            "is_fisher_z": self.is_fisher_z,
            "subjects_sha256": names_digest(subjects),
            "regions_sha256": names_digest(self.regions or ()),
        }
        if request.atlas is not None:
            self.identity["atlas"] = [_file_identity(path) for path in request.atlas]

    def read(self, start: int, stop: int) -> Connectomes:
        check_range(start, stop, len(self.subjects), field=self._folder.name)
        check_cohort_size(stop - start, self.n_regions, field=self._folder.name)
        parts = [self._nobody]
        rejected: list[DTwinInputError] = []
        for position in range(start, stop):
            try:
                parts.append(self._aligned(self._person(position)))
            except DTwinInputError as error:
                error.subject = self.subjects[position]
                if error.code in FATAL_CODES:
                    raise
                rejected.append(error)
        return replace(stack(parts), rejected=tuple(rejected))

    def _first(self) -> Connectomes:
        """The first connectome that can be read, or the first file's error."""
        errors: list[DTwinInputError] = []
        for position in range(min(N_FIRST, len(self._files))):
            try:
                return self._person(position)
            except DTwinInputError as error:
                error.subject = self.subjects[position]
                if error.code in FATAL_CODES:
                    raise
                errors.append(error)
        raise errors[0]

    def _person(self, position: int) -> Connectomes:
        file = self._files[position]
        path, seen = self._folder / file.path, Stamp(file.size, file.mtime_ns)
        if position in self._unnamed:
            check_subjects([subject_of(path)], field="file names")
        check_regular_file(path, field=path.name)
        check_unchanged(path, seen)
        person = read_one(path, self.subjects[position], self._request)
        check_unchanged(path, seen)
        return person

    def _aligned(self, person: Connectomes) -> Connectomes:
        if self.regions is not None:
            return person.align(self.regions)
        if person.regions is not None or person.n_regions != self.n_regions:
            raise DTwinInputError(
                "region_count",
                "this file does not have the regions of the first one",
                field=self._folder.name,
                wanted=f"{self.n_regions} unnamed regions",
                got=f"{person.n_regions} {'unnamed' if person.regions is None else 'named'} ones",
                fix="Give every file the same named regions",
            )
        return person


def open_file(path: Path, request: Request) -> FolderPeople:
    """The person of one file."""
    check_regular_file(path, field=path.name)
    file = IndexedFile(path.name, *stamp_of(path.stat()))
    names = name_subjects(request.subjects or [subject_of(path)], 1)
    return FolderPeople(path.parent, [file], names, request)


def open_folder(
    folder: Path,
    request: Request,
    *,
    filters: Filters | None = None,
    index_cache: Path | None = None,
    progress: IndexProgress | None = None,
) -> FolderPeople:
    """The people of a folder's files; the first readable one tells the regions.

    Raises:
        DTwinInputError: as :func:`index.index_folder`; no file that ``filters`` take
            (``folder_files``, ``filters``), several files of a subject
            (``subject_duplicate``), other names than the files have; the first file's
            error where none of the first ``N_FIRST`` can be read.
    """
    endings = folder_endings(with_images=request.atlas is not None)
    files = index_folder(folder, cache=index_cache, progress=progress)
    files = [file for file in files if file.path.endswith(endings)]
    if filters is not None:
        files = _chosen(folder, files, filters)
    if not files:
        raise DTwinInputError(
            "folder_files",
            "this folder has no such one-subject files",
            field=str(folder),
            wanted=" | ".join(FOLDER_ENDINGS),
            got="none",
            fix="Name a folder of such files, or other filters; 4-D images also need atlas=",
        )
    own = ids_of([folder / file.path for file in files])
    unnamed: frozenset[int] = frozenset()
    if request.subjects is None:
        unnamed = frozenset(i for i, name in enumerate(own) if not _is_usable(name))
        for position in unnamed:
            path = os.fsencode(files[position].path)
            own[position] = f"file-{hashlib.sha256(path).hexdigest()[:12]}"
    try:
        names = subjects_of(folder, own, request.subjects)
    except DTwinInputError as error:
        if error.code == "subject_duplicate":
            error.fix = _how_to_choose(files, own)
        raise
    return FolderPeople(folder, files, names, request, unnamed)


def _chosen(folder: Path, files: Sequence[IndexedFile], filters: Filters) -> list[IndexedFile]:
    subjects = [subject_of(folder / file.path) for file in files]
    filters.check_participants(subjects)
    chosen = []
    for file, subject in zip(files, subjects, strict=True):
        entities = entities_of(file.path.rpartition("/")[2])
        if filters.take({**entities, "sub": subject}):
            chosen.append(file)
    return chosen


def _is_usable(name: str) -> bool:
    try:
        check_subjects([name], field="file names")
    except DTwinInputError:
        return False
    return True


def _how_to_choose(files: Sequence[IndexedFile], own: Sequence[str]) -> str:
    """What tells the files of the first subject who has several apart."""
    repeated = next(name for name, count in Counter(own).items() if count > 1)
    several = [file for file, name in zip(files, own, strict=True) if name == repeated]
    found = [entities_of(file.path.rpartition("/")[2]) for file in several]
    differing = {key: {e.get(key, "none") for e in found} for key in KEYS}
    texts = [f"{key} is {' | '.join(sorted(v))}" for key, v in differing.items() if len(v) > 1]
    if not texts:
        return "Keep one file of every subject"
    return f"Choose one file of every subject with filters: {'; '.join(texts)[:400]}"


def _file_identity(path: Path) -> dict[str, Any]:
    info = path.stat()
    return {"name": path.name, "bytes": info.st_size, "mtime_ns": info.st_mtime_ns}
