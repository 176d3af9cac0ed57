"""The people of a screening: who they are, and the connectomes of any range of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from ..cohort_files import COHORT_FILE
from ..connectome import Connectomes
from ..errors import DTwinInputError
from ..files import as_path
from ..readers import request_of
from .array_files import is_array, open_array, open_cohort
from .filters import Filters
from .folder_files import open_file, open_folder
from .index import IndexProgress


class People(Protocol):
    """N people, read by range and never as a whole.

    Attributes:
        subjects: N unique names, in the order of the positions that ``read`` takes.
        regions: R names that every range has, or None where the source has none.
        n_regions: R.
        is_fisher_z: the unit of every range's edges.
        identity: what the input is, for JSON: a run goes on only with the same one.
    """

    @property
    def subjects(self) -> Sequence[str]: ...
    @property
    def regions(self) -> tuple[str, ...] | None: ...
    @property
    def n_regions(self) -> int: ...
    @property
    def is_fisher_z(self) -> bool: ...
    @property
    def identity(self) -> dict[str, Any]: ...

    def read(self, start: int, stop: int) -> Connectomes:
        """Connectomes of the people at positions ``start`` to ``stop - 1``, in that order.

        People whose data cannot be used are in ``rejected``, each error with its ``subject``,
        and change no bit of the others. Threads may read ranges at the same time.

        Raises:
            DTwinInputError: no such range (``subject_index``); mistakes of the whole input,
                such as Fisher z announced as r (``fisher_z_as_r``); an input that is not
                the one that was opened (``input_changed``).
        """
        ...


def open_people(
    path: str | os.PathLike[str],
    *,
    regions: Sequence[str] | str | os.PathLike[str] | None = None,
    subjects: Sequence[str] | str | os.PathLike[str] | None = None,
    is_fisher_z: bool = False,
    atlas: tuple[str | os.PathLike[str], str | os.PathLike[str]] | None = None,
    filters: Filters | None = None,
    index_cache: str | os.PathLike[str] | None = None,
    progress: IndexProgress | None = None,
) -> People:
    """The people of an array, of a file or of a folder; of the data only the first are read.

    Args:
        path: an array of all people (``array_files.ROWS``; ``x.zarr`` is a folder), a cohort
            folder of ``dtwin simulate``, a folder of one-subject files such as BIDS
            derivatives, or one such file.
        regions, subjects, is_fisher_z, atlas: as ``dtwin_fast.readers.read_connectomes``
            takes them, except that people stay in the order of the source. A cohort folder
            says its regions, subjects and unit itself.
        filters: which files of a folder are meant.
        index_cache: where the index of a folder is kept for the next run.
        progress: told the number of files found while a folder is indexed.

    Raises:
        DTwinInputError: a source that cannot be used, names that do not fit it, or
            arguments that it has no use for (code ``argument``).
        MissingExtraError: pyarrow, zarr, nibabel, nilearn or h5py are needed and absent.
    """
    source, request = request_of(
        path,
        regions=regions,
        subjects=subjects,
        is_fisher_z=is_fisher_z,
        atlas=atlas,
        bad_subjects="drop",
    )
    if is_array(source):
        _refuse(filters=filters, index_cache=index_cache, atlas=atlas)
        return open_array(source, request)
    if not _is_folder(source):
        _refuse(filters=filters, index_cache=index_cache)
        return open_file(source, request)
    if not is_indexed(source):
        _refuse(filters=filters, index_cache=index_cache, atlas=atlas)
        _refuse(regions=regions, subjects=subjects, is_fisher_z=is_fisher_z or None)
        return open_cohort(source)
    return open_folder(
        source,
        request,
        filters=filters,
        index_cache=None if index_cache is None else as_path(index_cache, field="index_cache"),
        progress=progress,
    )


def is_indexed(path: str | os.PathLike[str]) -> bool:
    """Whether it is a folder of one-subject files, not an array or a cohort folder."""
    source = as_path(path, field="path")
    return _is_folder(source) and not is_array(source) and not (source / COHORT_FILE).is_file()


def _is_folder(source: Path) -> bool:
    # os.path answers where Path would raise on names that the system refuses.
    return os.path.isdir(source)  # noqa: PTH112


def _refuse(**arguments: object) -> None:
    for name, value in arguments.items():
        if value is not None:
            raise DTwinInputError(
                "argument",
                "this input has no use for this argument",
                field=name,
                fix="Leave it out",
            )
