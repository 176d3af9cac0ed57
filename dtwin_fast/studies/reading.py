"""Reading a study's folder: tables and arrays, checked before any work starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..connectome import FISHER_CLIP
from ..errors import DTwinInputError
from ..files import check_regular_file

Array = npt.NDArray[Any]

FEWEST_PEOPLE = 5
"""Folds of fewer leave nobody to learn from."""


def read_table(folder: Path, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
    """A CSV file with at least these columns and one row.

    Raises:
        DTwinInputError: no such file (codes of ``check_regular_file``); no table, or one
            without these columns (code ``study_data``).
    """
    path = folder / name
    check_regular_file(path)
    try:
        table = pd.read_csv(path)
    except (ValueError, OSError, EOFError) as error:
        raise bad_data(path, "a CSV table", error.__class__.__name__) from error
    if missing := [column for column in columns if column not in table.columns]:
        raise bad_data(path, f"columns {', '.join(columns)}", f"no {', '.join(missing)}")
    if table.empty:
        raise bad_data(path, "at least one row", "a header only")
    return table


def read_array(
    folder: Path, name: str, shape: tuple[int | None, ...], *, may_lack: bool = False
) -> npt.NDArray[np.float32]:
    """A ``.npy`` file of floats as float32; None in ``shape`` stands for any length.

    Args:
        may_lack: whether NaN is allowed.

    Raises:
        DTwinInputError: no such file (codes of ``check_regular_file``); no array, other shape,
            or numbers that are not finite (code ``study_data``).
    """
    path = folder / name
    check_regular_file(path)
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise bad_data(path, "a .npy array", error.__class__.__name__) from error
    wanted = "(" + ", ".join("any" if n is None else str(n) for n in shape) + ") floats"
    is_array = isinstance(array, np.ndarray) and array.dtype.kind == "f"
    if not is_array or array.ndim != len(shape):
        raise bad_data(path, wanted, f"{getattr(array, 'shape', '')} {type(array).__name__}")
    if any(n not in (None, m) for n, m in zip(shape, array.shape, strict=True)):
        raise bad_data(path, wanted, str(array.shape))
    n_bad = int((np.isinf(array) if may_lack else ~np.isfinite(array)).sum())
    if n_bad:
        raise bad_data(path, "finite numbers", f"{n_bad} others")
    return np.asarray(array, np.float32)


def check_people(folder: Path, n: int) -> None:
    """Refuse fewer than ``FEWEST_PEOPLE`` people (code ``study_data``)."""
    if n < FEWEST_PEOPLE:
        raise bad_data(folder, f"at least {FEWEST_PEOPLE} people", str(n))


def fisher_z(r: Array) -> npt.NDArray[np.float32]:
    """(S,E) Pearson r -> float32 Fisher z; NaN stays."""
    return np.asarray(np.arctanh(np.clip(r, -FISHER_CLIP, FISHER_CLIP)), np.float32)


def n_nodes(n_edges: int) -> int:
    """R of E = R(R-1)/2 edges."""
    return int((1 + np.sqrt(1 + 8 * n_edges)) // 2)


def as_matrices(edges: Array, diagonal: float = 0.0) -> Array:
    """(S,E) upper triangles, row-major -> (S,R,R) symmetric matrices of the same dtype."""
    n = n_nodes(edges.shape[1])
    matrices = np.empty((len(edges), n, n), edges.dtype)
    rows, columns = np.triu_indices(n, 1)
    matrices[:, rows, columns] = matrices[:, columns, rows] = edges
    matrices[:, np.arange(n), np.arange(n)] = diagonal
    return matrices


def bad_data(field: Path, wanted: str, got: str, subject: str | None = None) -> DTwinInputError:
    """A file that is not what the study needs (code ``study_data``)."""
    return DTwinInputError(
        "study_data",
        "this file is not what the study needs",
        field=str(field),
        subject=subject,
        wanted=wanted,
        got=got,
        fix="Give the study its own data folder, complete and as published",
    )


def refuse_folder(folder: Path | None) -> None:
    """Of a study that simulates its people.

    Raises:
        DTwinInputError: there is one (code ``folder``).
    """
    if folder is not None:
        raise DTwinInputError(
            "folder",
            "this study simulates its people",
            field="folder",
            wanted="none",
            got=str(folder),
            fix="Leave the folder out",
        )
