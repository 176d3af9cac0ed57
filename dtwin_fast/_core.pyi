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
    n_threads: int,
) -> None: ...
def build_info() -> dict[str, Any]: ...
