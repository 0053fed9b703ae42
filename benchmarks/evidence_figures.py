"""Pictures of docs/evidence.md as SVG; equal records give equal files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from evidence_numbers import FEWEST, Mean, Ranked, critical_difference, curve, mean_of, similarity
from evidence_records import Written
from inarch.plural import counted
from inarch.results.statistics import PairedDifference

BLUE, ORANGE, GREEN, GREY = "#2563eb", "#d97706", "#15803d", "#6b7280"
COLOURS = (BLUE, ORANGE, GREEN, "#9333ea", "#be123c", "#0891b2", "#4d7c0f")
STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "inarch", "font.size": 9, "axes.spines.top": False,
    "axes.spines.right": False, "figure.facecolor": "white",
}  # fmt: skip
# Small pictures side by side.
ACROSS = 3


def forest(file: Path, rows: Sequence[tuple[str, PairedDifference]], axis: str) -> None:
    """A difference in points and its interval a row."""
    with _rows(file, [name for name, _ in rows], axis) as axes:
        for place, (_, pair) in enumerate(rows):
            axes.plot([100 * side for side in pair.interval95], [place] * 2, color=BLUE, linewidth=1.5)
            axes.plot(100 * pair.difference, place, "o", color=BLUE, markersize=4)
        axes.axvline(0, color=GREY, linewidth=0.8)


def contrasts(file: Path, rows: Sequence[tuple[str, Sequence[PairedDifference]]], axis: str) -> None:
    """A mean over parts in points a row, with its interval where there are three or more; parts as pale dots."""
    with _rows(file, [name for name, _ in rows], axis) as axes:
        for place, (_, pairs) in enumerate(rows):
            values = [100 * pair.difference for pair in pairs]
            axes.plot(values, [place] * len(values), "o", color=GREY, markersize=3, alpha=0.5, linewidth=0)
            mean = mean_of(values)
            assert mean is not None
            _mean(axes, place, mean)
        axes.axvline(0, color=GREY, linewidth=0.8)


def means(file: Path, rows: Sequence[tuple[str, Mean]], axis: str, reach: tuple[float, float]) -> None:
    """A mean and its interval a row, cut off at the ends of the scale."""
    with _rows(file, [name for name, _ in rows], axis) as axes:
        for place, (_, mean) in enumerate(rows):
            _mean(axes, place, mean)
        axes.set_xlim(*reach)


@contextmanager
def _rows(file: Path, names: Sequence[str], axis: str) -> Iterator[Axes]:
    """Axes with a named row for each of `names`, the first on top, which are written to a file in the end."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 0.8 + 0.28 * len(names)))
        yield axes
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlabel(axis)
        _save(figure, file)


def _mean(axes: Axes, place: int, mean: Mean) -> None:
    if mean.count >= FEWEST:
        axes.plot([mean.low, mean.high], [place] * 2, color=BLUE, linewidth=1.5)
    axes.plot(mean.value, place, "o", color=BLUE, markersize=5, clip_on=False, zorder=3)


def curves(file: Path, parts: Sequence[Written], chapter: str, field: str, axis: str) -> None:
    """Test accuracy over cuts (`depth`) or rates (`rates`), a small picture a part, a line a name."""
    some = [part for part in parts if chapter in part.chapters]
    with plt.rc_context(STYLE):
        across = min(ACROSS, len(some))
        down = -(-len(some) // across)
        size = (max(5, 3 * across), 0.5 + 2.5 * down)
        figure, grid = plt.subplots(down, across, figsize=size, squeeze=False)
        for axes, part in zip(grid.flat, some, strict=False):
            _curves(axes, part, chapter, field)
        for axes in list(grid.flat)[len(some) :]:
            axes.axis("off")
        figure.supxlabel(axis, fontsize=9)
        figure.supylabel("test accuracy, %", fontsize=9)
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=min(4, 1 + across), frameon=False)
        _save(figure, file)


def _curves(axes: Axes, part: Written, chapter: str, field: str) -> None:
    for colour, (name, rows) in zip(COLOURS, curve(part, chapter, field).items(), strict=False):
        x = [row["cut"] if field == "cuts" else row["rate"] for row in rows]
        axes.plot(x, [100 * row["accuracy"] for row in rows], "o-", color=colour, label=name, markersize=3, linewidth=1)
    if field == "rates":
        axes.set_xscale("log")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(title(part), fontsize=9)


def ranked(file: Path, rows: Sequence[Ranked], parts: int) -> None:
    """Mean ranks on a line, and the critical difference after Nemenyi."""
    length = critical_difference(len(rows), parts)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 0.9 + 0.24 * len(rows)))
        for place, row in enumerate(rows):
            axes.plot(row.rank, place, "o", color=BLUE, markersize=4)
            axes.annotate(f"{row.name}  {row.rank:.1f}", (row.rank, place), (6, -3), textcoords="offset points")
        axes.plot([rows[0].rank, rows[0].rank + length], [-1, -1], color=ORANGE, linewidth=3)
        axes.annotate("critical difference", (rows[0].rank, -1), (0, 5), textcoords="offset points", color=ORANGE)
        axes.set_ylim(len(rows) - 0.5, -1.9)
        axes.set_xlim(0.5, len(rows) + 3)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"mean rank over {counted(parts, 'part')}, 1 is best")
        _save(figure, file)


def similar(file: Path, parts: Sequence[Written]) -> None:
    """Classes: share of their most frequent source class against what retaining gained on them."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6, 3.4))
        for colour, data in zip(COLOURS, dict.fromkeys(part.about["part"]["data"] for part in parts), strict=False):
            found = [similarity(part) for part in parts if part.about["part"]["data"] == data]
            some = [f for f in found if f is not None]
            if some:
                share, gain = (np.concatenate([f[i] for f in some]) for i in (0, 1))
                axes.plot(share, 100 * gain, "o", color=colour, markersize=3, alpha=0.5, label=data)
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.set_xlabel("share of a class's images with its most frequent source class")
        axes.set_ylabel("retain minus replace, points")
        axes.legend(frameon=False)
        _save(figure, file)


def title(part: Written) -> str:
    """A part in a few words."""
    about = part.about["part"]
    return f"{about['data']}, {about['source']}, {about['shots'] or 'all'}"


def _save(figure: Any, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.set_layout_engine("constrained")
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
