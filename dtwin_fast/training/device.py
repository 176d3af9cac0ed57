"""Where training runs: devices by name, and random numbers from a seed on one of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..errors import BackendUnavailableError, DTwinInputError


def find_device(name: str) -> torch.device:
    """The torch device of a name.

    Args:
        name: "cpu", "cuda" (torch's current CUDA device), "cuda:N", or "auto" (cuda where
            torch has a CUDA device, else cpu).

    Raises:
        DTwinInputError: another name (code ``device``).
        BackendUnavailableError: CUDA is named and there is none, or no device N.
    """
    if name == "cpu":
        return torch.device("cpu")
    if name == "auto":
        return find_device("cuda" if torch.cuda.is_available() else "cpu")
    named = re.fullmatch(r"cuda(?::([0-9]{1,3}))?", name) if isinstance(name, str) else None
    if named is None:
        raise DTwinInputError(
            "device",
            "there is no such device to train on",
            field="device",
            wanted="cpu | cuda | cuda:N | auto",
            got=repr(name)[:40],
            fix="Name one of these, as a string",
        )
    reason = _why_no_cuda()
    if reason is None and named[1] is not None and int(named[1]) >= torch.cuda.device_count():
        reason = f"torch sees {torch.cuda.device_count()} CUDA device(s), and numbers them from 0"
    if reason is not None:
        raise BackendUnavailableError(
            f"device={name!r} cannot be trained on: {reason}. Use device='cpu' "
            "(dtwin train --device cpu)."
        )
    index = torch.cuda.current_device() if named[1] is None else int(named[1])
    return torch.device("cuda", index)


def describe(device: torch.device) -> str:
    """The device for a training's provenance: "cpu", or "cuda: " and the name of the GPU."""
    if device.type == "cpu":
        return "cpu"
    return f"{device.type}: {torch.cuda.get_device_name(device)}"


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the CPU's generator and the device's; they continue afterwards as if never used."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        # torch.manual_seed would reseed every GPU, and only these generators are put back.
        torch.default_generator.manual_seed(seed)
        for each in devices:
            torch.cuda.default_generators[each.index].manual_seed(seed)
        yield


def _why_no_cuda() -> str | None:
    if torch.cuda.is_available():
        return None
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a build without CUDA (install one with it)"
    return f"torch {torch.__version__} sees no CUDA device (no GPU or driver, or a hidden one)"
