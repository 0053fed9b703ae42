"""Cells and tables of docs/evidence.md, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evidence_figures import forest, title
from evidence_numbers import (
    FEWEST,
    Mean,
    Named,
    accuracy,
    difference,
    mean_of,
    over_parts,
    over_these,
    settled,
    sides_in_parts,
)
from evidence_records import Written
from inarch.comparison.design import REFERENCE
from inarch.plural import counted
from inarch.report.words import points, points_range
from inarch.results.statistics import PairedDifference

TRADITIONAL: Named = ("layer", REFERENCE)
REPLACE: Named = ("layer", "replace")
RETAIN: Named = ("layer", "retain")
DEEPEN: Named = ("layer", "deepen")

Side = Sequence[Named]
"""Contestants of which validation chooses one, draw by draw."""
# Two ways to keep the layer, and two to do without: what validation chooses of either is what a user would have.
KEEPING, WITHOUT = (RETAIN, DEEPEN), (REPLACE, TRADITIONAL)
SETTLED = "Better or worse in a part: its own 95 % interval does not hold zero."
THESE = {1: "this part", 2: "these 2 parts"}


def mean_cell(mean: Mean | None) -> str:
    if mean is None:
        return ""
    if mean.count < FEWEST:
        return f"{points(mean.value)} ({counted(mean.count, 'part')})"
    return f"{points(mean.value)} ({points_range([mean.low, mean.high])})"


def parts_cell(pairs: Sequence[PairedDifference]) -> str:
    """The mean over parts with its interval: over parts, or, of fewer than three, over draws and images of these."""
    if len(pairs) >= FEWEST or not pairs:
        return mean_cell(mean_of([pair.difference for pair in pairs]))
    mean, low, high = over_these(pairs)
    return f"{points(mean)} ({points_range([low, high])}, {THESE[len(pairs)]})"


def pair_cell(pair: PairedDifference | None) -> str:
    return "" if pair is None else f"{points(pair.difference)} ({points_range(list(pair.interval95))})"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def pairs_table(parts: Sequence[Written], pairs: Sequence[tuple[str, Named, Named]]) -> str:
    """A part a row, a difference a column, and the mean over parts below; empty where nothing is known.

    Columns and parts of which nothing is known are left out.
    """
    shown = [(name, a, b) for name, a, b in pairs if over_parts(parts, a, b) is not None]
    if not shown:
        return ""
    rows = [[title(part), *(pair_cell(difference(part, a, b)) for _, a, b in shown)] for part in parts]
    rows = [row for row in rows if any(row[1:])]
    rows.append(["**mean over parts**", *(mean_cell(over_parts(parts, a, b)) for _, a, b in shown)])
    return table(["part", *(name for name, _, _ in shown)], rows)


Contrast = tuple[str, Side, Side]
"""A name, and two sides of which the second is taken from the first."""


def contrasts(parts: Sequence[Written], wanted: Sequence[Contrast]) -> list[tuple[str, list[PairedDifference]]]:
    """Each contrast of which something is known, with its difference in every part that has both sides."""
    found = [(name, sides_in_parts(parts, a, b)) for name, a, b in wanted]
    return [(name, pairs) for name, pairs in found if pairs]


def contrasts_table(parts: Sequence[Written], wanted: Sequence[Contrast]) -> str:
    """Contrasts as a table; empty where nothing is known."""
    return differences_table(contrasts(parts, wanted))


def differences_table(found: Sequence[tuple[str, Sequence[PairedDifference]]]) -> str:
    """A difference a row: its mean over parts, and in how many of them it is settled either way; empty of nothing."""
    rows = [[name, parts_cell(pairs), str(len(pairs)), *map(str, settled(pairs))] for name, pairs in found]
    columns = ["points of test accuracy", "mean over parts", "parts", "better in", "worse in"]
    return table(columns, rows) if rows else ""


def kept_table(known: Sequence[tuple[Written, PairedDifference]], picture: Path) -> str:
    """What keeps the layer minus what does not, a part a row, the mean below, and the figure of it, drawn here."""
    found = [(title(part), pair) for part, pair in known]
    forest(picture, found, "layer kept minus not kept, points of test accuracy")
    rows = [[name, pair_cell(pair)] for name, pair in found]
    rows.append(["**mean over parts**", parts_cell([pair for _, pair in known])])
    return (
        f"{table(['part', 'kept - not kept'], rows)}\n\n"
        f"![Difference of keeping the layer in every part]({picture.parent.name}/{picture.name})"
    )


def accuracies_table(parts: Sequence[Written], names: Sequence[tuple[str, Named]]) -> str:
    """A part a row, a contestant a column; the best of a part is bold. What nothing is known of is left out."""
    names = [(name, of) for name, of in names if any(accuracy(part, of) is not None for part in parts)]
    rows = []
    for part in parts:
        found = [accuracy(part, of) for _, of in names]
        known = [value for value in found if value is not None]
        if known:
            cells = ["" if value is None else _bold(f"{100 * value:.1f}", value == max(known)) for value in found]
            rows.append([title(part), *cells])
    return table(["test accuracy, %", *(name for name, _ in names)], rows) if rows else ""


def _bold(text: str, whether: bool) -> str:
    return f"**{text}**" if whether else text
