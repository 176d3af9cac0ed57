"""The table of bad inputs: what is wrong, which error says so, and through which entry points.

A row is a :class:`Case`; ``tests/test_bad_inputs.py`` puts every row through all of its entry
points. To add one, write a line in the module of its kind.
"""

from __future__ import annotations

from .arguments import ARGUMENTS
from .arrays import ARRAYS
from .cases import Case, Place
from .files import FILES
from .models import MODELS
from .tables import TABLES

__all__ = ["TABLE", "Case", "Place"]

TABLE: dict[str, Case] = {
    **{f"array: {name}": case for name, case in ARRAYS.items()},
    **{f"table: {name}": case for name, case in TABLES.items()},
    **FILES,
    **{f"model {name}": case for name, case in MODELS.items()},
    **ARGUMENTS,
}
"""Name -> case."""
