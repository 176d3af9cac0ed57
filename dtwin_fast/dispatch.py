"""rollout, rollout_vjp, supports and isa: arguments are checked here once, then a backend runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from .arrays import as_real_array
from .backends import BACKENDS, VJPS, Gradients, LossGradients, Problem, Solution, State
from .cells import CELLS
from .errors import BackendUnavailableError, DTwinInputError
from .threads import MAX_THREADS, usable_threads
from .weights import WEIGHT_NAMES, FloatArray, RNNWeights

PRECISIONS: dict[str, type[np.floating[Any]]] = {
    "float32": np.float32,
    "float64": np.float64,
    "bfloat16": np.float32,
}
"""Precision -> dtype of the arrays; ``bfloat16`` rounds the weights to bfloat16 (to nearest,
ties to even) and computes in float32."""


@dataclass(frozen=True, eq=False)
class RolloutResult:
    """Result of :func:`rollout`.

    Attributes:
        outputs: (S,B,T,O), or (S,B,K,O) under a time projection.
        states: (S,B,T,H) hidden states, or None when not asked for.
        h_final: (S,B,H) last hidden state; for an LSTM (h, c), each (S,B,H).
        backend: the backend that ran.
        diverged: (S,) True where a state or an output is NaN or infinite.
    """

    outputs: FloatArray
    states: FloatArray | None
    h_final: FloatArray | State
    backend: str
    diverged: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class RolloutGradients:
    """Result of :func:`rollout_vjp`: gradients in the shapes of the arguments.

    Attributes:
        weights: gradients in the form of weights.
        inputs: (S,B,T,I), or (B,T,I) summed over subjects when they share the inputs.
        h0: (S,B,H), for an LSTM (h0, c0); there even when h0 was not given.
        backend: the backend that ran.
    """

    weights: RNNWeights
    inputs: FloatArray
    h0: FloatArray | State
    backend: str


def rollout(
    weights: RNNWeights,
    inputs: npt.ArrayLike,
    h0: npt.ArrayLike | tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    backend: str = "auto",
    precision: str = "float32",
    time_projection: npt.ArrayLike | None = None,
    return_states: bool = False,
    n_threads: int | None = None,
    *,
    out_states: FloatArray | None = None,
) -> RolloutResult:
    """Roll S subjects' RNNs over their inputs.

    Arrays may have any strides, byte order and real dtype of at most 64 bits; they are
    converted to the dtype of ``precision``. A subject with NaN in its own weights, inputs
    or h0 is flagged in ``diverged`` and changes no bit of another subject. With S = 0 the
    results are empty.

    The cuda and triton backends copy the arrays to a GPU and back; tensors that are there
    already stay there with :func:`dtwin_fast.torch.rollout`.

    On the cpu backend the result has the same bits for any ``n_threads``, any grouping of
    subjects and sequences into calls, and any cut of T into calls that pass h_final on.

    Args:
        weights: of S subjects.
        inputs: (B,T,I) shared by all subjects, or (S,B,T,I); B and T at least 1.
        h0: (S,B,H); for an LSTM (h0, c0), as in torch.nn.LSTM. None = zeros.
        backend: "auto" (the first of "cuda", "cpu", "triton", "reference" that can run
            this; ``result.backend`` says which one did), or a name.
        precision: "float32", "float64" or "bfloat16" (weights rounded to bfloat16,
            computed in float32: faster where a step waits for its weights, B = 1).
        time_projection: (K,T) for all sequences or (B,K,T): outputs become
            (S,B,K,O) = time_projection @ outputs without the (T,O) outputs being made.
        return_states: also return the hidden states.
        n_threads: 1 to 1024; None = all the cores this process may use.
        out_states: (S,B,T,H) C-order array in the dtype of ``precision`` to write the states
            into and return. States are large, and memory that is new costs time to clear.

    Raises:
        DTwinInputError: arguments that cannot be used (codes ``weights``, ``dtype``,
            ``shape``, ``empty``, ``not_finite``, ``too_large``, ``backend``,
            ``precision``, ``n_threads``).
        BackendUnavailableError: the named backend cannot run this here.
        BackendFailedError: a GPU failed on the way.
    """
    _check_precision(precision)
    problem = _problem(weights, inputs, h0, precision, time_projection)
    n_subjects, n_sequences, n_hidden = problem.state_shape
    shape = (n_subjects, n_sequences, problem.n_steps, n_hidden)
    if out_states is not None:
        _check_out("out_states", out_states, shape, precision)
        problem = replace(problem, out_states=out_states)
    elif return_states:
        _check_bytes("states", shape, precision)
    with_states = return_states or out_states is not None
    threads = _count_threads(n_threads)

    def run(name: str) -> Solution:
        return BACKENDS[name].rollout(problem, return_states=with_states, n_threads=threads)

    name, solution = _first_able(backend, weights.cell, precision, run)
    states = solution.states
    if out_states is not None and states is not None and states is not out_states:
        out_states[...] = states
        states = out_states
    return RolloutResult(
        solution.outputs, states, _plain(solution.h_final), name, solution.diverged
    )


def rollout_vjp(
    weights: RNNWeights,
    inputs: npt.ArrayLike,
    d_outputs: npt.ArrayLike,
    h0: npt.ArrayLike | tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    backend: str = "auto",
    precision: str = "float32",
    time_projection: npt.ArrayLike | None = None,
    n_threads: int | None = None,
    *,
    d_states: npt.ArrayLike | None = None,
    d_h_final: npt.ArrayLike | tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    states: npt.ArrayLike | None = None,
) -> RolloutGradients:
    """Gradients of a loss with respect to what a rollout reads.

    The loss is ``sum(rollout(...).outputs * d_outputs)``, and so on for states and h_final.

    NaN in a subject's own arrays spoils its own gradients alone, and those of inputs that it
    shares with others.

    On the cpu backend gradients have the same bits for any ``n_threads`` and any grouping of
    subjects into calls; only the sum for inputs that they share is over the call's
    subjects. Each thread keeps 64 MiB of steps; of longer sequences it keeps the
    states before segments of at least sqrt(T) steps, and rolls each segment out again.

    Args:
        d_outputs: (S,B,T,O), or (S,B,K,O) under a time projection.
        backend: "auto" (the first with gradients that can run this), or a name.
        d_states: (S,B,T,H) gradients of the states; None = zeros.
        d_h_final: (S,B,H) gradient of h_final, for an LSTM (d_h, d_c); None = zeros.
        states: (S,B,T,H), what ``rollout(..., return_states=True)`` gave for the same
            arguments: the cpu backend then does not walk the steps a second time. The
            gradients have the same bits with and without.

    The other arguments and the errors are those of :func:`rollout`; the gradients under
    "bfloat16" are those at the rounded weights.
    """
    _check_precision(precision)
    problem = _problem(weights, inputs, h0, precision, time_projection)
    gradient = _array(d_outputs, "d_outputs", precision)
    _check_shape("d_outputs", gradient, problem.output_shape)
    n_subjects, n_sequences, n_hidden = problem.state_shape
    per_subject = (n_subjects, n_sequences, problem.n_steps, problem.weights.n_inputs)
    series = (n_subjects, n_sequences, problem.n_steps, n_hidden)
    n_states = CELLS[weights.cell].n_states
    loss = LossGradients(
        gradient,
        _series(d_states, "d_states", series, precision),
        _state(d_h_final, "d_h_final", n_states, problem.state_shape, precision),
    )
    known = _series(states, "states", series, precision)
    _check_bytes("gradient of inputs", per_subject, precision)
    threads = _count_threads(n_threads)

    def run(name: str) -> Gradients:
        return VJPS[name](problem, loss, states=known, n_threads=threads)

    name, found = _first_able(backend, weights.cell, precision, run, vjp=True)
    return RolloutGradients(found.weights, found.inputs, _plain(found.h0), name)


def supports(backend: str, cell: str, precision: str = "float32") -> str | None:
    """None when :func:`rollout` can run this, otherwise the reason why not.

    Raises:
        DTwinInputError: an unknown backend, cell or precision.
    """
    _check_name("backend", backend, tuple(BACKENDS))
    _check_name("cell", cell, tuple(CELLS))
    _check_precision(precision)
    return BACKENDS[backend].supports(cell, precision)


def isa(backend: str) -> str:
    """The instruction set that a backend which ran here uses, e.g. "baseline".

    Raises:
        DTwinInputError: not the name of a backend that can run.
    """
    _check_name("backend", backend, tuple(BACKENDS))
    return BACKENDS[backend].isa()


def check_backend(backend: object) -> None:
    """Refuse what is neither "auto" nor the name of a backend (code ``backend``)."""
    _check_name("backend", backend, ("auto", *BACKENDS))


def check_shapes(
    cell: str,
    weights: Sequence[tuple[int, ...]],
    inputs: tuple[int, ...],
    h0: Sequence[tuple[int, ...]],
    time_projection: tuple[int, ...] | None,
) -> None:
    """Refuse shapes that :func:`rollout` would, of arrays that are not numpy's.

    Args:
        weights: shapes in the order of WEIGHT_NAMES.
        h0: shapes of (h0,), of (h0, c0), or nothing.
    """

    def stand_in(shape: tuple[int, ...]) -> FloatArray:
        return np.broadcast_to(np.float32(0), shape)

    state: Any = tuple(map(stand_in, h0)) or None
    _problem(
        RNNWeights(cell, *map(stand_in, weights)),
        stand_in(inputs),
        state[0] if state is not None and len(state) == 1 else state,
        "float32",
        None if time_projection is None else stand_in(time_projection),
    )


def why_not(backend: str, cell: str, precision: str, *, vjp: bool) -> str | None:
    """:func:`supports` for names that are known, or the same for the gradients."""
    if not vjp:
        return BACKENDS[backend].supports(cell, precision)
    if backend not in VJPS:
        return "it has no gradients"
    return BACKENDS[backend].supports_vjp(cell, precision)


_Result = TypeVar("_Result")


def _first_able(
    backend: str,
    cell: str,
    precision: str,
    run: Callable[[str], _Result],
    *,
    vjp: bool = False,
) -> tuple[str, _Result]:
    """The named backend and what it gives, or under "auto" those of the first that can run this.

    A backend that has no kernel for these sizes says so before it does any work.
    """
    check_backend(backend)
    candidates = tuple(VJPS if vjp else BACKENDS)
    reasons: dict[str, str] = {}
    # No further than the first that can: to ask the others may be to import their packages.
    for name in candidates if backend == "auto" else (backend,):
        reason = why_not(name, cell, precision, vjp=vjp)
        if reason is None:
            try:
                return name, run(name)
            except BackendUnavailableError as error:
                if backend != "auto":
                    raise
                reason = str(error)
        reasons[name] = reason
    able = [name for name in candidates
            if name not in reasons and why_not(name, cell, precision, vjp=vjp) is None]  # fmt: skip
    what = "gradients" if vjp else "rollout"
    why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    use = " or ".join(f"backend={name!r}" for name in able)
    raise BackendUnavailableError(
        f"backend={backend!r} cannot run this {what} ({cell}, {precision}). {why}."
        + (f" Use {use}, or backend='auto'." if able else "")
    )


def _problem(
    weights: RNNWeights,
    inputs: npt.ArrayLike,
    h0: Any,
    precision: str,
    time_projection: npt.ArrayLike | None,
) -> Problem:
    """The validated arguments in the dtype of the precision."""
    if not isinstance(weights, RNNWeights):
        raise DTwinInputError(
            "weights",
            "these are not RNN weights",
            field="weights",
            wanted="RNNWeights",
            got=type(weights).__name__,
            fix="Build dtwin_fast.RNNWeights(cell=..., w_ih=..., ...)",
        )
    for letter, size in (
        ("H", weights.n_hidden),
        ("I", weights.n_inputs),
        ("O", weights.n_outputs),
    ):
        _check_not_empty("weights", letter, size)

    x = _array(inputs, "inputs", precision)
    _check_rank("inputs", x, {3: "(B,T,I)", 4: "(S,B,T,I)"})
    _check_not_empty("inputs", "B", x.shape[-3])
    _check_not_empty("inputs", "T", x.shape[-2])
    subjects = (weights.n_subjects,) if x.ndim == 4 else ()
    _check_shape("inputs", x, (*subjects, *x.shape[-3:-1], weights.n_inputs))

    projection = None
    if time_projection is not None:
        projection = _array(time_projection, "time_projection", precision)
        _check_rank("time_projection", projection, {2: "(K,T)", 3: "(B,K,T)"})
        n_rows = projection.shape[-2]
        _check_not_empty("time_projection", "K", n_rows)
        sequences = (x.shape[-3],) if projection.ndim == 3 else ()
        _check_shape("time_projection", projection, (*sequences, n_rows, x.shape[-2]))

    state_shape = (weights.n_subjects, x.shape[-3], weights.n_hidden)
    state = _state(h0, "h0", CELLS[weights.cell].n_states, state_shape, precision)
    problem = Problem(_cast(weights, precision), x, state, projection, precision)
    _check_bytes("outputs", problem.output_shape, precision)
    _check_bytes("h_final", problem.state_shape, precision)
    if x.ndim == 3:
        _check_finite("inputs", x)
    if projection is not None:
        _check_finite("time_projection", projection)
    return problem


def _state(
    value: Any, name: str, n_states: int, shape: tuple[int, int, int], precision: str
) -> State | None:
    if value is None:
        return None
    if n_states == 1:
        parts = {name: value}
    elif isinstance(value, tuple) and len(value) == n_states:
        parts = {f"{name}[{i}]": part for i, part in enumerate(value)}
    else:
        raise _shape_error(name, "a tuple (h, c)", type(value).__name__)
    state = tuple(_array(part, field, precision) for field, part in parts.items())
    for field, part in zip(parts, state, strict=True):
        _check_shape(field, part, shape)
    return state


def _series(
    value: npt.ArrayLike | None, field: str, shape: tuple[int, ...], precision: str
) -> FloatArray | None:
    if value is None:
        return None
    array = _array(value, field, precision)
    _check_shape(field, array, shape)
    return array


def _cast(weights: RNNWeights, precision: str) -> RNNWeights:
    dtype = PRECISIONS[precision]
    if all(getattr(weights, name).dtype == dtype for name in WEIGHT_NAMES):
        return weights
    arrays = (_array(getattr(weights, name), name, precision) for name in WEIGHT_NAMES)
    return RNNWeights(weights.cell, *arrays)


def _array(value: npt.ArrayLike, field: str, precision: str) -> FloatArray:
    array = as_real_array(value, field)
    # A float64 beyond float32 becomes infinite, which the checks and `diverged` then report.
    with np.errstate(over="ignore"):
        return array.astype(PRECISIONS[precision], copy=False)


def _count_threads(n_threads: int | None) -> int:
    if n_threads is None:
        return usable_threads()
    if isinstance(n_threads, bool) or not isinstance(n_threads, int | np.integer):
        raise _threads_error(n_threads)
    if not 1 <= n_threads <= MAX_THREADS:
        raise _threads_error(n_threads)
    return int(n_threads)


def _plain(state: State) -> FloatArray | State:
    return state[0] if len(state) == 1 else state


def _check_precision(precision: str) -> None:
    _check_name("precision", precision, tuple(PRECISIONS))


def _check_name(field: str, name: object, known: tuple[str, ...]) -> None:
    if name not in known:
        raise DTwinInputError(
            field,
            f"there is no such {field}",
            field=field,
            wanted=" | ".join(known),
            got=repr(name),
            fix=f"Give one of these names as {field}",
        )


def _check_rank(field: str, array: FloatArray, wanted: dict[int, str]) -> None:
    if array.ndim not in wanted:
        raise _shape_error(field, " or ".join(wanted.values()), array.shape)


def _check_shape(field: str, array: FloatArray, wanted: tuple[int, ...]) -> None:
    if array.shape != wanted:
        raise _shape_error(field, wanted, array.shape)


def _check_out(field: str, array: FloatArray, wanted: tuple[int, ...], precision: str) -> None:
    dtype = np.dtype(PRECISIONS[precision])
    if not isinstance(array, np.ndarray) or array.shape != wanted or array.dtype != dtype:
        got = f"{getattr(array, 'shape', type(array).__name__)} {getattr(array, 'dtype', '')}"
        raise _shape_error(field, f"{wanted} {dtype}", got)
    if not (array.flags.c_contiguous and array.flags.writeable and array.flags.aligned):
        raise _shape_error(field, "a writeable array in C order", "another layout")


def _check_not_empty(field: str, letter: str, size: int) -> None:
    if size < 1:
        raise DTwinInputError(
            "empty",
            f"the axis {letter} is empty",
            field=field,
            wanted=f"{letter} >= 1",
            got=str(size),
            fix="Give at least one sequence, step, input, hidden unit, output and projection row",
        )


def _check_finite(field: str, array: FloatArray) -> None:
    if not np.isfinite(array).all():
        raise DTwinInputError(
            "not_finite",
            "this array, which all subjects share, has NaN or values beyond its float type",
            field=field,
            wanted="finite numbers",
            got=f"{int(np.count_nonzero(~np.isfinite(array)))} others",
            fix="Remove them; inputs (S,B,T,I) may hold NaN, which only their subject sees",
        )


def _check_bytes(field: str, shape: tuple[int, ...], precision: str) -> None:
    limit = np.iinfo(np.intp).max
    if prod(shape) > limit // np.dtype(PRECISIONS[precision]).itemsize:
        raise DTwinInputError(
            "too_large",
            "this result would be larger than the address space",
            field=field,
            got=str(shape),
            wanted=f"at most {limit:,} bytes",
            fix="Roll out fewer subjects, sequences or steps at a time",
        )


def _shape_error(field: str, wanted: object, got: object) -> DTwinInputError:
    return DTwinInputError(
        "shape",
        "the sizes do not fit together",
        field=field,
        wanted=str(wanted),
        got=str(got),
        fix="S subjects, H, I and O are those of the weights; B and T those of the inputs",
    )


def _threads_error(got: object) -> DTwinInputError:
    return DTwinInputError(
        "n_threads",
        "this is not a number of threads",
        field="n_threads",
        wanted=f"an integer from 1 to {MAX_THREADS}, or None",
        got=repr(got),
        fix="Leave it out to use all cores",
    )
