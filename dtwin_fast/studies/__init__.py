"""Results on real people: each study reads one folder of public data and scores models on it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _study(module: str) -> Callable[..., dict[str, Any]]:
    """The module's ``run``, imported when it is called: studies need the extra ``neuro``."""

    def run(folder: Path, **options: Any) -> dict[str, Any]:
        result: dict[str, Any] = importlib.import_module(f".{module}", __package__).run(
            folder, **options
        )
        return result

    return run


STUDIES = {
    "hcp-battery": _study("hcp_battery"),
    "pain-sites": _study("pain_sites"),
    "pain-bold": _study("pain_bold"),
    "dmcc-stroop": _study("dmcc_stroop"),
    "tcp-behaviour": _study("tcp_behaviour"),
}
"""Name -> ``run(folder, *, models=None, seed=0)``, which returns :func:`result.as_dict`'s dict."""
