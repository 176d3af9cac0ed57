"""Baselines: what a twin must beat. A new one is a class with ``fit`` and ``predict`` and a line
in ``BASELINES``."""

from __future__ import annotations

from collections.abc import Callable

from ..predictor import Predictor
from .always_correct import AlwaysCorrect
from .cpm import ConnectomeModel
from .features import (
    DEMOGRAPHIC,
    MOTION,
    covariates,
    pearson_edges,
    principal_components,
    standard_edges,
)
from .means import GroupMean, OwnMean
from .person_level import PersonLevel
from .ridge import KernelRidge

BASELINES: dict[str, Callable[[], Predictor]] = {
    "always correct": AlwaysCorrect,
    "group": lambda: PersonLevel("group", GroupMean, with_items=False, with_course=True),
    "item mean": lambda: PersonLevel("item mean", GroupMean, with_course=True),
    "person mean": lambda: PersonLevel("person mean", OwnMean, with_items=False),
    "person + item": lambda: PersonLevel("person + item", OwnMean),
    "demographics": lambda: PersonLevel(
        "demographics", lambda: KernelRidge(covariates(DEMOGRAPHIC))
    ),
    "motion": lambda: PersonLevel("motion", lambda: KernelRidge(covariates((MOTION,)))),
    "ridge": lambda: PersonLevel("ridge", lambda: KernelRidge(standard_edges)),
    "krr": lambda: PersonLevel("krr", lambda: KernelRidge(pearson_edges)),
    "cpm": lambda: PersonLevel("cpm", ConnectomeModel),
    "pca-ridge": lambda: PersonLevel("pca-ridge", lambda: KernelRidge(principal_components)),
}
"""Name -> factory. Demographics are age, age squared, sex, site, group and mean FD."""

__all__ = ["BASELINES"]
