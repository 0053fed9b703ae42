"""Questions about places on a curve: how deep to freeze, and how fast new layers learn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import evidence_figures as figures
from evidence_figures import title
from evidence_numbers import FEWEST, best, between, chosen_against, curve, mean_of
from evidence_records import Written
from evidence_tables import differences_table, pair_cell, table
from evidence_words import in_short, paragraphs, tuned_earlier
from inarch.report.words import percent
from inarch.results.statistics import PairedDifference

Row = dict[str, Any]
# What `inarch fit` tries where only new layers train: the range test's rate, a third and three times of it.
TRIED = (1 / 4, 4.0)


def depth(parts: Sequence[Written], pictures: Path) -> str:
    text = (
        "The cut that validation chooses (mean over draws), and how much better "
        "it is on test images than training everything (cut 0)."
    )
    rows, by_graft = [], _Gains()
    for part in parts:
        for name, (row, pair) in chosen_against(part, "depth", "cuts", lambda rows: min(rows, key=_cut)).items():
            stages = len(part.about["stages"])
            rows.append([title(part), name, f"{row['cut']} of {stages}", percent(row["accuracy"]), pair_cell(pair)])
            by_graft.add(name, pair)
    if not rows:
        return ""
    figures.curves(pictures / "depth.svg", parts, "depth", "cuts", "stages frozen")
    each = table(["part", "graft", "cut", "test accuracy there", "against cut 0"], rows)
    image = f"![Accuracy against freeze depth]({pictures.name}/depth.svg)"
    return paragraphs(text, by_graft.text(), tuned_earlier(parts, "depth"), each, image)


def _cut(row: Row) -> int:
    return int(row["cut"])


def rates(parts: Sequence[Written], pictures: Path) -> str:
    text = (
        "New layers alone, nothing else trains. The rate that validation "
        "chooses of seven, as a multiple of the range test's, and what it gains over that one on test images."
    )
    rows, by_layers, multiples = [], _Gains(), _Multiples()
    for part in parts:
        for name, (row, pair) in chosen_against(part, "rates", "rates", _range_test).items():
            rows.append([title(part), name, f"{row['rate']:.2g}", f"x {row['multiple']:g}", pair_cell(pair)])
            by_layers.add(name, pair)
            multiples.add(part, name, row["multiple"])
    if not rows:
        return ""
    figures.curves(pictures / "rates.svg", parts, "rates", "rates", "learning rate of new layers")
    each = table(["part", "new layers", "chosen rate", "multiple", "against the range test's"], rows)
    image = f"![Accuracy against the new layers' rate]({pictures.name}/rates.svg)"
    return paragraphs(text, by_layers.text(), multiples.text(), each, image)


def _range_test(rows: Sequence[Row]) -> Row:
    return min(rows, key=lambda row: abs(math.log(row["multiple"])))


def three_instead_of_all(parts: Sequence[Written]) -> list[PairedDifference]:
    """What choosing among all rates gains over choosing among those that `inarch fit` tries, a case each."""
    found = []
    for part in parts:
        for rows in curve(part, "rates", "rates").values():
            tried = [row for row in rows if TRIED[0] < row["multiple"] < TRIED[1]]
            if tried and (pair := between(part, best(rows)["draws"], best(tried)["draws"])) is not None:
                found.append(pair)
    return found


class _Gains:
    """Differences by name, over parts."""

    def __init__(self) -> None:
        self._found: dict[str, list[PairedDifference]] = {}

    def add(self, name: str, pair: PairedDifference | None) -> None:
        if pair is not None:
            self._found.setdefault(name, []).append(pair)

    def text(self) -> str:
        found = list(self._found.items())
        return paragraphs(in_short(found), differences_table(found))


class _Multiples:
    """Chosen multiples of the range test's rate by what the new layers are and by images a class."""

    def __init__(self) -> None:
        # By name, then by part, since multiples of one part have one image set in common.
        self._found: dict[str, dict[str, list[float]]] = {}

    def add(self, part: Written, name: str, multiple: float) -> None:
        shots = part.about["part"]["shots"] or "all"
        for of in (name, f"{shots} images a class", "all of them"):
            self._found.setdefault(of, {}).setdefault(title(part), []).append(math.log(multiple))

    def text(self) -> str:
        # What the new layers are comes before images a class, and all together last.
        order = sorted(self._found, key=lambda name: (name == "all of them", name.endswith("a class")))
        rows = [[name, _geometric(self._found[name]), str(len(self._found[name]))] for name in order]
        words = "Geometric means of the chosen multiples, each part counting once (intervals over parts):"
        return paragraphs(words, table(["new layers or parts", "multiple", "parts"], rows))


def _geometric(by_part: Mapping[str, Sequence[float]]) -> str:
    mean = mean_of([sum(logs) / len(logs) for logs in by_part.values()])
    assert mean is not None
    value = f"x {math.exp(mean.value):.2g}"
    return value if mean.count < FEWEST else f"{value} ({math.exp(mean.low):.2g} to {math.exp(mean.high):.2g})"
