"""The question of contemporary methods: ranks, the warning about the best epoch, and the layer kept under each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import evidence_figures as figures
from evidence_design import KEEPING
from evidence_numbers import Named, accuracy, contestants_of, in_parts, mean_of, ranks, settled, warnings
from evidence_records import Written
from evidence_tables import REPLACE, SETTLED, TRADITIONAL, mean_cell, parts_cell, table
from evidence_words import failed, in_short, paragraphs, tuned_earlier
from inarch.comparison.design import REFERENCE
from inarch.plural import counted
from inarch.report.words import p_value

LEVEL = 0.05


def methods(parts: Sequence[Written], pictures: Path) -> str:
    names = [name for name in contestants_of(parts, "methods") if name != REFERENCE]
    kept = [("layer", name) for name in KEEPING if name in contestants_of(parts, "layer")]
    methods: list[Named] = [TRADITIONAL, REPLACE, *kept, *(("methods", name) for name in names)]
    some = [part for part in parts if "methods" in part.chapters]
    # What a network cannot have is not ranked: stochnorm where nothing is normalised. Its part counts for all others.
    everywhere = [of for of in methods if all(accuracy(part, of) is not None for part in some)]
    elsewhere = [of for of in methods if of not in everywhere and any(accuracy(part, of) is not None for part in some)]
    found, friedman, count = ranks(some, everywhere, TRADITIONAL)
    if not found:
        return ""
    figures.ranked(pictures / "ranks.svg", found, count)
    named = {of[1]: of for of in everywhere}
    ranked = [(named[r.name], f"{r.rank:.1f}", "" if math.isnan(r.p) else p_value(r.p)) for r in found]
    rows = []
    for of, rank, tested in [*ranked, *((of, "not in every part", "") for of in elsewhere)]:
        pairs = in_parts(some, of, TRADITIONAL)
        (better, worse), gain = settled(pairs), "" if of == TRADITIONAL else parts_cell(pairs)
        rows.append([of[1], rank, gain, str(better), str(worse), tested])
    whether = "" if math.isnan(friedman) else f" Friedman's test over the parts: p {p_value(friedman)}."
    columns = [
        "method, layer replaced unless named by its graft",
        "mean rank",
        "minus traditional",
        "better in",
        "worse in",
        "p (Wilcoxon, Holm)",
    ]
    gains = [(of[1], in_parts(some, of, TRADITIONAL)) for of in methods if of != TRADITIONAL]
    return paragraphs(
        f"Mean ranks over {counted(count, 'part')}.{whether}{_least_p(count, len(found) - 1)} {SETTLED}",
        in_short([(name, pairs) for name, pairs in gains if pairs]),
        failed(some, "methods"),
        tuned_earlier(some, "methods"),
        table(columns, rows),
        f"![Mean ranks and critical difference]({pictures.name}/ranks.svg)",
        _warning(parts),
        _kept(parts, names),
    )


def _least_p(parts: int, comparisons: int) -> str:
    """That so few parts cannot settle anything by signed ranks, whatever they say."""
    least = min(1.0, comparisons * 2 / 2**parts)
    if parts < 2 or least <= LEVEL:
        return ""
    return (
        f" Over {parts} parts the least p that signed ranks can have after Holm is {p_value(least)}, so that none can "
        "be settled by it."
    )


def _warning(parts: Sequence[Written]) -> str:
    """What the best epoch on the test split would have claimed."""
    found = [w for part in parts if (w := warnings(part))]
    if not found:
        return ""
    gains = [m["best"] - m["last"] for w in found for m in w.values()]
    claimed, honest = [], []
    for w in (w for w in found if REFERENCE in w):
        for name in w.keys() - {REFERENCE}:
            claimed.append(w[name]["best"] - w[REFERENCE]["last"])
            honest.append(w[name]["last"] - w[REFERENCE]["last"])
    gain, claim, real = mean_of(gains), mean_of(claimed), mean_of(honest)
    return (
        f"**A warning.** {len(gains)} of these trainings, one draw each, were run again with the test split in place "
        "of the validation split (methods of several trainings, such as soup, apart). Reporting the best epoch on test "
        f"images instead of the last one would have added {mean_cell(gain)} points to an accuracy. A method that "
        "reports its best epoch against a baseline that reports its last would have claimed "
        f"{mean_cell(claim)} points instead of {mean_cell(real)}. Intervals "
        "are over trainings. No other figure on this page is picked so."
    )


def _kept(parts: Sequence[Written], names: Sequence[str]) -> str:
    pairs = [(name, ("kept", f"{name}, retain"), ("methods", name)) for name in names]
    rows = [[name, parts_cell(found)] for name, a, b in pairs if (found := in_parts(parts, a, b))]
    if not rows:
        return ""
    words = "The same methods with the layer retained, minus with it replaced:"
    return paragraphs(words, tuned_earlier(parts, "kept"), table(["method", "points"], rows))
