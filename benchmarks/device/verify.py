"""Every call that is timed is first compared with a float64 reference, and with itself."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import torch
from torch import Tensor

from ..peers.torch_eager import unbound
from ..verify import MAX_REL_ERR, MIN_VERIFIED, VERIFIED_STEPS
from .problem import Call, Problem
from .torch_forms import torch_call

POISON_BYTES = 8 << 30
SMALL_BLOCK, N_SMALL_BLOCKS = 512 << 10, 64
"""torch takes blocks of up to 1 MiB from memory of their own."""


@dataclass(frozen=True)
class Verdict:
    """How far results are from what they have to be.

    Attributes:
        rel_err: largest error of any array, in units of that array's largest element.
        rel_norm_err: largest Frobenius norm of any array's error, in units of that array's.
        bit_equal: a second call on the same arguments gave the same bits.
    """

    rel_err: float
    rel_norm_err: float
    bit_equal: bool

    def fault(self, precision: str, *, must_repeat: bool) -> str | None:
        """What is wrong, or None. NaN is always wrong."""
        limit = MAX_REL_ERR[precision]
        if not (self.rel_err <= limit and self.rel_norm_err <= limit):
            return (
                f"failed verification: relative error {self.rel_err:.2e}, of the norm "
                f"{self.rel_norm_err:.2e}; the limit is {limit:.0e}"
            )
        if must_repeat and not self.bit_equal:
            return "failed verification: two calls gave different bits"
        return None


def choose_subjects(problem: Problem, seed: int) -> list[int]:
    """Subjects to verify: the first, the last, and others drawn anew for each run."""
    case = problem.case
    n = min(case.S, max(MIN_VERIFIED, VERIFIED_STEPS // (case.B * case.T)))
    others = random.Random(seed).sample(range(1, case.S - 1), max(0, n - 2))
    return sorted({0, case.S - 1, *others})


def expect(problem: Problem, op: str, subjects: list[int]) -> dict[str, Tensor]:
    """The float64 results of these subjects, of the weights before any rounding."""
    call = torch_call(problem.in_double(subjects), op, unbound)
    return call.tensors(call.run())


def verify(
    call: Call, n_subjects: int, expected: dict[str, Tensor], subjects: list[int]
) -> Verdict:
    """Call twice, into memory full of NaN, and compare."""
    _poison_free_memory()
    found = call.tensors(call.run())
    first = {name: tensor.clone() for name, tensor in found.items()}
    for tensor in found.values():
        tensor.fill_(math.nan)
    del found, tensor  # a graph's results stay where they are; other memory goes to the next call
    second = call.tensors(call.run())
    bit_equal = first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )
    del first
    return Verdict(*errors(second, n_subjects, expected, subjects), bit_equal)


def errors(
    found: dict[str, Tensor], n_subjects: int, expected: dict[str, Tensor], subjects: list[int]
) -> tuple[float, float]:
    """``rel_err`` and ``rel_norm_err``; NaN or infinity in any subject makes both NaN."""
    if found.keys() != expected.keys():
        return math.inf, math.inf
    largest, norms = [], []
    for name, wanted in expected.items():
        if found[name].shape != (n_subjects, *wanted.shape[1:]):
            return math.inf, math.inf
        if not found[name].isfinite().all():
            return math.nan, math.nan
        # In float64, or the difference itself would be rounded.
        error = found[name][subjects].double() - wanted
        largest.append(error.abs().max() / wanted.abs().max())
        norms.append(error.norm() / wanted.norm())
    # torch's max, not Python's, which can pass NaN over.
    return float(torch.stack(largest).max()), float(torch.stack(norms).max())


def _poison_free_memory() -> None:
    """Fill what torch will give to the next call with NaN."""
    if not torch.cuda.is_available():
        return
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    sizes = [min(free // 2, POISON_BYTES), *[SMALL_BLOCK] * N_SMALL_BLOCKS]
    for block in [torch.empty(size // 4, device="cuda") for size in sizes]:
        block.fill_(math.nan)
