"""Settings of a training in TOML: those that come with the package, and a user's own."""

from __future__ import annotations

import reprlib
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ..errors import DTwinInputError
from ..files import as_path, check_regular_file
from ..spec import PRESETS
from ..weights import count_weights
from .recipes import RECIPES, Config

CONFIGS = {path.stem: path for path in sorted(Path(__file__).with_name("configs").glob("*.toml"))}
"""The settings that come with the package."""

MAX_BYTES = 2**16
TWIN_KEYS = (
    "cell",
    "dropout",
    "head",
    "hyper_hidden",
    "n_hidden",
    "segment_steps",
    "standardize",
)
"""Fields of ``TwinSpec`` that settings may give; the others are the cohort's."""
_MAX_INTEGER = 2**63 - 1


def load_config(name_or_path: str | Path) -> tuple[dict[str, Any], Config]:
    """Settings by name, or from a file like ``configs/default.toml``.

    A file names its ``recipe``; ``[training]`` gives the recipe's settings, those that it
    leaves out have their defaults; ``[twin]`` gives fields of ``TwinSpec``, see ``TWIN_KEYS``.

    Returns:
        Fields to replace in a spec, and the settings.

    Raises:
        DTwinInputError: no such name or file, not TOML, a key or recipe that does not exist,
            or a value that cannot be (code ``train_config``); too large (``file_too_large``).
    """
    path = CONFIGS.get(str(name_or_path)) or as_path(name_or_path, field="config")
    if not path.exists():
        raise _error(path, "config", f"{' | '.join(CONFIGS)}, or a TOML file", "no such file")
    check_regular_file(path, max_bytes=MAX_BYTES)
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _error(path, "file", "TOML", str(error)[:200]) from error
    _check_keys(path, "", table, ("recipe", "training", "twin"))
    recipe = table.get("recipe")
    if not isinstance(recipe, str) or recipe not in RECIPES:
        raise _error(path, "recipe", " | ".join(RECIPES), reprlib.repr(recipe))
    return _twin(path, _table(path, table, "twin")), _config(path, recipe, table)


def _config(path: Path, recipe: str, table: dict[str, Any]) -> Config:
    kinds = {setting.name: str(setting.type) for setting in fields(RECIPES[recipe])}
    settings = _table(path, table, "training")
    _check_keys(path, "training.", settings, tuple(kinds))
    for key, value in settings.items():
        if kinds[key] == "str" and not isinstance(value, str):
            raise _error(path, f"training.{key}", "text", reprlib.repr(value))
        if isinstance(value, int) and value > _MAX_INTEGER:
            raise _error(path, f"training.{key}", "a smaller number", reprlib.repr(value))
    try:
        return RECIPES[recipe](**settings)
    except DTwinInputError as error:
        raise _error(path, f"training.{error.field}", error.wanted, error.got) from error


def _twin(path: Path, overrides: dict[str, Any]) -> dict[str, Any]:
    _check_keys(path, "twin.", overrides, TWIN_KEYS)
    plain: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in overrides.items()
    }
    try:
        # Any spec does: a TwinSpec checks its fields one by one.
        count_weights(replace(PRESETS["demo"], **plain))
    except DTwinInputError as error:
        raise _error(path, f"twin.{error.field}", error.wanted, error.got) from error
    return plain


def _table(path: Path, table: dict[str, Any], key: str) -> dict[str, Any]:
    found = table.get(key, {})
    if not isinstance(found, dict):
        raise _error(path, key, f"a table [{key}]", reprlib.repr(found))
    return found


def _check_keys(path: Path, where: str, table: dict[str, Any], known: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            raise _error(path, where + reprlib.repr(key)[1:-1], ", ".join(known), "another key")


def _error(path: Path, key: str, wanted: str, got: str) -> DTwinInputError:
    return DTwinInputError(
        "train_config",
        "training cannot be done like this",
        field=f"{path}, {key}",
        wanted=wanted,
        got=got,
        fix=f"Start from a copy of {CONFIGS['default']}",
    )
