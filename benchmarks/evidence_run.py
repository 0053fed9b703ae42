"""The parts of the evidence run one after the other, and what there is of them."""

from __future__ import annotations

import argparse
from fnmatch import fnmatch
from pathlib import Path

import common
import evidence_design as design
from evidence_cost import minutes
from evidence_design import DATA, SOURCES, VIEWS, Part
from evidence_part import Where, run_part
from evidence_records import DRAWN, Written, read_part
from inarch.errors import UsageError
from inarch.launch.clock import Clock
from inarch.options import StudyOptions


def record_file(folder: Path, part: Part) -> Path:
    return folder / f"{part.name}.jsonl.gz"


def finished_parts(folder: Path) -> dict[Part, Written]:
    """Every part that has records, in the order of the run."""
    return {p: read_part(record_file(folder, p)) for p in design.parts() if record_file(folder, p).exists()}


def chosen(names: str) -> list[Part]:
    """The parts whose names fit one of the patterns, which commas separate."""
    found = [part for part in design.parts() if any(fnmatch(part.name, pattern) for pattern in names.split(","))]
    if not found:
        raise UsageError(f"No part of the evidence run is called {names}.", "--list shows their names.")
    return found


def run(some: list[Part], given: argparse.Namespace) -> None:
    """Goes on with these parts, in the order of the run, until they are finished or the time is up."""
    clock = Clock(given.time_limit)
    options = StudyOptions(threads=given.threads, views=VIEWS)
    for part, chapters in _legs(some, given.chapters):
        data = common.shared() / "data"
        where = Where(
            data / part.data, common.card(part.source), tuple(data / other for other in DATA if other != part.data),
            record_file(given.records, part), given.out, options,
            SOURCES[part.source], chapters,
        )  # fmt: skip
        if not run_part(part, where, clock):
            common.say(f"The time is up in {part.name}; the same command goes on there.")
            return


def _legs(some: list[Part], chapters: tuple[str, ...]) -> list[tuple[Part, tuple[str, ...]]]:
    """What is run, in this order: these chapters of every part, or all in the order of the run where none are named."""
    unknown = [chapter for chapter in chapters if chapter not in design.CHAPTERS]
    if unknown:
        raise UsageError(f"There is no chapter called {unknown[0]}.", f"Choose from: {', '.join(design.CHAPTERS)}.")
    ordered = tuple(chapter for chapter in design.CHAPTERS if chapter in chapters)
    return [(p, ordered) for p in some] if chapters else [leg for leg in design.legs() if leg[0] in some]


def show(folder: Path) -> None:
    """What there is of each part, what it took, and what it takes from nothing as estimated."""
    found, rows = finished_parts(folder), []
    for part in design.parts():
        written = found.get(part)
        estimates = [_rounded(minutes(part, chapters)) for chapters in (design.QUESTIONS, design.CHAPTERS)]
        if written is None:
            rows.append([part.name, "", 0, 0, 0.0, *estimates])
            continue
        missing = [chapter for chapter in design.CHAPTERS if chapter not in written.chapters]
        seconds = sum(record.seconds for record in written.records) / 60
        done = "all" if not missing else f"lacks {', '.join(missing)}"
        rows.append([part.name, done, written.finished_trials, len(written.of(DRAWN)), seconds, *estimates])
    columns = ("part", "chapters", "trials", "tested", "minutes", "estimated minutes", "with all chapters")
    common.print_table("Parts of the evidence run; estimates are of two cores alone", columns, rows)


def _rounded(estimate: float | None) -> str:
    return "" if estimate is None else f"{estimate:.0f}"
