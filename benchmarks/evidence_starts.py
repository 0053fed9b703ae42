"""The question how the new classifier begins: everything of its own chapter against the same of the main one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evidence_design import STARTED
from evidence_numbers import Named, sides_by_part
from evidence_records import CHAPTER as CHAPTERS
from evidence_records import Written
from evidence_tables import Contrast, accuracies_table, contrasts, contrasts_table, kept_table
from evidence_words import shown
from inarch.comparison.design import REFERENCE

QUESTION = "How the new classifier begins"
CHAPTER = "starts"
NAMES = (REFERENCE, *STARTED)
_NAMED: dict[str, Named] = {name: (CHAPTER, name) for name in NAMES}
# The two ways to keep the layer, and the two to do without, that the main question compares.
KEEPING, WITHOUT = (_NAMED["retain"], _NAMED["deepen"]), (_NAMED["replace"], _NAMED[REFERENCE])


def started(parts: Sequence[Written]) -> list[Written]:
    """The parts that were tuned and trained with small starts."""
    return [part for part in parts if CHAPTER in part.chapters]


def factors(parts: Sequence[Written]) -> list[float]:
    """Each factor on PyTorch's initial weights that any of these parts had in its chapter of starts."""
    found = [r.subject for part in parts for r in part.of(CHAPTERS) if r.subject["chapter"] == CHAPTER]
    return sorted({subject["classifier_start"] for subject in found})


def starts(parts: Sequence[Written], pictures: Path) -> str:
    some = started(parts)
    known = sides_by_part(some, KEEPING, WITHOUT)
    if not known:
        return ""
    gains = contrasts(some, [(name, [_NAMED[name]], [("layer", name)]) for name in NAMES])
    against: list[Contrast] = [(name, [_NAMED[name]], WITHOUT) for name in STARTED if name != "replace"]
    times = " or ".join(f"{factor:g}" for factor in factors(some))
    return (
        f"A new classifier begins with {times} times the weights that PyTorch draws (`--classifier-start`), so that at "
        "first it says nothing and old layers do not follow chance. All other questions were asked with PyTorch's own "
        "weights. Here the same contestants are tuned and trained anew, on the same draws and around the same rates; "
        f"what they gain, each against itself:\n\n{shown(gains, pictures / 'gains.svg')}\n\nTheir accuracies:\n\n"
        f"{accuracies_table(some, list(_NAMED.items()))}\n\n"
        "What keeps the layer (*retain* or *deepen*) against what does not (*replace* or traditional fine-tuning), as "
        f"in question 1:\n\n{kept_table(known, pictures / 'starts.svg')}\n\n"
        "Each graft against *replace* or traditional fine-tuning, whichever validation chooses on a draw, so one try "
        f"against two, as in question 2:\n\n{contrasts_table(some, against)}"
    )
