"""How docs/evidence.md begins: what somebody who must decide tomorrow needs, in words that follow from the records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import evidence_starts as starts
from evidence_design import DRAWS, TRIALS, VIEWS
from evidence_numbers import FEWEST, contestants_of, mean_of, settled, sides_by_part, sides_in_parts
from evidence_records import Written
from evidence_tables import KEEPING, WITHOUT, Contrast, contrasts, parts_cell, table
from evidence_words import beyond_chance, paragraphs
from inarch.comparison.design import REFERENCE
from inarch.plural import counted
from inarch.results.statistics import PairedDifference

# The share of parts, and at least two of different data, that must be settled one way for the advice to say so.
SETTLED_SHARE = 0.25

Known = Sequence[tuple[Written, PairedDifference]]
"""Parts, each with the difference that keeping the layer makes there."""


class Verdict(NamedTuple):
    """sentence: what goes on behind "If you must decide tomorrow". cell: the same in a table."""

    sentence: str
    cell: str


KEEP = Verdict("keep the classification layer", "keep it")
REPLACE_IT = Verdict("replace the classification layer", "replace it")
FOR = Verdict("keep the classification layer, as the mean over parts says", "together for keeping it")
AGAINST = Verdict("replace the classification layer, as the mean over parts says", "together against it")
UNSETTLED = Verdict(
    "choose by your own validation images, since it is not settled whether keeping the classification layer pays",
    "not settled",
)


def verdict(known: Known) -> Verdict:
    """What parts say: how many of them are settled, on how many data sets, and what their mean is.

    Parts of one data set share test images, so that those of one alone never decide.
    """
    pairs = [pair for _, pair in known]
    mean, (better, worse) = mean_of([pair.difference for pair in pairs]), settled(pairs)
    if mean is None:
        return UNSETTLED
    enough = max(2, len(pairs) * SETTLED_SHARE)
    for sign, most, least, found in ((1, better, worse, KEEP), (-1, worse, better, REPLACE_IT)):
        data = {part.about["part"]["data"] for part, pair in known if _settled(pair) == sign}
        if most >= enough and most > 2 * least and sign * mean.value > 0 and len(data) > 1:
            return found
    if mean.count >= FEWEST and mean.low > 0:
        return FOR
    if mean.count >= FEWEST and mean.high < 0:
        return AGAINST
    return UNSETTLED


def _settled(pair: PairedDifference) -> int:
    """1: better, -1: worse, with the whole interval; else 0."""
    better, worse = settled([pair])
    return better - worse


def advice(parts: Sequence[Written], question_of_starts: int) -> str:
    """The decision, a table of the differences that it comes from, and how to read them; empty where no part has both
    sides. question_of_starts: the number under which the page tells how new classifiers begin.
    """
    found = differences(parts)
    if not found:
        return ""
    name, known = next(iter(found.items()))
    pairs = [pair for _, pair in known]
    better, worse = settled(pairs)
    decision = (
        f"**If you must decide tomorrow**, {verdict(known).sentence}: {name}, keeping it was measurably better in "
        f"{better} and worse in {worse} of {counted(len(pairs), 'part')}, on average by {parts_cell(pairs)} points of "
        f"test accuracy ({_what(known)}). `inarch fit` tries both sides on your own images: its report says which one "
        "won there, and whether that could be chance."
    )
    rows = [
        [name, parts_cell([pair for _, pair in known]), str(len(known)),
         *map(str, settled([pair for _, pair in known])), verdict(known).cell]
        for name, known in found.items()
    ]  # fmt: skip
    columns = ["keeping the layer - not", "points of test accuracy", "parts", "settled for it", "against it", "verdict"]
    return paragraphs(decision, table(columns, rows), _start(parts, question_of_starts), _grafts(parts), _reading())


def _what(known: Known) -> str:
    """Of how many data sets, and how many images a class, these parts are."""
    data = {part.about["part"]["data"] for part, _ in known}
    shots = sorted({_shots(part) for part, _ in known}, key=lambda number: number or float("inf"))
    few = [f"{sum(_shots(part) == number for part, _ in known)} with {number or 'all'}" for number in shots]
    return f"{counted(len(data), 'data set')}; {', '.join(few)} images a class"


def differences(parts: Sequence[Written]) -> dict[str, Known]:
    """What keeping the layer gains, part by part, by what these parts have in common; as it is by default now first."""
    some = starts.started(parts)
    sizes = sorted({_shots(part) for part in parts}, key=lambda shots: shots or float("inf"))
    by_size = {
        f"with {shots} images a class" if shots else "with all images": [p for p in parts if _shots(p) == shots]
        for shots in sizes
    }
    found = {
        "with new classifiers that begin small, as by default": sides_by_part(some, starts.KEEPING, starts.WITHOUT),
        "in the same parts with PyTorch's initial weights": sides_by_part(some, KEEPING, WITHOUT),
        "in all parts with PyTorch's initial weights": sides_by_part(parts, KEEPING, WITHOUT) if len(sizes) > 1 else [],
    } | {f"{name}, PyTorch's initial weights": sides_by_part(of, KEEPING, WITHOUT) for name, of in by_size.items()}
    return {name: known for name, known in found.items() if known}


def _shots(part: Written) -> int:
    """Images a class; 0 stands for all, which come last."""
    return int(part.about["part"]["shots"])


def _start(parts: Sequence[Written], question: int) -> str:
    gain = sides_in_parts(starts.started(parts), starts.WITHOUT, WITHOUT)
    if not gain:
        return ""
    return (
        f"New classifiers begin small since version 0.1.3 (question {question}), by which what does without the layer "
        f"gains {parts_cell(gain)}; all but the first row and that question is with the initial weights that PyTorch "
        "draws."
    )


def _grafts(parts: Sequence[Written]) -> str:
    """Which grafts differ from the usual ways beyond chance over parts, with either initial weights."""
    said = []
    for chapter, without, words in (
        ("layer", WITHOUT, "with PyTorch's initial weights"),
        (starts.CHAPTER, starts.WITHOUT, "with small starts"),
    ):
        names = [name for name in contestants_of(parts, chapter) if name not in (REFERENCE, "replace")]
        wanted: list[Contrast] = [(name, [(chapter, name)], without) for name in names]
        if text := beyond_chance(contrasts(parts, wanted)):
            said.append(f"Single grafts against the better of the usual ways, {words}: {text}")
    return " ".join(said)


def _reading() -> str:
    return (
        "Points are those by which what keeps the layer (a new classifier or new layers behind it, *retain* or "
        "*deepen*) is ahead of what does not (*replace* at its own best cut, or traditional fine-tuning); of either "
        "side what validation images choose. A part is a data set, a source network and images a class; every "
        f"contestant was tuned with {TRIALS} trials and then trained on {DRAWS} draws, with {VIEWS} views of an image "
        "where something is frozen; intervals are 95 %, over parts where nothing else is said. Parts of one data set "
        "share test images, and with as many images a class their draws, so that intervals over parts, which take "
        "parts as independent, may be too narrow. With all images a class, draws are of initial weights and order "
        "alone, since there is nothing to draw from."
    )
