"""Colour-word Stroop: which colour is the ink?

Times and counts are those of the Transdiagnostic Connectome Project (OpenNeuro ds005237,
stroopAP events).
"""

from __future__ import annotations

import numpy as np

from .schedule import Schedule
from .task import N_SENSORY, Task, Variation

COLOURS = ("red", "green", "blue")
STIMULUS_S, LEAD_IN_S, RUN_S = 0.25, 2.0, 408.0
SOA_COUNTS = {2.25: 25, 4.5: 26, 8.25: 27}

# (word, ink) of the nine stimuli in the order of the source's codes con1-3, inc1-6, and how
# often each is shown.
STIMULI = ((0, 0), (1, 1), (2, 2), (1, 0), (2, 0), (0, 1), (2, 1), (0, 2), (1, 2))
STIMULUS_COUNTS = (18, 18, 18, 4, 4, 4, 4, 4, 4)

_STREAM = 1
"""Name of this task's random numbers: each task draws its own from one seed."""


def make_schedule(seed: int = 0) -> Schedule:
    """78 trials, 54 congruent and 24 incongruent; draws their order and that of the SOAs.

    The response window is the time to the next onset (SOA).
    """
    rng = np.random.default_rng([seed, _STREAM])
    item = rng.permutation(np.repeat(np.arange(len(STIMULI)), STIMULUS_COUNTS))
    soa_s = rng.permutation(np.repeat(list(SOA_COUNTS), list(SOA_COUNTS.values())))
    word, ink = np.array(STIMULI)[item].T
    n_trials = len(item)
    # Inputs: 0-2 ink, 3-5 word, 6-7 unused.
    stimulus = np.zeros((n_trials, N_SENSORY), np.float32)
    stimulus[np.arange(n_trials), ink] = 1
    stimulus[np.arange(n_trials), 3 + word] = 1
    return Schedule(
        task="stroop",
        run_s=RUN_S,
        onset_s=LEAD_IN_S + np.concatenate([[0.0], np.cumsum(soa_s)[:-1]]),
        duration_s=np.full(n_trials, STIMULUS_S),
        window_s=soa_s,
        condition=tuple("con" if w == i else "inc" for w, i in zip(word, ink, strict=True)),
        correct=ink,
        stimulus=stimulus,
        item=item,
        cue_onset_s=np.zeros(0),
        cue_duration_s=np.zeros(0),
        cue=np.zeros((0, N_SENSORY), np.float32),
    )


def vary(schedule: Schedule, rng: np.random.Generator) -> Variation:
    """Every trial's colours exchanged for others, in ink, word and response alike."""
    colour = rng.permuted(np.tile(np.arange(len(COLOURS)), (schedule.n_trials, 1)), axis=1)
    stimulus = np.zeros_like(schedule.stimulus)
    for first in (0, len(COLOURS)):
        np.put_along_axis(
            stimulus, first + colour, schedule.stimulus[:, first : first + len(COLOURS)], axis=1
        )
    return Variation(stimulus, colour)


TASK = Task(
    name="stroop",
    flag=1.0,
    action_names=COLOURS,
    contrasts={"incongruent>congruent": {"inc": 1.0, "con": -1.0}},
    make_schedule=make_schedule,
    vary=vary,
)
