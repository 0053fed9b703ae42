"""Sentences of docs/evidence.md that follow from records: what is beyond chance, what failed, how it was tuned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import evidence_figures as figures
from evidence_figures import title
from evidence_numbers import FEWEST, contestants_of, draws_of, mean_of, right
from evidence_records import Written
from evidence_tables import differences_table, mean_cell
from inarch.plural import counted
from inarch.results.statistics import PairedDifference

# A mean accuracy below so many times that of guessing is a training that failed.
FAILED = 1.5


def beyond_chance(rows: Sequence[tuple[str, Sequence[PairedDifference]]]) -> str:
    """Which of these mean differences are beyond chance over parts; empty where no interval over parts is known."""
    means = [(name, mean_of([pair.difference for pair in pairs])) for name, pairs in rows]
    known = [(name, mean) for name, mean in means if mean is not None and mean.count >= FEWEST]
    if not known:
        return ""
    beyond = [f"*{name}* {mean_cell(mean)}" for name, mean in known if mean.low > 0 or mean.high < 0]
    if not beyond:
        return f"none of {counted(len(known), 'interval')} over parts excludes zero."
    return (
        f"of {counted(len(known), 'interval')} over parts these exclude zero, as one in twenty does by "
        f"chance: {', '.join(beyond)}."
    )


def in_short(rows: Sequence[tuple[str, Sequence[PairedDifference]]]) -> str:
    """The same, as the answer to a question."""
    text = beyond_chance(rows)
    return text and f"**In short**{':' if text.startswith('none') else ','} {text}"


def failed(parts: Sequence[Written], chapter: str) -> str:
    """Contestants that are hardly better than guessing in a part, by name; empty where there are none."""
    found = []
    for part in parts:
        guessing = 1 / len(part.about["classes"])
        for name in contestants_of([part], chapter):
            keys = list(draws_of(part, (chapter, name)).values())
            if keys and right(part, keys).mean() < FAILED * guessing:
                found.append(f"*{name}* in {title(part)}")
    if not found:
        return ""
    return (
        f"Hardly better than guessing, in the mean over draws: {'; '.join(found)}. Differences from these say that "
        "training failed with the rates that tuning chose, and little of what it is compared with."
    )


def tuned_earlier(parts: Sequence[Written], *chapters: str) -> str:
    """Parts whose rates of old layers were tuned another way in any of these chapters; empty where there are none."""
    found = [title(part) for part in parts if set(chapters) & set(part.chapters_of_old)]
    if not found:
        return ""
    return (
        f"In {'; '.join(found)} old layers were tuned the earlier way here: at ratios of each contestant's own rate of "
        "new layers, not of traditional fine-tuning's."
    )


def paragraphs(*texts: str) -> str:
    """Those that say something, one below the other."""
    return "\n\n".join(text for text in texts if text)


def shown(found: Sequence[tuple[str, Sequence[PairedDifference]]], picture: Path) -> str:
    """Differences in short, as a table, and as the figure that is drawn here; empty of nothing."""
    if not found:
        return ""
    figures.contrasts(picture, found, "points of test accuracy; pale: one part")
    image = f"![Differences over parts]({picture.parent.name}/{picture.name})"
    return paragraphs(in_short(found), differences_table(found), image)
