"""A teacher: people whose truth is itself a main RNN, so that a twin can be right exactly.

The cohorts of ``simulate`` come from a drift-diffusion model and a GLM, which no RNN matches. Here
each person's weights are linear in a few latent numbers that their connectome shows: what is left
between a trained twin and the truth is then a matter of data and training alone. The idea is that
of the small example of Takahashi et al. 2026 (four latent dimensions).
"""

from __future__ import annotations

import reprlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..connectome import Connectomes
from ..connectome_checks import MAX_COHORT_BYTES
from ..dispatch import rollout
from ..errors import DTwinInputError
from ..spec import PRESETS, TwinSpec
from ..tasks import TASKS
from ..weights import RNNWeights, count_weights, spec_weight_shapes
from .arguments import whole_number

_INPUT_GAIN, _RECURRENT_GAIN, _PERSON_SHARE = 1.0, 0.9, 0.3
_LOADINGS = 3


@dataclass(frozen=True, eq=False)
class Teacher:
    """S people of a teacher with D latent dimensions, and what they do in B segments.

    Attributes:
        connectomes: noise-free connectomes of R regions.
        z: (S,D) float64 latent numbers.
        weights: the main RNN of each person.
        inputs: (B,T,I) float32 segments of the tasks, alternately faces and Stroop.
        outputs: (S,B,T,O) float32 what the RNNs give.
    """

    connectomes: Connectomes
    z: npt.NDArray[np.float64]
    weights: RNNWeights
    inputs: npt.NDArray[np.float32]
    outputs: npt.NDArray[np.float32]


def simulate_teacher(
    n_subjects: int = 100,
    n_segments: int = 16,
    *,
    spec: TwinSpec = PRESETS["tiny"],
    n_latent: int = 4,
    seed: int = 0,
    backend: str = "auto",
) -> Teacher:
    """Draw a teacher and roll its people out.

    Args:
        n_subjects: S.
        n_segments: B, cut from the runs at random.
        spec: sizes of the RNN, the connectome and the segments.
        n_latent: D.
        seed: the same seed gives the same people; person i does not depend on S.
        backend: of :func:`dtwin_fast.rollout`.

    Raises:
        DTwinInputError: sizes that are not positive integers, a negative seed (code
            ``simulation``), or segments longer than a run (code ``simulation``).
        BackendUnavailableError: the backend cannot run here.
    """
    n_subjects = _integer("n_subjects", n_subjects, 1)
    n_segments = _integer("n_segments", n_segments, 1)
    n_latent = _integer("n_latent", n_latent, 1)
    seed = _integer("seed", seed, 0)
    values = max(
        n_subjects * spec.n_edges,
        (n_subjects + n_latent) * count_weights(spec),
        n_subjects * n_segments * spec.segment_steps * spec.n_outputs,
    )
    if 8 * values > MAX_COHORT_BYTES:
        raise _error("sizes", f"arrays of at most {MAX_COHORT_BYTES} bytes", 8 * values)
    shared = np.random.default_rng([seed, 0])
    z = np.stack([_person(seed, i).standard_normal(n_latent) for i in range(n_subjects)])
    weights = _weights(spec, z, shared)
    inputs = _segments(spec, n_segments, shared)
    return Teacher(
        connectomes=_connectomes(spec, z, shared),
        z=z,
        weights=weights,
        inputs=inputs,
        outputs=np.asarray(rollout(weights, inputs, backend=backend).outputs, np.float32),
    )


def _integer(name: str, value: object, least: int) -> int:
    number = whole_number(value, least, 2**63)
    if number is None:
        raise _error(name, f"an integer from {least}", reprlib.repr(value))
    return number


def _person(seed: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, 1, number])


def _weights(spec: TwinSpec, z: npt.NDArray[np.float64], rng: np.random.Generator) -> RNNWeights:
    parts: dict[str, npt.NDArray[np.float32]] = {}
    for name, shape in spec_weight_shapes(spec).items():
        gain = _RECURRENT_GAIN if name == "w_hh" else _INPUT_GAIN
        sd = gain / np.sqrt(shape[-1] if len(shape) == 2 else spec.n_hidden)
        mean, directions = rng.standard_normal(shape), rng.standard_normal((z.shape[1], *shape))
        own = np.einsum("sd,d...->s...", z, directions) / np.sqrt(z.shape[1])
        mixed = np.sqrt(1 - _PERSON_SHARE) * mean + np.sqrt(_PERSON_SHARE) * own
        parts[name] = (sd * mixed).astype(np.float32)
    return RNNWeights(spec.cell, **parts)


def _segments(spec: TwinSpec, n_segments: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    runs = [task.encode(task.make_schedule(0), spec.dt_s) for task in TASKS.values()]
    shortest = min(len(run) for run in runs)
    if spec.segment_steps > shortest or runs[0].shape[1] != spec.n_inputs:
        raise _error(
            "spec",
            f"segments of at most {shortest} steps and {runs[0].shape[1]} inputs",
            f"{spec.segment_steps} steps and {spec.n_inputs} inputs",
        )
    starts = rng.integers(0, shortest - spec.segment_steps + 1, n_segments)
    return np.stack(
        [runs[b % len(runs)][start : start + spec.segment_steps] for b, start in enumerate(starts)]
    )


def _connectomes(
    spec: TwinSpec, z: npt.NDArray[np.float64], rng: np.random.Generator
) -> Connectomes:
    # Correlations of regions that load on a few signals and have noise of their own: valid
    # whatever the loadings are.
    shape = (spec.n_regions, _LOADINGS)
    mean, directions = rng.standard_normal(shape), rng.standard_normal((z.shape[1], *shape))
    loading = mean + np.einsum("sd,drm->srm", z, directions) * np.sqrt(_PERSON_SHARE / z.shape[1])
    covariance = np.einsum("srm,stm->srt", loading, loading) + np.eye(spec.n_regions)
    sd = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    r = covariance / (sd[:, :, None] * sd[:, None])
    return Connectomes.from_arrays(
        r[:, *np.triu_indices(spec.n_regions, 1)],
        regions=[f"region_{k + 1}" for k in range(spec.n_regions)],
        subjects=[f"sub-{i + 1:05d}" for i in range(len(z))],
    )


def _error(field: str, wanted: str, got: object) -> DTwinInputError:
    return DTwinInputError(
        "simulation",
        "such a teacher cannot be made",
        field=field,
        wanted=wanted,
        got=str(got),
        fix="Give positive sizes and a spec whose segments fit in a run",
    )
