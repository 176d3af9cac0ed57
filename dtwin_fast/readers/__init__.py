"""Readers: connectomes from files, one module per format.

To add a format, write ``read_x(path, request) -> Connectomes`` in a new module and add a
line to ``FORMATS``.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ..connectome import BadSubjects, Connectomes, stack
from ..connectome_checks import (
    FATAL_CODES,
    check_choice,
    check_cohort_size,
    check_regions,
    check_subjects,
)
from ..errors import DTwinInputError
from ..files import as_path
from .arrays import read_npy, read_npz
from .cifti import read_pconn, read_ptseries
from .nifti import read_nifti
from .relmat import read_relmat
from .request import Request, entity_of, in_order, match_subjects, plain_id, subject_of
from .tables import REGION_COLUMNS, SUBJECT_COLUMNS, read_names
from .tcp_hdf5 import read_tcp
from .timeseries import read_timeseries

Reader = Callable[[Path, Request], Connectomes]

FORMATS: dict[str, Reader] = {
    "_relmat.tsv": read_relmat,
    "_conmat.tsv": read_relmat,
    "_timeseries.tsv": read_timeseries,
    ".ptseries.nii": read_ptseries,
    ".pconn.nii": read_pconn,
    ".nii.gz": read_nifti,
    ".nii": read_nifti,
    ".npy": read_npy,
    ".npz": read_npz,
    ".tsv": read_relmat,
    ".csv": read_relmat,
    ".hdf5": read_tcp,
    ".h5": read_tcp,
}
"""File name ending -> reader; the first ending that fits decides."""

FOLDER_ENDINGS = (
    "_relmat.tsv",
    "_conmat.tsv",
    "_timeseries.tsv",
    ".ptseries.nii",
    ".pconn.nii",
    "_bold.nii.gz",
    "_bold.nii",
    ".npy",
    ".npz",
    ".hdf5",
    ".h5",
)
"""What counts as one subject's file inside a folder; other tables and images are left alone."""
MAX_FOLDER_FILES = 1_000_000


def read_connectomes(
    path: str | os.PathLike[str],
    *,
    regions: Sequence[str] | str | os.PathLike[str] | None = None,
    subjects: Sequence[str] | str | os.PathLike[str] | None = None,
    atlas: tuple[str | os.PathLike[str], str | os.PathLike[str]] | None = None,
    is_fisher_z: bool = False,
    bad_subjects: BadSubjects = "raise",
) -> Connectomes:
    """Connectomes of a file, or of all one-subject files in a folder and its subfolders.

    Args:
        path: a file whose ending is in ``FORMATS``, or a folder. A folder's files are
            taken in the order of their paths and aligned by region name to the first;
            subjects are named ``sub-<id>``, with session, task and run where that is not unique.
        regions: names, or a table with a column name, label, parcel, region or regions.
            They name the rows of sources without names, and reorder (by name) the others.
            ``PATH:COLUMN`` takes them from another column of a table.
        subjects: names, or a table with a column subject, participant_id or id, or
            ``PATH:COLUMN``. Where the source has ids (the array ``subjects`` of an npz,
            ``sub-<id>`` in the file names of a folder, or file names of a folder of which
            one is listed), these must be the same subjects, ``01`` and ``sub-01`` being
            one, and are put in the order given. Otherwise they name the rows of a file,
            or the files of a folder sorted by path, by position.
        atlas: (label image, table of label numbers and names), for 4-D NIfTI.
        is_fisher_z: the file holds Fisher z (connectomes made here from time series are
            Pearson r).
        bad_subjects: ``"raise"``, or ``"drop"`` bad subjects (in a folder also unreadable
            files) and list their errors in ``rejected``. Values that look like Fisher z
            without ``is_fisher_z`` are an error of the whole input under both.

    Raises:
        DTwinInputError: everything that can be wrong with the files; nothing is guessed.
            Other subjects than the source has: ``subject_mismatch``.
        MissingExtraError: nibabel, nilearn or h5py are needed and absent.
    """
    source, request = request_of(
        path,
        regions=regions,
        subjects=subjects,
        atlas=atlas,
        is_fisher_z=is_fisher_z,
        bad_subjects=bad_subjects,
    )
    if os.path.isdir(source):  # noqa: PTH112 - Path.is_dir raises on names the system refuses
        return _read_folder(source, request)
    return _reader_for(source)(source, request)


def request_of(
    path: str | os.PathLike[str],
    *,
    regions: Sequence[str] | str | os.PathLike[str] | None,
    subjects: Sequence[str] | str | os.PathLike[str] | None,
    atlas: tuple[str | os.PathLike[str], str | os.PathLike[str]] | None,
    is_fisher_z: bool,
    bad_subjects: BadSubjects,
) -> tuple[Path, Request]:
    """The path and the checked request of :func:`read_connectomes`' arguments."""
    check_choice("bad_subjects", bad_subjects, BadSubjects)
    source = as_path(path, field="path")
    region_names = _names_from(regions, "regions", REGION_COLUMNS)
    subject_names = _names_from(subjects, "subjects", SUBJECT_COLUMNS)
    return source, Request(
        regions=None if region_names is None else check_regions(region_names, field="regions"),
        subjects=None if subject_names is None else check_subjects(subject_names, field="subjects"),
        atlas=None if atlas is None else _atlas_paths(atlas),
        is_fisher_z=is_fisher_z,
        bad_subjects=bad_subjects,
    )


def _read_folder(folder: Path, request: Request) -> Connectomes:
    paths = _files_in(folder, with_images=request.atlas is not None)
    names = subjects_of(folder, ids_of(paths), request.subjects)
    parts: list[Connectomes] = []
    rejected: list[DTwinInputError] = []
    for path, name in zip(paths, names, strict=True):
        try:
            part = read_one(path, name, request)
            if parts and parts[0].regions is not None:
                part = part.align(parts[0].regions)
        except DTwinInputError as error:
            error.subject = name
            if request.bad_subjects == "raise" or error.code in FATAL_CODES:
                raise
            rejected.append(error)
            continue
        if not parts:
            check_cohort_size(len(paths), part.n_regions, field=str(folder))
        rejected.extend(part.rejected)
        parts.append(replace(part, rejected=()))
    if not parts:
        raise rejected[0]
    made = replace(stack(parts), rejected=tuple(rejected))
    return made if request.subjects is None else in_order(made, request.subjects)


def read_one(path: Path, name: str, request: Request) -> Connectomes:
    """The subject of one file under a name that may also tell its session, task and run."""
    own = subject_of(path)
    part = _reader_for(path)(path, replace(request, subjects=(own if _is_bids(own) else name,)))
    for error in part.rejected:
        error.subject = name
    return replace(part, subjects=(name,) * len(part))


def _files_in(folder: Path, *, with_images: bool) -> list[Path]:
    endings = folder_endings(with_images=with_images)
    paths: list[Path] = []
    for parent, folders, files in os.walk(folder, followlinks=False):
        folders.sort()
        paths.extend(Path(parent, name) for name in files if name.endswith(endings))
        if len(paths) > MAX_FOLDER_FILES:
            raise _folder_error(folder, f"more than {MAX_FOLDER_FILES:,}")
    if not paths:
        raise _folder_error(folder, "none")
    return sorted(paths)


def folder_endings(*, with_images: bool) -> tuple[str, ...]:
    """What counts as one subject's file; images do where there is an atlas."""
    return tuple(ending for ending in FOLDER_ENDINGS if with_images or "_bold" not in ending)


def subjects_of(folder: Path, own: Sequence[str], given: tuple[str, ...] | None) -> tuple[str, ...]:
    """One name for each file of a folder: its own, or the given name of the same subject.

    File names without ``sub-<id>`` are ids when a given name is among them; otherwise the
    given names are taken in the order of the paths.
    """
    if given is None:
        return check_subjects(own, field="file names")
    if any(map(_is_bids, own)) or {*map(plain_id, own)} & {*map(plain_id, given)}:
        return match_subjects(own, given, field=str(folder))
    if len(given) != len(own):
        raise DTwinInputError(
            "subject_count",
            "names and files do not match in number",
            field=str(folder),
            wanted=f"{len(own)} names",
            got=f"{len(given)}",
            fix="Give one name for each file, in the order of their paths",
        )
    return given


def _is_bids(subject: str) -> bool:
    return subject.startswith("sub-")


def ids_of(paths: Sequence[Path]) -> list[str]:
    """``sub-<id>`` of each file, with session, task and run where several files share it."""
    names = [subject_of(path) for path in paths]
    for entity in ("ses", "task", "run"):
        count = Counter(names)
        names = [
            name + entity_of(path, entity) if count[name] > 1 else name
            for path, name in zip(paths, names, strict=True)
        ]
    return names


def _reader_for(path: Path) -> Reader:
    for ending, reader in FORMATS.items():
        if path.name.endswith(ending):
            return reader
    raise DTwinInputError(
        "format",
        "no reader for this file name",
        field=path.name[:200],
        wanted=" | ".join(FORMATS),
        fix="Name the file after its format",
    )


def _names_from(
    names: Sequence[str] | str | os.PathLike[str] | None, field: str, columns: tuple[str, ...]
) -> Sequence[str] | None:
    if isinstance(names, (str, os.PathLike)):
        return read_names(as_path(names, field=field), columns, field)
    return names


def _atlas_paths(atlas: tuple[object, ...]) -> tuple[Path, Path]:
    if not isinstance(atlas, (tuple, list)) or len(atlas) != 2:
        raise DTwinInputError(
            "argument",
            "an atlas is two files",
            field="atlas",
            wanted="(label image, labels table)",
            got=type(atlas).__name__,
            fix="Give both paths",
        )
    return as_path(atlas[0], field="atlas image"), as_path(atlas[1], field="atlas table")


def _folder_error(folder: Path, got: str) -> DTwinInputError:
    return DTwinInputError(
        "folder_files",
        "this folder has no set of one-subject files",
        field=str(folder),
        wanted=" | ".join(FOLDER_ENDINGS),
        got=got,
        fix="Name a folder of such files, or one file; 4-D images also need atlas=",
    )
