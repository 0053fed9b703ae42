"""How docs/evidence.md begins: what somebody who must decide tomorrow needs, in words that follow from the records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import evidence_starts as starts
from evidence_design import DRAWS, TRIALS, VIEWS
from evidence_numbers import FEWEST, mean_of, settled, sides_in_parts
from evidence_records import Written
from evidence_tables import KEEPING, WITHOUT, mean_cell, parts_cell, table
from inarch.network.grafts import GRAFTS, Graft
from inarch.plural import counted
from inarch.results.statistics import PairedDifference

# The share of parts, and at least two, that must be settled one way for the advice to say so; by chance 0.025.
SETTLED_SHARE = 0.25


class Verdict(NamedTuple):
    """sentence: what goes on behind "If you must decide tomorrow". cell: the same in a table."""

    sentence: str
    cell: str


KEEP = Verdict("keep the classification layer", "keep it")
REPLACE_IT = Verdict("replace the classification layer", "replace it")
FOR = Verdict("keep the classification layer, though hardly one part says so by itself", "together for keeping it")
AGAINST = Verdict("replace the classification layer, though hardly one part says so by itself", "together against it")
UNSETTLED = Verdict("it is not settled whether keeping the classification layer pays", "not settled")


def verdict(pairs: Sequence[PairedDifference]) -> Verdict:
    """What differences of keeping the layer, a part each, say: how many are settled, and what their mean is."""
    mean, (better, worse) = mean_of([pair.difference for pair in pairs]), settled(pairs)
    if mean is None:
        return UNSETTLED
    enough = max(2, len(pairs) * SETTLED_SHARE)
    if better >= enough and better > 2 * worse and mean.value > 0:
        return KEEP
    if worse >= enough and worse > 2 * better and mean.value < 0:
        return REPLACE_IT
    if mean.count >= FEWEST and mean.low > 0:
        return FOR
    if mean.count >= FEWEST and mean.high < 0:
        return AGAINST
    return UNSETTLED


def advice(parts: Sequence[Written], question_of_starts: int) -> str:
    """The decision, a table of the differences that it comes from, and how to read them; empty where no part has both
    sides. question_of_starts: the number under which the page tells how new classifiers begin.
    """
    found = differences(parts)
    if not found:
        return ""
    name, pairs = next(iter(found.items()))
    better, worse = settled(pairs)
    decision = (
        f"**If you must decide tomorrow**, {verdict(pairs).sentence}: {name}, keeping it was measurably better in "
        f"{better} and worse in {worse} of {counted(len(pairs), 'part')}, on average by {parts_cell(pairs)} points of "
        "test accuracy. Better, let `inarch fit` try both sides on your own images: its report says which one won "
        "there, and whether that could be chance."
    )
    rows = [
        [name, parts_cell(pairs), str(len(pairs)), *map(str, settled(pairs)), verdict(pairs).cell]
        for name, pairs in found.items()
    ]
    columns = ["keeping the layer - not", "points of test accuracy", "parts", "settled for it", "against it", "verdict"]
    said = " ".join(text for text in (_start(parts, question_of_starts), _best_graft(parts)) if text)
    return "\n\n".join(text for text in (decision, table(columns, rows), said, _reading()) if text)


def differences(parts: Sequence[Written]) -> dict[str, list[PairedDifference]]:
    """What keeping the layer gains, part by part, by what these parts have in common; as it is by default now first."""
    some = starts.started(parts)
    sizes = sorted({_shots(part) for part in parts}, key=lambda shots: shots or float("inf"))
    by_size = {
        f"with {shots} images a class" if shots else "with all images": [p for p in parts if _shots(p) == shots]
        for shots in sizes
    }
    found = {
        "with new classifiers that begin small, as by default": sides_in_parts(some, starts.KEEPING, starts.WITHOUT),
        "in the same parts with PyTorch's initial weights": sides_in_parts(some, KEEPING, WITHOUT),
        "in all parts with PyTorch's initial weights": sides_in_parts(parts, KEEPING, WITHOUT)
        if len(sizes) > 1
        else [],
    } | {f"{name}, PyTorch's initial weights": sides_in_parts(of, KEEPING, WITHOUT) for name, of in by_size.items()}
    return {name: pairs for name, pairs in found.items() if pairs}


def _shots(part: Written) -> int:
    """Images a class; 0 stands for all, which come last."""
    return int(part.about["part"]["shots"])


def _start(parts: Sequence[Written], question: int) -> str:
    gain = sides_in_parts(starts.started(parts), starts.WITHOUT, WITHOUT)
    if not gain:
        return ""
    return (
        f"New classifiers begin small since version 0.1.3 (question {question}), by which what does without the layer "
        f"gains {parts_cell(gain)}; all else here is with the initial weights that PyTorch draws."
    )


def _best_graft(parts: Sequence[Written]) -> str:
    """A sentence on the graft that is ahead by most of those that are nowhere settled to be worse than the usual ways,
    and on the one that keeps the layer; empty where no graft was tried in enough parts.
    """
    found = {}
    for graft in GRAFTS:
        pairs = sides_in_parts(parts, [("layer", graft.name)], WITHOUT)
        mean = mean_of([pair.difference for pair in pairs])
        if mean is not None and mean.count >= FEWEST and graft.name != "replace":
            found[graft] = mean, settled(pairs)[1]
    nowhere = [graft for graft, (_, worse) in found.items() if not worse]
    best = [
        max(some, key=lambda g: found[g][0].value) for some in (nowhere, [g for g in nowhere if g.keeps_layer]) if some
    ]
    said = [
        f"*{g.name}* {mean_cell(found[g][0])} in {counted(found[g][0].count, 'part')}{_with_small_starts(parts, g)}"
        for g in dict.fromkeys(best)
    ]
    if not said:
        return ""
    keeping = f"; of those that keep the layer {said[1]}" if len(said) > 1 else ""
    return (
        f"Of {counted(len(found), 'graft')} tried in {FEWEST} parts or more, {len(nowhere)} are nowhere settled to be "
        f"worse than the usual ways; of these {said[0]} is ahead by most, and flattered by being picked for it"
        f"{keeping}."
    )


def _with_small_starts(parts: Sequence[Written], graft: type[Graft]) -> str:
    some = starts.started(parts)
    pairs = sides_in_parts(some, [(starts.CHAPTER, graft.name)], starts.WITHOUT)
    return f" ({parts_cell(pairs)} with small starts, {counted(len(pairs), 'part')})" if pairs else ""


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
