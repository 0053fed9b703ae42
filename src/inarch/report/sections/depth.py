"""Validation accuracy against the depth of freezing, a picture for each graft."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from inarch.plural import counted
from inarch.report import words
from inarch.report.drawing import BLUE, GREEN, GREY, INK, PURPLE, VERMILLION, draw, grid, percent_axis
from inarch.report.run import Run
from inarch.report.section import Figure, Panel, Section, Table
from inarch.results.statistics import accuracy_interval

_COLOURS: Final = {"replace": VERMILLION, "retain": BLUE, "deepen": GREEN, "joined": PURPLE}
_IN_SHORT: Final = {
    "replace": "layer thrown away, a new classifier in its place",
    "retain": "layer kept, a new classifier behind it",
    "deepen": "layer kept, new layers behind it",
    "joined": "layer kept, a new classifier on it and its input",
}
_STYLES: Final = ((0, ()), (0, (5, 2)), (0, (1, 1.4)), (0, (5, 1.5, 1, 1.5)))
_MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")
Row = Mapping[str, Any]


def section(run: Run) -> Section:
    curve: Sequence[Row] = run.results["curve"]
    title = "Accuracy against the depth of freezing"
    if not curve:
        return Section("depth", title, ["No cut was tried."])
    images = run.results["dataset"]["counts"]["validation"]
    intervals = [interval(row["validation_accuracy"], images) for row in curve]
    bounds = min(low for low, _ in intervals), max(high for _, high in intervals)
    grafts = list(dict.fromkeys(row["graft"] for row in curve))
    panels = [_panel(graft, [r for r in curve if r["graft"] == graft], curve, run, bounds) for graft in grafts]
    error = 100 * run.results["validation_standard_error"]
    short = _short(run)
    ring = "The ring is the choice" + (", made after all epochs, so not always the highest point" if short else "")
    caption = (
        "Each point is the best validation accuracy of a configuration with that many stages frozen, as the search saw "
        f"it with one seed{short}; its line up and down is the 95 % interval over "
        f"{counted(images, 'validation image')}. {ring}; grey are the other grafts. Points within "
        f"{error:.1f} points of each other (one standard error) can differ by chance. Further right less of the "
        "network is trained, and training is cheaper: where a line is flat, freeze; where it falls to the right, the "
        "network has to adapt to these images."
    )
    table = _table(curve, intervals)
    if len({row["cut"]["index"] for row in curve}) == 1:
        text = "One depth alone was tried for lack of time, so there is no curve yet."
        return Section("depth", title, [text], tables=[table])
    return Section("depth", title, figures=[Figure(panels, caption)], tables=[table])


def _short(run: Run) -> str:
    """How long the trials of the search were, where they were shorter than those that are compared in the end."""
    epochs, whole = {row.get("epochs") for row in run.results["curve"]}, run.results.get("settings", {}).get("epochs")
    if len(epochs) != 1 or epochs <= {None, whole}:
        return ""
    return f" after {counted(epochs.pop(), 'epoch')} (the choice and its baselines are trained for {whole})"


def interval(accuracy: float, images: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy over so many images."""
    if not images:
        return 0.0, 1.0
    found = accuracy_interval(np.arange(images)[None] < round(accuracy * images))
    return min(found.low, accuracy), max(found.high, accuracy)


def _panel(graft: str, rows: Sequence[Row], curve: Sequence[Row], run: Run, bounds: tuple[float, float]) -> Panel:
    lines, others = _lines(rows), _lines([row for row in curve if row["graft"] != graft])
    deepest = max(row["cut"]["index"] for row in curve)
    images = run.results["dataset"]["counts"]["validation"]

    def paint(axes: Axes) -> None:
        for line in others.values():
            axes.plot(*_points(line), color=GREY, alpha=0.5, linewidth=1.0, marker=".", markersize=4)
        for number, (name, line) in enumerate(lines.items()):
            x, y = _points(line)
            ends = np.array([interval(value, images) for value in y]).T
            axes.errorbar(
                # Lines stand a little beside each other, or their intervals would hide each other.
                np.array(x) + 0.12 * (number - (len(lines) - 1) / 2), y, yerr=np.abs(ends - y),
                color=_COLOURS.get(graft, INK), linestyle=_STYLES[number % len(_STYLES)],
                marker=_MARKERS[number % len(_MARKERS)], markersize=5, linewidth=1.7, elinewidth=0.9, label=name,
            )  # fmt: skip
        _ring(axes, rows, run.results["chosen"])
        room = 0.04 * (bounds[1] - bounds[0])
        axes.set_ylim(bounds[0] - room, bounds[1] + room)
        axes.set_xlim(-0.5, deepest + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.set_xlabel("frozen stages")
        percent_axis(axes, "y", "validation accuracy")
        axes.set_title(graft, pad=19)
        axes.annotate(
            _IN_SHORT.get(graft, ""), (0, 1), xycoords="axes fraction", xytext=(0, 7), textcoords="offset points",
            fontsize=8.5,
        )  # fmt: skip
        grid(axes, "y")

    return Panel(draw(f"depth-{graft}", 3.1, paint, legend=2), _description(graft, rows))


def _lines(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each configuration and method, by rising cut."""
    lines: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["cut"]["index"]):
        lines.setdefault(_name(row), []).append(row)
    return lines


def _points(line: Sequence[Row]) -> tuple[list[int], list[float]]:
    return [row["cut"]["index"] for row in line], [row["validation_accuracy"] for row in line]


def _ring(axes: Axes, rows: Sequence[Row], chosen: Row) -> None:
    for row in rows:
        if _name(row) == _name(chosen) and row["cut"]["index"] == chosen["cut"]["index"]:
            axes.plot(
                [row["cut"]["index"]], [row["validation_accuracy"]], linestyle="none", marker="o", markersize=12,
                markerfacecolor="none", markeredgecolor=INK, markeredgewidth=1.6,
            )  # fmt: skip
            return


def _name(row: Row) -> str:
    """A line's name; the method stands in it where it is not plain fine-tuning."""
    method = row.get("method", "fine-tuning")
    return words.configuration(row) + ("" if method == "fine-tuning" else f", {method}")


def _description(graft: str, rows: Sequence[Row]) -> str:
    best = max(rows, key=lambda row: row["validation_accuracy"])
    worst = min(rows, key=lambda row: row["validation_accuracy"])
    return (
        f"Validation accuracy of {graft} against the number of frozen stages, {counted(len(rows), 'point')}. Highest: "
        f"{words.configuration(best)} with {words.percent(best['validation_accuracy'])}, frozen: "
        f"{words.frozen(best['cut'])}. Lowest: {words.configuration(worst)} with "
        f"{words.percent(worst['validation_accuracy'])}, frozen: {words.frozen(worst['cut'])}. "
        "The table below holds every point."
    )


def _table(curve: Sequence[Row], intervals: Sequence[tuple[float, float]]) -> Table:
    return Table(
        "Validation accuracy at each cut",
        ["Configuration", "Frozen", "Validation accuracy", "95 % interval", "Seeds"],
        [
            [
                _name(row), words.frozen(row["cut"]), words.percent(row["validation_accuracy"]),
                words.percent_range(list(ends)), words.setting(row["seeds"]),
            ]
            for row, ends in zip(curve, intervals, strict=True)
        ],
        numbers=frozenset({2, 3, 4}),
        folded="Every point as a table",
    )  # fmt: skip
