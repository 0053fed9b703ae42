"""Small pictures for a page: SVG by matplotlib, in the page's own colours, so that they follow light and dark.

Colours are those of Okabe and Ito ("Color universal design", 2008), which stay apart for colour-blind eyes (purple
darkened for contrast on white); line style and marker repeat what the colour says. A picture is as wide as a phone, and
a wide page sets several side by side. It holds no date and no random name: equal figures, equal bytes.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

# The page's style sheet has a variable of the same name for each, with another value in the dark.
BLUE: Final = "#0072b2"
VERMILLION: Final = "#d55e00"
GREEN: Final = "#009e73"
PURPLE: Final = "#a84f86"
GREY: Final = "#767c83"
_VARIABLES: Final = {BLUE: "blue", VERMILLION: "vermillion", GREEN: "green", PURPLE: "purple", GREY: "grey"}
# The page sets the colour of text; matplotlib wants a colour of its own, which is taken out of the picture again.
INK: Final = "#010203"
WIDTH: Final = 4.3
_LEGEND_LINE: Final = 0.19


def draw(name: str, height: float, paint: Callable[[Axes], None], *, legend: int = 0) -> Markup:
    """Return an SVG element `WIDTH` inches wide, on whose axes `paint` draws.

    `name` is unique on the page. `height` in inches, to which a legend adds its lines, so that the axes of pictures
    side by side are of one height. `legend`: number of its columns, below the axes; 0 for none.
    """
    with _settings(name):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        paint(axes)
        if legend:
            handles, labels = axes.get_legend_handles_labels()
            columns = legend if max(map(len, labels), default=0) <= 24 else 1
            figure.set_figheight(height + _LEGEND_LINE * math.ceil(len(labels) / columns))
            figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, handlelength=2.6)
        stream = io.StringIO()
        figure.savefig(
            stream, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    text = stream.getvalue()
    # Groups have the same names in every picture, and nothing refers to them.
    text = re.sub(r'<g id="[^"]*"', "<g", text[text.index("<svg") :]).replace(INK, "currentColor")
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    return Markup(text)


@contextmanager
def _settings(name: str) -> Iterator[None]:
    settings: Any = {
        "svg.fonttype": "none", "svg.hashsalt": f"inarch-{name}", "text.parse_math": False, "text.color": INK,
        "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "font.size": 9.5,
        "axes.titlesize": 10.5, "axes.titleweight": "bold", "axes.titlelocation": "left", "legend.fontsize": 9.0,
    }  # fmt: skip
    with mpl.rc_context():
        # A user's own matplotlib settings must not change the page.
        mpl.rcdefaults()
        mpl.rcParams.update(settings)
        yield


def percent_axis(axes: Axes, which: str, label: str) -> None:
    """Fractions on an axis ("x" or "y") as percentages."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axis.set_label_text(label)


def grid(axes: Axes, which: str) -> None:
    """Light lines at the ticks of an axis ("x", "y" or "both")."""
    axes.grid(axis=which, color=GREY, alpha=0.28, linewidth=0.7)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
