"""Connectomes: one vector of edges per subject, checked once, with names for its regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .connectome_checks import (
    FATAL_CODES,
    BoolArray,
    FloatArray,
    IndexArray,
    all_missing,
    as_batch,
    check_choice,
    check_connectome,
    check_layout,
    check_regions,
    first_few,
    n_regions_of,
    name_subjects,
    no_subjects,
    refuse_duplicates,
    triangle,
)
from .errors import DTwinInputError
from .spec import n_edges

BadSubjects = Literal["raise", "drop"]
MissingPolicy = Literal["reject", "mask", "impute"]

FISHER_CLIP = 1 - 1e-6
"""Largest |r| given to arctanh; Fisher z of r therefore stays within +-7.26."""


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
            fc: (S,R,R), (R,R), (S,E) or (E,) real numbers of at most 64 bits, of any byte
                order and strides. A square 2-D array is one matrix, unless ``regions`` has the
                number of names that makes it S = E rows of edges.
            regions: R names in the order of ``fc``.
            subjects: S names; default ``sub-0001``, ``sub-0002``, ...
            is_fisher_z: ``fc`` holds Fisher z rather than Pearson r.
            bad_subjects: ``"raise"`` the first subject's error, or ``"drop"`` such
                subjects and list their errors in ``rejected``. A subject whose values look
                like Fisher z announced as r (``fisher_z_as_r``: an infinite diagonal, or a
                largest |value| above 1 and below 5) is an error of the whole input under
                both, as the others' z may lie below 1 and would be used as r. Larger
                values are damage to that subject alone (``r_out_of_range``).
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
        region_names = None if regions is None else check_regions(regions, field="regions")
        array, n_regions = as_batch(fc, region_names, field=field)
        check_layout(array, n_regions, region_names, field=field)
        subject_names = name_subjects(subjects, len(array))

        return cls.from_rows(
            array,
            n_regions,
            regions=region_names,
            subjects=subject_names,
            is_fisher_z=is_fisher_z,
            bad_subjects=bad_subjects,
            field=field,
        )

    @classmethod
    def from_rows(
        cls,
        rows: Sequence[npt.NDArray[Any]] | npt.NDArray[Any],
        n_regions: int,
        *,
        regions: tuple[str, ...] | None,
        subjects: Sequence[str],
        is_fisher_z: bool,
        bad_subjects: BadSubjects,
        field: str,
    ) -> Connectomes:
        """Check each subject of a range of a cohort whose layout and names were checked before.

        Args:
            rows: one (R,R) or (E,) array of real numbers per subject.
            regions, subjects, is_fisher_z, bad_subjects, field: as in :meth:`from_arrays`.

        Raises:
            DTwinInputError: the codes of one subject that :meth:`from_arrays` lists, and
                ``edge_count`` for a row of another length.
        """
        shapes = ((n_edges(n_regions),), (n_regions, n_regions))
        edges = np.empty((len(rows), n_edges(n_regions)), np.float32)
        missing = np.zeros((len(rows), n_regions), np.bool_)
        flags: list[tuple[str, ...]] = []
        kept: list[str] = []
        rejected: list[DTwinInputError] = []
        for subject, values in zip(subjects, rows, strict=True):
            try:
                if values.shape not in shapes:
                    raise _other_length(values.shape, shapes[0], subject, field)
                row, lost, notes = check_connectome(
                    values, n_regions, is_fisher_z=is_fisher_z, subject=subject, field=field
                )
            except DTwinInputError as error:
                if bad_subjects == "raise" or error.code in FATAL_CODES:
                    raise
                rejected.append(error)
                continue
            edges[len(kept)] = row
            missing[len(kept)] = lost
            flags.append(notes)
            kept.append(subject)
        return cls(
            edges=edges[: len(kept)],
            subjects=tuple(kept),
            regions=regions,
            is_fisher_z=bool(is_fisher_z),
            missing=missing[: len(kept)],
            flags=tuple(flags),
            rejected=tuple(rejected),
        )

    @classmethod
    def none(cls, subjects: Sequence[str]) -> Connectomes:
        """People without connectomes, for behaviour alone: R = 0, ``edges`` (S,0).

        Raises:
            DTwinInputError: no names, or names that cannot be used (``no_subjects``,
                ``subject_id``, ``subject_duplicate``).
        """
        names = name_subjects(subjects, len(subjects))
        if not names:
            raise no_subjects("subjects")
        return cls(
            edges=np.empty((len(names), 0), np.float32),
            subjects=names,
            regions=(),
            is_fisher_z=False,
            missing=np.empty((len(names), 0), np.bool_),
            flags=((),) * len(names),
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
        refuse_duplicates(subjects, "indices", "subject")
        return replace(
            self,
            edges=self.edges[index],
            subjects=subjects,
            missing=self.missing[index],
            flags=tuple(self.flags[i] for i in index),
        )

    def align(self, regions: Sequence[str], *, bad_subjects: BadSubjects = "raise") -> Connectomes:
        """The same subjects with edges put in the order of ``regions``, by name.

        Regions that are not asked for are left out and flagged
        ``extra_regions_dropped:N``.

        Raises:
            DTwinInputError: no names here (``regions_unnamed``), a name that is not here
                (``regions_missing``), or a subject left with fewer than two regions
                (``all_missing``), unless ``bad_subjects="drop"``, which lists such
                subjects in ``rejected``.
        """
        check_choice("bad_subjects", bad_subjects, BadSubjects)
        wanted = check_regions(regions, field="regions")
        if self.regions is None:
            raise DTwinInputError(
                "regions_unnamed",
                "the connectomes have no region names, so their order cannot be checked",
                field="connectomes",
                wanted=f"{len(wanted)} named regions",
                got=f"{self.n_regions} unnamed regions",
                fix="Give regions= (--regions) with the names in the order of the matrix rows",
            )
        if wanted == self.regions:
            return self
        place = {name: position for position, name in enumerate(self.regions)}
        if absent := [name for name in wanted if name not in place]:
            raise DTwinInputError(
                "regions_missing",
                f"{len(absent)} of {len(wanted)} regions are not in the connectomes",
                field="connectomes",
                wanted=first_few(absent),
                got=first_few(self.regions),
                fix="Use the atlas of the model, or rename the regions to its names"
                + _near_names(absent, self.regions),
            )
        positions = np.array([place[name] for name in wanted], np.intp)
        missing = self.missing[:, positions]
        present = len(wanted) - missing.sum(axis=1)
        errors = [all_missing(self.subjects[i], "connectomes") for i in np.flatnonzero(present < 2)]
        if errors and bad_subjects == "raise":
            raise errors[0]
        n_extra = self.n_regions - len(wanted)
        note = (f"extra_regions_dropped:{n_extra}",) if n_extra else ()
        aligned = replace(
            self,
            edges=self.edges[:, _edge_positions(positions, self.n_regions)],
            regions=wanted,
            missing=missing,
            flags=tuple((*flags, *note) for flags in self.flags),
            rejected=(*self.rejected, *errors),
        )
        return aligned.select(present >= 2) if errors else aligned

    def fisher_z(self) -> FloatArray:
        """(S,E) float32 Fisher z, arctanh(r) with |r| clipped to 1 - 1e-6; NaN stays NaN."""
        if self.is_fisher_z:
            return self.edges
        clip = np.float32(FISHER_CLIP)
        return np.arctanh(np.clip(self.edges, -clip, clip))

    def fisher_z_vjp(self, d_z: FloatArray) -> FloatArray:
        """(S,E) gradient of ``sum(fisher_z() * d_z)`` with respect to ``edges``.

        ``d_z / (1 - r^2)`` for Pearson r, and 0 where r is clipped or missing.
        """
        if self.is_fisher_z:
            return d_z
        r = self.edges
        # The product keeps its digits near |r| = 1, where 1 - r * r would lose them.
        square = (1 - r) * (1 + r)
        inside = np.abs(r) <= np.float32(FISHER_CLIP)
        d_edges: FloatArray = np.divide(d_z, square, out=np.zeros_like(d_z), where=inside)
        return d_edges

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
        raise no_subjects("parts")
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
    refuse_duplicates(subjects, "subjects", "subject")
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
    scale = _mask_scale(lost[incomplete])
    filled[incomplete] = np.where(lost[incomplete], 0, edges[incomplete] * scale)
    return filled


def fill_missing_vjp(edges: FloatArray, policy: MissingPolicy, d_filled: FloatArray) -> FloatArray:
    """(S,E) gradient of ``sum(fill_missing(edges, policy, ...) * d_filled)``, by edge.

    0 on missing edges; under ``mask`` the subject's other edges are scaled as
    :func:`fill_missing` scales them.
    """
    lost = np.isnan(edges)
    if policy == "mask":
        d_filled = d_filled * _mask_scale(lost)
    return np.where(lost, np.float32(0), d_filled)


def vectorise(matrix: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(..., E) upper triangle without the diagonal of (..., R, R), row by row."""
    rows, columns = triangle(matrix.shape[-1])
    return matrix[..., rows, columns]


def matrices(edges: FloatArray, *, diagonal: float = 1.0) -> FloatArray:
    """(S,R,R) symmetric matrices of (S,E) edges; use ``diagonal=inf`` for Fisher z.

    Raises:
        DTwinInputError: E is no R(R-1)/2 (``edge_count``).
    """
    n_regions = n_regions_of(edges.shape[-1])
    rows, columns = triangle(n_regions)
    full = np.full((len(edges), n_regions, n_regions), diagonal, edges.dtype)
    full[:, rows, columns] = edges
    full[:, columns, rows] = edges
    return full


def _mask_scale(lost: BoolArray) -> FloatArray:
    """(S,1) E / E present of each row, as inverted dropout scales what it keeps."""
    size = lost.shape[1]
    n_present = size - lost.sum(axis=1, keepdims=True)
    scale: FloatArray = (size / np.maximum(n_present, 1)).astype(np.float32)
    return scale


def _edge_positions(positions: IndexArray, n_regions: int) -> IndexArray:
    """Where the edges between the regions at ``positions`` sit among all E edges."""
    rows, columns = triangle(len(positions))
    one, other = positions[rows], positions[columns]
    low, high = np.minimum(one, other), np.maximum(one, other)
    edge: IndexArray = low * (2 * n_regions - low - 1) // 2 + high - low - 1
    return edge


def _near_names(absent: Sequence[str], present: Sequence[str]) -> str:
    """What to add to the advice when absent names are there in another spelling."""
    plain = {_plain(name): name for name in present}
    near = [f"{name!r} is {plain[_plain(name)]!r}" for name in absent if _plain(name) in plain]
    if not near:
        return ""
    return f"; {len(near)} differ only in case, blanks or the ending _ROI: {first_few(near)}"


def _plain(region: str) -> str:
    return "".join(region.split()).casefold().removesuffix("_roi")


def _other_length(
    got: tuple[int, ...], wanted: tuple[int, ...], subject: str, field: str
) -> DTwinInputError:
    return DTwinInputError(
        "edge_count",
        "this subject has another number of edges than the cohort",
        field=field,
        subject=subject,
        wanted=str(wanted),
        got=str(got),
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
