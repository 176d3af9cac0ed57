"""How unusual connectomes are to a twin: what it says of them may be no more than a guess."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..connectome import matrices
from ..errors import DTwinInputError

Float64 = npt.NDArray[np.float64]
Edges = npt.NDArray[Any]

BEYOND_SD = 3.0
"""An edge further from the training mean than this is beyond the range of the cohort."""

LIMITS = {"deviation": 1.5, "beyond_share": 0.05, "mahalanobis": 2.0, "min_eigenvalue": -0.02}
"""Where flags begin; ``min_eigenvalue`` below its limit, the others above.

Of people simulated with 100 regions who took no part in a training of 228 the largest deviation
is 1.3, and 1.5 after a training of 20; with all Fisher z doubled, or 0.3 higher, the smallest is
1.8. Their largest share of edges beyond 3 SDs is 0.02 (0.04 after a training of 20; 0.003 of
normal numbers), with z doubled or shifted it is 0.05 at the least. Twice the distance in 20
independent normal components has a probability of 4e-9, in 5 of 0.001 (chi square of 80 and of
20). Three digits of text move the eigenvalues of 434 correlations by 0.012 (2 sqrt(R) times an
SD of 3e-4): no correlation matrix is what goes further below 0.

Connectomes that lie nearer to the mean than people do are not flagged.
"""

FEWEST_REFERENCE = 20
_MOST_COMPONENTS = 20
_PEOPLE_PER_COMPONENT = 4
_BLOCK = 8192


@dataclass(frozen=True, eq=False)
class Reference:
    """Principal components of the connectomes of reference people.

    Attributes:
        mean: (E,) Fisher z.
        components: (k,E) orthonormal directions, largest variance first.
        sd: (k,) of the people along each.
    """

    mean: Float64
    components: Float64
    sd: Float64

    @classmethod
    def fit(cls, z: Edges) -> Reference | None:
        """The first k = min(20, S/4) components of (S,E) Fisher z; NaN count as the mean.

        They come from the (S,S) products of people, so that nothing of (E,E) is made. None for
        fewer than ``FEWEST_REFERENCE`` people, or people who do not differ.
        """
        n_people, n_edges = z.shape
        if n_people < FEWEST_REFERENCE:
            return None
        blocks = [slice(start, start + _BLOCK) for start in range(0, n_edges, _BLOCK)]
        known = (~np.isnan(z)).sum(axis=0)
        mean = np.nansum(z, axis=0, dtype=np.float64) / np.maximum(known, 1)
        products = np.zeros((n_people, n_people))
        for block in blocks:
            apart = _apart(z[:, block], mean[block])
            products += apart @ apart.T
        values, people = np.linalg.eigh(products)
        n_components = min(_MOST_COMPONENTS, n_people // _PEOPLE_PER_COMPONENT)
        values, people = values[::-1][:n_components], people[:, ::-1][:, :n_components]
        # Less than rounding makes, of the products here or of the float32 edges, is no difference.
        size = n_people * float(mean @ mean) + float(np.trace(products))
        real = values > max(
            n_people * np.finfo(np.float64).eps * values[0], np.finfo(np.float32).eps ** 2 * size
        )
        if not real.any():
            return None
        weights = (people[:, real] / np.sqrt(values[real])).T
        components = np.concatenate(
            [weights @ _apart(z[:, block], mean[block]) for block in blocks], axis=1
        )
        return cls(mean, components, np.sqrt(values[real] / (n_people - 1)))

    def distance(self, z: Edges) -> float:
        """Of one person's (E,) Fisher z: Mahalanobis over sqrt(k), about 1 for these people."""
        scores = self.components @ _apart(z, self.mean) / self.sd
        return float(np.sqrt(np.mean(scores**2)))


@dataclass(frozen=True, eq=False)
class RangeScores:
    """How unusual S connectomes are.

    Attributes:
        deviation: (S,) root mean square over edges of (z - mean) / SD of the training cohort;
            about 1 for its own people.
        beyond_share: (S,) share of edges beyond ``BEYOND_SD`` SDs.
        mahalanobis: (S,) distance from the reference people in the space of their first k
            components, over sqrt(k); NaN without a reference.
        min_eigenvalue: (S,) of tanh(z) with ones on the diagonal; NaN where a region is missing.
    """

    deviation: Float64
    beyond_share: Float64
    mahalanobis: Float64
    min_eigenvalue: Float64

    def flags(self) -> tuple[tuple[str, ...], ...]:
        """For each person ``outside_training_range:SCORE_VALUE``, of scores beyond ``LIMITS``."""
        found: list[tuple[str, ...]] = []
        for i in range(len(self.deviation)):
            values = {name: float(getattr(self, name)[i]) for name in LIMITS}
            found.append(
                tuple(
                    f"outside_training_range:{name}_{value:.3g}"
                    for name, value in values.items()
                    if (value < LIMITS[name] if name == "min_eigenvalue" else value > LIMITS[name])
                )
            )
        return tuple(found)


def range_scores(
    z: Edges, edge_mean: Edges, edge_sd: Edges, reference: Reference | None = None
) -> RangeScores:
    """How unusual connectomes are to a twin; each person is judged alone.

    Args:
        z: (S,E) Fisher z; NaN edges are left out.
        edge_mean, edge_sd: (E,) Fisher z of the training cohort, as a twin has them.
        reference: people to compare with, or None.

    Raises:
        DTwinInputError: arrays that do not fit together (code ``shape``).
    """
    wanted = (z.shape[-1],)
    shapes = [edge_mean.shape, edge_sd.shape]
    if reference is not None:
        shapes.append(reference.mean.shape)
    if z.ndim != 2 or any(shape != wanted for shape in shapes):
        raise DTwinInputError(
            "shape",
            "these are not the edges of one atlas",
            field="z",
            wanted="(S,E), and (E,) of the training cohort and of the reference",
            got=" ".join(map(str, [z.shape, *shapes])),
            fix="Align the connectomes with the twin's regions",
        )
    scores = np.full((4, len(z)), np.nan)
    for i, row in enumerate(z):
        known = ~np.isnan(row)
        if not known.any():
            continue
        apart = (row[known].astype(np.float64) - edge_mean[known]) / edge_sd[known]
        scores[0, i] = np.sqrt(np.mean(apart**2))
        scores[1, i] = np.mean(np.abs(apart) > BEYOND_SD)
        if reference is not None:
            scores[2, i] = reference.distance(row)
        if known.all():
            correlation = matrices(np.tanh(row.astype(np.float64))[None])[0]
            scores[3, i] = np.linalg.eigvalsh(correlation)[0]
    return RangeScores(*scores)


def _apart(z: Edges, mean: Float64) -> Float64:
    """Differences from the mean, 0 where unknown."""
    apart: Float64 = np.nan_to_num(z.astype(np.float64) - mean, copy=False)
    return apart
