"""What was shown, as the inputs of the main RNN."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ..tasks.faces import CUE_INPUT, CUE_S, LEFT, RIGHT, SHAPES
from ..tasks.schedule import Float64
from ..tasks.stroop import COLOURS, STIMULI
from ..tasks.task import N_SENSORY
from .columns import Text, table_error

Cues = tuple[Float64, Float64, npt.NDArray[np.float32]]
"""Onsets and durations (cues,) in seconds, and codes (cues,C)."""


@dataclass(frozen=True)
class Stimuli:
    """N trials as ``Schedule`` wants them: condition, correct, stimulus, item."""

    condition: tuple[str, ...]
    correct: npt.NDArray[np.int64]
    stimulus: npt.NDArray[np.float32]
    item: npt.NDArray[np.int64]


def encode_stroop(shown: Text) -> Stimuli:
    """(N,2) words and inks as in ``tasks.stroop``; items are its nine stimuli.

    Raises:
        DTwinInputError: a colour that is none of the three (code ``stimulus``).
    """
    if unknown := sorted({*shown.ravel().tolist()} - {*COLOURS}):
        raise table_error(
            "word, ink", "stimulus", "there are unknown colours", ", ".join(COLOURS), unknown
        )
    word, ink = np.searchsorted(np.sort(COLOURS), shown).T
    word, ink = np.argsort(COLOURS)[word], np.argsort(COLOURS)[ink]
    stimulus = np.zeros((len(shown), N_SENSORY), np.float32)
    stimulus[np.arange(len(shown)), ink] = 1
    stimulus[np.arange(len(shown)), 3 + word] = 1
    return Stimuli(
        tuple(np.where(word == ink, "con", "inc").tolist()),
        ink.astype(np.int64),
        stimulus,
        np.array([STIMULI.index(pair) for pair in zip(word, ink, strict=True)], np.int64),
    )


def encode_faces(shown: Text) -> Stimuli:
    """(N,4) condition, left, top, right pictures as in ``tasks.faces``.

    A picture has one code wherever it is shown. Faces get a corner of the square that no face
    they are shown against has, as far as the four corners go round, and a draw within it.
    An item is a right picture with a wrong one, on whichever side.

    Raises:
        DTwinInputError: a condition other than face and shape, a trial with both or neither
            picture equal to the top one, more than three shapes (code ``stimulus``).
    """
    condition, left, top, right = shown.T
    if not np.isin(condition, list(CUE_INPUT)).all() or (shown == "").any():
        raise _faces_error("pictures under the condition face or shape", sorted({*condition}))
    if ((left == top) == (right == top)).any():
        raise _faces_error("one of left and right equal to top", "both or neither in some trials")
    correct = np.where(left == top, LEFT, RIGHT).astype(np.int64)
    other = np.where(correct == LEFT, right, left)
    is_face = condition == "face"
    code = {
        **_face_codes(list(zip(top[is_face], other[is_face], strict=True))),
        **_shape_codes(sorted({*top[~is_face], *other[~is_face]})),
    }
    stimulus = np.zeros((len(shown), N_SENSORY), np.float32)
    for position, pictures in ((2, top), (4, left), (6, right)):
        stimulus[:, position : position + 2] = [code[picture] for picture in pictures]
    pairs = sorted({*zip(~is_face, top, other, strict=True)})
    item = [pairs.index(pair) for pair in zip(~is_face, top, other, strict=True)]
    return Stimuli(tuple(condition.tolist()), correct, stimulus, np.array(item, np.int64))


def face_cues(condition: tuple[str, ...], onset_s: Float64, duration_s: Float64) -> Cues:
    """A cue before each block of one condition, at most from the end of the last block on."""
    first = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(condition)) if a != b)]
    free_s = np.concatenate([[0.0], (onset_s + duration_s)[:-1]])[first]
    start_s = np.maximum(onset_s[first] - CUE_S, free_s)
    cue = np.zeros((len(first), N_SENSORY), np.float32)
    cue[np.arange(len(first)), [CUE_INPUT[condition[i]] for i in first]] = 1
    has_time = start_s < onset_s[first]
    return start_s[has_time], (onset_s[first] - start_s)[has_time], cue[has_time]


def no_cues(condition: tuple[str, ...], onset_s: Float64, duration_s: Float64) -> Cues:
    """A task without cues."""
    return np.zeros(0), np.zeros(0), np.zeros((0, N_SENSORY), np.float32)


@dataclass(frozen=True)
class Encoding:
    """How a task's trials are told in a table and shown to the main RNN.

    Attributes:
        columns: what was shown.
        encode: (N, columns) text -> Stimuli.
        cues: conditions, onsets and durations of the trials -> the cues.
        n_choices: buttons; with two, an error says which was pressed.
    """

    columns: tuple[str, ...]
    encode: Callable[[Text], Stimuli]
    cues: Callable[[tuple[str, ...], Float64, Float64], Cues]
    n_choices: int


ENCODINGS: dict[str, Encoding] = {
    "faces": Encoding(("condition", "left", "top", "right"), encode_faces, face_cues, 2),
    "stroop": Encoding(("word", "ink"), encode_stroop, no_cues, 3),
}


def _face_codes(pairs: list[tuple[str, str]]) -> dict[str, npt.NDArray[np.float64]]:
    rng = np.random.default_rng(0)
    corner: dict[str, int] = {}
    for face in dict.fromkeys(name for pair in pairs for name in pair):
        against = [a if b == face else b for a, b in pairs if face in (a, b)]
        taken = [corner[name] for name in against if name in corner]
        used = list(corner.values())
        corner[face] = min(range(4), key=lambda c: (taken.count(c), used.count(c)))
    return {
        face: np.array([c & 1, c >> 1]) * 0.9 + rng.uniform(0, 0.1, 2) for face, c in corner.items()
    }


def _shape_codes(shapes: list[str]) -> dict[str, npt.NDArray[np.float64]]:
    if len(shapes) > len(SHAPES):
        raise _faces_error(f"at most {len(SHAPES)} shapes", shapes)
    return {name: np.array(code, float) for name, code in zip(shapes, SHAPES, strict=False)}


def _faces_error(wanted: str, got: object) -> Exception:
    return table_error(
        "condition, left, top, right", "stimulus", "these are no trials of faces", wanted, got
    )
