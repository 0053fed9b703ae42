"""Results of a study that never ran: everything that `results.json` may hold."""

from __future__ import annotations

from typing import Any

import pytest

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
        "left_out": ["more seeds"],
        "settings": {"epochs": 8, "batch_size": 32, "label_smoothing": 0.1, "balance": None, "flip": True},
        "cost": {
            "seconds": 3605.4, "trials": 84,
            "environment": {
                "device": "cpu", "threads": 2, "versions": {"torch": "2.15.0", "timm": "1.0.31"},
                "plan": {
                    "memory_format": "channels_last", "frozen": "bf16", "trained": "fp32",
                    "gain": {"frozen": 1.87, "trained": 1.0},
                },
            },
        },
    }  # fmt: skip


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
