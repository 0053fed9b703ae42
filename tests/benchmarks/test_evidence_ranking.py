"""Scores of source networks stand beside the accuracies that were recorded for them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from toy import write_images, write_source

import evidence_ranking
from evidence_ranking import rankings, trained
from evidence_records import CHAPTER, DRAWN, Written
from inarch.launch.here import TRIAL
from inarch.ranking.scores import SCORES
from inarch.results.ledger import Record

ACCURACIES = {"one": 0.9, "two": 0.7, "three": 0.4}


def part_of(source: str, chapter: str, accuracy: float, shots: int = 5) -> Written:
    """Made-up records of the usual ways: one draw, 10 test images; the one that validation does not choose is bad."""
    contestants = {"traditional": ["bad"], "replace": ["good"]}
    records = [Record("chapter", CHAPTER, {"chapter": chapter, "asked": []}, {"contestants": contestants})]
    for key, value in (("bad", 0.1), ("good", accuracy)):
        right = np.packbits(np.arange(10) < round(10 * value))
        records.append(Record(f"{DRAWN}-{key}", DRAWN, {}, {"survival": None}, {"right": right}))
        records.append(Record(key, TRIAL, {}, {"status": "finished", "validation": {"accuracy": value}}))
    return Written({"labels": [0] * 10, "part": {"data": "images", "source": source, "shots": shots}}, records)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Scores of which the first orders sources as their accuracies do, and the second the other way round."""
    scores = {source: {"good": 2 * value, "bad": -value} for source, value in ACCURACIES.items()}
    found = {"images": {"titles": {"good": "Good", "bad": "Bad"}, "scores": scores}}
    path = tmp_path / "rankings.json"
    path.write_text(json.dumps(found))
    return path


def test_accuracies_are_those_of_the_usual_way_that_validation_chooses_in_whatever_chapter() -> None:
    parts = [part_of("one", "layer", 0.9), part_of("two", "usual", 0.7), part_of("two", "layer", 0.8, shots=0)]
    assert trained(parts, "images") == {5: {"one": 0.9, "two": 0.7}, 0: {"two": 0.8}}
    assert trained(parts, "others") == {}


def test_scores_are_judged_by_the_order_of_accuracies(file: Path, tmp_path: Path) -> None:
    parts = [part_of(source, "layer", value) for source, value in ACCURACIES.items()]
    text = rankings(parts, tmp_path, file)
    assert "| images | 5 | 3 | +1.00 | -1.00 |" in text
    # Three of three pairs: 0.025 ** (1 / 3) is 0.29.
    assert text.startswith("**In short**, no score can be told from chance. Of 3 pairs of sources")
    assert "Good 100 % (29 to 100); Bad 0 % (0 to 71)." in text
    assert (tmp_path / "scores.svg").exists()
    assert "| images | two | 1.4 | -0.7 | 70.0 % (5) |" in text


def test_two_sources_are_no_order(file: Path, tmp_path: Path) -> None:
    parts = [part_of(source, "layer", ACCURACIES[source]) for source in ("one", "two")]
    assert rankings(parts, tmp_path, file) == ""
    assert rankings(parts, tmp_path, tmp_path / "nothing.json") == ""


def test_sources_are_scored_at_the_sizes_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path / "images", a_class=6)
    monkeypatch.setattr(evidence_ranking, "SOURCES", {"toy": None})
    card = write_source(tmp_path / "source")
    monkeypatch.setattr("common.card", lambda source: card)
    found = evidence_ranking.ranked(tmp_path / "images")
    assert list(found["titles"]) == [score.name for score in SCORES]
    assert set(found["scores"]["toy"]) == set(found["titles"])
