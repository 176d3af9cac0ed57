"""Whether a model computes what the engine does, in ONNX Runtime and in onnx's own evaluator.

They and the engine are measured by the same sums in float64. A model may be ``TOLERANCE`` away from
those, or, where a rollout of thousands of steps amplifies its roundings, a small multiple of the
engine's own distance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..cells import CELLS
from ..connectome import FISHER_CLIP, Connectomes
from ..connectome_checks import R_TOLERANCE
from ..dispatch import rollout, rollout_vjp
from ..errors import MissingExtraError, VerificationError
from ..twin import Twin
from ..weights import RNNWeights
from .exact import cotangent, exact_outputs, peak_gap, read_outputs

Array = npt.NDArray[Any]

TOLERANCE = 2e-6
"""Of every output, in units of its largest value for a person, or of 1 where that is larger."""
GRADIENT_TOLERANCE = 2e-5
"""Of ``d_edges``, in units of its largest: sums over all steps, in which much cancels."""
ALLOWANCE = 8
"""Times the engine's own error: what another order of the same float32 sums may make of it."""
NUDGES = 3
"""Runs of the engine with weights a rounding away, which say how far roundings carry."""
UNSTABLE = 1e-3
"""A person on whom the engine itself errs by more is too chaotic for float32, and not compared:
any two programs would part. Fresh RNNs and absurd connectomes do that, trained RNNs should not."""
MANY_BYTES = 2**28
"""Of a rollout's gates: as many people at once as that holds, ``MANY`` at most."""
MANY = 33
NOT_R = (np.nan, 1.5, -np.inf)
"""No correlations: one such edge marks its person diverged."""
FEW = [1, -5, -4, -3, -2, -1]
"""People for onnx's evaluator, which is slow: no correlations, |r| of 1 in places, plain, and
one with each of ``NOT_R``."""


@dataclass(frozen=True)
class Verification:
    """What :func:`verify` measured.

    Attributes:
        errors: ``onnxruntime``, ``reference``, ``libdtwin_ort`` (if given) or ``engine`` ->
            output -> largest error over the people compared, in the unit of ``TOLERANCE``.
        compared: output -> how many results of ONNX Runtime were compared.
        n_people: connectomes that ONNX Runtime was given.
    """

    errors: dict[str, dict[str, float]]
    compared: dict[str, int]
    n_people: int


def verify(twin: Twin, part: str, model: bytes, library: Path | None = None) -> Verification:
    """Run a model on random and extreme people, on one alone, and on many.

    The extremes: no correlation at all, |r| of 1, 1 - 1e-7 and at the clip of Fisher's
    transform, in every edge or in a few, and ``NOT_R``, which must mark its person diverged (in
    the hypernetwork: make all weights NaN) and leave the others as they are.

    Args:
        twin: what the model was made of.
        part: which part, a key of ``PARTS`` of :mod:`dtwin_fast.export.to_onnx`.
        model: its bytes.
        library: an op library (:mod:`dtwin_fast.ort`), with which it is run in ONNX Runtime too.

    Raises:
        VerificationError: an output is too far from the truth, there is no person on whom the
            engine is near it, or ONNX Runtime cannot use the library.
        MissingExtraError: onnx or onnxruntime is not installed.
    """
    runtimes = {"onnxruntime": _onnxruntime(model), "reference": _reference(model)}
    if library is not None:
        runtimes["libdtwin_ort"] = _with_library(model, library)
    rng = np.random.default_rng(0)
    people, many = _people(twin, rng), _random_people(twin, rng, _how_many(twin))
    tally = _Tally(part, tuple(runtimes))
    for runtime, run in runtimes.items():
        for edges in (people[FEW],) if runtime == "reference" else (people, people[:1], many):
            given = _given(twin, part, len(edges), rng)
            got = run({"edges": edges, **given})
            for output, measured in _measure(twin, part, edges, given, got).items():
                tally.add(runtime, output, *measured)
    return tally.verification(len(people) + 1 + len(many))


class _Tally:
    """Largest errors so far."""

    def __init__(self, part: str, runtimes: tuple[str, ...]) -> None:
        self._part = part
        self._worst: dict[str, dict[str, float]] = {name: {} for name in (*runtimes, "engine")}
        self._compared: dict[str, dict[str, int]] = {name: {} for name in runtimes}

    def add(self, runtime: str, output: str, errors: Array, own: Array, allowed: Array) -> None:
        """Check (S,) errors of a runtime, with the engine's and what its rounding explains."""
        least = GRADIENT_TOLERANCE if output == "d_edges" else TOLERANCE
        stable = allowed <= UNSTABLE
        limits = np.maximum(least, ALLOWANCE * allowed)
        for person in np.flatnonzero(stable & ~(errors <= limits)):
            raise VerificationError(
                "The ONNX model does not compute what the engine does "
                f"({self._part}, {output}, {runtime}): error {errors[person]:.3g}, at most "
                f"{limits[person]:.3g} allowed. Nothing was written"
            )
        for name, values in ((runtime, errors), ("engine", own)):
            largest = float(values[stable].max(initial=0.0))
            self._worst[name][output] = max(largest, self._worst[name].get(output, 0.0))
        counts = self._compared[runtime]
        counts[output] = counts.get(output, 0) + int(stable.sum())

    def verification(self, n_people: int) -> Verification:
        """All that was measured."""
        if not all(count for counts in self._compared.values() for count in counts.values()):
            raise VerificationError(
                "This twin's rollouts are so chaotic that the engine itself errs on everybody: "
                "there is nothing to compare an ONNX model with. Nothing was written"
            )
        return Verification(self._worst, self._compared["onnxruntime"], n_people)


def _people(twin: Twin, rng: np.random.Generator) -> Array:
    """(S,E) random and extreme edges; the last have one each of ``NOT_R``."""
    n_edges = twin.spec.n_edges
    signs = rng.choice(np.array([-1.0, 1.0]), n_edges)
    extremes = [np.zeros(n_edges), np.ones(n_edges), signs, signs * (1 - 1e-7), signs * FISHER_CLIP]
    one, some, other = _random_people(twin, rng, 3)
    places = rng.permutation(n_edges)[: len(extremes)]
    some[places] = [extreme[place] for extreme, place in zip(extremes, places, strict=False)]
    lost = np.stack([other] * len(NOT_R))
    lost[:, n_edges // 2] = NOT_R
    return np.stack([one, *extremes, some, other, *lost]).astype(np.float32)


def _random_people(twin: Twin, rng: np.random.Generator, n: int) -> Array:
    """(S,E) edges as spread as those of the twin's training cohort."""
    z = twin.edge_mean + rng.standard_normal((n, twin.spec.n_edges)) * twin.edge_sd
    return np.tanh(z).astype(np.float32)


def _how_many(twin: Twin) -> int:
    spec = twin.spec
    n_steps = sum(s.n_steps(spec.dt_s) for s in twin.schedules.values())
    values = n_steps * CELLS[spec.cell].n_gates * spec.n_hidden
    return max(2, min(MANY, MANY_BYTES // (4 * values)))


def _given(twin: Twin, part: str, n_people: int, rng: np.random.Generator) -> dict[str, Array]:
    """Random inputs of a part but for edges."""
    spec = twin.spec
    if part == "rollout":
        n_steps = min(s.n_steps(spec.dt_s) for s in twin.schedules.values())
        return {"inputs": rng.standard_normal((3, n_steps, spec.n_inputs)).astype(np.float32)}
    if part != "vjp":
        return {}
    n_trials = sum(s.n_trials for s in twin.schedules.values())
    shapes: dict[str, tuple[int, ...]] = {}
    if spec.bold_regions:
        n_contrasts = sum(map(len, twin.contrasts.values()))
        shapes["d_contrasts"] = n_contrasts, len(spec.bold_regions)
    if spec.head == "hazard":
        shapes |= {"d_choice_prob": (n_trials, spec.n_actions), "d_rt_s": (n_trials,)}
    return {
        name: rng.standard_normal((n_people, *shape)).astype(np.float32)
        for name, shape in shapes.items()
    }


def _measure(
    twin: Twin, part: str, edges: Array, given: dict[str, Array], got: Mapping[str, Array]
) -> dict[str, tuple[Array, ...]]:
    """Output -> (S,) errors of ``got``, those of the engine, and the engine's largest error.

    The last is over runs with nudged weights too, for one run may be near the truth by luck, and
    over all outputs of the rollout, for any of them may be behind an error in what is read of it.
    """
    known: Array = np.all(np.abs(edges) < 1 + R_TOLERANCE, axis=1)
    given = {name: array if name == "inputs" else array[known] for name, array in given.items()}
    read = {name: array[known] for name, array in got.items()}
    truth, exact = exact_outputs(twin, part, edges[known], given)
    people = _connectomes(twin, edges[known])
    weights = [twin.personalize(people)]
    weights += [_nudged(twin, weights[0], seed) for seed in range(NUDGES)]
    runs = [_engine_outputs(twin, part, people, each, given) for each in weights]
    in_rollout = np.max([_distance(run["outputs"], exact) for run in runs], axis=0)
    diverged = runs[0]["diverged"]
    measured = {}
    for name, wanted in truth.items():
        distances = [
            _output_distance(twin, name, run[name], wanted, exact) for run in (read, *runs)
        ]
        allowed = np.max([in_rollout, *distances[1:]], axis=0)
        # Of who diverged there are no numbers to compare.
        measured[name] = tuple(a[~diverged] for a in (distances[0], distances[1], allowed))
    expected = ~known
    expected[known] = _marked(part, runs[0])
    wrong = (_marked(part, got) != expected).astype(np.float64)
    measured["diverged"] = wrong, np.zeros_like(wrong), np.zeros_like(wrong)
    return measured


def _marked(part: str, outputs: Mapping[str, Array]) -> Array:
    """(S,) bool who is diverged, which a hypernetwork can only say by weights that are NaN."""
    if part == "hypernetwork":
        unknown: Array = np.all(np.isnan(outputs["weights"]), axis=1)
        return unknown
    return outputs["diverged"]


def _output_distance(twin: Twin, name: str, got: Array, wanted: Array, exact: Array) -> Array:
    """(S,) :func:`_distance` of an output, in the unit that suits it."""
    if name == "rt_s" and twin.spec.head == "sigmoid":
        # Equal peaks may change places: what counts is whether there is a peak.
        gap = peak_gap(twin, exact, got)
        return _distance(gap, np.zeros_like(gap))
    return _distance(got, wanted, 0.0 if name == "d_edges" else 1.0)


@np.errstate(over="ignore", invalid="ignore")  # who diverges is told apart afterwards
def _distance(got: Array, wanted: Array, least: float = 1.0) -> Array:
    """(S,) largest difference, in units of the largest number wanted, or of ``least``."""
    axes = tuple(range(1, wanted.ndim))
    both_nan = np.isnan(got) & np.isnan(wanted)
    difference = np.where(both_nan, 0, np.abs(got.astype(np.float64) - wanted))
    scale = np.maximum(np.nan_to_num(np.abs(wanted)).max(axis=axes, initial=0.0), least)
    largest: Array = difference.max(axis=axes, initial=0.0) / np.where(scale > 0, scale, 1)
    return largest


def _nudged(twin: Twin, weights: RNNWeights, seed: int) -> RNNWeights:
    """Each weight as it is or a rounding away from it, by chance."""
    flat = weights.to_flat()
    steps = np.random.default_rng(seed).integers(-1, 2, flat.shape)
    towards = np.where(steps < 0, np.float32(-np.inf), np.float32(np.inf))
    return RNNWeights.from_flat(np.where(steps, np.nextafter(flat, towards), flat), twin.spec)


def _engine_outputs(
    twin: Twin, part: str, people: Connectomes, weights: RNNWeights, given: Mapping[str, Array]
) -> dict[str, Array]:
    """The same from the engine in float32, with the rollout's ``outputs`` and ``diverged``."""
    inputs = given["inputs"] if part == "rollout" else twin.encode(list(twin.schedules))
    result = rollout(weights, inputs, backend="cpu")
    outputs = result.outputs
    found: dict[str, Array] = {
        "weights": weights.to_flat(), "outputs": outputs, "diverged": result.diverged
    }  # fmt: skip
    if part in ("twin", "vjp"):
        found |= read_outputs(twin, outputs)
    if part == "vjp":
        d_outputs = cotangent(twin, outputs, given)
        d_weights = rollout_vjp(weights, inputs, d_outputs, backend="cpu").weights
        found["d_edges"] = twin.edge_gradients(people, d_weights)
    return found


def _connectomes(twin: Twin, edges: Array) -> Connectomes:
    """The edges as they are: a reader of files would refuse some of these people."""
    return Connectomes(
        edges=edges,
        subjects=tuple(f"person-{i}" for i in range(len(edges))),
        regions=twin.regions,
        is_fisher_z=False,
        missing=np.zeros((len(edges), twin.spec.n_regions), np.bool_),
        flags=((),) * len(edges),
    )


Run = Callable[[dict[str, Array]], dict[str, Array]]


def _onnxruntime(model: bytes, library: Path | None = None) -> Run:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "onnx", "Verifying an ONNX model") from error
    options = onnxruntime.SessionOptions()
    if library is not None:
        options.register_custom_ops_library(str(library))
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))


def _with_library(model: bytes, library: Path) -> Run:
    with _blaming(library):
        run = _onnxruntime(model, library)

    def blamed_run(inputs: dict[str, Array]) -> dict[str, Array]:
        with _blaming(library):
            return run(inputs)

    return blamed_run


@contextmanager
def _blaming(library: Path) -> Iterator[None]:
    """What fails here did not fail without the library."""
    try:
        yield
    except Exception as error:  # onnxruntime has a type for each status code
        raise VerificationError(
            f"onnxruntime cannot run the model with {library}: {error}. Nothing was written. Build "
            "the library for this runtime, or take it away: the model runs without it"
        ) from error


def _reference(model: bytes) -> Run:
    try:
        from onnx.reference import ReferenceEvaluator
    except ImportError as error:
        raise MissingExtraError("onnx", "onnx", "Verifying an ONNX model") from error
    evaluator = ReferenceEvaluator(model)
    names = evaluator.output_names

    def run(inputs: dict[str, Array]) -> dict[str, Array]:
        with np.errstate(all="ignore"):  # numpy says of NaN and infinity what we know
            return dict(zip(names, evaluator.run(names, inputs), strict=True))

    return run
