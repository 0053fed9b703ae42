"""docs/evidence.md: what came out of the evidence run, from its records alone."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import evidence_starts as starts
from evidence_defaults import defaults
from evidence_design import CHAPTERS, DRAWS, SOURCES, TRIALS, VIEWS
from evidence_figures import title
from evidence_numbers import mean_of, settled, sides_in_parts
from evidence_questions import QUESTIONS
from evidence_records import DRAWN, Written, digest
from evidence_tables import FEWEST, KEEPING, WITHOUT, Side, mean_cell, parts_cell, table
from inarch.network.grafts import GRAFTS
from inarch.plural import counted
from inarch.report.words import percent
from intervals import FAMILY

INTERVALS = Path(__file__).resolve().parent.parent / "evidence" / "intervals.json"
# The share of parts, and at least two, that must be settled one way for the first paragraph to say so; by chance 0.025.
SETTLED_SHARE = 0.25
NOTHING = (
    "**Nothing has been run yet.** `python benchmarks/evidence.py --time-limit 3h` begins with a cheap "
    "part, and the same command goes on where it was; `--list` shows the parts and their estimated minutes, and "
    "`--summary` writes this page from the records."
)


def write_page(file: Path, parts: list[Written]) -> None:
    """Writes the page and its figures, in a folder of the same name beside it; only questions that have an answer."""
    answers = {title: answer(parts, file.with_suffix("")) for title, answer in QUESTIONS.items()}
    numbered = list(enumerate(answers.items(), start=1))
    sections = [
        _head(parts),
        _open([f"{number}. {title}" for number, (title, text) in numbered if not text]),
        *(f"## {number}. {title}\n\n{text}" for number, (title, text) in numbered if text),
        _defaults(parts),
        _statistics(),
        _record(parts),
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n\n".join(text for text in sections if text) + "\n", encoding="utf-8")


def _open(titles: Sequence[str]) -> str:
    return f"Questions without an answer so far: {' · '.join(titles)}." if titles else ""


def _head(parts: Sequence[Written]) -> str:
    trials = sum(part.finished_trials for part in parts)
    first = (
        f"# Evidence: does keeping the classification layer pay?\n\n{trials} finished trials; digest of their records "
        f"`{digest(parts)}`.\n\n"
    )
    if not parts:
        return first + NOTHING
    by_size = [(_of_size(shots), [p for p in parts if p.about["part"]["shots"] == shots]) for shots in _sizes(parts)]
    every = [("Over all parts", list(parts))] if len(by_size) > 1 else []
    advice = [text for name, some in (*every, *by_size) if (text := _advice(name, some, KEEPING, WITHOUT))]
    if not advice:
        return first + "No part is finished far enough to say anything yet."
    said = " ".join([*_as_it_is_now(parts), *advice, *_best_graft(parts)])
    explained = (
        f"**If you must decide tomorrow.** {said} Points of test accuracy by which what keeps the layer (a new "
        "classifier or new layers behind it, *retain* or *deepen*) is ahead of what does not (*replace* at its own "
        "best cut, or traditional fine-tuning); of either side what validation images choose. A part is a data set, a "
        f"source network and images a class; every contestant was tuned with {TRIALS} trials and then trained on "
        f"{DRAWS} draws, with {VIEWS} views of an image where something is frozen; intervals are 95 %, over parts "
        "where nothing else is said. `inarch fit` tries both sides on your own images, and its report says which one "
        "won and whether that could be chance."
    )
    return first + explained


def _sizes(parts: Sequence[Written]) -> list[int]:
    """Images a class that any part has, ascending; 0 stands for all and comes last."""
    return sorted({part.about["part"]["shots"] for part in parts}, key=lambda shots: shots or math.inf)


def _of_size(shots: int) -> str:
    return f"With {shots} images a class" if shots else "With all images"


def _as_it_is_now(parts: Sequence[Written]) -> list[str]:
    """The advice of the parts that were tuned and trained with small starts of classifiers too, as they are by default
    now, and what the same parts say without; told apart from the rest, which is all without.
    """
    some = starts.started(parts)
    now = _advice("Over the parts that were trained so", some, starts.KEEPING, starts.WITHOUT)
    before = sides_in_parts(some, KEEPING, WITHOUT)
    if not now or not before:
        return []
    gain = parts_cell(sides_in_parts(some, starts.WITHOUT, WITHOUT))
    return [
        "New classifiers begin small since version 0.1.3 (question "
        f"{list(QUESTIONS).index(starts.QUESTION) + 1}), by which what does without the layer gains {gain}. {now} With "
        f"the initial weights that PyTorch draws these parts have {parts_cell(before)}, and the rest of this paragraph "
        "is with those."
    ]


def _advice(name: str, parts: Sequence[Written], keeping: Side, without: Side) -> str:
    """What these parts say about keeping the layer, in words that follow from how many of them are settled."""
    pairs = sides_in_parts(parts, keeping, without)
    if not pairs:
        return ""
    mean, (better, worse) = mean_of([pair.difference for pair in pairs]), settled(pairs)
    assert mean is not None
    enough = max(2, len(pairs) * SETTLED_SHARE)
    if better >= enough and better > 2 * worse and mean.value > 0:
        verdict = "keep the classification layer"
    elif worse >= enough and worse > 2 * better and mean.value < 0:
        verdict = "replace the classification layer"
    elif mean.count >= FEWEST and mean.low > 0:
        verdict = "parts speak together for keeping the classification layer, though hardly one does by itself"
    elif mean.count >= FEWEST and mean.high < 0:
        verdict = "parts speak together for replacing the classification layer, though hardly one does by itself"
    else:
        verdict = "it is not settled whether keeping the classification layer pays"
    return (
        f"{name}, {verdict}: {parts_cell(pairs)}, settled for it in {better} of "
        f"{counted(len(pairs), 'part')} and against it in {worse}."
    )


def _defaults(parts: Sequence[Written]) -> str:
    return f"## Defaults of `inarch fit`, and the evidence behind each\n\n{text}" if (text := defaults(parts)) else ""


def _best_graft(parts: Sequence[Written]) -> list[str]:
    """A sentence on the graft that is ahead by most of those that are nowhere settled to be worse than the usual ways,
    and on the one that keeps the layer; none where no graft was tried in enough parts.
    """
    found = {}
    for graft in GRAFTS:
        pairs = sides_in_parts(parts, [("layer", graft.name)], WITHOUT)
        mean = mean_of([pair.difference for pair in pairs])
        if mean is not None and mean.count >= FEWEST and not settled(pairs)[1] and graft.name != "replace":
            found[graft] = mean
    best = [
        max(some, key=lambda g: found[g].value) for some in (list(found), [g for g in found if g.keeps_layer]) if some
    ]
    said = [f"*{g.name}* {mean_cell(found[g])} in {counted(found[g].count, 'part')}" for g in dict.fromkeys(best)]
    if not said:
        return []
    keeping = f"; of those that keep the layer {said[1]}" if len(said) > 1 else ""
    return [f"Of grafts that are nowhere settled to be worse than the usual ways, {said[0]} is ahead by most{keeping}."]


def _statistics() -> str:
    if not INTERVALS.exists():
        return ""
    found = json.loads(INTERVALS.read_text(encoding="utf-8"))
    rows = [
        [r["world"], str(r["images"]), str(r["draws"]), percent(r["rejected"]), percent(r["covered"]),
         f"±{100 * r['reach']:.1f}", percent(r["power"]), f"±{100 * r['reach_independent']:.1f}"]
        for r in found["rows"]
    ]  # fmt: skip
    families = ", ".join(f"{percent(share)} ({world})" for world, share in found["family"].items())
    columns = ["world", "test images", "draws", "rejected where equal", "interval holds the truth", "mean reach",
               "power at 2 points", "reach if draws counted as independent"]  # fmt: skip
    return (
        "## Statistics\n\n"
        "Differences are taken draw by draw and image by image. Their variance is that of a paired t-test over the "
        "draws, and on top of it what images add that is the same in all draws; Student's quantile has draws - 1 "
        "degrees of freedom (`inarch.results.statistics.paired_on_draws`). The last column counts draws as "
        f"independent. Each row is {found['times']} simulated comparisons of two methods "
        "(`benchmarks/intervals.py`), with effects of the sizes that a comparison on clothing shows, and with methods "
        f"that do better on some draws than on others.\n\n{table(columns, rows)}\n\n"
        f"Where {FAMILY} contestants and the reference were all the same, any was found to differ, after Holm, in "
        f"{families} of the comparisons (5 draws, {found['rows'][0]['images']} images). A single part with few test "
        "images therefore misses most differences of two points: what counts is the mean over several parts."
    )


def _record(parts: Sequence[Written]) -> str:
    if not parts:
        return ""
    rows = [
        [title(part), f"{part.about['image_size'][0]}", str(part.finished_trials), str(len(part.of(DRAWN))),
         f"{sum(r.seconds for r in part.records) / 3600:.1f}", ", ".join(part.chapters_of_old),
         ", ".join(c for c in CHAPTERS if c not in part.chapters)]
        for part in parts
    ]  # fmt: skip
    columns = ["part", "pixels", "trials", "tested", "hours", "chapters tuned the earlier way", "chapters to come"]
    kinds = Counter(chapter for part in parts for chapter in part.chapters)
    smaller = ", ".join(f"{name} at {side}" for name, side in SOURCES.items() if side)
    return (
        "## What was run\n\n`benchmarks/evidence.py`, records in `evidence/`, a file a part. Sources at their own "
        f"image size but for {smaller} pixels instead of 224. Trials count whether they tune, train on a draw or "
        f"train new layers alone.\n\n{table(columns, rows)}\n\n"
        f"Chapters finished: {', '.join(f'{name} in {kinds[name]}' for name in CHAPTERS if kinds[name])}."
    )
