"""Cells and tables of docs/evidence.md, as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from evidence_figures import title
from evidence_numbers import Mean, Named, difference, over_parts
from evidence_records import Written
from inarch.comparison.design import REFERENCE
from inarch.report.words import points, points_range
from inarch.results.statistics import PairedDifference

TRADITIONAL: Named = ("layer", REFERENCE)
REPLACE: Named = ("layer", "replace")
RETAIN: Named = ("layer", "retain")
DEEPEN: Named = ("layer", "deepen")


def mean_cell(mean: Mean | None) -> str:
    if mean is None:
        return ""
    if math.isnan(mean.low):
        return f"{points(mean.value)} (one part)"
    return f"{points(mean.value)} ({points_range([mean.low, mean.high])})"


def pair_cell(pair: PairedDifference | None) -> str:
    return "" if pair is None else f"{points(pair.difference)} ({points_range(list(pair.interval95))})"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def pairs_table(parts: Sequence[Written], pairs: Sequence[tuple[str, Named, Named]]) -> str:
    """A part a row, a difference a column, and the mean over parts below; empty where nothing is known.

    Columns of which nothing is known are left out.
    """
    shown = [(name, a, b) for name, a, b in pairs if over_parts(parts, a, b) is not None]
    if not shown:
        return ""
    rows = [[title(part), *(pair_cell(difference(part, a, b)) for _, a, b in shown)] for part in parts]
    rows.append(["**mean over parts**", *(mean_cell(over_parts(parts, a, b)) for _, a, b in shown)])
    return table(["part", *(name for name, _, _ in shown)], rows)
