"""Results on real people, of one folder of public data each, and on simulated ones."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _study(module: str) -> Callable[..., dict[str, Any]]:
    """The module's ``run``, imported when it is called: studies need the extra ``neuro``."""

    def run(folder: Path | None = None, **options: Any) -> dict[str, Any]:
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
    "ground-truth": _study("ground_truth"),
    "intervention-maps": _study("intervention_maps"),
}
"""Name -> ``run(folder, *, models=None, seed=0)``, which returns :func:`result.as_dict`'s dict."""

SIMULATED = frozenset({"ground-truth", "intervention-maps"})
"""Studies that need no folder; they take ``progress``, as ``evaluate.protocol.evaluate`` does."""
