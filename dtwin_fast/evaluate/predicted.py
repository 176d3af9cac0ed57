"""What one predictor, the twin or a trivial one, says about people in one run of a task."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Predicted:
    """Predictions for S people in one run of N trials, V volumes, K contrasts, A actions.

    None means that the predictor says nothing of it; a row of NaN, nothing of that person.

    Attributes:
        choice_prob: (S,N,A) float32 probability of each action; the rest to 1 is no response.
        rt_s: (S,N) float32 mean reaction time given a response, seconds from onset.
        press_prob: (S,N,L,A) float32 probability that action a is pressed in step l after the
            onset, L steps of ``step_s`` seconds; its sum over l is ``choice_prob``.
        step_s: seconds.
        contrasts: (S,K,R) float32 effects of the task's contrasts, as in ``Observed``.
        bold: (S,V,R) float32 demeaned time courses, as in ``Observed``.
    """

    choice_prob: Float32 | None = None
    rt_s: Float32 | None = None
    press_prob: Float32 | None = None
    step_s: float = 0.08
    contrasts: Float32 | None = None
    bold: Float32 | None = None
