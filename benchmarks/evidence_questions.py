"""The questions of docs/evidence.md, each with a table, a figure and intervals: those about grafts, and the list.

What a question gives is the text below its heading, empty where no record answers it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from evidence_curves import depth, rates
from evidence_methods import methods
from evidence_numbers import contestants_of, sides_by_part
from evidence_ranking import rankings
from evidence_records import Written
from evidence_source_questions import predictors, survival
from evidence_starts import QUESTION as STARTS
from evidence_starts import starts
from evidence_tables import (
    DEEPEN,
    KEEPING,
    REPLACE,
    RETAIN,
    SETTLED,
    TRADITIONAL,
    WITHOUT,
    Contrast,
    accuracies_table,
    contrasts,
    contrasts_table,
    kept_table,
    pairs_table,
)
from evidence_words import failed, paragraphs, shown, tuned_earlier
from inarch.comparison.design import REFERENCE


def layer(parts: Sequence[Written], pictures: Path) -> str:
    known = sides_by_part(parts, KEEPING, WITHOUT)
    if not known:
        return ""
    parts = [part for part, _ in known]
    names = (("traditional", TRADITIONAL), ("replace", REPLACE), ("retain", RETAIN), ("deepen", DEEPEN))
    pairs = [("retain - replace", RETAIN, REPLACE), ("retain - traditional", RETAIN, TRADITIONAL),
             ("replace - traditional", REPLACE, TRADITIONAL)]  # fmt: skip
    return (
        f"{accuracies_table(parts, names)}\n\nWhat keeps the layer (*retain* or *deepen*) against what does not "
        "(*replace* or traditional fine-tuning), of either side what validation chooses, draw by draw:\n\n"
        f"{kept_table(known, pictures / 'layer.svg')}\n\n"
        f"One by one:\n\n{pairs_table(parts, pairs)}"
    )


def deepen(parts: Sequence[Written], pictures: Path) -> str:
    grafts = [name for name in contestants_of(parts, "layer") if name not in (REFERENCE, "replace")]
    first: list[Contrast] = [(name, [("layer", name)], WITHOUT) for name in grafts]
    first += [("deepen - retain", [DEEPEN], [RETAIN]), ("deepen - da-cnn", [DEEPEN], [("layer", "da-cnn")])]
    sizes = [name for name in contestants_of(parts, "sizes") if name != REFERENCE]
    second: list[Contrast] = [(f"{name} - deepen 512", [("sizes", name)], [DEEPEN]) for name in sizes]
    against, by_size = shown(contrasts(parts, first), pictures / "grafts.svg"), contrasts_table(parts, second)
    if not against and not by_size:
        return ""
    some = [part for part in parts if "layer" in part.chapters]
    text = (
        "Each graft against *replace* or traditional fine-tuning, whichever of these two validation chooses on a draw: "
        f"the graft has one try where the usual ways have two. In the last rows *deepen* against others. {SETTLED}"
    )
    every = accuracies_table(some, [(name, ("layer", name)) for name in contestants_of(parts, "layer")])
    blocks = [text, against, every, failed(parts, "layer")]
    if by_size:
        words = "Sizes and numbers of new hidden layers, against one of 512 units:"
        blocks += [words, tuned_earlier(parts, "sizes"), by_size]
    return paragraphs(*blocks)


def harmonise(parts: Sequence[Written], pictures: Path) -> str:
    names = [name for name in contestants_of(parts, "harmonise") if name != REFERENCE and not name.endswith(", none")]
    wanted: list[Contrast] = [
        (f"{name} - none", [("harmonise", name)], [("harmonise", f"{name.partition(',')[0]}, none")]) for name in names
    ]
    answer = shown(contrasts(parts, wanted), pictures / "harmonise.svg")
    if not answer:
        return ""
    text = (
        "Against no harmonising, same graft, each tuned for itself. Scales start at 20 (`l2`), 1, 10, or at the length "
        f"of the vectors that arrive (`l2-matched`). {SETTLED}"
    )
    blocks = (text, failed(parts, "harmonise"), tuned_earlier(parts, "harmonise"), answer)
    return paragraphs(*blocks)


QUESTIONS: dict[str, Callable[[Sequence[Written], Path], str]] = {
    "Retain against replace, each at its own best cut": layer,
    "Deepen against retain and the grafts of others; how many layers, which sizes": deepen,
    "Harmonising": harmonise,
    "Accuracy against freeze depth": depth,
    "The new layers' learning rate": rates,
    "Against each contemporary method": methods,
    "When does keeping the layer pay?": predictors,
    "How much of the source network survives": survival,
    "Which score ranks source networks as training does": rankings,
    STARTS: starts,
}
"""Each with what answers it, in the order of the page, where they are numbered from 1."""
