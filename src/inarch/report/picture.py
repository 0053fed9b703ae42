"""Validation accuracy against the depth of freezing, as an SVG picture for a page.

Colours are those of Okabe and Ito ("Color universal design", 2008), which stay apart for colour-blind eyes; line style
and marker repeat what the colour says. The picture holds no date and no random name: equal results, equal bytes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from inarch.report import words

# The page sets the colour of text; matplotlib wants a colour of its own, which is taken out of the picture again.
_INK: Final = "#010203"
_COLOURS: Final = {"replace": "#D55E00", "retain": "#0072B2", "deepen": "#009E73", "joined": "#CC79A7"}
_OTHER_COLOUR: Final = "#E69F00"
_STYLES: Final = {"none": "-", "l2": "--", "batch": ":"}
_MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")


@dataclass(frozen=True)
class Size:
    """How large a picture is, in inches, and how many names fit below it."""

    width: float
    height: float
    most_names: int
    legend_columns: int


WIDE: Final = Size(9.2, 5.4, 32, 4)
NARROW: Final = Size(4.4, 6.0, 12, 2)


def depth_picture(
    curve: Sequence[Mapping[str, Any]], chosen: Mapping[str, Any], standard_error: float, size: Size
) -> str:
    """Return an SVG element: one line for each configuration of `curve`, the choice ringed.

    `curve` and `chosen` are those of `results.json`; `standard_error` is that of a validation accuracy, as a fraction.
    """
    settings: Any = {
        "svg.fonttype": "none", "svg.hashsalt": f"inarch-{size.width}", "text.parse_math": False, "text.color": _INK,
        "axes.edgecolor": _INK, "axes.labelcolor": _INK, "xtick.color": _INK, "ytick.color": _INK, "font.size": 10.0,
    }  # fmt: skip
    with mpl.rc_context():
        # A user's own matplotlib settings must not change the page.
        mpl.rcdefaults()
        mpl.rcParams.update(settings)
        figure = Figure(figsize=(size.width, size.height), layout="constrained")
        axes = figure.add_subplot()
        _band(axes, curve, standard_error)
        _lines(axes, curve)
        _ring(axes, curve, chosen)
        _dress(axes, curve, size)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=size.legend_columns, frameon=False, fontsize=9.0,
            handlelength=3.2,
        )  # fmt: skip
        stream = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    text = stream.getvalue()
    return text[text.index("<svg") :].replace(_INK, "currentColor")


def _band(axes: Axes, curve: Sequence[Mapping[str, Any]], standard_error: float) -> None:
    best = max(row["validation_accuracy"] for row in curve)
    axes.axhspan(
        best - standard_error, best, color="#808080", alpha=0.18, linewidth=0,
        label="one standard error",
    )  # fmt: skip


def _lines(axes: Axes, curve: Sequence[Mapping[str, Any]]) -> None:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in curve:
        groups.setdefault(_name(row), []).append(row)
    for (name, rows), marker in zip(groups.items(), cycle(_MARKERS), strict=False):
        rows = sorted(rows, key=lambda row: row["cut"]["index"])
        axes.plot(
            [row["cut"]["index"] for row in rows],
            [row["validation_accuracy"] for row in rows],
            label=name,
            color=_COLOURS.get(rows[0]["graft"], _OTHER_COLOUR),
            linestyle=_STYLES.get(rows[0]["harmonise"], "-."),
            marker=marker,
            markersize=5.0,
            linewidth=1.6,
        )


def _ring(axes: Axes, curve: Sequence[Mapping[str, Any]], chosen: Mapping[str, Any]) -> None:
    for row in curve:
        if _name(row) == _name(chosen) and row["cut"]["index"] == chosen["cut"]["index"]:
            axes.plot(
                [row["cut"]["index"]], [row["validation_accuracy"]], label="the choice", linestyle="none", marker="o",
                markersize=13.0, markerfacecolor="none", markeredgecolor=_INK, markeredgewidth=1.6,
            )  # fmt: skip
            return


def _dress(axes: Axes, curve: Sequence[Mapping[str, Any]], size: Size) -> None:
    names = {row["cut"]["index"]: row["cut"]["name"] for row in curve}
    ticks = sorted(names)
    step = -(-len(ticks) // size.most_names)
    # Counted from the deepest cut, so that this one always has its name.
    shown = ticks[::-1][::step][::-1]
    axes.set_xticks(shown, [_shortened(names[k]) for k in shown], rotation=90, fontsize=9.0)
    axes.set_xlabel("frozen up to and including this stage")
    axes.set_ylabel("validation accuracy")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axes.grid(axis="y", color="#808080", alpha=0.3, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)


def _name(row: Mapping[str, Any]) -> str:
    """A line's name; the method stands in it where it is not plain fine-tuning."""
    method = row.get("method", "fine-tuning")
    return words.configuration(row) + ("" if method == "fine-tuning" else f", {method}")


def _shortened(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:10]}\N{HORIZONTAL ELLIPSIS}{name[-13:]}"
