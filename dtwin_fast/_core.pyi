"""The compiled engine (csrc/bindings.cpp); dtwin_fast.dispatch is its public face."""

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

_F = TypeVar("_F", np.float32, np.float64)

CELLS: tuple[str, ...]

def rollout(
    *,
    cell: str,
    w_ih: npt.NDArray[_F],  # (S, G*H, I)
    w_hh: npt.NDArray[_F],  # (S, G*H, H)
    b_ih: npt.NDArray[_F],  # (S, G*H)
    b_hh: npt.NDArray[_F],  # (S, G*H)
    w_out: npt.NDArray[_F],  # (S, O, H)
    b_out: npt.NDArray[_F],  # (S, O)
    inputs: npt.NDArray[_F],  # (B, T, I) or (S, B, T, I)
    h0: npt.NDArray[_F] | None,  # (S, B, H)
    c0: npt.NDArray[_F] | None,  # (S, B, H), lstm only
    projection: npt.NDArray[_F] | None,  # (K, T) or (B, K, T)
    outputs: npt.NDArray[_F],  # (S, B, T or K, O), written
    states: npt.NDArray[_F] | None,  # (S, B, T, H), written
    h_final: npt.NDArray[_F],  # (S, B, H), written
    c_final: npt.NDArray[_F] | None,  # (S, B, H), written, lstm only
    diverged: npt.NDArray[np.bool_],  # (S,), written
    bfloat16_weights: bool,  # round the weights to bfloat16 and keep them so; float32 arrays
    n_threads: int,
    device: int = -1,  # the CPU, or the number of a GPU
) -> None: ...
def rollout_vjp(
    *,
    cell: str,
    w_ih: npt.NDArray[_F],  # the problem, as for rollout
    w_hh: npt.NDArray[_F],
    b_ih: npt.NDArray[_F],
    b_hh: npt.NDArray[_F],
    w_out: npt.NDArray[_F],
    b_out: npt.NDArray[_F],
    inputs: npt.NDArray[_F],
    h0: npt.NDArray[_F] | None,
    c0: npt.NDArray[_F] | None,
    projection: npt.NDArray[_F] | None,
    states: npt.NDArray[_F] | None,  # (S, B, T, H), of the rollout; None = rolled out again
    d_outputs: npt.NDArray[_F],  # (S, B, T or K, O)
    d_states: npt.NDArray[_F] | None,  # (S, B, T, H)
    d_h_final: npt.NDArray[_F] | None,  # (S, B, H)
    d_c_final: npt.NDArray[_F] | None,  # (S, B, H), lstm only
    d_w_ih: npt.NDArray[_F],  # (S, G*H, I), written, as all that follow
    d_w_hh: npt.NDArray[_F],  # (S, G*H, H)
    d_b_ih: npt.NDArray[_F],  # (S, G*H)
    d_b_hh: npt.NDArray[_F],  # (S, G*H)
    d_w_out: npt.NDArray[_F],  # (S, O, H)
    d_b_out: npt.NDArray[_F],  # (S, O)
    d_inputs: npt.NDArray[_F],  # (S, B, T, I), also where subjects share inputs
    d_h0: npt.NDArray[_F],  # (S, B, H)
    d_c0: npt.NDArray[_F] | None,  # (S, B, H), lstm only
    bfloat16_weights: bool,
    n_threads: int,
    device: int = -1,
) -> None: ...
def affine(
    *,
    x: npt.NDArray[np.float32],  # (S, n_in); without a bias (S, n_out)
    weight: npt.NDArray[np.float32],  # (n_out, n_in)
    bias: npt.NDArray[np.float32] | None,  # (n_out,); None for the way back, y = x @ weight
    y: npt.NDArray[np.float32],  # (S, n_out); without a bias (S, n_in); written
    n_threads: int,
) -> None: ...
def build_info() -> dict[str, Any]: ...
def cuda_why_not(device: int) -> str | None: ...
def cuda_capability(device: int) -> str | None: ...
def cuda_fits(  # why there is no kernel, or None
    *,
    cell: str,
    sizes: tuple[int, int, int, int, int],  # S, B, T, I, H
    bfloat16_weights: bool,
    vjp: bool,
    device: int,
) -> str | None: ...
def cuda_workspace(  # -> bytes
    *,
    cell: str,
    arrays: dict[str, Any],  # those of rollout or rollout_vjp, with __dlpack__, or None
    bfloat16_weights: bool,
    vjp: bool,
    device: int,
) -> int: ...
def cuda_launch(
    *,
    cell: str,
    arrays: dict[str, Any],  # likewise, and "workspace"
    bfloat16_weights: bool,
    vjp: bool,
    device: int,
    stream: int,
    ordered: bool,  # the arrays are ready on that stream
) -> None: ...
