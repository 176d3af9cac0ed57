"""The twin and its controls, which differ from it in what they know of a person."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..cohort import Cohort
from ..spec import TwinSpec
from ..training.config import StagedConfig
from ..training.device import find_device
from ..training.recipes import Config, default_config
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

_NAME_RIDGE = 1e-3
"""A name says nothing of other names, so there is nothing to shrink for."""


def connectome_and_demographics(train: Cohort) -> Reader:
    """The twin's edges and, with as much variance between the training people, demographics."""
    read_edges, read_others = own(train), demographics(train)
    edges, others = (
        read(train).var(axis=0, dtype=np.float64).sum() for read in (read_edges, read_others)
    )
    scale = np.float32((edges / others) ** 0.5 if others > 0 else 1.0)
    return lambda people: np.concatenate(
        [read_edges(people), scale * read_others(people)], axis=1, dtype=np.float32
    )


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
    of_names = config or default_config(preset)
    if isinstance(of_names, StagedConfig):
        of_names = replace(of_names, ridge=_NAME_RIDGE)

    def twin(name: str, features: Features) -> Callable[[], TwinPredictor]:
        settings = of_names if features is random_id else config
        return lambda: TwinPredictor(name, features, settings, preset, place)

    return {
        "twin": twin("twin", own),
        "permuted": lambda: PermutedConnectomes(twin("twin", own)),
        **{f"twin-{name}": twin(f"twin-{name}", features) for name, features in CONTROLS.items()},
        "direct-input": lambda: DirectInput("direct-input", components, config, preset, place),
    }
