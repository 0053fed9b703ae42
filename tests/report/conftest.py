"""Results and evidence of a study that never ran: everything that `results.json` and `evidence.json` may hold."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from inarch.report.run import Run

STAGES = ["none", "conv_stem", *(f"blocks.{k}.0" for k in range(11)), "classification-layer"]


@pytest.fixture
def results() -> dict[str, Any]:
    chosen = _place("deepen", "l2", 8, [512])
    paired = [
        {"against": name, "difference": d, "interval95": [d - 0.02, d + 0.02], "p": p, "p_holm": p_holm, "of": of}
        for name, d, p, p_holm, of in (
            ("traditional", 0.024, 0.011, 0.022, "images and seeds"),
            ("linear_probe", -0.0001, 0.98, 0.98, "images"),
        )
    ]
    return {
        "format": 1,
        "sentence": "Chosen: deepen 512, l2 with the first 8 stages frozen; it is right on 88.9 % of the test images.",
        "dataset": {
            "classes": ["apple", "pear & <b>quince</b>", *(f"class {k}" for k in range(8))],
            "counts": {"train": 1500, "validation": 320, "test": 372},
            "digest": "9f2c7a1be0",
            "set_aside": [{"path": "train/apple/<script>alert(1)</script>.jpg", "reason": "truncated & <unreadable>"}],
            "warnings": ["Class 'pear' is missing from validation."],
        },
        "source": {"name": "mobilenetv2_100.in1k"},
        "chosen": {**chosen, "method": "fine-tuning", "learning_rate": 0.003, "new_layer_learning_rate": 0.03,
                   "seeds": [1, 2, 3]},
        "curve": _curve(),
        "test": {
            "model": _tested(0.887, [1]) | chosen,
            "linear_probe": _tested(0.874, [1, 2, 3]) | _place("replace", "none", 12),
            "chosen": _tested(0.889, [1, 2, 3]) | chosen,
            "traditional": _tested(0.865, [1, 2, 3]) | _place("replace", "none", 0),
            "joined_best_cut": _tested(0.88, [1, 2, 3]) | _place("joined", "batch", 6),
        },
        "kept_layer": {
            "kept": chosen, "replaced": _place("replace", "l2", 5), "difference": 0.008, "interval95": [-0.012, 0.028],
            "p": 0.43, "of": "images and seeds",
            "sentence": "Keeping the classification layer did not help here measurably: +0.8 points.",
        },
        "paired": paired,
        "validation_standard_error": 0.018,
        "unknown": {
            "score": "entropy", "validation_images": 320, "classes_without_validation": ["class 7"],
            "rates": [
                {"promised": promised, "test": _unknown(340, count, [0.02, 0.09]),
                 "test_without_validation": _unknown(32, 8)}
                for promised, count in ((0.01, 2), (0.05, 17), (0.1, 33))
            ],
        },
        "left_out": ["more seeds"],
        "settings": {"epochs": 8, "batch_size": 32, "label_smoothing": 0.1, "balance": None, "flip": True},
        "cost": {
            "seconds": 3605.4, "trials": 84, "training_seconds": 3000.0, "source_pass_seconds": 12.0,
            "peak_memory_bytes": 2_139_602_944,
            "command": ["inarch", "fit", "my fruit", "--source", "toy.json", "--out", "again", "--seeds", "2"],
            "environment": {
                "device": "cpu", "threads": 2, "versions": {"torch": "2.15.0", "timm": "1.0.31"},
                "plan": {
                    "memory_format": "channels_last", "frozen": "bf16", "trained": "fp32",
                    "gain": {"frozen": 1.87, "trained": 1.0},
                },
            },
        },
    }  # fmt: skip


@pytest.fixture
def evidence() -> dict[str, Any]:
    """Ten test images of class 0 and ten of class 1; 0 is taken for 1 four times, 1 for 0 once and for 2 twice."""
    return {
        "format": 1,
        "model": {
            "confusions": [[0, 0, 6], [0, 1, 4], [1, 0, 1], [1, 1, 7], [1, 2, 2]],
            "reliability": [
                {"low": 0.4, "high": 0.4667, "images": 5, "confidence": 0.45, "accuracy": 0.2},
                {"low": 0.9333, "high": 1.0, "images": 15, "confidence": 0.95, "accuracy": 0.8},
            ],
            "mistakes": [
                {"path": "test/apple/<script>alert(3)</script>.jpg", "thumbnail": f"{9:032x}.webp", "true": 0,
                 "predicted": 1, "probability": 0.98, "probability_of_true": 0.01},
            ],
        },
        "learning": [
            {"role": role, **_place("retain", "l2", 3),
             "seeds": [{"seed": seed, "epochs": [
                 {"training_loss": 2.0 / epoch + seed, "validation_accuracy": 0.2 * epoch + 0.02 * seed + lift}
                 for epoch in (1, 2, 3)
             ]} for seed in (1, 2)]}
            for role, lift in (("chosen", 0.1), ("traditional", 0.0), ("linear_probe", 0.05))
        ],
        "source_classes": [
            [{"name": f"source <i>{k}</i> {rank}", "raised": 2.0 - 0.3 * rank} for rank in range(3)] for k in range(10)
        ],
        "examples": [
            {"counts": {"train": 150, "validation": 32, "test": 37}, "thumbnails": [f"{k:032x}.webp"]}
            for k in range(10)
        ],
    }  # fmt: skip


@pytest.fixture
def comparison(results: dict[str, Any]) -> dict[str, Any]:
    """What `comparison.json` may hold: three contestants at two sizes."""
    names = ("traditional", "co-tuning, replace", "l2-sp, retain")
    return {
        "format": 1,
        "sentence": "With 5 images a class, tuned traditional fine-tuning is right on 51.5 % of the test images.",
        "dataset": results["dataset"], "source": results["source"],
        "settings": {"trials": 8, "seed": 0, "seeds": 3},
        "sizes": [_size(shots, names) for shots in (5, None)],
        "ranks": [{"name": name, "rank": 1.0 + at} for at, name in enumerate(names)],
        "left_out": ["one trial"],
        "cost": results["cost"] | {
            "command": ["inarch", "compare", "fruit", "--source", "toy.json"],
            "contestants": [dict.fromkeys(names, 60.0)] * 2,
        },
    }  # fmt: skip


@pytest.fixture
def run(results: dict[str, Any], evidence: dict[str, Any]) -> Run:
    """Both, with a thumbnail for every class and none for the mistake but that of class 9."""
    names = [name for row in evidence["examples"] for name in row["thumbnails"]]
    return Run(results, evidence, dict.fromkeys(names, "data:image/webp;base64,AAAA"))


@pytest.fixture
def folder(results: dict[str, Any], evidence: dict[str, Any], tmp_path: Path) -> Path:
    """A run folder with both files and thumbnails."""
    (tmp_path / "run" / "thumbnails").mkdir(parents=True)
    (tmp_path / "run" / "results.json").write_text(json.dumps(results), encoding="utf-8")
    (tmp_path / "run" / "evidence.json").write_text(json.dumps(evidence), encoding="utf-8")
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(stream, "WEBP")
    for row in evidence["examples"]:
        (tmp_path / "run" / "thumbnails" / row["thumbnails"][0]).write_bytes(stream.getvalue())
    return tmp_path / "run"


def _place(graft: str, harmonise: str, cut: int, hidden: list[int] | None = None) -> dict[str, Any]:
    return {
        "graft": graft,
        "harmonise": harmonise,
        "hidden": hidden or [],
        "cut": {"index": cut, "name": STAGES[cut]},
    }


def _tested(accuracy: float, seeds: list[int]) -> dict[str, Any]:
    return {
        "accuracy": accuracy, "interval95": [accuracy - 0.03, accuracy + 0.03], "balanced_accuracy": accuracy - 0.01,
        "macro_f1": accuracy - 0.012, "top5": 0.99, "log_loss": 0.41, "calibration_error": 0.034, "seeds": seeds,
    }  # fmt: skip


def _size(shots: int | None, names: Sequence[str]) -> dict[str, Any]:
    return {
        "shots": shots, "counts": {"train": 50, "validation": 50, "test": 372}, "failed": ["delta, retain"],
        "contestants": [
            _tested(0.6 + 0.1 * at, [1, 2, 3]) | _place("replace", "l2", 4)
            | {"name": name, "method": "fine-tuning", "learning_rate": 0.01, "new_layer_learning_rate": 0.1,
               "strength": 1.0, "tuning_trials": 8, "validation_accuracy": 0.6}
            for at, name in enumerate(names)
        ],
        "paired": [
            {"name": name, "difference": 0.1 * at, "interval95": [0.1 * at - 0.15, 0.1 * at + 0.15], "p": 0.02,
             "p_holm": 0.02 * at, "of": "images and seeds"}
            for at, name in enumerate(names) if at
        ],
    }  # fmt: skip


def _unknown(images: int, count: int, expected: list[float] | None = None) -> dict[str, Any]:
    share = count / images
    found = {"images": images, "unknown": count, "share": share, "interval95": [share / 2, 2 * share]}
    return found | ({} if expected is None else {"expected95": expected})


def _curve() -> list[dict[str, Any]]:
    """Seven configurations, each highest somewhere in the middle."""
    configurations = [
        (graft, harmonise, hidden)
        for graft, hidden in (("replace", []), ("retain", []), ("deepen", [512]), ("joined", []))
        for harmonise in ("none", "l2")
    ]
    return [
        _place(graft, harmonise, cut, hidden)
        | {"validation_accuracy": 0.9 - 0.0015 * (cut - 7 + at / 2) ** 2 - 0.004 * at}
        | {"seeds": [0], "method": "fine-tuning"}
        for at, (graft, harmonise, hidden) in enumerate(configurations[:-1])
        for cut in range(len(STAGES) if graft != "replace" else len(STAGES) - 1)
    ]
