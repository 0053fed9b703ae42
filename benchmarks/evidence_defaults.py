"""The defaults of `inarch fit`, and the line of evidence behind each: the last words of docs/evidence.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import common
from evidence_curves import three_instead_of_all
from evidence_figures import title
from evidence_numbers import mean_of, settled, sides_in_parts
from evidence_records import Written
from evidence_starts import CHAPTER as STARTS
from evidence_starts import NAMES, factors
from evidence_starts import WITHOUT as STARTED_WITHOUT
from evidence_tables import WITHOUT, Side, mean_cell, parts_cell, table
from inarch.options import StudyOptions
from inarch.plural import counted

# What `benchmarks/views.py --json` wrote.
VIEWS = common.HERE.parent / "evidence" / "views.json"


def defaults(parts: Sequence[Written], views: Path | None = None) -> str:
    """The text below the heading, empty where no part has its main chapter."""
    options = StudyOptions()
    grafts = [name for name in options.grafts if name != "replace"]
    found = {name: text for name in grafts if (text := _against(parts, [("layer", name)], WITHOUT))}
    if not found:
        return ""
    listed = "; ".join(f"*{name}* {text}" for name, text in found.items())
    now = {name: text for name in grafts if (text := _against(parts, [(STARTS, name)], STARTED_WITHOUT))}
    begun = "; ".join(f"*{name}* {text}" for name, text in now.items())
    listed += f". With new classifiers that begin as they do by default: {begun}" if begun else ""
    rows = [
        ["`--grafts " + ",".join(options.grafts) + "`", f"Against the better of the two usual ways: {listed}."],
        ["`--harmonise " + ",".join(options.harmonise) + "`", _harmonising(parts, options.harmonise)],
        ["rates of new layers: the range test's, a third and three times of it", _rates(parts)],
        [f"`--classifier-start {options.classifier_start:g}`", _starts(parts, options.classifier_start)],
        [f"`--views {options.views}`", _views(options.views, views or VIEWS)],
    ]
    shown = table(["default", "evidence"], [[name, text or "Not measured yet."] for name, text in rows])
    return f"{shown}\n\nHarmonising, rates and, where nothing else is said, grafts had PyTorch's initial weights."


def _against(parts: Sequence[Written], a: Side, b: Side) -> str:
    pairs = sides_in_parts(parts, a, b)
    if not pairs:
        return ""
    better, worse = settled(pairs)
    return f"{parts_cell(pairs)}, better in {better} and worse in {worse} of {len(pairs)}"


def _harmonising(parts: Sequence[Written], chosen: Sequence[str]) -> str:
    """What each way gains over none, for the two grafts that are compared."""
    said = []
    for graft in ("retain", "replace"):
        for name in chosen:
            text = _against(parts, [("harmonise", f"{graft}, {name}")], [("harmonise", f"{graft}, none")])
            if name != "none" and text:
                said.append(f"*{graft}* with {name} against none {text}")
    return "; ".join(said) + "." if said else ""


def _starts(parts: Sequence[Written], chosen: float) -> str:
    """What the start gains over PyTorch's own, each tuned for itself; nothing where another one was measured."""
    if factors(parts) != [chosen]:
        return ""
    said = [f"*{name}* {text}" for name in NAMES if (text := _against(parts, [("starts", name)], [("layer", name)]))]
    return f"Against PyTorch's initial weights: {'; '.join(said)}." if said else ""


def _rates(parts: Sequence[Written]) -> str:
    """What choosing among all the rates that were tried gains over choosing among the default's three."""
    by_part = {title(part): three_instead_of_all([part]) for part in parts}
    gains = [fmean(pair.difference for pair in pairs) for pairs in by_part.values() if pairs]
    if not gains:
        return ""
    cases = [pair for pairs in by_part.values() for pair in pairs]
    return (
        f"Choosing among seven rates over three powers of ten gains {mean_cell(mean_of(gains))} over choosing among "
        f"these three, in {counted(len(gains), 'part')}; better in {settled(cases)[0]} and worse in "
        f"{settled(cases)[1]} of {counted(len(cases), 'case')} (a configuration in a part)."
    )


def _views(chosen: int, file: Path) -> str:
    """What so many views lose against a fresh one in every epoch."""
    if not file.exists():
        return ""
    measured = json.loads(file.read_text(encoding="utf-8"))
    places, means = ([row for row in measured[name] if row["views"] == chosen] for name in ("rows", "averages"))
    if not means:
        return ""
    said = [f"{row['data']}, cut at the {row['place']}: {_loss(row)}" for row in places]
    return (
        f"Points of validation accuracy that fresh views gain (± one standard error): on average {_loss(means[0])}; "
        f"{'; '.join(said)}."
    )


def _loss(row: dict[str, Any]) -> str:
    return f"{row['loss_points']:+.1f} ± {row['loss_standard_error_points']:.1f}"
