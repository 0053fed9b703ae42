"""What `results.json` holds, as a check that names the field that is wrong.

Fields that are not named here are allowed: a later version may add some, and must not take any away.
"""

from __future__ import annotations

from typing import Any, Final

from inarch.results.checks import (
    Check,
    flag,
    interval,
    list_of,
    map_of,
    number,
    object_with,
    optional,
    text,
    validate,
)

OF: Final = ("images and seeds", "images")


def validate_results(results: Any) -> None:
    """Raise `RunFolderError` naming the first field that is missing or wrong; fractions are in 0 ... 1."""
    validate(_RESULTS, results, "results.json")


def _kept_layer(value: Any, place: str) -> None:
    """A comparison, or, where there was nothing to compare, the reason."""
    if isinstance(value, dict) and value.get("kept") and value.get("replaced"):
        _COMPARED(value, place)
    else:
        object_with({"reason": text()})(value, place)


_FRACTION: Final = number(0.0, 1.0)
_SEEDS: Final = list_of(number(0, whole=True))
PLACE: Final[dict[str, Check]] = {
    "graft": text(),
    "harmonise": text(),
    "hidden": list_of(number(1, whole=True)),
    "cut": object_with({"index": number(0, whole=True), "name": text()}),
}
DIFFERENCE: Final[dict[str, Check]] = {
    "difference": number(-1.0, 1.0),
    "interval95": interval(-1.0),
    "p": _FRACTION,
    "of": text(*OF),
}
_COMPARED: Final = object_with(
    {"kept": object_with(PLACE), "replaced": object_with(PLACE), "sentence": text(), **DIFFERENCE},
)
TESTED: Final[dict[str, Check]] = {
    "accuracy": _FRACTION,
    "interval95": interval(0.0),
    "balanced_accuracy": _FRACTION,
    "macro_f1": _FRACTION,
    "top5": optional(_FRACTION),
    "log_loss": number(0.0),
    "calibration_error": _FRACTION,
    "seeds": _SEEDS,
}
_TESTED: Final = object_with(TESTED, also=PLACE)

_SHARE: Final = object_with(
    {
        "images": number(1, whole=True),
        "unknown": number(0, whole=True),
        "share": _FRACTION,
        "interval95": interval(0.0),
    },
    also={"expected95": interval(0.0)},
)
_UNKNOWN: Final = object_with(
    {
        "validation_images": number(0, whole=True),
        "classes_without_validation": list_of(text()),
        "rates": list_of(
            object_with({"promised": _FRACTION, "test": optional(_SHARE), "test_without_validation": optional(_SHARE)})
        ),
    }
)
_GAIN: Final = optional(number(0.0))
_PLAN: Final = object_with(
    {
        "memory_format": text(),
        "frozen": text(),
        "trained": text(),
        "gain": object_with({"frozen": _GAIN, "trained": _GAIN}, also={"captured": _GAIN}),
    },
    also={"recomputed": number(0, whole=True), "captured": flag, "workers": number(1, whole=True)},
)
COUNTS: Final = object_with(dict.fromkeys(("train", "validation", "test"), number(0, whole=True)))
DATASET: Final = object_with(
    {
        "classes": list_of(text()),
        "counts": COUNTS,
        "digest": text(),
        "set_aside": list_of(object_with({"path": text(), "reason": text()})),
    },
    also={"warnings": list_of(text()), "made_splits": list_of(text())},
)
COST: Final = object_with(
    {"seconds": number(0.0), "trials": number(0, whole=True)},
    also={
        "command": list_of(text()),
        "training_seconds": number(0.0),
        "range_test_seconds": number(0.0),
        "source_pass_seconds": number(0.0),
        "trials_this_call": number(0, whole=True),
        "peak_memory_bytes": optional(number(0, whole=True)),
        "contestants": list_of(map_of(number(0.0))),
        "environment": object_with({}, also={"plan": _PLAN}),
        "profile": map_of(number(0.0)),
    },
)


def _test(value: Any, place: str) -> None:
    object_with({"chosen": _TESTED, "model": _TESTED})(value, place)
    map_of(_TESTED)(value, place)


_RESULTS: Final = object_with(
    {
        "format": number(1, whole=True),
        "sentence": text(),
        "dataset": DATASET,
        "source": object_with({"name": text()}),
        "chosen": object_with(
            {
                **PLACE,
                "method": text(),
                "learning_rate": number(0.0),
                "new_layer_learning_rate": number(0.0),
                "seeds": _SEEDS,
            }
        ),
        "curve": list_of(
            object_with(
                {**PLACE, "validation_accuracy": _FRACTION, "seeds": list_of(number(0, whole=True), "seed")},
                also={"epochs": number(1, whole=True)},
            )
        ),
        "test": _test,
        "kept_layer": _kept_layer,
        "paired": list_of(object_with({"against": text(), "p_holm": _FRACTION, **DIFFERENCE})),
        "cost": COST,
        "left_out": list_of(text()),
        "validation_standard_error": number(0.0, 1.0),
    },
    also={
        "unknown": _UNKNOWN,
        "warnings": list_of(text()),
        "settings": object_with({}, also={"epochs": number(1, whole=True)}),
    },
)
