"""Pages: templates filled with what is shown; everything from files is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtraError
from ..prediction_files import NOTICE
from ..provenance import package_version
from .sections import Link, Section, Table, runs_of_images, without_folds
from .words import significant

if TYPE_CHECKING:
    from jinja2 import Environment

GENERATOR = "dtwin_fast report"
"""By which a page says whose it is."""
MOST_BYTES = 990_000
"""A page must stay below a megabyte."""
MOST_FACTS = 200
MOST_LETTERS = 300


def facts(caption: str, values: Mapping[str, Any]) -> Table:
    """A table of settings: one row for every value inside, however deep."""
    rows = _flat("", values)
    if len(rows) > MOST_FACTS:
        rows = [*rows[:MOST_FACTS], ["…", f"{len(rows) - MOST_FACTS} more in the JSON file"]]
    return Table(caption, ["name", "value"], rows, frozenset({1}))


def render(sections: Sequence[Section], **content: Any) -> str:
    """The HTML of a page; tables that are folded are left out where it would be too large.

    Raises:
        MissingExtraError: Jinja2 is not installed.
    """
    page = _environment().get_template("page.html")
    content |= {"notice": NOTICE, "generator": f"{GENERATOR} {package_version()}"}
    html = page.render(sections=sections, **content)
    if len(html.encode()) <= MOST_BYTES:
        return html
    return page.render(sections=without_folds(sections), **content)


@cache
def _environment() -> Environment:
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtraError("jinja2", "report", "dtwin report") from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["groups"] = runs_of_images
    environment.tests["link"] = lambda cell: isinstance(cell, Link)
    return environment


def _flat(name: str, value: object) -> list[list[str]]:
    if isinstance(value, Mapping) and value:
        deeper = [_flat(f"{name}.{key}" if name else str(key), part) for key, part in value.items()]
        return [row for rows in deeper for row in rows]
    return [[name, _text(value)]]


def _text(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return significant(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = ", ".join(_text(part) for part in value) or "none"
    text = str(value)
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]} …"
