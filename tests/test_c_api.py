"""The plain C interface, from a C program: the engine's numbers, and a code for every misuse."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from dtwin_fast.cells import CELLS
from dtwin_fast.dispatch import PRECISIONS, isa, rollout, rollout_vjp
from dtwin_fast.weights import WEIGHT_NAMES, RNNWeights, weight_shapes

CELL_CODES = {"rnn": 0, "gru": 1, "lstm": 2}
PRECISION_CODES = {"float32": (0, 0), "float64": (1, 0), "bfloat16": (0, 1)}  # dtype, weights
N_SUBJECTS, N_SEQUENCES, N_STEPS, N_INPUTS, N_HIDDEN, N_OUTPUTS, N_ROWS = 3, 2, 70, 2, 7, 5, 2

WANTED_STATUS = {
    "version": 1,
    "cell": 2,
    "negative_cell": 2,
    "dtype": 3,
    "weights": 13,
    "bfloat16_of_doubles": 13,
    "threads": 9,
    "many_threads": 9,
    "negative_subjects": 4,
    "no_sequences": 4,
    "no_steps": 4,
    "negative_inputs": 4,
    "no_hidden": 4,
    "no_outputs": 4,
    "negative_stride": 5,
    "negative_input_stride": 5,
    "huge_hidden": 6,
    "huge_hidden_square": 6,
    "huge_subjects": 6,
    "huge_sequences": 6,
    "huge_steps": 6,
    "huge_outputs": 6,
    "huge_inputs": 6,
    "huge_stride": 6,
    "huge_projection": 6,
    "no_w_hh": 7,
    "no_inputs": 7,
    "no_outputs_array": 7,
    "no_h_final": 7,
    "no_c_final": 7,
    "no_diverged": 7,
    "no_projection": 7,
    "empty_projection": 4,
    "misaligned": 8,
    "outputs_at_the_end_of_memory": 6,
    "outputs_over_inputs": 12,
    "outputs_over_weights": 12,
    "outputs_over_gaps": 12,
    "outputs_over_projection": 12,
    "h_final_over_h0": 12,
    "c_final_over_c0": 12,
    "states_over_outputs": 12,
    "h_final_is_c_final": 12,
    "diverged_in_states": 12,
    "workspace": 10,
    "no_subjects": 0,
    "null": 7,
    "unknown": 0,
}

WANTED_VJP_STATUS = {
    "version": 1,
    "inner_version": 1,
    "cell": 2,
    "dtype": 3,
    "threads": 9,
    "no_steps": 4,
    "negative_stride": 5,
    "huge_hidden": 6,
    "huge_subjects": 6,
    "huge_steps": 6,
    "huge_gradients": 6,
    "huge_input_gradients": 6,
    "no_w_hh": 7,
    "no_d_outputs": 7,
    **{f"no_d_{name}": 7 for name in (*WEIGHT_NAMES, "inputs", "h0", "c0")},
    "misaligned": 8,
    "misaligned_states": 8,
    "d_h0_over_d_h_final": 12,
    "d_c0_over_d_c_final": 12,
    "d_w_out_over_states": 12,
    "d_inputs_over_d_states": 12,
    "d_outputs_over_result": 12,
    "d_inputs_over_inputs": 12,
    "d_w_hh_over_w_hh": 12,
    "d_b_ih_is_d_b_hh": 12,
    "d_h0_over_d_c0": 12,
    "d_c0_over_c0": 12,
    "d_b_out_at_the_end_of_memory": 6,
    "workspace": 10,
    "no_subjects": 0,
    "null": 7,
}

WANTED_LAYER_STATUS = {
    "version": 1,
    "threads": 9,
    "negative_rows": 4,
    "no_in": 4,
    "negative_out": 4,
    "huge_in": 6,
    "huge_rows": 6,
    "no_weight": 7,
    "no_bias": 7,
    "no_x": 7,
    "no_y": 7,
    "misaligned": 8,
    "y_over_x": 12,
    "y_over_weight": 12,
    "y_over_bias": 12,
    "no_rows": 0,
    "null": 7,
}


@pytest.fixture(scope="module")
def run(
    build_program: Callable[[str], Path], run_program: Callable[..., str]
) -> Callable[..., str]:
    """Run tests/cpp/c_api.c, linked with the C library that CMake builds."""
    return partial(run_program, build_program("c_api"))


def arguments_of(cell: str, precision: str, projected: bool) -> tuple[str, ...]:
    return tuple(map(str, (CELL_CODES[cell], *PRECISION_CODES[precision], int(projected))))


def dtype_of(precision: str) -> str:
    return np.dtype(PRECISIONS[precision]).name


def numbers(shape: tuple[int, ...], seed: int, precision: str) -> np.ndarray:
    """The program's numbers()."""
    values = ((np.arange(np.prod(shape)) * 37 + seed * 11) % 4019 - 2009) / 16384
    return values.reshape(shape).astype(PRECISIONS[precision])


def program_weights(cell: str, precision: str) -> RNNWeights:
    """The weights of the program's problem(), rounded where it asks for that."""
    shapes = weight_shapes(cell, N_INPUTS, N_HIDDEN, N_OUTPUTS)
    arrays = {
        k: numbers((N_SUBJECTS, *v), n, precision) for n, (k, v) in enumerate(shapes.items(), 1)
    }
    if precision == "bfloat16":
        arrays = {k: torch.tensor(v).bfloat16().float().numpy() for k, v in arrays.items()}
    return RNNWeights(cell, **arrays)


def program_state(cell: str, seed: int, precision: str) -> Any:
    """h0 and the like: the array of ``seed``, for an LSTM with that of the next."""
    shape = (N_SUBJECTS, N_SEQUENCES, N_HIDDEN)
    parts = tuple(numbers(shape, seed + n, precision) for n in range(CELLS[cell].n_states))
    return parts if len(parts) > 1 else parts[0]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("precision", PRECISION_CODES)
@pytest.mark.parametrize("projected", [False, True], ids=["outputs", "projected"])
@pytest.mark.parametrize("given", [False, True], ids=["d_outputs", "d_states"])
def test_vjp_from_c(
    run: Callable[..., str],
    cell: str,
    precision: str,
    projected: bool,
    given: bool,
    tolerances: ModuleType,
) -> None:
    """``given``: known states, and gradients of the states and of the final ones."""
    arguments = (*arguments_of(cell, precision, projected), str(int(given)))
    lines = run("vjp", *arguments, MALLOC_PERTURB_="128").splitlines()
    dtype = dtype_of(precision)
    got = {name: np.array(rest, dtype) for name, *rest in map(str.split, lines)}
    inputs = numbers((N_SEQUENCES, N_STEPS, N_INPUTS), 7, precision)
    rows = N_ROWS if projected else N_STEPS
    wanted = rollout_vjp(
        program_weights(cell, precision),
        np.stack([inputs] * N_SUBJECTS),  # the program writes one gradient per subject
        numbers((N_SUBJECTS, N_SEQUENCES, rows, N_OUTPUTS), 11, precision),
        program_state(cell, 8, precision),
        "reference",
        "float64",
        numbers((N_ROWS, N_STEPS), 10, precision) if projected else None,
        d_states=numbers((N_SUBJECTS, N_SEQUENCES, N_STEPS, N_HIDDEN), 12, precision)
        if given
        else None,
        d_h_final=program_state(cell, 13, precision) if given else None,
    )
    arrays = {name: getattr(wanted.weights, name) for name in WEIGHT_NAMES}
    h0 = wanted.h0 if isinstance(wanted.h0, tuple) else (wanted.h0,)
    arrays |= {"inputs": wanted.inputs} | dict(zip(("h0", "c0"), h0, strict=False))
    assert set(got) == set(arrays)
    for name, array in arrays.items():
        tolerances.assert_close(got[name], array.ravel(), "gradients", dtype)


def test_every_vjp_misuse_has_its_code_and_writes_nothing(run: Callable[..., str]) -> None:
    lines = [line.split(maxsplit=3) for line in run("vjp_misuses").splitlines()]
    assert {name: int(status) for name, status, *_ in lines} == WANTED_VJP_STATUS
    assert all(untouched == "1" for _, _, untouched, _ in lines)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("precision", PRECISION_CODES)
@pytest.mark.parametrize("projected", [False, True], ids=["outputs", "projected"])
def test_numbers_from_c(
    run: Callable[..., str], cell: str, precision: str, projected: bool, tolerances: ModuleType
) -> None:
    # glibc fills what malloc returns with 0x7f bytes: 3.4e38 wherever too little is written.
    lines = run(*arguments_of(cell, precision, projected), MALLOC_PERTURB_="128").splitlines()
    dtype = dtype_of(precision)
    got = {name: np.array(rest, dtype) for name, *rest in map(str.split, lines)}

    wanted = rollout(
        program_weights(cell, precision),
        numbers((N_SEQUENCES, N_STEPS, N_INPUTS), 7, precision),
        program_state(cell, 8, precision),
        "reference",
        dtype,
        numbers((N_ROWS, N_STEPS), 10, precision) if projected else None,
        return_states=True,
    )
    last = wanted.h_final if isinstance(wanted.h_final, tuple) else (wanted.h_final,)
    assert wanted.states is not None
    quantity = "projected" if projected else "outputs"
    tolerances.assert_close(got["outputs"], wanted.outputs.ravel(), quantity, dtype)
    tolerances.assert_close(got["states"], wanted.states.ravel(), "states", dtype)
    for name, array in zip(("h_final", "c_final"), last, strict=False):
        tolerances.assert_close(got[name], array.ravel(), "states", dtype)
    assert got["diverged"].tolist() == [0, 0, 0]


def test_every_misuse_has_its_code_and_writes_nothing(run: Callable[..., str]) -> None:
    lines = [line.split(maxsplit=3) for line in run("misuses").splitlines()]
    assert {name: int(status) for name, status, *_ in lines} == WANTED_STATUS
    assert all(untouched == "1" for _, _, untouched, _ in lines)
    texts = {status: text for _, status, _, text in lines if status != "0"}
    assert len(set(texts.values())) == 12


@pytest.mark.parametrize("back", [False, True], ids=["forward", "back"])
def test_layer_from_c(run: Callable[..., str], back: bool, tolerances: ModuleType) -> None:
    name, *values = run("layer", str(int(back)), MALLOC_PERTURB_="128").split()
    assert name == "y"
    n_rows, n_in, n_out = 5, 131, 67
    weight = numbers((n_out, n_in), 1, "float64")
    x = numbers((n_rows, n_out if back else n_in), 3, "float64")
    wanted = x @ weight if back else x @ weight.T + numbers((n_out,), 2, "float64")
    got = np.array(values, np.float32).reshape(wanted.shape)
    tolerances.assert_close(got, wanted, "affine", "float32")


def test_every_misuse_of_a_layer_has_its_code_and_writes_nothing(run: Callable[..., str]) -> None:
    lines = [line.split(maxsplit=3) for line in run("layer_misuses").splitlines()]
    assert {name: int(status) for name, status, *_ in lines} == WANTED_LAYER_STATUS
    assert all(untouched == "1" for _, _, untouched, _ in lines)


def test_isa_name_from_c(run: Callable[..., str]) -> None:
    emulated = "DTWIN_EMULATOR" in os.environ
    assert run("isa").strip() == ("baseline" if emulated else isa("cpu"))
