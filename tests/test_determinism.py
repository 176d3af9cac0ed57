"""Bits depend on nothing but the numbers, and not on a subject that diverges: 500 random
configurations of each test.

The draws are the same at every run. DTWIN_CONFIGURATIONS sets their number, DTWIN_EXPLORE=1 makes
fresh ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dtwin_fast.cells import CELLS
from dtwin_fast.dispatch import RolloutResult, rollout, rollout_vjp
from dtwin_fast.weights import WEIGHT_NAMES, RNNWeights, weight_shapes

N_CONFIGURATIONS = int(os.environ.get("DTWIN_CONFIGURATIONS", "500"))

Arrays = list[np.ndarray]


configured = settings(
    max_examples=N_CONFIGURATIONS,
    derandomize="DTWIN_EXPLORE" not in os.environ,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@dataclass(frozen=True, eq=False)
class Configuration:
    """The arguments of one rollout and of its gradients."""

    weights: RNNWeights
    inputs: np.ndarray  # (B,T,I) or (S,B,T,I)
    state: tuple[np.ndarray, ...] | None  # each (S,B,H)
    projection: np.ndarray | None  # (K,T) or (B,K,T)
    d_outputs: np.ndarray  # (S,B,T,O) or (S,B,K,O)
    d_states: np.ndarray | None  # (S,B,T,H)
    d_final: tuple[np.ndarray, ...] | None  # each (S,B,H)
    precision: str

    @property
    def shared(self) -> bool:
        return self.inputs.ndim == 3

    def subjects(self, order: list[int]) -> Configuration:
        return replace(
            self,
            weights=self.weights.select(order),
            inputs=self.inputs if self.shared else self.inputs[order],
            state=self.state and tuple(part[order] for part in self.state),
            d_outputs=self.d_outputs[order],
            d_states=None if self.d_states is None else self.d_states[order],
            d_final=self.d_final and tuple(part[order] for part in self.d_final),
        )

    def sequences(self, rows: slice) -> Configuration:
        projection = self.projection
        if projection is not None and projection.ndim == 3:
            projection = projection[rows]
        return replace(
            self,
            inputs=self.inputs[..., rows, :, :],
            state=self.state and tuple(part[:, rows] for part in self.state),
            projection=projection,
        )

    def roll_out(self, n_threads: int) -> Arrays:
        """Outputs, states and final states, which have the axes (S,B,...), and diverged."""
        return parts(
            rollout(
                self.weights,
                self.inputs,
                one_or_all(self.state),
                "cpu",
                self.precision,
                self.projection,
                return_states=True,
                n_threads=n_threads,
            )
        )

    def differentiate(self, n_threads: int, states: np.ndarray | None = None) -> Arrays:
        """Gradients of weights and states, which have an axis S, and that of the inputs."""
        got = rollout_vjp(
            self.weights,
            self.inputs,
            self.d_outputs,
            one_or_all(self.state),
            "cpu",
            self.precision,
            self.projection,
            n_threads,
            d_states=self.d_states,
            d_h_final=one_or_all(self.d_final),
            states=states,
        )
        h0 = got.h0 if isinstance(got.h0, tuple) else (got.h0,)
        return [*(getattr(got.weights, name) for name in WEIGHT_NAMES), *h0, got.inputs]


def one_or_all(state: tuple[np.ndarray, ...] | None) -> Any:
    """A state as an argument: a tuple for an LSTM alone."""
    return state and (state if len(state) > 1 else state[0])


def parts(result: RolloutResult) -> Arrays:
    last = result.h_final if isinstance(result.h_final, tuple) else (result.h_final,)
    states = [] if result.states is None else [result.states]
    return [result.outputs, *states, *last, result.diverged]


def assert_same_bits(got: Arrays, wanted: Arrays) -> None:
    """Bytes are compared: the sign of a zero counts, and so does what stands for NaN."""
    assert len(got) == len(wanted)
    for ours, theirs in zip(got, wanted, strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        assert ours.tobytes() == theirs.tobytes()


@st.composite
def configurations(draw: st.DrawFn, least_subjects: int = 1) -> Configuration:
    """Sizes around those of a vector, a panel and a block, mostly small; now and then H = 400."""
    wide = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65]
    n_hidden = draw(st.sampled_from(wide * 3 + [400]))
    few = n_hidden == 400
    cell = draw(st.sampled_from(list(CELLS)))
    precision = draw(st.sampled_from(["float32", "float64", "bfloat16"]))
    dtype = "float64" if precision == "float64" else "float32"
    n_subjects = draw(st.integers(least_subjects, 2 if few else 5))
    n_sequences = draw(st.sampled_from([1, 2] if few else [1, 1, 2, 3, 4, 5, 6, 7, 13, 49]))
    n_steps = draw(st.sampled_from([1, 2, 5] if few else [1, 2, 3, 9, 33, 65, 129]))
    n_inputs = draw(st.sampled_from([1, 2, 3, 9, 16, 17]))
    n_outputs = draw(st.sampled_from([1, 2, 5, 16, 23, 65]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def numbers(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(dtype)

    scale = np.array(1.5 / np.sqrt(n_hidden), dtype)
    shapes = weight_shapes(cell, n_inputs, n_hidden, n_outputs)
    weights = RNNWeights(cell, *(scale * numbers(n_subjects, *s) for s in shapes.values()))
    per_subject = (n_subjects,) if draw(st.booleans()) else ()
    size = (n_subjects, n_sequences, n_hidden)

    def some_state() -> tuple[np.ndarray, ...] | None:
        given = draw(st.booleans())
        return tuple(numbers(*size) for _ in range(CELLS[cell].n_states)) if given else None

    state = some_state()
    projection, rows = None, n_steps
    if draw(st.booleans()):
        rows = draw(st.integers(1, 7))
        per_sequence = (n_sequences,) if draw(st.booleans()) else ()
        projection = numbers(*per_sequence, rows, n_steps)
    return Configuration(
        weights,
        numbers(*per_subject, n_sequences, n_steps, n_inputs),
        state,
        projection,
        numbers(n_subjects, n_sequences, rows, n_outputs),
        numbers(*size[:2], n_steps, n_hidden) if draw(st.booleans()) else None,
        some_state(),
        precision,
    )


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    """Python threads that call the engine at the same time."""
    with ThreadPoolExecutor(3) as threads:
        yield threads


@configured
@given(data=st.data())
def test_bits_of_rollouts(pool: ThreadPoolExecutor, data: st.DataObject) -> None:
    """Threads, repeats, groups and orders of subjects, groups of sequences, cuts of T; all the
    variants run at the same time."""
    draw = data.draw
    whole = draw(configurations())
    n_subjects, n_sequences = whole.d_outputs.shape[:2]
    n_steps = whole.inputs.shape[-2]
    wanted = whole.roll_out(1)
    n_threads = draw(st.integers(2, 5))
    order = draw(st.permutations(range(n_subjects)))[: draw(st.integers(1, n_subjects))]
    cut_b = draw(st.integers(0, n_sequences))
    cut_t = draw(st.integers(0, n_steps))

    same = [pool.submit(whole.roll_out, n) for n in (1, n_threads)]
    some = pool.submit(whole.subjects(order).roll_out, n_threads)
    groups = [
        pool.submit(whole.sequences(rows).roll_out, n_threads)
        for rows in (slice(0, cut_b), slice(cut_b, None))
        if len(range(n_sequences)[rows])
    ]
    plain = replace(whole, projection=None)
    at_once = pool.submit(plain.roll_out, 1)
    in_turn = pool.submit(roll_out_in_turn, plain, cut_t, n_threads)

    for again in same:
        assert_same_bits(again.result(), wanted)
    assert_same_bits(some.result(), [part[order] for part in wanted])
    found = [group.result() for group in groups]
    joined = [np.concatenate(pieces, axis=1) for pieces in list(zip(*found, strict=True))[:-1]]
    assert_same_bits(joined, wanted[:-1])
    assert_same_bits(in_turn.result(), at_once.result())
    assert_same_bits(at_once.result()[1:], wanted[1:])


def roll_out_in_turn(whole: Configuration, cut: int, n_threads: int) -> Arrays:
    """The steps before and from ``cut`` in two calls, the second starting where the first ends."""
    early, late = whole.inputs[..., :cut, :], whole.inputs[..., cut:, :]
    if not early.shape[-2] or not late.shape[-2]:
        return whole.roll_out(n_threads)
    first = replace(whole, inputs=early).roll_out(n_threads)
    second = replace(whole, inputs=late, state=tuple(first[2:-1])).roll_out(n_threads)
    over_time = [
        np.concatenate(pieces, axis=2) for pieces in zip(first[:2], second[:2], strict=True)
    ]
    return [*over_time, *second[2:]]


@configured
@given(data=st.data())
def test_bits_of_gradients(pool: ThreadPoolExecutor, data: st.DataObject) -> None:
    """Threads, repeats, groups and orders of subjects, states that are known; all the variants
    run at the same time."""
    draw = data.draw
    whole = draw(configurations())
    n_subjects = whole.d_outputs.shape[0]
    wanted = whole.differentiate(1)
    n_threads = draw(st.integers(2, 5))
    order = draw(st.permutations(range(n_subjects)))[: draw(st.integers(1, n_subjects))]
    states = whole.roll_out(n_threads)[1] if draw(st.booleans()) else None
    known = None if states is None else states[order]

    same = [pool.submit(whole.differentiate, *how) for how in ((1, states), (n_threads, states))]
    if states is not None:
        same.append(pool.submit(whole.differentiate, n_threads))
    some = pool.submit(whole.subjects(order).differentiate, n_threads, known)
    alone = pool.submit(whole.subjects(order[:1]).differentiate, 1)

    for again in same:
        assert_same_bits(again.result(), wanted)
    for chosen, got in ((order, some.result()), (order[:1], alone.result())):
        # Inputs that subjects share have one gradient, the sum over the call's subjects.
        last = -1 if whole.shared else None
        assert_same_bits(got[:last], [part[chosen] for part in wanted[:last]])


@configured
@given(data=st.data())
def test_a_subject_that_diverges_changes_no_other(data: st.DataObject) -> None:
    """NaN or infinity anywhere in one subject's own arrays, with several threads."""
    draw = data.draw
    whole = draw(configurations(least_subjects=2))
    n_subjects = whole.d_outputs.shape[0]
    bad = draw(st.integers(0, n_subjects - 1))
    own = {name: getattr(whole.weights, name) for name in WEIGHT_NAMES}
    own |= {f"state{n}": part for n, part in enumerate(whole.state or ())}
    own |= {f"d_final{n}": part for n, part in enumerate(whole.d_final or ())}
    own |= {} if whole.d_states is None else {"d_states": whole.d_states}
    own |= {"d_outputs": whole.d_outputs} | ({} if whole.shared else {"inputs": whole.inputs})
    where = draw(st.sampled_from(sorted(own)))
    value = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    n_threads = draw(st.integers(2, 4))
    known = draw(st.booleans())

    def both() -> tuple[Arrays, Arrays]:
        rolled_out = whole.roll_out(n_threads)
        return rolled_out, whole.differentiate(n_threads, rolled_out[1] if known else None)

    healthy, healthy_gradients = both()
    place = own[where][bad]
    place.flat[draw(st.integers(0, place.size - 1))] = value
    hurt, hurt_gradients = both()

    others = [s for s in range(n_subjects) if s != bad]
    assert_same_bits([part[others] for part in hurt], [part[others] for part in healthy])
    last = -1 if whole.shared else None
    assert_same_bits(
        [part[others] for part in hurt_gradients[:last]],
        [part[others] for part in healthy_gradients[:last]],
    )
    outputs, states = hurt[0][bad], hurt[1][bad]
    finite = bool(np.isfinite(outputs).all() and np.isfinite(states).all())
    assert bool(hurt[-1][bad]) is not finite
    # Gradients are no part of a rollout; an infinite pre-activation is a gate at its bound.
    if np.isnan(value) and not where.startswith("d_"):
        assert not finite
