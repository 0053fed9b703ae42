"""What a report shows beside the figures: where the delivered model errs, learning curves, source classes, examples.

Everything comes from records of the ledger but for one pass of the original network over the training images, which is
recorded too. `results/evidence.py` says what is kept.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from inarch.data import SPLITS, DataSet
from inarch.data.values import Item
from inarch.launch.here import Workbench
from inarch.outcome import Outcome
from inarch.results.diagnosis import ClassProfile, confident_mistakes, confusions, highest
from inarch.results.evidence import EVIDENCE, FORMAT
from inarch.results.ledger import Record
from inarch.results.metrics import reliability
from inarch.thumbnails import name_of, write_thumbnails

SOURCE_PASS = "source-pass"
SOURCE_CLASSES = 5
MISTAKES = 24
# Examples of a class: few where there are many classes, so that the page stays small.
EXAMPLES, MOST_EXAMPLES = 6, 300


def write_evidence(bench: Workbench, outcome: Outcome, dataset: DataSet, source_classes: Sequence[str]) -> None:
    """Writes `evidence.json` and the thumbnails that it names; equal studies write equal files."""
    wanted: dict[str, Item] = {}
    evidence = {
        "format": FORMAT,
        "model": _errors(bench, outcome, dataset, wanted),
        "learning": _learning(bench, outcome),
        "source_classes": _source_classes(bench, source_classes),
        "examples": _examples(dataset, wanted),
    }
    assert dataset.pixels is not None
    write_thumbnails(bench.folder.path, {name: dataset.pixels[item.row] for name, item in wanted.items()})
    bench.folder.write_json(EVIDENCE, evidence)


def _errors(bench: Workbench, outcome: Outcome, dataset: DataSet, wanted: dict[str, Item]) -> dict[str, Any]:
    """What the delivered model, the choice's first seed, makes of the test images."""
    probabilities, labels = bench.test(outcome.chosen.results[0].trial), bench.store.images.labels["test"]
    mistakes = []
    for mistake in confident_mistakes(probabilities, labels, MISTAKES):
        item = dataset.test[mistake.position]
        shown = asdict(mistake)
        del shown["position"]
        mistakes.append({"path": item.path, "thumbnail": _kept(item, wanted), **shown})
    return {
        "confusions": [list(pair) for pair in confusions(probabilities, labels)],
        "reliability": reliability(probabilities.astype(np.float64), labels),
        "mistakes": mistakes,
    }


def _learning(bench: Workbench, outcome: Outcome) -> list[dict[str, Any]]:
    """Loss and validation accuracy, epoch by epoch, of the choice and of what it is compared with."""
    curves = []
    for role, found in outcome.compared().items():
        records = [bench.folder.ledger.get(result.trial.key) for result in found.results]
        curves.append(
            {
                "role": role,
                **outcome.place(found),
                "seeds": [
                    {"seed": record.subject["seed"], **_parts(record, "epochs", "members")}
                    for record in records
                    if record
                ],
            }
        )
    return curves


def _parts(record: Record, *names: str) -> dict[str, Any]:
    return {name: record.outcome[name] for name in names if name in record.outcome}


def _source_classes(bench: Workbench, names: Sequence[str]) -> list[list[dict[str, Any]]]:
    """For each class the source classes whose logits its training images raise most in the original network."""
    return [
        [{"name": names[i], "raised": round(float(row[i]), 3)} for i in highest(row, SOURCE_CLASSES)]
        for row in raised_source_logits(bench)
    ]


def raised_source_logits(bench: Workbench) -> np.ndarray:
    """[classes, source classes]: see `ClassProfile.raised`; computed once and recorded."""
    record = bench.folder.ledger.get(SOURCE_PASS)
    if record is None:
        start, labels, done = time.monotonic(), bench.store.images.labels["train"], 0
        profile = ClassProfile(bench.store.images.classes, bench.widths.source_classes)
        for logits in bench.source_logits("train"):
            profile.add(logits, labels[done : done + len(logits)])
            done += len(logits)
        arrays = {"raised": profile.raised().astype(np.float32)}
        record = Record(SOURCE_PASS, SOURCE_PASS, {}, {}, arrays, time.monotonic() - start)
        bench.folder.ledger.add(record)
    return record.arrays["raised"]


def _examples(dataset: DataSet, wanted: dict[str, Item]) -> list[dict[str, Any]]:
    """For each class how many images each split holds, and the first of its training images."""
    classes = len(dataset.classes)
    most = max(1, min(EXAMPLES, MOST_EXAMPLES // classes))
    counts = {split: dataset.counts(split).tolist() for split in SPLITS}
    shown: list[list[str]] = [[] for _ in range(classes)]
    total = 0
    for item in dataset.train:
        if len(shown[item.label]) < most and total < MOST_EXAMPLES:
            shown[item.label].append(_kept(item, wanted))
            total += 1
    return [
        {"counts": {split: counts[split][label] for split in SPLITS}, "thumbnails": shown[label]}
        for label in range(classes)
    ]


def _kept(item: Item, wanted: dict[str, Item]) -> str:
    """The name of an item's thumbnail, which will be kept."""
    name = name_of(item)
    wanted[name] = item
    return name
