"""Whether a model computes what the engine does, in ONNX Runtime and in onnx's own evaluator.

All three are measured by the same sums in float64. Two float32 programs that add in another order
part by more than one rounding where a rollout of thousands of steps amplifies it, so a model may
be as far from the truth as a small multiple of the engine's own distance, or ``TOLERANCE`` where
that is more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..cells import CELLS
from ..connectome import FISHER_CLIP, Connectomes
from ..dispatch import rollout, rollout_vjp
from ..errors import MissingExtraError, VerificationError
from ..twin import Twin
from .exact import cotangent, exact_outputs, peak_gap, read_outputs

Array = npt.NDArray[Any]

TOLERANCE = 2e-6
"""Of every output, in units of its largest value for a person, or of 1 where that is larger."""
GRADIENT_TOLERANCE = 2e-5
"""Of ``d_edges``, in units of its largest: sums over all steps, in which much cancels."""
ALLOWANCE = 8
"""Times the engine's own error: what another order of the same float32 sums may make of it."""
UNSTABLE = 1e-3
"""A person on whom the engine itself errs by more is too chaotic for float32, and not compared:
any two programs would part. Fresh RNNs and absurd connectomes do that, trained RNNs should not."""
MANY_BYTES = 2**28
"""Of a rollout's gates: as many people at once as that holds, ``MANY`` at most."""
MANY = 33
FEW = 3
"""People for onnx's evaluator, which is slow."""


@dataclass(frozen=True)
class Verification:
    """What :func:`verify` measured.

    Attributes:
        errors: ``onnxruntime``, ``reference`` or ``engine`` -> output -> largest error over the
            people compared, in the unit of ``TOLERANCE``.
        compared: output -> how many results of ONNX Runtime were compared.
        n_people: connectomes that ONNX Runtime was given.
    """

    errors: dict[str, dict[str, float]]
    compared: dict[str, int]
    n_people: int


def verify(twin: Twin, part: str, model: bytes) -> Verification:
    """Run a model on random and extreme people, on one alone, and on many.

    The extremes: no correlation at all, |r| of 1, 1 - 1e-7 and at the clip of Fisher's
    transform, in every edge or in a few, and NaN, which must mark its person diverged and leave
    the others as they are.

    Args:
        twin: what the model was made of.
        part: which part, a key of ``PARTS`` of :mod:`dtwin_fast.export.to_onnx`.
        model: its bytes.

    Raises:
        VerificationError: an output is too far from the truth, or there is no person on whom the
            engine is near it.
        MissingExtraError: onnx or onnxruntime is not installed.
    """
    runtimes = {"onnxruntime": _onnxruntime(model), "reference": _reference(model)}
    rng = np.random.default_rng(0)
    people, many = _people(twin, rng), _random_people(twin, rng, _how_many(twin))
    cases = (
        ("onnxruntime", people),
        ("reference", people[-FEW:]),
        ("onnxruntime", people[:1]),
        ("onnxruntime", many),
    )
    worst: dict[str, dict[str, float]] = {"onnxruntime": {}, "reference": {}, "engine": {}}
    compared: dict[str, int] = {}
    for runtime, edges in cases:
        given = _given(twin, part, len(edges), rng)
        got = runtimes[runtime]({"edges": edges, **given})
        for output, (errors, of_engine, allowed) in _measure(twin, part, edges, given, got).items():
            least = GRADIENT_TOLERANCE if output == "d_edges" else TOLERANCE
            stable = allowed <= UNSTABLE
            for error, limit in zip(errors[stable], ALLOWANCE * allowed[stable], strict=True):
                if not error <= max(least, limit):
                    raise _failed(f"{part}, {output}, {runtime}", error, max(least, limit))
            for name, values in ((runtime, errors), ("engine", of_engine)):
                largest = float(values[stable].max(initial=0.0))
                worst[name][output] = max(largest, worst[name].get(output, 0.0))
            if runtime == "onnxruntime":
                compared[output] = compared.get(output, 0) + int(stable.sum())
    if not all(compared.values()):
        raise VerificationError(
            "This twin's rollouts are so chaotic that the engine errs on everybody: there is "
            "nothing to compare an ONNX model with. Nothing was written"
        )
    return Verification(worst, compared, len(people) + 1 + len(many))


def _people(twin: Twin, rng: np.random.Generator) -> Array:
    """(S,E) random and extreme edges; the last has NaN."""
    n_edges = twin.spec.n_edges
    signs = rng.choice(np.array([-1.0, 1.0]), n_edges)
    extremes = [np.zeros(n_edges), np.ones(n_edges), signs, signs * (1 - 1e-7), signs * FISHER_CLIP]
    one, some, other = _random_people(twin, rng, 3)
    places = rng.permutation(n_edges)[: len(extremes)]
    some[places] = [extreme[place] for extreme, place in zip(extremes, places, strict=False)]
    lost = other.copy()
    lost[n_edges // 2] = np.nan
    return np.stack([one, *extremes, some, other, lost]).astype(np.float32)


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
    shapes: dict[str, tuple[int, ...]] = {
        "d_contrasts": (sum(map(len, twin.contrasts.values())), len(spec.bold_regions))
    }
    if spec.head == "hazard":
        shapes |= {"d_choice_prob": (n_trials, spec.n_actions), "d_rt_s": (n_trials,)}
    return {
        name: rng.standard_normal((n_people, *shape)).astype(np.float32)
        for name, shape in shapes.items()
    }


def _measure(
    twin: Twin, part: str, edges: Array, given: dict[str, Array], got: Mapping[str, Array]
) -> dict[str, tuple[Array, Array, Array]]:
    """Output -> (S,) errors of ``got``, those of the engine, and what its rounding explains.

    An error in what is read of a rollout may come from any of its outputs, so the last is the
    engine's error there if it is larger than that of the output.
    """
    known = np.flatnonzero(~np.isnan(edges).any(axis=1))
    given = {name: array if name == "inputs" else array[known] for name, array in given.items()}
    read = {name: array[known] for name, array in got.items()}
    truth, exact = exact_outputs(twin, part, edges[known], given)
    engine, rounded, diverged = _engine_outputs(twin, part, edges[known], given)
    in_rollout = _distance(rounded, exact)
    measured = {}
    for name, wanted in truth.items():
        if name == "rt_s" and twin.spec.head == "sigmoid":
            # Equal peaks may change places: what counts is whether there is a peak.
            gaps = [peak_gap(twin, exact, array) for array in (read[name], engine[name])]
            errors, own = (_distance(gap, np.zeros_like(gap)) for gap in gaps)
        else:
            least = 0.0 if name == "d_edges" else 1.0
            errors, own = (_distance(a, wanted, least) for a in (read[name], engine[name]))
        allowed = np.maximum(own, in_rollout)
        # Of who diverged there are no numbers to compare.
        measured[name] = errors[~diverged], own[~diverged], allowed[~diverged]
    if "diverged" in got:
        expected = np.ones(len(edges), np.bool_)
        expected[known] = diverged
        wrong = (got["diverged"] != expected).astype(np.float64)
        measured["diverged"] = wrong, np.zeros_like(wrong), np.zeros_like(wrong)
    return measured


@np.errstate(over="ignore", invalid="ignore")  # who diverges is told apart afterwards
def _distance(got: Array, wanted: Array, least: float = 1.0) -> Array:
    """(S,) largest difference, in units of the largest number wanted, or of ``least``."""
    axes = tuple(range(1, wanted.ndim))
    both_nan = np.isnan(got) & np.isnan(wanted)
    difference = np.where(both_nan, 0, np.abs(got.astype(np.float64) - wanted))
    scale = np.maximum(np.nan_to_num(np.abs(wanted)).max(axis=axes, initial=0.0), least)
    largest: Array = difference.max(axis=axes, initial=0.0) / np.where(scale > 0, scale, 1)
    return largest


def _engine_outputs(
    twin: Twin, part: str, edges: Array, given: Mapping[str, Array]
) -> tuple[dict[str, Array], Array, npt.NDArray[np.bool_]]:
    """The same from the engine in float32, the outputs of its rollout, and who diverged."""
    people = _connectomes(twin, edges)
    weights = twin.personalize(people)
    inputs = given["inputs"] if part == "rollout" else twin.encode(list(twin.schedules))
    result = rollout(weights, inputs, backend="cpu")
    outputs = result.outputs
    found = {"weights": weights.to_flat(), "outputs": outputs}
    if part in ("twin", "vjp"):
        found |= read_outputs(twin, outputs)
    if part == "vjp":
        d_outputs = cotangent(twin, outputs, given)
        d_weights = rollout_vjp(weights, inputs, d_outputs, backend="cpu").weights
        found["d_edges"] = twin.edge_gradients(people, d_weights)
    return found, outputs, result.diverged


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


def _onnxruntime(model: bytes) -> Run:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "onnx", "Verifying an ONNX model") from error
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))


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


def _failed(where: str, error: float, limit: float) -> VerificationError:
    return VerificationError(
        f"The ONNX model does not compute what the engine does ({where}): error {error:.3g}, "
        f"at most {limit:.3g} allowed. Nothing was written"
    )
