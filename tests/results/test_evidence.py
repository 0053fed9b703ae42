"""The check of `evidence.json`: a field that is wrong is named, and nothing but a thumbnail can be named as one."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from inarch.errors import RunFolderError
from inarch.results.evidence import validate_evidence

EVIDENCE: dict[str, Any] = {
    "format": 1,
    "model": {
        "confusions": [[0, 1, 3]],
        "reliability": [{"low": 0.9, "high": 1.0, "images": 3, "confidence": 0.95, "accuracy": 0.5}],
        "mistakes": [
            {"path": "a.jpg", "thumbnail": "0123456789abcdef.webp", "true": 0, "predicted": 1, "probability": 0.9,
             "probability_of_true": 0.1}
        ],
    },
    "learning": [
        {"role": "chosen", "graft": "retain", "harmonise": "l2", "hidden": [], "cut": {"index": 1, "name": "0"},
         "seeds": [{"seed": 1, "epochs": [{"training_loss": 1.5, "validation_accuracy": 0.5}]}]}
    ],
    "source_classes": [[{"name": "hen", "raised": 1.2}], []],
    "examples": [{"counts": {"train": 1, "validation": 0, "test": 3}, "thumbnails": ["0123456789abcdef.webp"]}] * 2,
}  # fmt: skip
WRONG: list[tuple[tuple[str | int, ...], Any, str]] = [
    (("model", "confusions", 0), [0, 1], r"model\.confusions\.0 is \[0, 1\], expected \[true class"),
    (("model", "confusions", 0, 1), 2, r"model\.confusions\.0\.1 is 2, expected a whole number from 0 to 1"),
    (("model", "mistakes", 0, "predicted"), 7, r"model\.mistakes\.0\.predicted is 7"),
    (("model", "mistakes", 0, "thumbnail"), "/etc/passwd", r"thumbnail is '/etc/passwd', expected the name of a"),
    (("examples", 0, "thumbnails", 0), "../a.webp", r"examples\.0\.thumbnails\.0 is '\.\./a\.webp'"),
    (("source_classes",), [[]], r"source_classes has 1 entries for 2 classes"),
    (("learning", 0, "seeds", 0, "epochs", 0, "training_loss"), float("nan"), r"training_loss is nan"),
]


def test_whole_evidence_passes() -> None:
    validate_evidence(EVIDENCE, 2)


@pytest.mark.parametrize(("place", "value", "message"), WRONG)
def test_a_wrong_field_is_named(place: tuple[str | int, ...], value: Any, message: str) -> None:
    evidence = copy.deepcopy(EVIDENCE)
    at: Any = evidence
    for step in place[:-1]:
        at = at[step]
    at[place[-1]] = value
    with pytest.raises(RunFolderError, match=rf"evidence\.json: .*{message}"):
        validate_evidence(evidence, 2)
