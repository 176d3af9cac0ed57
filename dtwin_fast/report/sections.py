"""What a page is made of: paragraphs, tables, figures, in sections."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .figures.canvas import Image

SHORT_NAME = 26
"""Letters of a name that is not broken."""


@dataclass(frozen=True)
class Link:
    """A cell that leads to another page of the report."""

    text: str
    href: str


@dataclass(frozen=True)
class Table:
    """A table of a page.

    Attributes:
        caption: what its rows are.
        titles: of the columns; the first names the rows.
        rows: cells, each row as long as ``titles``.
        words: columns of text; the others, but the first, hold numbers.
        folded: what a reader opens it by; empty where it is open.
        file: where a folded table's rows are, should the page be too small for it.
    """

    caption: str
    titles: Sequence[str]
    rows: Sequence[Sequence[str | Link]]
    words: frozenset[int] = frozenset()
    folded: str = ""
    file: str = ""

    @property
    def has_short_names(self) -> bool:
        """Whether the names of all rows fit on a line beside the other columns."""
        names = (row[0].text if isinstance(row[0], Link) else row[0] for row in self.rows)
        return all(len(name) <= SHORT_NAME for name in names)


Part = str | Table | Image | None
"""A paragraph, a table, a figure; None where there is none to show."""


@dataclass(frozen=True)
class Card:
    """A number that is seen first."""

    value: str
    label: str


@dataclass(frozen=True)
class Under:
    """A part of a section with a heading of its own."""

    title: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Section:
    """A section of a page.

    Attributes:
        id: by which links find it.
        title: heading.
        parts: what it shows, in order.
        lead: a sentence before everything.
        cards: numbers above the parts.
        under: parts with headings, below them.
    """

    id: str
    title: str
    parts: Sequence[Part]
    lead: str = ""
    cards: Sequence[Card] = ()
    under: Sequence[Under] = ()


def runs_of_images(parts: Sequence[Part]) -> list[tuple[bool, list[Part]]]:
    """Parts in order, images that follow each other together: (are they images, the parts)."""
    known = [part for part in parts if part is not None]
    groups = itertools.groupby(known, lambda part: isinstance(part, Image))
    return [(are_images, list(group)) for are_images, group in groups]


def without_folds(sections: Sequence[Section]) -> list[Section]:
    """The sections with a word of where it is for each folded table."""
    return [
        replace(
            section,
            parts=[_unfolded(part) for part in section.parts],
            under=[replace(u, parts=[_unfolded(part) for part in u.parts]) for u in section.under],
        )
        for section in sections
    ]


def _unfolded(part: Part) -> Part:
    if isinstance(part, Table) and part.folded:
        return f"{part.folded}: in {part.file}."
    return part
