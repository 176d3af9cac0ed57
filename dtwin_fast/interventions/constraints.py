"""What may be done to a connectome: how much, where, and only so that it stays a connectome.

Changes ``dx`` are in Fisher z, (S,E), of row-major upper triangles (k=1). Every person is handled
alone: nobody's result depends on the others in the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from ..connectome import FISHER_CLIP, matrices, vectorise
from ..connectome_checks import BoolArray, first_few
from ..errors import DTwinInputError
from ..networks import belongs, network_of

Norm = Literal["l2", "linf"]
Change = npt.NDArray[Any]
"""Float32 or float64."""
Float64 = npt.NDArray[np.float64]

ROUNDING = 2.0**-24
"""Half the distance of float32 numbers at 1. Edges rounded by it move an eigenvalue of R regions
by R times as much at the most (Gershgorin)."""

_ROUNDS = 20
_BISECTIONS = 16


@dataclass(frozen=True, eq=False)
class Constraint:
    """The changes of a connectome that are allowed.

    Attributes:
        norm: ``l2``, the root of the sum of squares over a person's edges, or ``linf``, the
            largest of them.
        budget: largest norm of a change, Fisher z; None: whoever uses the constraint has one.
        top_k: at most this many edges of a person change.
        allowed: (E,) edges that may change; None: all.
        valid: the changed connectome must be a correlation matrix, see :meth:`make_valid`.
    """

    norm: Norm = "l2"
    budget: float | None = None
    top_k: int | None = None
    allowed: BoolArray | None = None
    valid: bool = False

    def check(self, n_edges: int) -> None:
        """Refuse what no change of E edges can keep.

        Raises:
            DTwinInputError: code ``constraint``.
        """
        if self.norm not in get_args(Norm):
            raise _refused("norm", "there is no such norm", " | ".join(get_args(Norm)), self.norm)
        if self.budget is not None and not (_is_real(self.budget) and 0 < self.budget < np.inf):
            raise _refused(
                "budget", "this is no budget", "a positive number, Fisher z", self.budget
            )
        n_allowed = n_edges
        if self.allowed is not None:
            n_allowed = _count_allowed(self.allowed, n_edges)
        if self.top_k is not None:
            is_whole = isinstance(self.top_k, int | np.integer) and not isinstance(self.top_k, bool)
            if not (is_whole and 1 <= self.top_k <= n_allowed):
                raise _refused(
                    "top_k", "so many edges cannot change", f"1 to {n_allowed}", self.top_k
                )

    def project(self, dx: Change, budget: npt.ArrayLike) -> Change:
        """The nearest change that is within the budget, on allowed edges, on ``top_k`` at most.

        Of equally large changes the first edges stay. What is within already keeps its bits, so
        projecting twice is projecting once; ``valid`` is left to :meth:`make_valid`.

        Args:
            dx: (S,E) finite numbers.
            budget: (S,) largest norm of each person's change, or one for all.

        Returns:
            (S,E) in the dtype of ``dx``.
        """
        projected = (
            dx.copy() if self.allowed is None else np.where(self.allowed, dx, dx.dtype.type(0))
        )
        for row, most in zip(projected, np.broadcast_to(budget, len(dx)), strict=True):
            if self.top_k is not None:
                _keep_largest(row, self.top_k)
            if self.norm == "linf":
                bound = _rounded_down(float(most), row)
                np.clip(row, -bound, bound, out=row)
            elif (length := _length(row, "l2")) > most:
                # Aims a little inside, so that the rounded numbers are within.
                row *= most * (1 - 8 * np.finfo(row.dtype).eps) / length
        return projected

    def make_valid(self, z: npt.NDArray[np.float32], dx: Change) -> Change:
        """The change made so that the changed connectomes are correlation matrices.

        Where tanh(z + dx) with ones on its diagonal has a negative eigenvalue, it is moved on the
        edges that ``dx`` changes: towards the nearest correlation matrix, by alternating
        projections (Higham 2002, IMA J. Numer. Anal. 22:329), and then towards tanh(z) as far as
        it must, as :func:`shrink` does. A person's smallest eigenvalue is then at least that of
        tanh(z), or 0 if that is lower, less 3 R ``ROUNDING``; the change's norm is at most that
        of ``dx``. Of a nearly singular connectome (few volumes, many regions) little may be left,
        above all where few edges may change.

        Args:
            z: (S,E) Fisher z, NaN where a region is missing; nothing changes there, and the rest
                is judged without it.
            dx: (S,E) changes that :meth:`project` has passed.

        Returns:
            (S,E) in the dtype of ``dx``.
        """
        made: Change = np.where(np.isnan(z), dx.dtype.type(0), dx)
        for i, row in enumerate(made):
            made[i] = self._valid_row(z[i], row)
        return made

    def _valid_row(self, z: npt.NDArray[np.float32], dx: Change) -> Change:
        start, goal = _correlation(z, 0 * dx), _correlation(z, dx)
        slack = ROUNDING * len(start)
        if _is_positive(goal, slack):
            return dx
        floor = min(0.0, float(np.linalg.eigvalsh(start)[0]))
        slack -= floor
        most = _length(dx, self.norm)
        goal = _nearest_valid(
            start,
            goal,
            free=matrices(((dx != 0) | np.isnan(z))[None], diagonal=0)[0].astype(np.bool_),
            floor=floor,
            reach=most if self.norm == "linf" else np.inf,
        )
        wanted = np.zeros_like(dx)
        edges = np.flatnonzero(dx)
        wanted[edges] = np.arctanh(vectorise(goal)[edges]) - z[edges]
        # All |dx| fall with the share, and so does their norm.
        most *= 1 - 4 * float(np.finfo(dx.dtype).eps)

        def is_valid(share: float) -> bool:
            return _is_positive(start + share * (goal - start), slack)

        def is_within(share: float) -> bool:
            return _length(shrink(z, wanted, share), self.norm) <= most

        return shrink(z, wanted, min(_largest_share(is_valid), _largest_share(is_within)))


def shrink(z: npt.NDArray[np.float32], dx: Change, share: float) -> Change:
    """The part of a change after which correlations have gone ``share`` of their way.

    From tanh(z), share 0, to tanh(z + dx), share 1, in a straight line. Correlation matrices are a
    convex set: with both ends valid, so is everything between them. Every edge's |dx| falls with
    the share. NaN in ``z`` stays unchanged.

    Args:
        z, dx: (...,E) Fisher z.
        share: 0 to 1.

    Returns:
        (...,E) in the dtype of ``dx``.
    """
    changed = (dx != 0) & ~np.isnan(z)
    shrunk = np.zeros_like(dx)
    shrunk[changed] = dx[changed]
    if share < 1:
        # Differences of tanh and of arctanh by their addition theorems, which keep small ones.
        r, step = np.tanh(z[changed].astype(np.float64)), np.tanh(dx[changed].astype(np.float64))
        step *= share * (1 - r) * (1 + r) / (1 + r * step)
        shrunk[changed] = np.arctanh(step / (1 - r * (r + step)))
    return shrunk


def site_edges(regions: Sequence[str], names: str | Iterable[str]) -> BoolArray:
    """(E,) edges that touch a region of these names.

    Raises:
        DTwinInputError: no such region (code ``region``).
    """
    chosen = np.zeros(len(regions), np.bool_)
    chosen[_places(regions, [names] if isinstance(names, str) else list(names))] = True
    touched: BoolArray = vectorise(chosen[:, None] | chosen)
    return touched


def network_edges(regions: Sequence[str], block: str) -> BoolArray:
    """(E,) edges within a network, ``DefaultA``, or between two, ``DefaultA:ContB``.

    ``Default`` is every network of that group; networks are those of
    :func:`dtwin_fast.networks.network_of`.

    Raises:
        DTwinInputError: no region is in such a network (code ``region``).
    """
    networks = network_of(regions)
    first, colon, second = block.partition(":")
    ends = []
    for name in (first, second if colon else first):
        inside = np.array([belongs(network, name) for network in networks])
        if not inside.any():
            raise _unknown("network", [name], tuple(dict.fromkeys(networks)))
        ends.append(inside)
    one, other = ends
    pairs = one[:, None] & other
    between: BoolArray = vectorise(pairs | pairs.T)
    return between


def listed_edges(regions: Sequence[str], pairs: Iterable[tuple[str, str]]) -> BoolArray:
    """(E,) edges between the two regions of each pair.

    Raises:
        DTwinInputError: no such region, or a region with itself (code ``region``).
    """
    listed = np.zeros((len(regions), len(regions)), np.bool_)
    for pair in pairs:
        one, other = _places(regions, pair)
        if one == other:
            raise DTwinInputError(
                "region",
                "an edge joins two regions",
                field="pairs",
                wanted="two different regions",
                got=first_few(pair),
                fix="Take this pair out",
            )
        listed[one, other] = listed[other, one] = True
    edges: BoolArray = vectorise(listed)
    return edges


def _places(regions: Sequence[str], names: Sequence[str]) -> list[int]:
    place = {region: position for position, region in enumerate(regions)}
    if absent := [name for name in names if name not in place]:
        raise _unknown("region", absent, regions)
    return [place[name] for name in names]


def _unknown(kind: str, absent: Sequence[str], known: Sequence[str]) -> DTwinInputError:
    plain = {name.casefold(): name for name in known}
    near = [
        plain[found]
        for name in absent[:5]
        for found in get_close_matches(name.casefold(), plain, n=2, cutoff=0.6)
    ]
    return DTwinInputError(
        "region",
        f"there is no such {kind}",
        field=kind,
        wanted=first_few(known),
        got=first_few([repr(name[:60]) for name in absent]),
        fix=f"Name a {kind} of the connectomes" + (f"; near: {first_few(near)}" if near else ""),
    )


def _refused(field: str, what: str, wanted: str, got: object) -> DTwinInputError:
    return DTwinInputError(
        "constraint",
        what,
        field=field,
        wanted=wanted,
        got=repr(got)[:80],
        fix="Change the constraint",
    )


def _is_real(value: object) -> bool:
    return isinstance(value, float | int | np.floating | np.integer) and not isinstance(value, bool)


def _count_allowed(allowed: BoolArray, n_edges: int) -> int:
    """Number of allowed edges, of a mask that fits and is not empty."""
    is_mask = isinstance(allowed, np.ndarray) and allowed.dtype == np.bool_
    if not is_mask or allowed.shape != (n_edges,):
        got = f"{allowed.dtype} {allowed.shape}" if isinstance(allowed, np.ndarray) else allowed
        raise _refused("allowed", "this mask does not fit the edges", f"bool ({n_edges},)", got)
    if not allowed.any():
        raise _refused("allowed", "no edge may change", "at least one allowed edge", "none")
    return int(allowed.sum())


def _keep_largest(row: npt.NDArray[Any], count: int) -> None:
    """Set all but the ``count`` largest |row| to 0; of equal ones the first stay."""
    if count >= len(row):
        return
    size = np.abs(row)
    least = np.partition(size, len(row) - count)[len(row) - count]
    kept = size > least
    kept[np.flatnonzero(size == least)[: count - np.count_nonzero(kept)]] = True
    row[~kept] = 0


def _length(row: npt.NDArray[Any], norm: Norm) -> float:
    if norm == "linf":
        return float(np.abs(row).max(initial=0))
    return math.sqrt(np.square(row, dtype=np.float64).sum())


def _rounded_down(bound: float, row: npt.NDArray[Any]) -> Any:
    rounded = row.dtype.type(bound)
    return rounded if float(rounded) <= bound else np.nextafter(rounded, row.dtype.type(0))


def _known(z: npt.NDArray[Any]) -> Float64:
    """Fisher z with 0 where it is missing: a region apart, which moves no eigenvalue."""
    return np.nan_to_num(z.astype(np.float64))


def _correlation(z: npt.NDArray[Any], dx: npt.NDArray[Any]) -> Float64:
    """(R,R) tanh(z + dx), with ones on the diagonal."""
    full: Float64 = matrices(np.tanh(_known(z) + dx)[None])[0]
    return full


def _is_positive(matrix: Float64, slack: float) -> bool:
    """Whether all eigenvalues are above -slack."""
    try:
        np.linalg.cholesky(matrix + slack * np.eye(len(matrix)))
    except np.linalg.LinAlgError:
        return False
    return True


def _nearest_valid(
    start: Float64, goal: Float64, *, free: BoolArray, floor: float, reach: float
) -> Float64:
    """(R,R) near ``goal`` with eigenvalues of at least about ``floor`` <= 0, as ``start`` has them.

    Off the ``free`` edges it is ``start``. Fisher z differs from that of ``start`` by about
    ``reach`` at the most.
    """
    np.fill_diagonal(free, True)
    is_everywhere = bool(free.all())
    np.fill_diagonal(free, False)
    low = high = start
    if not is_everywhere or reach < np.inf:
        z = np.arctanh(np.where(free, start, 0))
        low = np.where(free, np.maximum(np.tanh(z - reach), -FISHER_CLIP), start)
        high = np.where(free, np.minimum(np.tanh(z + reach), FISHER_CLIP), start)
        correction = np.zeros_like(goal)
        for _ in range(_ROUNDS):
            uncorrected = goal - correction
            raised = _raise_eigenvalues(uncorrected, floor)
            correction = raised - uncorrected
            goal = np.clip(raised, low, high)
    if is_everywhere:
        # With all edges free, a diagonal scaled to ones leaves no eigenvalue below the floor.
        goal = _raise_eigenvalues(goal, floor)
        sd = np.sqrt((np.diag(goal) - floor) / (1 - floor))
        goal = np.clip(goal / np.outer(sd, sd), -FISHER_CLIP, FISHER_CLIP)
        np.fill_diagonal(goal, 1)
    return goal


def _raise_eigenvalues(matrix: Float64, floor: float) -> Float64:
    values, vectors = np.linalg.eigh(matrix)
    raised: Float64 = (vectors * np.maximum(values, floor)) @ vectors.T
    return raised


def _largest_share(is_good: Callable[[float], bool]) -> float:
    """The largest share that is good, of those that are good up to some share and not above."""
    if is_good(1):
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_good(middle) else (low, middle)
    return low
