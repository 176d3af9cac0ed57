"""Arguments of rollouts, and options of commands with what asks for the same in Python."""

from __future__ import annotations

from typing import Any

import numpy as np

from dtwin_fast.dispatch import rollout, rollout_vjp, supports
from dtwin_fast.spec import PRESETS
from dtwin_fast.weights import RNNWeights, weight_shapes

from .cases import Case, Place, of_call, of_options
from .people import edges, matrices

S, B, T, H = 2, 3, 6, 4
N_INPUTS, N_OUTPUTS = 3, 5


def weights(cell: str = "rnn", **changed: Any) -> RNNWeights:
    shapes = weight_shapes(cell, N_INPUTS, H, N_OUTPUTS)
    made = {name: np.full((S, *shape), 0.1, np.float32) for name, shape in shapes.items()}
    return RNNWeights(cell, **(made | changed))


def call(**changed: Any) -> Any:
    return rollout(
        **({"weights": weights(), "inputs": np.ones((B, T, N_INPUTS), np.float32)} | changed)
    )


def gradient(**changed: Any) -> Any:
    good = {
        "weights": weights(),
        "inputs": np.ones((B, T, N_INPUTS), np.float32),
        "d_outputs": np.ones((S, B, T, N_OUTPUTS), np.float32),
    }
    return rollout_vjp(**(good | changed))


def far(*shape: int) -> Any:
    """One number of 4 bytes, seen at every index."""
    return np.broadcast_to(np.float32(0.1), shape)


def far_weights(n_hidden: int, n_outputs: int) -> RNNWeights:
    shapes = weight_shapes("rnn", 1, n_hidden, n_outputs)
    return RNNWeights("rnn", *(far(1, *shape) for shape in shapes.values()))


STATES = np.empty((S, B, T, H), np.float32)

# Of more arguments test_rollout.py has the table.
ROLLOUTS: dict[str, tuple[str, Any]] = {
    "weights that are a dict": ("weights", lambda: call(weights={"w_ih": 1})),
    "unknown cell": ("cell", lambda: weights("transformer")),
    "cell by number": ("cell", lambda: RNNWeights(7, *[np.ones((1, 1, 1))] * 6)),
    "weights of other sizes": ("shape", lambda: weights(w_hh=np.ones((S, H, H + 1)))),
    "weights of other ranks": ("shape", lambda: weights(w_hh=np.ones((S, H)))),
    "weights of text": ("dtype", lambda: weights(b_hh=np.full((S, H), "1"))),
    "weights of objects": ("dtype", lambda: weights(b_hh=np.full((S, H), None))),
    "flat weights of another length": (
        "shape",
        lambda: RNNWeights.from_flat(np.ones((2, 7), np.float32), PRESETS["tiny"]),
    ),
    "a subject who is not there": ("subject_index", lambda: weights().select([5])),
    "no steps": ("empty", lambda: call(inputs=np.ones((B, 0, N_INPUTS)))),
    "no sequences": ("empty", lambda: call(inputs=np.ones((0, T, N_INPUTS)))),
    "inputs of two axes": ("shape", lambda: call(inputs=np.ones((T, N_INPUTS)))),
    "inputs of another width": ("shape", lambda: call(inputs=np.ones((B, T, N_INPUTS + 1)))),
    "inputs of other subjects": ("shape", lambda: call(inputs=np.ones((S + 1, B, T, N_INPUTS)))),
    "complex inputs": ("dtype", lambda: call(inputs=np.ones((B, T, N_INPUTS), complex))),
    "inputs of objects": ("dtype", lambda: call(inputs=np.full((B, T, N_INPUTS), None))),
    "shared inputs of NaN": ("not_finite", lambda: call(inputs=np.full((B, T, N_INPUTS), np.nan))),
    "shared inputs of Inf": ("not_finite", lambda: call(inputs=np.full((B, T, N_INPUTS), np.inf))),
    "h0 of another shape": ("shape", lambda: call(h0=np.ones((S, B, H + 1)))),
    "one state for an LSTM": (
        "shape",
        lambda: call(weights=weights("lstm"), h0=np.ones((S, B, H))),
    ),
    "projection of other steps": ("shape", lambda: call(time_projection=np.ones((2, T + 1)))),
    "projection of no rows": ("empty", lambda: call(time_projection=np.ones((0, T)))),
    "projection of NaN": ("not_finite", lambda: call(time_projection=np.full((1, T), np.nan))),
    "out_states of another shape": ("shape", lambda: call(out_states=STATES[:1])),
    "out_states of another dtype": ("shape", lambda: call(out_states=STATES.astype("f8"))),
    "out_states with strides": ("shape", lambda: call(out_states=STATES.repeat(2, 3)[..., ::2])),
    "out_states that are a list": ("shape", lambda: call(out_states=[])),
    "unknown backend": ("backend", lambda: call(backend="abacus")),
    "unknown backend to ask": ("backend", lambda: supports("abacus", "rnn")),
    "unknown precision": ("precision", lambda: call(precision="float16")),
    "no threads": ("n_threads", lambda: call(n_threads=0)),
    "2^40 threads": ("n_threads", lambda: call(n_threads=2**40)),
    "threads as text": ("n_threads", lambda: call(n_threads="2")),
    "outputs of 2^62 bytes": (
        "too_large",
        lambda: call(weights=far_weights(1, 2**20), inputs=far(2**20, 2**22, 1)),
    ),
    "states of 2^62 bytes": (
        "too_large",
        lambda: call(
            weights=far_weights(2**20, 1),
            inputs=far(1, 2**20, 2**22, 1),
            time_projection=far(1, 2**22),
            return_states=True,
        ),
    ),
    "gradients of other outputs": ("shape", lambda: gradient(d_outputs=np.ones((S, B, T, 1)))),
    "gradients of text": ("dtype", lambda: gradient(d_outputs="1")),
    "states of another shape": ("shape", lambda: gradient(states=STATES[:1])),
}


def _predict(place: Place, **options: Any) -> Any:
    return place.twin.predict(matrices(), **options)


def _out(path: str) -> Any:
    """Another output folder, in the folder of the try, where ``file`` is a file."""

    def words(place: Place) -> list[object]:
        (place.folder / "file").write_text("mine")
        (place.folder / "full").mkdir()
        (place.folder / "full" / "mine").write_text("mine")
        return ["--out", place.folder / path]

    return words


def _save(path: str) -> Any:
    def save(place: Place) -> Any:
        (place.folder / "file").write_text("mine")
        return place.twin.save(place.folder / path)

    return save


OPTIONS: dict[str, Case] = {
    "unknown task": of_options("task", ["--task", "chess"], lambda p: _predict(p, tasks=["chess"])),
    "a task in other words": of_options(
        "task", ["--task", "Faces"], lambda p: _predict(p, tasks="faces")
    ),
    "an empty task": of_options("task", ["--task", ""], lambda p: _predict(p, tasks=[""])),
    "tasks by number": of_call("task", lambda p: _predict(p, tasks=3)),
    "no tasks": of_call("task", lambda p: _predict(p, tasks=[])),
    "unknown backend": of_options(
        "backend", ["--backend", "abacus"], lambda p: _predict(p, backend="abacus")
    ),
    "a backend by number": of_call("backend", lambda p: _predict(p, backend=3)),
    "unknown policy": of_call("argument", lambda p: _predict(p, missing="guess")),
    "unknown bad_subjects": of_call("argument", lambda p: _predict(p, bad_subjects="skip")),
    "no threads": of_call("n_threads", lambda p: _predict(p, n_threads=0)),
    "precision of another kind": of_call("precision", lambda p: _predict(p, precision="int8")),
    "gradients that are none": of_call(
        "weights", lambda p: p.twin.edge_gradients(edges(), {"w_ih": 1})
    ),
    "gradients of other sizes": of_call(
        "shape", lambda p: p.twin.edge_gradients(edges(), weights())
    ),
    "out is full": of_options("out_not_empty", _out("full")),
    "out is a file": of_options("out_unwritable", _out("file"), _save("file")),
    "out is below a file": of_options("out_unwritable", _out("file/x"), _save("file/x")),
    "out has a name of 300 characters": of_options(
        "out_unwritable", _out("x" * 300), _save("x" * 300)
    ),
    "NUL in out": of_options("out_unwritable", _out("a\0b"), _save("a\0b")),
    "saved at a number": of_call("argument", lambda p: p.twin.save(5)),
}


ARGUMENTS: dict[str, Case] = {
    **{
        f"rollout: {name}": of_call(code, lambda place, make=make: make())
        for name, (code, make) in ROLLOUTS.items()
    },
    **{f"options: {name}": case for name, case in OPTIONS.items()},
}
