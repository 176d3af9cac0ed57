"""What connectomes must be like: numbers, sizes, units and names, checked before use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from math import isqrt
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from .arrays import as_real_array
from .errors import DTwinInputError
from .spec import n_edges

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
IndexArray = npt.NDArray[np.intp]
Problem = Callable[..., DTwinInputError]
"""Builds the error of one subject: problem(code, what, fix=, wanted=, got=)."""

MAX_NAME_CHARS = 200
"""Longest subject or region name; subject names become file names."""
MAX_REGIONS = 10_000
"""Largest R: parcellations have hundreds of regions; voxels and vertices are not regions."""
MAX_COHORT_BYTES = 16 * 2**30
"""Largest (S,E) float32 array that is made in one piece."""

SYMMETRY_TOLERANCE = 1e-5
"""Largest |M - M^T| taken for rounding (float32 arithmetic, text with 6 digits)."""
R_TOLERANCE = 1e-5
"""Largest |r| - 1 taken for rounding; such values are clipped to +-1."""
UNIT_DIAGONAL_TOLERANCE = 1e-3
"""Largest |diagonal - 1| of a correlation matrix (float16 and 3-digit text)."""
MIN_Z_DIAGONAL = 2.0
"""A Fisher z diagonal is arctanh of almost 1: infinite, or at least this."""
MAX_Z = 10.0
"""Largest |z|: arctanh of the float64 next to 1 is 18.7, of 1 - 1e-8 it is 9.6."""
LOOKS_LIKE_Z = 5.0
"""Values above 1 but below this are more likely Fisher z than damaged r."""
FATAL_CODES = frozenset({"fisher_z_as_r"})
"""Errors of one subject that no ``bad_subjects="drop"`` passes over: where one subject holds
Fisher z so do the others, and z that stay below 1 would be used as r."""


@lru_cache(maxsize=4)
def triangle(n_regions: int) -> tuple[IndexArray, IndexArray]:
    """Rows and columns of the E edges, numpy.triu_indices(R, 1)."""
    rows, columns = np.triu_indices(n_regions, 1)
    return rows, columns


def n_regions_of(edge_count: int, *, field: str = "edges") -> int:
    """R with R(R-1)/2 = ``edge_count``.

    Raises:
        DTwinInputError: there is none (code ``edge_count``); the message names the nearest.
    """
    n_regions = (1 + isqrt(1 + 8 * edge_count)) // 2
    if edge_count >= 1 and n_edges(n_regions) == edge_count:
        return n_regions
    low = max(n_regions, 2)
    raise DTwinInputError(
        "edge_count",
        "this is not the length of an upper triangle without its diagonal, R(R-1)/2",
        field=field,
        wanted=f"{n_edges(low)} for {low} regions or {n_edges(low + 1)} for {low + 1}",
        got=str(edge_count),
        fix="Give matrix[numpy.triu_indices(R, 1)], or the whole matrix",
    )


def as_batch(
    fc: npt.ArrayLike, names: tuple[str, ...] | None, *, field: str
) -> tuple[npt.NDArray[Any], int]:
    """``fc`` as (S,R,R) or (S,E), and R. Nothing of its size is allocated for an array.

    Raises:
        DTwinInputError: codes ``dtype``, ``too_large`` and those of :func:`batch_shape`.
    """
    array = as_real_array(fc, field)
    shape, n_regions = batch_shape(array.shape, names, field=field)
    check_cohort_size(shape[0], n_regions, field=field)
    return array if array.shape == shape else array[None], n_regions


def batch_shape(
    shape: tuple[int, ...], names: tuple[str, ...] | None, *, field: str
) -> tuple[tuple[int, ...], int]:
    """The shape as (S,R,R) or (S,E), and R.

    A square 2-D array is one matrix, unless the number of names says that its rows are the
    edges of as many subjects.

    Raises:
        DTwinInputError: codes ``shape``, ``no_subjects``, ``edge_count``, ``region_count``.
    """
    is_matrix = len(shape) == 3 or (len(shape) == 2 and shape[0] == shape[1])
    if len(shape) == 2 and names is not None and len(names) != shape[1]:
        is_matrix = is_matrix and n_edges(len(names)) != shape[1]
    whole = (1, *shape) if len(shape) == 1 or (len(shape) == 2 and is_matrix) else shape
    if len(whole) not in (2, 3) or (is_matrix and whole[1] != whole[2]):
        raise DTwinInputError(
            "shape",
            "this is neither matrices nor edges",
            field=field,
            wanted="(S,R,R), (R,R), (S,E) or (E,) with E = R(R-1)/2",
            got=str(whole),
            fix="Put subjects on the first axis",
        )
    if whole[0] == 0:
        raise no_subjects(field)
    n_regions = whole[1] if is_matrix else n_regions_of(whole[1], field=field)
    if not 2 <= n_regions <= MAX_REGIONS:
        wanted = "at least 2" if n_regions < 2 else f"at most {MAX_REGIONS:,}"
        raise _region_count(field, f"{wanted} regions", n_regions)
    return whole, n_regions


def check_layout(
    array: npt.NDArray[Any], n_regions: int, names: tuple[str, ...] | None, *, field: str
) -> None:
    """Refuse names that do not fit (S,R,R) or (S,E), and edges that include the diagonal.

    R(R+1)/2 values are also the triangle of R+1 regions: the number of names tells, or
    ones wherever the diagonal would be.

    Raises:
        DTwinInputError: codes ``region_count``, ``triangle_with_diagonal``.
    """
    size = n_regions - 1
    diagonal = np.cumsum([0, *range(size, 1, -1)])
    n_names = n_regions if names is None else len(names)
    if array.ndim == 2 and (
        n_names == size or (n_names == n_regions and size >= 3 and _are_ones(array[:, diagonal]))
    ):
        raise DTwinInputError(
            "triangle_with_diagonal",
            "these edges include the diagonal",
            field=field,
            wanted=f"{n_edges(size)} edges for {size} regions",
            got=str(array.shape[1]),
            fix="Give matrix[numpy.triu_indices(R, 1)], without the diagonal",
        )
    if n_names != n_regions:
        raise _region_count(field, f"{n_regions} names, one for each region", n_names)


def check_connectome(
    values: npt.NDArray[Any], n_regions: int, *, is_fisher_z: bool, subject: str, field: str
) -> tuple[FloatArray, BoolArray, tuple[str, ...]]:
    """One subject's (E,) edges, (R,) missing regions and flags, from (R,R) or (E,) numbers.

    Raises:
        DTwinInputError: the codes that ``Connectomes.from_arrays`` lists for one subject.
    """
    problem: Problem = partial(DTwinInputError, subject=subject, field=field)
    edges = values
    if values.ndim == 2:
        _check_diagonal(np.diagonal(values), is_fisher_z, problem)
        edges = _symmetric_edges(values, problem)
    with np.errstate(over="ignore"):  # what leaves float32's range is reported as infinite
        row = edges.astype(np.float32)
    _check_range(row, is_fisher_z, problem)
    missing = _missing_regions_of(row, n_regions, problem)
    rows, columns = triangle(n_regions)
    if missing.any():
        row[missing[rows] | missing[columns]] = np.nan
    n_missing = np.count_nonzero(missing)
    if n_regions - n_missing < 2:
        raise all_missing(subject, field)
    notes = [f"missing_regions:{n_missing}"] if n_missing else []
    zero = row == 0
    if zero.any():
        degree = _degree(~zero & ~np.isnan(row), n_regions)
        silent = np.count_nonzero((degree == 0) & ~missing)
        if silent == n_regions - n_missing:
            raise problem("all_zero", "every edge is 0", fix="Export the connectome again")
        if silent:
            notes.append(f"zero_regions:{silent}")
    return row, missing, tuple(notes)


def check_cohort_size(n_subjects: int, n_regions: int, *, field: str) -> None:
    """Refuse more than ``MAX_COHORT_BYTES`` of float32 edges (code ``too_large``)."""
    size = 4 * n_subjects * n_edges(n_regions)
    if size > MAX_COHORT_BYTES:
        raise DTwinInputError(
            "too_large",
            "these connectomes are too many for one piece",
            field=field,
            wanted=f"at most {MAX_COHORT_BYTES:,} bytes of edges",
            got=f"{size:,} bytes",
            fix="Give the cohort in parts",
        )


def check_choice(field: str, value: str, choices: Any) -> None:
    """Refuse a value outside a ``Literal`` (code ``argument``)."""
    if value not in get_args(choices):
        raise DTwinInputError(
            "argument",
            "there is no such choice",
            field=field,
            wanted=" | ".join(get_args(choices)),
            got=repr(value),
            fix="Name one of the choices",
        )


def check_regions(regions: Iterable[str], *, field: str) -> tuple[str, ...]:
    """Region names as a tuple of unique text without control characters.

    Raises:
        DTwinInputError: codes ``region_name``, ``region_duplicate``, ``region_count``.
    """
    names = _check_names(regions, field, "region")
    if len(names) < 2:
        raise _region_count(field, "at least 2 names", len(names))
    return names


def check_subjects(subjects: Iterable[str], *, field: str) -> tuple[str, ...]:
    """Subject names as a tuple of unique text that can stand in a file name and a table.

    Raises:
        DTwinInputError: codes ``subject_id``, ``subject_duplicate``.
    """
    return _check_names(subjects, field, "subject")


def name_subjects(subjects: Sequence[str] | None, n_subjects: int) -> tuple[str, ...]:
    """S checked names, by default ``sub-0001``, ``sub-0002``, ...

    Raises:
        DTwinInputError: as :func:`check_subjects`; another number (``subject_count``).
    """
    if subjects is None:
        return tuple(f"sub-{number:04d}" for number in range(1, n_subjects + 1))
    names = check_subjects(subjects, field="subjects")
    if len(names) != n_subjects:
        raise DTwinInputError(
            "subject_count",
            "names and connectomes do not match in number",
            field="subjects",
            wanted=str(n_subjects),
            got=str(len(names)),
            fix="Give one name for each connectome, in the same order",
        )
    return names


def refuse_duplicates(names: Sequence[str], field: str, kind: str) -> None:
    """Refuse a name that occurs twice (codes ``region_duplicate``, ``subject_duplicate``)."""
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DTwinInputError(
            f"{kind}_duplicate",
            f"a {kind} occurs twice",
            field=field,
            got=first_few(repeated),
            fix=f"Give every {kind} its own name",
        )


def first_few(names: Sequence[str]) -> str:
    """Up to five names for a message, and how many there are."""
    shown = ", ".join(name[:60] for name in names[:5])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > 5 else shown


def no_subjects(field: str) -> DTwinInputError:
    """The error of an empty cohort."""
    return DTwinInputError(
        "no_subjects", "there is no subject", field=field, fix="Give at least one connectome"
    )


def all_missing(subject: str, field: str) -> DTwinInputError:
    """The error of a subject without data."""
    return DTwinInputError(
        "all_missing",
        "fewer than two regions have data",
        field=field,
        subject=subject,
        fix="Leave this subject out, or compute its connectome again",
    )


def _symmetric_edges(matrix: npt.NDArray[Any], problem: Problem) -> npt.NDArray[Any]:
    """The mean of both triangles, which is the upper one's bits when they agree."""
    rows, columns = triangle(len(matrix))
    upper, lower = matrix[rows, columns], matrix[columns, rows]
    if matrix.dtype.kind != "f" or matrix.dtype.itemsize < 4:
        upper, lower = upper.astype(np.float64), lower.astype(np.float64)
    if np.isinf(upper).any() or np.isinf(lower).any():
        raise _infinite(problem)
    with np.errstate(over="ignore"):
        gap = np.abs(upper - lower)
    worst = float(np.max(gap, initial=0, where=~np.isnan(gap)))
    if worst > SYMMETRY_TOLERANCE or not np.array_equal(np.isnan(upper), np.isnan(lower)):
        raise problem(
            "asymmetric",
            "the matrix differs from its transpose",
            wanted=f"at most {SYMMETRY_TOLERANCE:g}",
            got=f"{worst:g}" if worst > SYMMETRY_TOLERANCE else "NaN on one side only",
            fix="Give a symmetric measure (correlation), not a directed one; "
            "(S,E) arrays with S = E must be given as (S,R,R)",
        )
    return upper if worst == 0 else upper / 2 + lower / 2


def _are_ones(values: npt.NDArray[Any]) -> bool:
    return bool((np.abs(values - 1.0) <= R_TOLERANCE).all())


def _check_diagonal(diagonal: npt.NDArray[Any], is_fisher_z: bool, problem: Problem) -> None:
    known = diagonal[~(np.isnan(diagonal) | (diagonal == 0))]
    if is_fisher_z:
        if np.any(known == 1):
            raise problem(
                "r_as_fisher_z",
                "the diagonal is 1, as Pearson r has it, but Fisher z was announced",
                fix="Leave is_fisher_z=False for Pearson r",
            )
        good = known >= MIN_Z_DIAGONAL
        wanted = f"infinite, at least {MIN_Z_DIAGONAL:g}, 0 or NaN"
    else:
        if np.any(np.isposinf(known)):
            raise _fisher_z_as_r(problem, "an infinite diagonal")
        good = np.abs(known - 1.0) <= UNIT_DIAGONAL_TOLERANCE
        wanted = "1, 0 or NaN"
    if not good.all():
        raise problem(
            "diagonal",
            "the diagonal is not that of a correlation matrix",
            wanted=wanted,
            got=f"{known[~good][0]:g}",
            fix="Give correlations (not covariances); for Fisher z say is_fisher_z=True",
        )


def _check_range(row: FloatArray, is_fisher_z: bool, problem: Problem) -> None:
    """Refuse infinite and impossible values; clip rounding beyond +-1 of r in place."""
    if np.isinf(row).any():
        raise _infinite(problem)
    largest = float(np.max(np.abs(row), initial=0, where=~np.isnan(row)))
    if is_fisher_z:
        if largest > MAX_Z:
            raise problem(
                "z_out_of_range",
                "Fisher z is too large",
                wanted=f"|z| at most {MAX_Z:g}",
                got=f"{largest:g}",
                fix="Give arctanh of the correlations",
            )
        return
    if largest > 1 + R_TOLERANCE:
        if largest < LOOKS_LIKE_Z:
            raise _fisher_z_as_r(problem, f"values up to {largest:g}")
        raise problem(
            "r_out_of_range",
            "correlations lie between -1 and 1",
            wanted="|r| at most 1",
            got=f"{largest:g}",
            fix="Give Pearson correlations",
        )
    np.clip(row, -1, 1, out=row)


def _missing_regions_of(row: FloatArray, n_regions: int, problem: Problem) -> BoolArray:
    """(R,) regions whose edges to all other regions are NaN."""
    lost = np.isnan(row)
    if not lost.any():
        return np.zeros(n_regions, np.bool_)
    rows, columns = triangle(n_regions)
    degree = _degree(~lost, n_regions)
    # Two missing regions may still have a number between them (0 or 1, say), so the
    # second guess takes every region that has lost more than half of its edges.
    for missing in (degree == 0, 2 * degree < n_regions - 1):
        touched = missing[rows] | missing[columns]
        bridges = missing[rows] != missing[columns]
        explains = not lost[~touched].any() and bool(lost[bridges].all())
        if explains and not (missing.all() and not lost.all()):
            return missing
    raise problem(
        "nan",
        "single edges are NaN, which no missing region explains",
        wanted="NaN only on all edges of a region",
        got=f"{np.count_nonzero(lost)} NaN edges",
        fix="Compute the correlations again without gaps, or set the whole region to NaN",
    )


def _degree(chosen: BoolArray, n_regions: int) -> IndexArray:
    """(R,) number of chosen edges at each region."""
    rows, columns = triangle(n_regions)
    ends = np.concatenate([rows[chosen], columns[chosen]])
    return np.bincount(ends, minlength=n_regions)


def _check_names(names: Iterable[str], field: str, kind: str) -> tuple[str, ...]:
    is_list = isinstance(names, Iterable) and not isinstance(names, (str, bytes))
    listed = list(names) if is_list else []
    faults = [_fault_of(name, kind) for name in listed] if is_list else [type(names).__name__]
    if any(faults):
        wanted = f"1 to {MAX_NAME_CHARS} printable characters, no spaces at the ends"
        if kind == "subject":
            wanted += ', none of / \\ : * ? " < > |, not starting with . = + - @'
        raise DTwinInputError(
            {"region": "region_name", "subject": "subject_id"}[kind],
            f"this cannot name a {kind}",
            field=field,
            wanted=wanted,
            got=next(filter(None, faults)),
            fix=f"Give a list of {kind} names as text",
        )
    checked = tuple(map(str, listed))
    refuse_duplicates(checked, field, kind)
    return checked


def _fault_of(name: object, kind: str) -> str:
    """What is found instead of a good name; empty text for a good one."""
    if not isinstance(name, str):
        return type(name).__name__
    is_good = 0 < len(name) <= MAX_NAME_CHARS and name == name.strip() and name.isprintable()
    if is_good and kind == "subject":
        # Subjects name files; = + - @ start formulas when a table is opened as a spreadsheet.
        is_good = not set(name) & set('/\\:*?"<>|') and name[0] not in ".=+-@"
    return "" if is_good else ascii(str(name)[:40])


def _region_count(field: str, wanted: str, got: int) -> DTwinInputError:
    return DTwinInputError(
        "region_count",
        "the number of regions does not fit",
        field=field,
        wanted=wanted,
        got=str(got),
        fix="Give the regions of the atlas the connectomes were made with",
    )


def _infinite(problem: Problem) -> DTwinInputError:
    return problem(
        "infinite",
        "an edge is infinite in float32",
        fix="Give correlations, or Fisher z with r clipped below 1",
    )


def _fisher_z_as_r(problem: Problem, got: str) -> DTwinInputError:
    return problem(
        "fisher_z_as_r",
        "these look like Fisher z but were announced as Pearson r",
        wanted="|r| at most 1",
        got=got,
        fix="Say is_fisher_z=True (--fisher-z), or give correlations; "
        "if only this subject is damaged, take it out of the input",
    )
