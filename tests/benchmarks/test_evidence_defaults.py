"""Every default of `inarch fit` stands beside the evidence for it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from evidence_defaults import defaults
from evidence_records import CHAPTER, DRAWN, PREFIX, Written
from inarch.launch.here import TRIAL
from inarch.options import StudyOptions
from inarch.report.words import points
from inarch.results.ledger import Record

OPTIONS = StudyOptions()
START = OPTIONS.classifier_start


def a_part(contestants: dict[str, dict[str, float]], rates: dict[float, float] | None = None) -> Written:
    """Made-up records: a draw a contestant, by chapter, 10 test images; a rate a multiple for one configuration."""
    records = []
    found = {(chapter, name): value for chapter, some in contestants.items() for name, value in some.items()}
    for chapter, some in contestants.items():
        keys = {name: [f"{chapter} {name}"] for name in some}
        subject = {"chapter": chapter, "asked": [], "classifier_start": START}
        records.append(Record(f"chapter {chapter}", CHAPTER, subject, {"contestants": keys}))
    rows = [{"name": "retain", "multiple": m, "rate": m, "draws": [f"rate {m}"]} for m in rates or {}]
    if rates:
        records.append(Record("chapter rates", CHAPTER, {"chapter": "rates", "asked": []}, {"rates": rows}))
        found |= {("rate", str(m)): value for m, value in rates.items()}
    for (chapter, name), value in found.items():
        key, right = f"{chapter} {name}", np.packbits(np.arange(10) < round(10 * value))
        records.append(Record(PREFIX[DRAWN] + key, DRAWN, {}, {"survival": None}, {"right": right}))
        records.append(Record(key, TRIAL, {}, {"status": "finished", "validation": {"accuracy": value}}))
    return Written({"labels": [0] * 10, "part": {"data": "d", "source": "s", "shots": 5}}, records)


LAYER = {"traditional": 0.2, "replace": 0.6, "retain": 0.9, "deepen": 0.6, "joined": 0.1}


def row_of(text: str, name: str) -> str:
    (row,) = (line for line in text.splitlines() if line.startswith(f"| {name}"))
    return row


def test_grafts_stand_beside_what_they_gain_over_the_better_of_the_usual_ways(tmp_path: Path) -> None:
    text = defaults([a_part({"layer": LAYER})] * 3, tmp_path / "nothing.json")
    row = row_of(text, f"`--grafts {','.join(OPTIONS.grafts)}`")
    assert "*retain* +30.0 (+30.0 to +30.0), better in" in row
    assert "*deepen* 0.0 (0.0 to 0.0), better in 0 and worse in 0 of 3" in row
    assert "Not measured yet." in row_of(text, f"`--views {OPTIONS.views}`")
    assert "Not measured yet." in row_of(text, "rates")


def test_harmonising_and_rates_are_named_once_they_were_measured(tmp_path: Path) -> None:
    harmonise = {"retain, none": 0.5, "retain, l2": 0.7, "retain, batch": 0.9}
    text = defaults(
        [a_part({"layer": LAYER, "harmonise": harmonise}, {0.1: 0.9, 1.0: 0.8, 10.0: 0.4})], tmp_path / "no"
    )
    row = row_of(text, f"`--harmonise {','.join(OPTIONS.harmonise)}`")
    assert "*retain* with l2 against none +20.0 (" in row
    assert "batch" not in row
    # Of three rates that were tried `inarch fit` would try the one in the middle alone.
    assert "gains +10.0 (1 part) over choosing among these three, in 1 part; better in 0" in row_of(text, "rates")


def test_the_classifiers_start_stands_beside_what_it_gains_over_pytorchs(tmp_path: Path) -> None:
    name = f"`--classifier-start {OPTIONS.classifier_start:g}`"
    assert "Not measured yet." in row_of(defaults([a_part({"layer": LAYER})], tmp_path / "no"), name)
    text = defaults([a_part({"layer": LAYER, "starts": {"replace": 0.8, "retain": 0.5}})] * 3, tmp_path / "no")
    assert "*replace* +20.0 (+20.0 to +20.0), better in" in row_of(text, name)
    assert f"*retain* {points(-0.4)} (" in row_of(text, name)
    assert "*joined*" not in row_of(text, name)


def test_views_are_those_of_the_default(tmp_path: Path) -> None:
    rows = [
        {"data": "d", "place": "middle", "views": views, "loss_points": 0.3 * views, "loss_standard_error_points": 0.5}
        for views in (1, OPTIONS.views)
    ]
    means = [{"views": views, "loss_points": views, "loss_standard_error_points": 0.2} for views in (1, OPTIONS.views)]
    (tmp_path / "views.json").write_text(json.dumps({"rows": rows, "averages": means}))
    row = row_of(defaults([a_part({"layer": LAYER})], tmp_path / "views.json"), "`--views")
    assert f"d, cut at the middle: {0.3 * OPTIONS.views:+.1f} ± 0.5" in row
    assert f"on average {OPTIONS.views:+.1f} ± 0.2" in row
    assert "+0.3" not in row


def test_no_main_chapter_is_no_evidence() -> None:
    assert defaults([a_part({"usual": {"traditional": 0.5}})]) == ""
