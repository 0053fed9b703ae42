"""The choice against its baselines, and the layer kept against the layer replaced: paired differences."""

from __future__ import annotations

from typing import Any

from inarch.report import words
from inarch.report.drawing import draw
from inarch.report.forest import Row, height, paint
from inarch.report.run import Run
from inarch.report.section import Figure, Panel, Section, Table


def section(run: Run) -> Section:
    layer = run.results["kept_layer"]
    compared = bool(layer.get("kept") and layer.get("replaced"))
    rows = [Row("Layer kept \N{MINUS SIGN} replaced", _layer_words(layer), layer, True)] if compared else []
    for row in run.results["paired"]:
        rows.append(
            Row(
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


def _figures(rows: list[Row]) -> list[Figure]:
    if not rows:
        return []
    described = "; ".join(
        f"{row.whole}: {words.points(row.values['difference'])} points, interval "
        f"{words.points_range(row.values['interval95'])}"
        for row in rows
    )
    svg = draw("pay", height(rows), lambda axes: paint(axes, rows))
    caption = (
        "Differences of accuracy in percentage points, on the same test images; a line is a 95 % interval. Right of "
        "zero, keeping the layer or the choice is better. A line that crosses zero means that the test images cannot "
        "tell the two apart."
    )
    return [Figure([Panel(svg, f"Differences of test accuracy. {described}.")], caption)]


def _table(rows: list[Row]) -> Table:
    return Table(
        "Paired differences of test accuracy, in percentage points",
        ["Comparison", "Difference", "95 % interval", "p", "p after Holm", "Over"],
        [
            [
                row.whole, words.points(row.values["difference"]), words.points_range(row.values["interval95"]),
                words.p_value(row.values["p"]), "" if row.marked else words.p_value(row.values["p_holm"]),
                row.values["of"],
            ]
            for row in rows
        ],
        numbers=frozenset({1, 2, 3, 4}),
        marked=frozenset(at for at, row in enumerate(rows) if row.marked),
        folded="The differences as a table",
    )  # fmt: skip
