"""docs/evidence.md: what came out of the evidence run, from its records alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import evidence_starts as starts
from evidence_advice import advice
from evidence_defaults import defaults
from evidence_design import CHAPTERS, SOURCES
from evidence_figures import title
from evidence_questions import QUESTIONS
from evidence_records import DRAWN, Written, digest
from evidence_tables import table
from inarch.report.words import percent
from intervals import FAMILY

INTERVALS = Path(__file__).resolve().parent.parent / "evidence" / "intervals.json"
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
    return first + (
        advice(parts, list(QUESTIONS).index(starts.QUESTION) + 1)
        or "No part is finished far enough to say anything yet."
    )


def _defaults(parts: Sequence[Written]) -> str:
    return f"## Defaults of `inarch fit`, and the evidence behind each\n\n{text}" if (text := defaults(parts)) else ""


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
