"""The parts of a page as values: sections with their text, pictures and tables. What draws them is in the templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup


@dataclass(frozen=True)
class Panel:
    """One picture: an SVG element, and what it shows in words for those who do not see it."""

    svg: Markup
    description: str


@dataclass(frozen=True)
class Figure:
    """Panels side by side, or below each other on a phone; `caption` says what to see in them."""

    panels: Sequence[Panel]
    caption: str


@dataclass(frozen=True)
class Table:
    """A table whose first column names its rows.

    `numbers`: which columns hold figures. `marked`: rows that stand out. `folded`: what to click on to see it (empty:
    it is open). Where there are more than `open_rows`, the others can be unfolded; paper has them unless `rest_behind`.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Markup]]
    numbers: frozenset[int] = frozenset()
    marked: frozenset[int] = frozenset()
    folded: str = ""
    open_rows: int | None = None
    rest_behind: bool = False


@dataclass(frozen=True)
class Section:
    """A section of the page. `name` is its address on the page and the name of its own template, if it has `values`.

    In this order: `text` (a paragraph each), what the own template makes of `values`, `figures`, `tables`.
    """

    name: str
    title: str
    text: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
