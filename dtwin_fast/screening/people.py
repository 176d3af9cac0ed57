"""The people of a screening: who they are, and the connectomes of any range of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol

from ..connectome import Connectomes
from ..readers import request_of
from .array_files import open_array


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
) -> People:
    """The people of a file or folder; their names and sizes are checked, nobody's data is read.

    Args:
        regions, subjects, is_fisher_z, atlas: as ``dtwin_fast.readers.read_connectomes``
            takes them; but people stay in the order of the source.

    Raises:
        DTwinInputError: a source that cannot be used, or names that do not fit it.
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
    return open_array(source, request)
