"""The twin and its controls, which differ from it in what they know of a person."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ..cohort import Cohort
from ..spec import TwinSpec
from ..training.device import find_device
from ..training.recipes import Config
from .baselines.features import DEMOGRAPHIC, Features, Reader, complete_edges, covariates
from .controls import PermutedConnectomes
from .direct_input import DirectInput, components
from .predictor import Predictor
from .twin_predictor import TwinPredictor

Float32 = npt.NDArray[np.float32]


def own(train: Cohort) -> Reader:
    """Fisher z, a missing edge the training mean; of people without connectomes demographics."""
    return complete_edges(train) if train.connectomes.n_edges else demographics(train)


def random_id(train: Cohort) -> Reader:
    """Random numbers that are always the same for a subject name: who it is, and nothing else.

    They are as many as edges, and enough to tell the training people apart.
    """
    n = max(train.connectomes.n_edges, 2 * len(train))

    def drawn(subject: str) -> Float32:
        digest = hashlib.blake2b(subject.encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest, "big"))
        return rng.standard_normal(n, np.float32)

    return lambda people: np.stack([drawn(s) for s in people.connectomes.subjects])


def zero(train: Cohort) -> Reader:
    """Nothing: one RNN for everybody."""
    return lambda people: np.zeros((len(people), 1), np.float32)


demographics = covariates(DEMOGRAPHIC)


def connectome_and_demographics(train: Cohort) -> Reader:
    """Edges and demographics, either with half of the variance between the training people."""
    readers = [own(train), demographics(train)]
    scales = []
    for read in readers:
        variance = read(train).var(axis=0, dtype=np.float64).sum()
        scales.append(variance**-0.5 if variance > 0 else 1.0)

    def read_both(people: Cohort) -> Float32:
        parts = [read(people) * scale for read, scale in zip(readers, scales, strict=True)]
        return np.concatenate(parts, axis=1).astype(np.float32)

    return read_both


CONTROLS: dict[str, Features] = {
    "random-id": random_id,
    "zero": zero,
    "demographics": demographics,
    "with-demographics": connectome_and_demographics,
}
"""What a control knows of a person in place of the connectome, or beside it."""


def twin_predictors(
    config: Config | None, preset: TwinSpec, device: str
) -> dict[str, Callable[[], Predictor]]:
    """Factories of the twin (``twin``) and its controls.

    ``permuted`` is the twin trained on connectomes dealt out anew; ``twin-`` and a name of
    ``CONTROLS`` knows of a person what that says; ``direct-input`` is no hypernetwork.

    Args:
        config: settings of the recipe, their seed is each training's; None takes the default.
        preset: sizes; regions, BOLD and TR are the cohort's.
        device: where twins are trained, see :func:`dtwin_fast.training.fit`.

    Raises:
        DTwinInputError: no such device (code ``device``).
        BackendUnavailableError: the device is not here.
    """
    place = find_device(device)

    def twin(name: str, features: Features) -> Callable[[], TwinPredictor]:
        return lambda: TwinPredictor(name, features, config, preset, place)

    return {
        "twin": twin("twin", own),
        "permuted": lambda: PermutedConnectomes(twin("twin", own)),
        **{f"twin-{name}": twin(f"twin-{name}", features) for name, features in CONTROLS.items()},
        "direct-input": lambda: DirectInput("direct-input", components, config, preset, place),
    }
