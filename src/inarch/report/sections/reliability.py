"""Whether the probabilities of the delivered model can be believed: the reliability diagram."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from inarch.report import words
from inarch.report.drawing import BLUE, GREY, INK, draw, grid, percent_axis
from inarch.report.run import Run
from inarch.report.section import Figure, Panel, Section, Table
from inarch.report.sections.depth import interval


def section(run: Run) -> Section | None:
    if run.evidence is None or not run.evidence["model"]["reliability"]:
        return None
    bins = run.evidence["model"]["reliability"]
    described = "; ".join(
        f"said {words.percent(b['confidence'])}, right {words.percent(b['accuracy'])} ({b['images']})" for b in bins
    )
    caption = (
        "Test images by the probability of the predicted class: how often those answers were right. On the diagonal "
        "the probabilities can be taken at their word; below it the model is too sure, above it too modest. Larger "
        "dots hold more images; lines are 95 % intervals, and one that reaches the diagonal can be chance."
    )
    panel = Panel(draw("reliability", 3.6, lambda axes: _paint(axes, bins)), f"Reliability diagram. {described}.")
    table = Table(
        "Probability and accuracy in each bin",
        ["Probability of the answer", "Images", "Mean probability", "Right"],
        [
            [f"{100 * b['low']:.0f} to {100 * b['high']:.0f} %", str(b["images"]), words.percent(b["confidence"]),
             words.percent(b["accuracy"])]
            for b in bins
        ],
        numbers=frozenset({1, 2, 3}),
        folded="The bins as a table",
    )  # fmt: skip
    error = run.results["test"]["model"]["calibration_error"]
    return Section(
        "reliability", "Can its probabilities be believed?", [_lead(bins, error)], [Figure([panel], caption)], [table]
    )


def gap(bins: Sequence[Mapping[str, Any]]) -> float:
    """Mean probability minus accuracy over all images: above zero, too sure."""
    images = [b["images"] for b in bins]
    return float(np.average([b["confidence"] - b["accuracy"] for b in bins], weights=images))


def _lead(bins: Sequence[Mapping[str, Any]], error: float) -> str:
    over = gap(bins)
    if abs(over) < 0.01:
        overall = "Overall it is right as often as it says"
    else:
        said = "too sure" if over > 0 else "too modest"
        overall = f"Overall it is {said}, by {100 * abs(over):.1f} points"
    return f"{overall}; the calibration error, the mean distance from the diagonal, is {100 * error:.1f} points."


def _paint(axes: Axes, bins: Sequence[Mapping[str, Any]]) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=(0, (4, 3)), linewidth=1.2)
    x, y = [b["confidence"] for b in bins], [b["accuracy"] for b in bins]
    for b in bins:
        axes.plot([b["confidence"]] * 2, interval(b["accuracy"], b["images"]), color=BLUE, linewidth=1.4, alpha=0.8)
    most = max(b["images"] for b in bins)
    axes.scatter(
        x, y, s=[18 + 110 * b["images"] / most for b in bins], color=BLUE, edgecolors=INK, linewidths=0.5, zorder=3
    )
    axes.set_xlim(0, 1.02)
    axes.set_ylim(-0.02, 1.02)
    percent_axis(axes, "x", "probability of the answer")
    percent_axis(axes, "y", "answers that are right")
    grid(axes, "both")
