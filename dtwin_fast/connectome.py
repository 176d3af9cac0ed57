"""Connectomes: one vector of edges per subject, checked once, with names for its regions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import isqrt
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from .errors import DTwinInputError
from .spec import n_edges

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
IndexArray = npt.NDArray[np.intp]
BadSubjects = Literal["raise", "drop"]
MissingPolicy = Literal["reject", "mask", "impute"]

FISHER_CLIP = 1 - 1e-6
"""Largest |r| given to arctanh; Fisher z of r therefore stays within +-7.26."""
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


@dataclass(frozen=True, eq=False)
class Connectomes:
    """Functional connectomes of S subjects over R regions, E = R(R-1)/2 edges.

    Use :meth:`from_arrays` or ``dtwin_fast.readers.read_connectomes``, which check the values.

    Attributes:
        edges: (S,E) float32, Pearson r or Fisher z, row-major upper triangle (k=1);
            NaN exactly on the edges of missing regions.
        subjects: S unique names.
        regions: R unique names in edge order, or None when the source has no names.
        is_fisher_z: True when ``edges`` hold Fisher z.
        missing: (S,R) bool, regions without data.
        flags: per subject, what a reader of results should know: ``missing_regions:N``,
            ``zero_regions:N`` (all edges exactly 0), ``extra_regions_dropped:N``,
            ``masked_regions:N``, ``imputed_regions:N``.
        rejected: errors of the subjects left out by ``bad_subjects="drop"``.
    """

    edges: FloatArray
    subjects: tuple[str, ...]
    regions: tuple[str, ...] | None
    is_fisher_z: bool
    missing: BoolArray
    flags: tuple[tuple[str, ...], ...]
    rejected: tuple[DTwinInputError, ...] = ()

    def __post_init__(self) -> None:
        n_subjects, n_regions = self.missing.shape
        fits = (
            self.edges.shape == (n_subjects, n_edges(n_regions))
            and len(self.subjects) == n_subjects
            and len(self.flags) == n_subjects
            and (self.regions is None or len(self.regions) == n_regions)
        )
        if not fits:
            raise DTwinInputError(
                "shape",
                "edges, subjects, regions, missing and flags do not fit together",
                field="Connectomes",
                got=f"edges {self.edges.shape}, missing {self.missing.shape}",
                fix="Build it with Connectomes.from_arrays",
            )

    def __len__(self) -> int:
        return self.n_subjects

    @property
    def n_subjects(self) -> int:
        """S."""
        return int(self.missing.shape[0])

    @property
    def n_regions(self) -> int:
        """R."""
        return int(self.missing.shape[1])

    @property
    def n_edges(self) -> int:
        """E."""
        return int(self.edges.shape[1])

    @classmethod
    def from_arrays(
        cls,
        fc: npt.ArrayLike,
        *,
        regions: Sequence[str] | None = None,
        subjects: Sequence[str] | None = None,
        is_fisher_z: bool = False,
        bad_subjects: BadSubjects = "raise",
        field: str = "fc",
    ) -> Connectomes:
        """Check arrays and copy them to float32 edges.

        Args:
            fc: (S,R,R), (R,R), (S,E) or (E,) real numbers of any dtype, byte order and
                strides. A square 2-D array is always one matrix.
            regions: R names in the order of ``fc``.
            subjects: S names; default ``sub-0001``, ``sub-0002``, ...
            is_fisher_z: ``fc`` holds Fisher z rather than Pearson r.
            bad_subjects: ``"raise"`` the first subject's error, or ``"drop"`` such
                subjects and list their errors in ``rejected``.
            field: what errors call the input.

        Raises:
            DTwinInputError: for the whole input, codes ``dtype``, ``shape``, ``edge_count``,
                ``triangle_with_diagonal``, ``too_large``, ``no_subjects``,
                ``region_count``, ``region_name``, ``region_duplicate``, ``subject_count``,
                ``subject_id``, ``subject_duplicate``, ``argument``; for one subject,
                ``infinite``, ``asymmetric``, ``diagonal``, ``fisher_z_as_r``,
                ``r_as_fisher_z``, ``r_out_of_range``, ``z_out_of_range``, ``nan``,
                ``all_missing``, ``all_zero``.
        """
        check_choice("bad_subjects", bad_subjects, BadSubjects)
        array, n_regions = _as_batch(fc, field)
        region_names = None
        if regions is not None:
            region_names = check_regions(regions, field="regions")
            _check_region_count(region_names, n_regions, array, field)
        if array.ndim == 2:
            _refuse_triangle_with_diagonal(array, n_regions, field)
        subject_names = _subject_names(subjects, len(array))

        edges = np.empty((len(array), n_edges(n_regions)), np.float32)
        missing = np.zeros((len(array), n_regions), np.bool_)
        flags: list[tuple[str, ...]] = []
        kept: list[int] = []
        rejected: list[DTwinInputError] = []
        for index, (subject, values) in enumerate(zip(subject_names, array, strict=True)):
            problem = _problem_of(subject, field)
            try:
                row, lost, notes = _check_subject(values, n_regions, is_fisher_z, problem)
            except DTwinInputError as error:
                if bad_subjects == "raise":
                    raise
                rejected.append(error)
                continue
            edges[len(kept)] = row
            missing[len(kept)] = lost
            flags.append(notes)
            kept.append(index)
        return cls(
            edges=edges[: len(kept)],
            subjects=tuple(subject_names[index] for index in kept),
            regions=region_names,
            is_fisher_z=bool(is_fisher_z),
            missing=missing[: len(kept)],
            flags=tuple(flags),
            rejected=tuple(rejected),
        )

    def select(self, indices: Sequence[int] | slice | npt.NDArray[Any]) -> Connectomes:
        """Some subjects, by position, slice or mask.

        Raises:
            DTwinInputError: no such position, or one taken twice (codes
                ``subject_index``, ``subject_duplicate``).
        """
        if not isinstance(indices, slice):
            indices = np.asarray(indices)
            if indices.size == 0:
                indices = indices.astype(np.intp)
        try:
            index = np.atleast_1d(np.arange(self.n_subjects)[indices])
        except IndexError as error:
            raise DTwinInputError(
                "subject_index",
                "there is no such subject",
                field="indices",
                wanted=f"positions in 0..{self.n_subjects - 1} or a mask of {self.n_subjects}",
                got=str(error),
                fix="Take positions of Connectomes.subjects",
            ) from error
        subjects = tuple(self.subjects[i] for i in index)
        _refuse_duplicates(subjects, "indices", "subject")
        return replace(
            self,
            edges=self.edges[index],
            subjects=subjects,
            missing=self.missing[index],
            flags=tuple(self.flags[i] for i in index),
        )

    def align(self, regions: Sequence[str]) -> Connectomes:
        """The same subjects with edges put in the order of ``regions``, by name.

        Regions that are not asked for are left out and flagged
        ``extra_regions_dropped:N``.

        Raises:
            DTwinInputError: no names here (``regions_unnamed``), a name that is not here
                (``regions_missing``), or a subject left with fewer than two regions
                (``all_missing``).
        """
        wanted = check_regions(regions, field="regions")
        if self.regions is None:
            raise DTwinInputError(
                "regions_unnamed",
                "the connectomes have no region names, so their order cannot be checked",
                field="connectomes",
                wanted=f"{len(wanted)} named regions",
                got=f"{self.n_regions} unnamed regions",
                fix="Give regions= with the names in the order of the matrix rows",
            )
        if wanted == self.regions:
            return self
        place = {name: position for position, name in enumerate(self.regions)}
        if absent := [name for name in wanted if name not in place]:
            raise DTwinInputError(
                "regions_missing",
                f"{len(absent)} of {len(wanted)} regions are not in the connectomes",
                field="connectomes",
                wanted=_some(absent),
                got=_some(self.regions),
                fix="Use the atlas of the model, or rename the regions to its names",
            )
        positions = np.array([place[name] for name in wanted], np.intp)
        missing = self.missing[:, positions]
        present = len(wanted) - missing.sum(axis=1)
        if (lost := np.flatnonzero(present < 2)).size:
            raise _all_missing(_problem_of(self.subjects[lost[0]], "connectomes"))
        n_extra = self.n_regions - len(wanted)
        note = (f"extra_regions_dropped:{n_extra}",) if n_extra else ()
        return replace(
            self,
            edges=self.edges[:, _edge_positions(positions, self.n_regions)],
            regions=wanted,
            missing=missing,
            flags=tuple((*flags, *note) for flags in self.flags),
        )

    def fisher_z(self) -> FloatArray:
        """(S,E) float32 Fisher z, arctanh(r) with |r| clipped to 1 - 1e-6; NaN stays NaN."""
        if self.is_fisher_z:
            return self.edges
        clip = np.float32(FISHER_CLIP)
        return np.arctanh(np.clip(self.edges, -clip, clip))

    def resolve_missing(
        self, policy: MissingPolicy, *, bad_subjects: BadSubjects = "raise"
    ) -> Connectomes:
        """Apply the policy for missing regions to the list of subjects.

        ``reject`` refuses subjects with a missing region, ``mask`` and ``impute`` keep
        them and add the flag ``masked_regions:N`` or ``imputed_regions:N``. The edges
        keep their NaN; :func:`fill_missing` fills them where the hypernetwork reads them.

        Raises:
            DTwinInputError: under ``reject``, the first such subject (``missing_regions``),
                unless ``bad_subjects="drop"``, which lists them in ``rejected``.
        """
        check_choice("policy", policy, MissingPolicy)
        check_choice("bad_subjects", bad_subjects, BadSubjects)
        counts = self.missing.sum(axis=1)
        if not counts.any():
            return self
        if policy == "reject":
            errors = [
                _missing_regions(self.subjects[i], int(counts[i])) for i in np.flatnonzero(counts)
            ]
            if bad_subjects == "raise":
                raise errors[0]
            complete = self.select(counts == 0)
            return replace(complete, rejected=(*self.rejected, *errors))
        word = {"mask": "masked", "impute": "imputed"}[policy]
        notes = [(f"{word}_regions:{count}",) if count else () for count in counts]
        return replace(
            self, flags=tuple((*old, *new) for old, new in zip(self.flags, notes, strict=True))
        )


def stack(parts: Sequence[Connectomes]) -> Connectomes:
    """One Connectomes of all subjects of ``parts``, aligned by name to the first part.

    Unnamed parts are joined in order only when all are unnamed and of one size.

    Raises:
        DTwinInputError: no parts (``no_subjects``), r mixed with Fisher z
            (``mixed_units``), sizes or names that differ (``region_count``,
            ``regions_missing``, ``regions_unnamed``), a subject twice
            (``subject_duplicate``).
    """
    if not parts:
        raise _no_subjects("parts")
    first = parts[0]
    if any(part.is_fisher_z != first.is_fisher_z for part in parts):
        raise DTwinInputError(
            "mixed_units",
            "some connectomes hold Pearson r and others Fisher z",
            field="parts",
            fix="Convert them to one unit",
        )
    if first.regions is not None:
        parts = [part.align(first.regions) for part in parts]
    for part in parts:
        if part.n_regions != first.n_regions or (part.regions is None) != (first.regions is None):
            raise DTwinInputError(
                "region_count",
                "the connectomes do not have the same regions",
                field="parts",
                wanted=f"{first.n_regions} regions",
                got=f"{part.n_regions} regions",
                fix="Give every file the same named regions",
            )
    subjects = tuple(name for part in parts for name in part.subjects)
    _refuse_duplicates(subjects, "subjects", "subject")
    return Connectomes(
        edges=np.concatenate([part.edges for part in parts]),
        subjects=subjects,
        regions=first.regions,
        is_fisher_z=first.is_fisher_z,
        missing=np.concatenate([part.missing for part in parts]),
        flags=tuple(flags for part in parts for flags in part.flags),
        rejected=tuple(error for part in parts for error in part.rejected),
    )


def fill_missing(
    edges: FloatArray, policy: MissingPolicy, training_mean: FloatArray | None = None
) -> FloatArray:
    """Edges without NaN, ready for the hypernetwork's first layer.

    ``mask``: missing edges become 0 and the subject's other edges are multiplied by
    E / E_present, as inverted dropout does, so the first layer's sums keep their scale.
    ``impute``: missing edges become ``training_mean``. Rows without NaN keep their bits.

    Args:
        edges: (S,E) float32 as the network takes them (raw or standardised), NaN = missing.
        training_mean: (E,) float32 in the same unit; zeros for standardised edges.

    Raises:
        DTwinInputError: NaN under ``reject`` (``missing_regions``), or no
            ``training_mean`` under ``impute`` (``argument``).
    """
    check_choice("policy", policy, MissingPolicy)
    lost = np.isnan(edges)
    incomplete = np.flatnonzero(lost.any(axis=1))
    if incomplete.size == 0:
        return edges
    if policy == "reject":
        raise _missing_regions(f"number {incomplete[0]}", None)
    filled = edges.copy()
    if policy == "impute":
        if training_mean is None or training_mean.shape != edges.shape[1:]:
            raise DTwinInputError(
                "argument",
                "imputing needs the training cohort's mean of every edge",
                field="training_mean",
                wanted=f"({edges.shape[1]},)",
                got="None" if training_mean is None else str(training_mean.shape),
                fix="Give training_mean",
            )
        filled[incomplete] = np.where(lost[incomplete], training_mean, edges[incomplete])
        return filled
    n_present = edges.shape[1] - lost[incomplete].sum(axis=1, keepdims=True)
    scale = (edges.shape[1] / np.maximum(n_present, 1)).astype(np.float32)
    filled[incomplete] = np.where(lost[incomplete], 0, edges[incomplete] * scale)
    return filled


def vectorise(matrix: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(..., E) upper triangle without the diagonal of (..., R, R), row by row."""
    rows, columns = _triangle(matrix.shape[-1])
    return matrix[..., rows, columns]


def matrices(edges: FloatArray, *, diagonal: float = 1.0) -> FloatArray:
    """(S,R,R) symmetric matrices of (S,E) edges; use ``diagonal=inf`` for Fisher z.

    Raises:
        DTwinInputError: E is no R(R-1)/2 (``edge_count``).
    """
    n_regions = n_regions_of(edges.shape[-1])
    rows, columns = _triangle(n_regions)
    full = np.full((len(edges), n_regions, n_regions), diagonal, edges.dtype)
    full[:, rows, columns] = edges
    full[:, columns, rows] = edges
    return full


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


def check_regions(regions: Iterable[str], *, field: str) -> tuple[str, ...]:
    """Region names as a tuple of unique text without control characters.

    Raises:
        DTwinInputError: codes ``region_name``, ``region_duplicate``, ``region_count``.
    """
    names = _names(regions, field, "region", lambda name: True)
    if len(names) < 2:
        raise _region_count(field, "at least 2 names", len(names))
    return names


def check_subjects(subjects: Iterable[str], *, field: str) -> tuple[str, ...]:
    """Subject names as a tuple of unique text that can stand in a file name and a table.

    Raises:
        DTwinInputError: codes ``subject_id``, ``subject_duplicate``.
    """
    return _names(subjects, field, "subject", _is_safe_file_name)


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


Problem = Callable[..., DTwinInputError]
"""Builds the error of one subject: problem(code, what, fix=, wanted=, got=)."""


def _problem_of(subject: str, field: str) -> Problem:
    def problem(
        code: str, what: str, *, fix: str, wanted: str = "", got: str = ""
    ) -> DTwinInputError:
        return DTwinInputError(
            code, what, field=field, subject=subject, fix=fix, wanted=wanted, got=got
        )

    return problem


@lru_cache(maxsize=4)
def _triangle(n_regions: int) -> tuple[IndexArray, IndexArray]:
    rows, columns = np.triu_indices(n_regions, 1)
    return rows, columns


def _edge_positions(positions: IndexArray, n_regions: int) -> IndexArray:
    """Where the edges between the regions at ``positions`` sit among all E edges."""
    rows, columns = _triangle(len(positions))
    one, other = positions[rows], positions[columns]
    low, high = np.minimum(one, other), np.maximum(one, other)
    edge: IndexArray = low * (2 * n_regions - low - 1) // 2 + high - low - 1
    return edge


def _as_batch(fc: npt.ArrayLike, field: str) -> tuple[npt.NDArray[Any], int]:
    """``fc`` as (S,R,R) or (S,E), and R. Nothing of its size is allocated for an array."""
    if isinstance(fc, np.ma.MaskedArray):
        raise _dtype_error(field, "a masked array", "Give fc.filled(numpy.nan)")
    try:
        array = np.asarray(fc)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _dtype_error(field, str(error), "Give a numpy array") from error
    if array.dtype.kind not in "fiu":
        raise _dtype_error(
            field,
            str(array.dtype),
            "Convert it with astype('float32') after checking what it holds",
        )
    is_matrix = array.ndim == 3 or (array.ndim == 2 and array.shape[0] == array.shape[1])
    if array.ndim == 1 or (array.ndim == 2 and is_matrix):
        array = array[None]
    if array.ndim not in (2, 3) or (is_matrix and array.shape[1] != array.shape[2]):
        raise DTwinInputError(
            "shape",
            "this is neither matrices nor edges",
            field=field,
            wanted="(S,R,R), (R,R), (S,E) or (E,) with E = R(R-1)/2",
            got=str(array.shape),
            fix="Put subjects on the first axis",
        )
    if len(array) == 0:
        raise _no_subjects(field)
    n_regions = array.shape[1] if is_matrix else n_regions_of(array.shape[1], field=field)
    if n_regions < 2:
        raise _region_count(field, "at least 2 regions", n_regions)
    if n_regions > MAX_REGIONS:
        raise _region_count(field, f"at most {MAX_REGIONS:,} regions", n_regions)
    check_cohort_size(len(array), n_regions, field=field)
    return array, n_regions


def _check_region_count(
    names: tuple[str, ...], n_regions: int, array: npt.NDArray[Any], field: str
) -> None:
    if len(names) == n_regions:
        return
    if array.ndim == 2 and len(names) + 1 == n_regions:
        # R(R+1)/2 values are also the triangle of R+1 regions: only the names tell.
        raise _triangle_with_diagonal(field, len(names), array.shape[1])
    raise _region_count(field, f"{n_regions} names, one for each region", len(names))


def _refuse_triangle_with_diagonal(array: npt.NDArray[Any], n_regions: int, field: str) -> None:
    """Without names, a diagonal of ones among the edges still gives itself away."""
    size = n_regions - 1
    if size < 3:
        return
    diagonal = np.cumsum([0, *range(size, 1, -1)])
    if np.all(array[:, diagonal] == 1):
        raise _triangle_with_diagonal(field, size, array.shape[1])


def _check_subject(
    values: npt.NDArray[Any], n_regions: int, is_fisher_z: bool, problem: Problem
) -> tuple[FloatArray, BoolArray, tuple[str, ...]]:
    """One subject's (E,) edges, (R,) missing regions and flags."""
    edges = values
    if values.ndim == 2:
        _check_diagonal(np.diagonal(values), is_fisher_z, problem)
        edges = _symmetric_edges(values, problem)
    with np.errstate(over="ignore"):  # what leaves float32's range is reported as infinite
        row = edges.astype(np.float32)
    _check_range(row, is_fisher_z, problem)
    missing = _missing_regions_of(row, n_regions, problem)
    rows, columns = _triangle(n_regions)
    if missing.any():
        row[missing[rows] | missing[columns]] = np.nan
    if n_regions - np.count_nonzero(missing) < 2:
        raise _all_missing(problem)
    notes: list[str] = []
    if missing.any():
        notes.append(f"missing_regions:{np.count_nonzero(missing)}")
    zero = row == 0
    if zero.any():
        degree = _degree(~zero & ~np.isnan(row), n_regions)
        silent = np.count_nonzero((degree == 0) & ~missing)
        if silent == n_regions - np.count_nonzero(missing):
            raise problem("all_zero", "every edge is 0", fix="Export the connectome again")
        if silent:
            notes.append(f"zero_regions:{silent}")
    return row, missing, tuple(notes)


def _symmetric_edges(matrix: npt.NDArray[Any], problem: Problem) -> npt.NDArray[Any]:
    """The mean of both triangles, which is the upper one's bits when they agree."""
    upper = vectorise(matrix)
    lower = vectorise(matrix.T)
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
    if largest <= 1:
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
    rows, columns = _triangle(n_regions)
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
    rows, columns = _triangle(n_regions)
    ends = np.concatenate([rows[chosen], columns[chosen]])
    return np.bincount(ends, minlength=n_regions)


def _subject_names(subjects: Sequence[str] | None, n_subjects: int) -> tuple[str, ...]:
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


def _names(
    names: Iterable[str], field: str, kind: str, is_good: Callable[[str], bool]
) -> tuple[str, ...]:
    code = {"region": "region_name", "subject": "subject_id"}[kind]
    if isinstance(names, (str, bytes)) or not isinstance(names, Iterable):
        raise _name_error(code, field, kind, type(names).__name__)
    checked: list[str] = []
    for name in names:
        if not isinstance(name, str):
            raise _name_error(code, field, kind, type(name).__name__)
        text = str(name)
        if (
            not 0 < len(text) <= MAX_NAME_CHARS
            or text != text.strip()
            or not text.isprintable()
            or not is_good(text)
        ):
            raise _name_error(code, field, kind, ascii(text[:40]))
        checked.append(text)
    _refuse_duplicates(checked, field, kind)
    return tuple(checked)


def _is_safe_file_name(name: str) -> bool:
    # "=", "+", "-" and "@" start formulas when a table of results is opened as a spreadsheet.
    return not (set(name) & set('/\\:*?"<>|')) and name[0] not in ".=+-@"


def _refuse_duplicates(names: Sequence[str], field: str, kind: str) -> None:
    if len(set(names)) == len(names):
        return
    seen: set[str] = set()
    repeated = [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
    raise DTwinInputError(
        f"{kind}_duplicate",
        f"a {kind} occurs twice",
        field=field,
        got=_some(repeated),
        fix=f"Give every {kind} its own name",
    )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(name[:60] for name in names[:5])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > 5 else shown


def _name_error(code: str, field: str, kind: str, got: str) -> DTwinInputError:
    wanted = f"1 to {MAX_NAME_CHARS} printable characters, no spaces at the ends"
    if kind == "subject":
        wanted += ', none of / \\ : * ? " < > |, not starting with . = + - @'
    return DTwinInputError(
        code,
        f"this cannot name a {kind}",
        field=field,
        wanted=wanted,
        got=got,
        fix=f"Give a list of {kind} names as text",
    )


def _dtype_error(field: str, got: str, fix: str) -> DTwinInputError:
    return DTwinInputError(
        "dtype",
        "this does not hold real numbers",
        field=field,
        wanted="floating point or integers",
        got=got,
        fix=fix,
    )


def _no_subjects(field: str) -> DTwinInputError:
    return DTwinInputError(
        "no_subjects", "there is no subject", field=field, fix="Give at least one connectome"
    )


def _region_count(field: str, wanted: str, got: int) -> DTwinInputError:
    return DTwinInputError(
        "region_count",
        "the number of regions does not fit",
        field=field,
        wanted=wanted,
        got=str(got),
        fix="Give the regions of the atlas the connectomes were made with",
    )


def _triangle_with_diagonal(field: str, n_regions: int, got: int) -> DTwinInputError:
    return DTwinInputError(
        "triangle_with_diagonal",
        "these edges include the diagonal",
        field=field,
        wanted=f"{n_edges(n_regions)} edges for {n_regions} regions",
        got=str(got),
        fix="Give matrix[numpy.triu_indices(R, 1)], without the diagonal",
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
        fix="Say is_fisher_z=True, or give correlations",
    )


def _all_missing(problem: Problem) -> DTwinInputError:
    return problem(
        "all_missing",
        "fewer than two regions have data",
        fix="Leave this subject out, or compute its connectome again",
    )


def _missing_regions(subject: str, count: int | None) -> DTwinInputError:
    return DTwinInputError(
        "missing_regions",
        "regions are missing and the policy is to reject",
        field="connectomes",
        subject=subject,
        got="" if count is None else f"{count} missing",
        fix="Use the policy mask or impute, or leave the subject out",
    )
