"""Emotional faces (Hariri): which of two pictures below is the one on top?

Times and counts are those of the Transdiagnostic Connectome Project (OpenNeuro ds005237,
hammerAP events); its pictures are not public, so faces are symbols here (Takahashi et al. 2026).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .schedule import Float64, Schedule
from .task import N_SENSORY, Task, Variation

LEFT, RIGHT = 0, 1
N_BLOCKS, BLOCK_TRIALS = 18, 6
FIRST_ONSET_S, TRIAL_PITCH_S, BLOCK_PITCH_S = 11.06, 3.0, 21.0
STIMULUS_S, CUE_S, RUN_S = 1.9, 2.9, 394.4

# Inputs: 0 cue "match faces", 1 cue "match shapes", then two codes for each of the three
# positions top, left, right. A blank position is (0, 0), hence no shape is.
CUE_INPUT = {"face": 0, "shape": 1}
SHAPES = ((1, 0), (0, 1), (1, 1))
_STREAM = 0
"""Name of this task's random numbers: each task draws its own from one seed."""

Codes = npt.NDArray[np.floating]


def make_schedule(seed: int = 0) -> Schedule:
    """108 trials in 18 blocks of 6, shapes first; sides are balanced in each condition.

    Draws the order of sides and shapes and the codes of the faces: each dimension of a face is
    uniform in [0, 0.1] or [0.9, 1]; the wrong picture differs from the right one in which.
    """
    rng = np.random.default_rng([seed, _STREAM])
    condition = [("shape", "face")[b % 2] for b in range(N_BLOCKS) for _ in range(BLOCK_TRIALS)]
    n_trials = len(condition)
    correct = np.empty(n_trials, np.int64)
    stimulus = np.zeros((n_trials, N_SENSORY), np.float32)
    item = np.empty(n_trials, np.int64)
    for kind, pictures in (("face", _faces), ("shape", _shapes)):
        trials = np.flatnonzero(np.array(condition) == kind)
        correct[trials] = rng.permutation(np.arange(len(trials)) % 2)
        match, other, item[trials] = pictures(rng, len(trials))
        at_left = (correct[trials] == LEFT)[:, None]
        stimulus[trials, 2:4] = match
        stimulus[trials, 4:6] = np.where(at_left, match, other)
        stimulus[trials, 6:8] = np.where(at_left, other, match)
    n_faces = N_BLOCKS // 2 * BLOCK_TRIALS
    item[np.array(condition) == "shape"] += n_faces
    block_onset: Float64 = FIRST_ONSET_S + BLOCK_PITCH_S * np.arange(N_BLOCKS, dtype=np.float64)
    cue = np.zeros((N_BLOCKS, N_SENSORY), np.float32)
    cue[np.arange(N_BLOCKS), [CUE_INPUT[c] for c in condition[::BLOCK_TRIALS]]] = 1
    onset = (block_onset[:, None] + TRIAL_PITCH_S * np.arange(BLOCK_TRIALS)).ravel()
    return Schedule(
        task="faces",
        run_s=RUN_S,
        onset_s=onset,
        duration_s=np.full(n_trials, STIMULUS_S),
        window_s=np.full(n_trials, STIMULUS_S),
        condition=tuple(condition),
        correct=correct,
        stimulus=stimulus,
        item=item,
        cue_onset_s=block_onset - CUE_S,
        cue_duration_s=np.full(N_BLOCKS, CUE_S),
        cue=cue,
    )


def _faces(rng: np.random.Generator, n: int) -> tuple[Codes, Codes, npt.NDArray[np.int64]]:
    corner = rng.integers(0, 4, n)
    other_corner = (corner + rng.integers(1, 4, n)) % 4
    codes = [
        np.stack([c & 1, c >> 1], axis=1) * 0.9 + rng.uniform(0, 0.1, (n, 2))
        for c in (corner, other_corner)
    ]
    return codes[0], codes[1], np.arange(n)


def _shapes(rng: np.random.Generator, n: int) -> tuple[Codes, Codes, npt.NDArray[np.int64]]:
    shape = rng.permutation(np.arange(n) % 3)
    step = rng.integers(1, 3, n)
    codes = np.array(SHAPES, np.float32)
    return codes[shape], codes[(shape + step) % 3], 2 * shape + step - 1


def vary(schedule: Schedule, rng: np.random.Generator) -> Variation:
    """Sides exchanged in half of the trials, each face for another, each shape for another."""
    n_trials = schedule.n_trials
    pictures = schedule.stimulus[:, 2:].reshape(n_trials, 3, 2).astype(np.float64)
    # A dimension of a face is low or high, and either may be called so; a shape is one of three.
    flips = rng.random((n_trials, 1, 2)) < 0.5
    faces = np.where(flips, 1 - pictures, pictures)
    number = np.rint(pictures @ [1, 2]).astype(np.int64) - 1
    order = rng.permuted(np.tile(np.arange(len(SHAPES)), (n_trials, 1)), axis=1)
    exchanged = np.take_along_axis(order, np.clip(number, 0, len(SHAPES) - 1), axis=1)
    shapes = np.array(SHAPES)[exchanged]
    is_face = np.array([c == "face" for c in schedule.condition])
    pictures = np.where(is_face[:, None, None], faces, shapes)
    swaps = rng.random(n_trials) < 0.5
    pictures[swaps, 1:] = pictures[swaps, :0:-1]
    action = np.tile(np.arange(3), (n_trials, 1))
    action[swaps, :2] = [RIGHT, LEFT]
    stimulus = schedule.stimulus.copy()
    stimulus[:, 2:] = pictures.reshape(n_trials, 6)
    return Variation(stimulus, action)


TASK = Task(
    name="faces",
    flag=0.0,
    action_names=("left", "right", "unused"),
    contrasts={"faces>shapes": {"face": 1.0, "shape": -1.0}},
    make_schedule=make_schedule,
    vary=vary,
)
