"""The choice against its baselines, and the layer kept against the layer replaced: paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from inarch.report import words
from inarch.report.drawing import BLUE, GREY, INK, VERMILLION, draw, grid
from inarch.report.run import Run
from inarch.report.section import Figure, Panel, Section, Table

# How far above a difference the line at zero ends and its name begins; from one to the next it is 1.
ZERO_ABOVE, NAME_ABOVE = 0.2, 0.26


@dataclass(frozen=True)
class _Row:
    """One difference. name: on the picture; whole: in the table."""

    name: str
    whole: str
    values: Any
    layer: bool


def section(run: Run) -> Section:
    layer = run.results["kept_layer"]
    compared = bool(layer.get("kept") and layer.get("replaced"))
    rows = [_Row("Layer kept \N{MINUS SIGN} replaced", _layer_words(layer), layer, True)] if compared else []
    for row in run.results["paired"]:
        rows.append(
            _Row(
                f"Choice \N{MINUS SIGN} {words.short_role(row['against'])}",
                f"The choice minus: {words.role(row['against'])}",
                row,
                False,
            )
        )
    text = [layer["sentence"] if compared else f"Keeping the layer was not compared: {layer['reason']}"]
    return Section("pay", "Did it pay?", text, _figures(rows), [_table(rows)] if rows else [])


def _layer_words(layer: Any) -> str:
    kept, replaced = words.configuration(layer["kept"]), words.configuration(layer["replaced"])
    return f"Layer kept ({kept}) minus layer replaced ({replaced})"


def _figures(rows: list[_Row]) -> list[Figure]:
    if not rows:
        return []
    described = "; ".join(
        f"{row.whole}: {words.points(row.values['difference'])} points, interval "
        f"{words.points_range(row.values['interval95'])}"
        for row in rows
    )
    svg = draw("pay", height(rows), lambda axes: _paint(axes, rows))
    caption = (
        "Differences of accuracy in percentage points, on the same test images; a line is a 95 % interval. Right of "
        "zero, keeping the layer or the choice is better. A line that crosses zero means that the test images cannot "
        "tell the two apart."
    )
    return [Figure([Panel(svg, f"Differences of test accuracy. {described}.")], caption)]


def height(rows: Sequence[_Row]) -> float:
    """Inches of the picture."""
    return 1.0 + 0.55 * len(rows)


def _paint(axes: Axes, rows: list[_Row]) -> None:
    for at, row in enumerate(rows):
        # Zero is marked at each difference and leaves room for the names, which may reach across it.
        axes.plot([0, 0], [-at - 0.45, -at + ZERO_ABOVE], color=INK, linewidth=1.0, solid_capstyle="butt")
        low, high = (100 * end for end in row.values["interval95"])
        colour, marker = (VERMILLION, "D") if row.layer else (BLUE, "o")
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


def _table(rows: list[_Row]) -> Table:
    return Table(
        "Paired differences of test accuracy, in percentage points",
        ["Comparison", "Difference", "95 % interval", "p", "p after Holm", "Over"],
        [
            [
                row.whole, words.points(row.values["difference"]), words.points_range(row.values["interval95"]),
                words.p_value(row.values["p"]), "" if row.layer else words.p_value(row.values["p_holm"]),
                row.values["of"],
            ]
            for row in rows
        ],
        numbers=frozenset({1, 2, 3, 4}),
        marked=frozenset(at for at, row in enumerate(rows) if row.layer),
        folded="The differences as a table",
    )  # fmt: skip
