"""The choice against its baselines, and the layer kept against the layer replaced: paired differences."""

from __future__ import annotations

from typing import Any

from inarch.report import words
from inarch.report.drawing import draw
from inarch.report.forest import Row, described, height, paint_differences
from inarch.report.run import Run
from inarch.report.section import Figure, Panel, Section, Table


def section(run: Run) -> Section:
    layer = run.results["kept_layer"]
    compared = bool(layer.get("kept") and layer.get("replaced"))
    found = [layer] if compared else []
    rows = [_row("Layer kept \N{MINUS SIGN} replaced", _layer_words(layer), layer, True)] if compared else []
    for pair in run.results["paired"]:
        short = f"Choice \N{MINUS SIGN} {words.short_role(pair['against'])}"
        rows.append(_row(short, f"The choice minus: {words.role(pair['against'])}", pair, False))
        found.append(pair)
    text = [layer["sentence"] if compared else f"Keeping the layer was not compared: {layer['reason']}"]
    return Section("pay", "Did it pay?", text, _figures(rows), [_table(rows, found)] if rows else [])


def _row(name: str, whole: str, found: Any, marked: bool) -> Row:
    return Row(name, whole, found["difference"], found["interval95"], marked)


def _layer_words(layer: Any) -> str:
    kept, replaced = words.configuration(layer["kept"]), words.configuration(layer["replaced"])
    return f"Layer kept ({kept}) minus layer replaced ({replaced})"


def _figures(rows: list[Row]) -> list[Figure]:
    if not rows:
        return []
    svg = draw("pay", height(rows), lambda axes: paint_differences(axes, rows))
    caption = (
        "What the first of the two has more than the second, in percentage points of accuracy on the same test images; "
        "a line is a 95 % interval. Orange: keeping the classification layer against throwing it away. Blue: the "
        "choice against what is usually done. Right of zero it pays. A line that crosses zero means that the test "
        "images cannot tell the two apart."
    )
    return [Figure([Panel(svg, f"Differences of test accuracy. {described(rows, differences=True)}.")], caption)]


def _table(rows: list[Row], found: list[Any]) -> Table:
    return Table(
        "Paired differences of test accuracy, in percentage points",
        ["Comparison", "Difference", "95 % interval", "p", "p after Holm", "Over"],
        [
            [
                row.whole, words.points(row.value), words.points_range(list(row.interval)),
                words.p_value(pair["p"]), "" if row.marked else words.p_value(pair["p_holm"]), pair["of"],
            ]
            for row, pair in zip(rows, found, strict=True)
        ],
        numbers=frozenset({1, 2, 3, 4}),
        marked=frozenset(at for at, row in enumerate(rows) if row.marked),
        folded="The differences as a table",
    )  # fmt: skip
