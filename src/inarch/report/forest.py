"""Values below each other with their intervals, on one axis: a forest plot, of differences or of accuracies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from inarch.report import words
from inarch.report.drawing import BLUE, GREY, INK, VERMILLION, grid

# How far above a value the line at zero ends and its name begins; from one to the next it is 1.
ZERO_ABOVE, NAME_ABOVE = 0.2, 0.26
# Letters that fit in one line.
_ROOM = 60


@dataclass(frozen=True)
class Row:
    """One line of the picture. name: on the picture; whole: in tables and in words. value, interval: fractions.
    marked: stands out."""

    name: str
    whole: str
    value: float
    interval: Sequence[float]
    marked: bool


def height(rows: Sequence[Row]) -> float:
    """Inches of the picture."""
    return 0.9 + 0.5 * len(rows)


def paint_differences(axes: Axes, rows: Sequence[Row]) -> None:
    """Differences with their intervals, in percentage points, and where zero is."""
    for at in range(len(rows)):
        # Zero is marked at each difference and leaves room for the names, which may reach across it.
        axes.plot([0, 0], [-at - 0.45, -at + ZERO_ABOVE], color=INK, linewidth=1.0, solid_capstyle="butt")
    _rows(axes, rows, [f"{words.points(row.value)} ({words.points_range(list(row.interval))})" for row in rows])
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:+g}".replace("-", "\N{MINUS SIGN}") if value else "0")
    )
    # A page would draw several spaces as one.
    gap = "\N{EM SPACE}\N{EM SPACE}"
    axes.set_xlabel(f"\N{LEFTWARDS ARROW} worse{gap}points of test accuracy{gap}better \N{RIGHTWARDS ARROW}")


def paint_accuracies(axes: Axes, rows: Sequence[Row]) -> None:
    """Accuracies with their intervals; the axis does not begin at zero."""
    _rows(axes, rows, [f"{words.percent(row.value)} ({words.percent_range(list(row.interval))})" for row in rows])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    axes.set_xlabel("test images that are right")


def described(rows: Sequence[Row], *, differences: bool) -> str:
    """The rows in words, for those who do not see the picture."""
    if differences:
        return "; ".join(
            f"{row.whole}: {words.points(row.value)} points, interval {words.points_range(list(row.interval))}"
            for row in rows
        )
    return "; ".join(
        f"{row.whole}: {words.percent(row.value)}, interval {words.percent_range(list(row.interval))}" for row in rows
    )


def _rows(axes: Axes, rows: Sequence[Row], figures: Sequence[str]) -> None:
    for at, (row, figure) in enumerate(zip(rows, figures, strict=True)):
        low, high = (100 * end for end in row.interval)
        colour, marker = (VERMILLION, "D") if row.marked else (BLUE, "o")
        axes.plot([low, high], [-at, -at], color=colour, linewidth=2.2, solid_capstyle="butt")
        axes.plot([low, low, high, high], [-at] * 4, color=colour, linestyle="none", marker="|", markersize=8)
        axes.plot([100 * row.value], [-at], color=colour, marker=marker, markersize=7)
        _write(axes, -at + NAME_ABOVE, 0, row.name)
        if len(row.name) + len(figure) <= _ROOM:
            _write(axes, -at + NAME_ABOVE, 1, figure)
    axes.set_ylim(-len(rows) + 0.55, 0.75)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.tick_params(axis="x", color=GREY)
    grid(axes, "x")


def _write(axes: Axes, height: float, side: int, text: str) -> None:
    place = ("axes fraction", "data")
    axes.annotate(
        text, (side, height), xycoords=place, fontsize=9.0, ha="right" if side else "left", va="bottom"
    )  # fmt: skip
