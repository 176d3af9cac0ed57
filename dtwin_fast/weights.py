"""RNNWeights: the main RNN's weights of a batch of subjects, and their flat layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from .arrays import as_real_array
from .cells import CELLS
from .errors import DTwinInputError
from .spec import TwinSpec

FloatArray = npt.NDArray[np.floating[Any]]

WEIGHT_NAMES = ("w_ih", "w_hh", "b_ih", "b_hh", "w_out", "b_out")
"""Flat order of a subject's weights: torch.nn.RNNCell's parameters, then the readout's."""


def weight_shapes(
    cell: str, n_inputs: int, n_hidden: int, n_outputs: int
) -> dict[str, tuple[int, ...]]:
    """Shape of each weight of ONE subject, in flat order."""
    gates = _cell_gates(cell) * n_hidden
    return {
        "w_ih": (gates, n_inputs),
        "w_hh": (gates, n_hidden),
        "b_ih": (gates,),
        "b_hh": (gates,),
        "w_out": (n_outputs, n_hidden),
        "b_out": (n_outputs,),
    }


def spec_weight_shapes(spec: TwinSpec) -> dict[str, tuple[int, ...]]:
    """Shape of each weight of one subject of a twin with these sizes, in flat order."""
    return weight_shapes(spec.cell, spec.n_inputs, spec.n_hidden, spec.n_outputs)


def count_weights(spec: TwinSpec) -> int:
    """P: generated weights per subject (173,623 for ``tcp446``)."""
    return sum(prod(shape) for shape in spec_weight_shapes(spec).values())


@dataclass(frozen=True, eq=False)
class RNNWeights:
    """Weights of the main RNN for S subjects.

    Shapes (S = subjects, G = gates, H = hidden, I = inputs, O = outputs):
        w_ih (S,G*H,I), w_hh (S,G*H,H), b_ih and b_hh (S,G*H), w_out (S,O,H), b_out (S,O).

    float32 and float64 arrays are kept as they are; float16, big-endian and integer
    arrays are copied to native float32. Gate order is torch's.

    Raises:
        DTwinInputError: unknown cell, ranks or sizes that do not fit (code ``shape``),
            or arrays that are not numbers (code ``dtype``).
    """

    cell: str
    w_ih: FloatArray
    w_hh: FloatArray
    b_ih: FloatArray
    b_hh: FloatArray
    w_out: FloatArray
    b_out: FloatArray

    def __post_init__(self) -> None:
        _cell_gates(self.cell)
        for name in WEIGHT_NAMES:
            object.__setattr__(self, name, as_float(getattr(self, name), name))
        if self.w_hh.ndim != 3 or self.w_ih.ndim != 3 or self.w_out.ndim != 3:
            raise _shape_error("w_ih, w_hh, w_out", "3 axes each", self._shapes())
        shapes = weight_shapes(
            self.cell, self.w_ih.shape[2], self.w_hh.shape[2], self.w_out.shape[1]
        )
        for name, shape in shapes.items():
            wanted = (len(self.w_hh), *shape)
            if getattr(self, name).shape != wanted:
                raise _shape_error(name, wanted, getattr(self, name).shape)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: getattr(self, name).shape for name in WEIGHT_NAMES}

    @property
    def n_subjects(self) -> int:
        """S."""
        return int(self.w_hh.shape[0])

    @property
    def n_inputs(self) -> int:
        """I."""
        return int(self.w_ih.shape[2])

    @property
    def n_hidden(self) -> int:
        """H."""
        return int(self.w_hh.shape[2])

    @property
    def n_outputs(self) -> int:
        """O."""
        return int(self.w_out.shape[1])

    def select(self, subjects: Sequence[int] | slice | npt.NDArray[Any]) -> RNNWeights:
        """The weights of some subjects (views for a slice, copies for a list).

        Raises:
            DTwinInputError: no such subject (code ``subject_index``), or one number in
                place of a list (code ``shape``).
        """
        try:
            parts = [getattr(self, name)[subjects] for name in WEIGHT_NAMES]
        except IndexError as error:
            raise DTwinInputError(
                "subject_index",
                "there is no such subject",
                field="subjects",
                wanted=f"positions in 0..{self.n_subjects - 1} or a mask of {self.n_subjects}",
                got=str(error),
                fix="Take positions on the first axis of the weights",
            ) from error
        return RNNWeights(self.cell, *parts)

    def to_flat(self) -> FloatArray:
        """(S, P): each subject's weights in flat order."""
        parts = [getattr(self, name) for name in WEIGHT_NAMES]
        # Not reshape(S, -1): with no subjects numpy cannot tell what -1 is.
        flat = [part.reshape(len(part), prod(part.shape[1:])) for part in parts]
        return np.concatenate(flat, axis=1)

    @classmethod
    def from_flat(cls, flat: FloatArray, spec: TwinSpec) -> RNNWeights:
        """Split (S, P) generated weights by the spec's sizes; arrays are views of ``flat``."""
        flat = as_float(flat, "flat")
        wanted = count_weights(spec)
        if flat.ndim != 2 or flat.shape[1] != wanted:
            raise _shape_error("flat", ("S", wanted), flat.shape)
        return cls(spec.cell, **split_flat(flat, spec))


def split_flat(flat: Any, spec: TwinSpec) -> dict[str, Any]:
    """Split the last axis of a (S, P) numpy array or torch tensor into named weights."""
    parts: dict[str, Any] = {}
    start = 0
    for name, shape in spec_weight_shapes(spec).items():
        stop = start + prod(shape)
        parts[name] = flat[:, start:stop].reshape(len(flat), *shape)
        start = stop
    return parts


def join_flat(parts: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """(P,) the named weights of one subject in flat order, the inverse of :func:`split_flat`."""
    return np.concatenate([parts[name].ravel() for name in WEIGHT_NAMES])


def as_float(array: Any, field: str) -> FloatArray:
    """Native float32 or float64 array; other real numbers become float32 by a copy.

    Raises:
        DTwinInputError: what :func:`as_real_array` refuses (code ``dtype``).
    """
    numbers = as_real_array(array, field)
    if numbers.dtype.kind == "f" and numbers.dtype.itemsize == 8:
        return numbers.astype(np.float64, copy=False)
    return numbers.astype(np.float32, copy=False)


def _cell_gates(cell: str) -> int:
    if not isinstance(cell, str) or cell not in CELLS:
        raise DTwinInputError(
            "cell",
            "there is no such cell",
            field="cell",
            wanted=" | ".join(CELLS),
            got=repr(cell),
            fix="Name one of the cells",
        )
    return CELLS[cell].n_gates


def _shape_error(field: str, wanted: object, got: object) -> DTwinInputError:
    return DTwinInputError(
        "shape",
        "the sizes do not fit together",
        field=field,
        wanted=str(wanted),
        got=str(got),
        fix="Give w_ih (S,G*H,I), w_hh (S,G*H,H), b_ih, b_hh (S,G*H), w_out (S,O,H), b_out (S,O)",
    )
