"""Differences below each other with their intervals, on one axis: a forest plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from inarch.report.drawing import BLUE, GREY, INK, VERMILLION, grid

# How far above a difference the line at zero ends and its name begins; from one to the next it is 1.
ZERO_ABOVE, NAME_ABOVE = 0.2, 0.26


@dataclass(frozen=True)
class Row:
    """One difference. name: on the picture; whole: in the table. values: `difference` and `interval95`, as
    fractions. marked: stands out."""

    name: str
    whole: str
    values: Any
    marked: bool


def height(rows: Sequence[Row]) -> float:
    """Inches of the picture."""
    return 1.0 + 0.55 * len(rows)


def paint(axes: Axes, rows: Sequence[Row]) -> None:
    """Draws differences below each other, with their intervals."""
    for at, row in enumerate(rows):
        # Zero is marked at each difference and leaves room for the names, which may reach across it.
        axes.plot([0, 0], [-at - 0.45, -at + ZERO_ABOVE], color=INK, linewidth=1.0, solid_capstyle="butt")
        low, high = (100 * end for end in row.values["interval95"])
        colour, marker = (VERMILLION, "D") if row.marked else (BLUE, "o")
        axes.plot([low, high], [-at, -at], color=colour, linewidth=2.2, solid_capstyle="butt")
        axes.plot([low, low, high, high], [-at] * 4, color=colour, linestyle="none", marker="|", markersize=8)
        axes.plot([100 * row.values["difference"]], [-at], color=colour, marker=marker, markersize=7)
        axes.annotate(
            row.name, (0, -at + NAME_ABOVE), xycoords=("axes fraction", "data"), fontsize=9.0, ha="left", va="bottom"
        )
    axes.set_ylim(-len(rows) + 0.55, 0.75)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:+g}".replace("-", "\N{MINUS SIGN}") if value else "0")
    )
    axes.set_xlabel("percentage points of test accuracy")
    axes.tick_params(axis="x", color=GREY)
    grid(axes, "x")
