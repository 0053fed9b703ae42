"""What `results.json` holds, as a check that names the field that is wrong.

Fields that are not named here are allowed: a later version may add some, and must not take any away.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from inarch.errors import RunFolderError

Check = Callable[[Any, str], None]

OF: Final = ("images and seeds", "images")


def validate_results(results: Any) -> None:
    """Raise `RunFolderError` naming the first field that is missing or wrong; fractions are in 0 ... 1."""
    _RESULTS(results, "")
    _finite(results, "")
    for at, row in enumerate(results["curve"]):
        if not row["seeds"]:
            raise _wrong(f"curve.{at}.seeds", row["seeds"], "at least one seed")


def _wrong(place: str, value: Any, expected: str) -> RunFolderError:
    shown = repr(value)
    shown = shown if len(shown) < 80 else shown[:77] + "..."
    return RunFolderError(
        f"results.json: {place or 'the whole'} is {shown}, expected {expected}.",
        "Run `inarch fit` again with the same arguments to have it written anew.",
    )


def _number(low: float = -math.inf, high: float = math.inf, whole: bool = False) -> Check:
    bounds = "" if low == -math.inf else f" from {low:g}" + ("" if high == math.inf else f" to {high:g}")

    def check(value: Any, place: str) -> None:
        kinds = int if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
            raise _wrong(place, value, f"a {'whole ' if whole else ''}number{bounds}")

    return check


def _text(*allowed: str) -> Check:
    def check(value: Any, place: str) -> None:
        if not isinstance(value, str) or (allowed and value not in allowed):
            raise _wrong(place, value, " or ".join(map(repr, allowed)) if allowed else "a text")

    return check


def _list(of: Check) -> Check:
    def check(value: Any, place: str) -> None:
        if not isinstance(value, list):
            raise _wrong(place, value, "a list")
        for at, item in enumerate(value):
            of(item, f"{place}.{at}")

    return check


def _interval(low: float) -> Check:
    end = _number(low, 1.0)

    def check(value: Any, place: str) -> None:
        if not isinstance(value, list) or len(value) != 2:
            raise _wrong(place, value, "[low, high]")
        for at, item in enumerate(value):
            end(item, f"{place}.{at}")
        if value[0] > value[1]:
            raise _wrong(place, value, "[low, high] with low first")

    return check


def _optional(of: Check) -> Check:
    def check(value: Any, place: str) -> None:
        if value is not None:
            of(value, place)

    return check


def _object(fields: Mapping[str, Check], also: Mapping[str, Check] | None = None) -> Check:
    """Every one of `fields` must be there; those of `also` may be."""

    def check(value: Any, place: str) -> None:
        if not isinstance(value, dict):
            raise _wrong(place, value, "an object with fields")
        for name, of in {**fields, **(also or {})}.items():
            inside = f"{place}.{name}" if place else name
            if name in value:
                of(value[name], inside)
            elif name in fields:
                raise RunFolderError(
                    f"results.json: {inside} is missing.",
                    "Run `inarch fit` again with the same arguments to have it written anew.",
                )

    return check


def _map(of: Check) -> Check:
    def check(value: Any, place: str) -> None:
        if not isinstance(value, dict):
            raise _wrong(place, value, "an object with fields")
        for name, item in value.items():
            of(item, f"{place}.{name}")

    return check


def _kept_layer(value: Any, place: str) -> None:
    """A comparison, or, where there was nothing to compare, the reason."""
    if isinstance(value, dict) and value.get("kept") and value.get("replaced"):
        _COMPARED(value, place)
    else:
        _object({"reason": _text()})(value, place)


def _finite(value: Any, place: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong(place, value, "a finite number")
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        _finite(item, f"{place}.{name}" if place else str(name))


_FRACTION: Final = _number(0.0, 1.0)
_SEEDS: Final = _list(_number(0, whole=True))
_PLACE: Final[dict[str, Check]] = {
    "graft": _text(),
    "harmonise": _text(),
    "hidden": _list(_number(1, whole=True)),
    "cut": _object({"index": _number(0, whole=True), "name": _text()}),
}
_DIFFERENCE: Final[dict[str, Check]] = {
    "difference": _number(-1.0, 1.0),
    "interval95": _interval(-1.0),
    "p": _FRACTION,
    "of": _text(*OF),
}
_COMPARED: Final = _object(
    {"kept": _object(_PLACE), "replaced": _object(_PLACE), "sentence": _text(), **_DIFFERENCE},
)
_TESTED: Final = _object(
    {
        "accuracy": _FRACTION,
        "interval95": _interval(0.0),
        "balanced_accuracy": _FRACTION,
        "macro_f1": _FRACTION,
        "top5": _optional(_FRACTION),
        "log_loss": _number(0.0),
        "calibration_error": _FRACTION,
        "seeds": _SEEDS,
    },
    also=_PLACE,
)

_GAIN: Final = _optional(_number(0.0))
_PLAN: Final = _object(
    {
        "memory_format": _text(),
        "frozen": _text(),
        "trained": _text(),
        "gain": _object({"frozen": _GAIN, "trained": _GAIN}),
    }
)


def _test(value: Any, place: str) -> None:
    _object({"chosen": _TESTED, "model": _TESTED})(value, place)
    _map(_TESTED)(value, place)


_RESULTS: Final = _object(
    {
        "format": _number(1, whole=True),
        "sentence": _text(),
        "dataset": _object(
            {
                "classes": _list(_text()),
                "counts": _object(dict.fromkeys(("train", "validation", "test"), _number(0, whole=True))),
                "digest": _text(),
                "set_aside": _list(_object({"path": _text(), "reason": _text()})),
            },
            also={"warnings": _list(_text())},
        ),
        "source": _object({"name": _text()}),
        "chosen": _object(
            {
                **_PLACE,
                "method": _text(),
                "learning_rate": _number(0.0),
                "new_layer_learning_rate": _number(0.0),
                "seeds": _SEEDS,
            }
        ),
        "curve": _list(_object({**_PLACE, "validation_accuracy": _FRACTION, "seeds": _SEEDS})),
        "test": _test,
        "kept_layer": _kept_layer,
        "paired": _list(_object({"against": _text(), "p_holm": _FRACTION, **_DIFFERENCE})),
        "cost": _object(
            {"seconds": _number(0.0), "trials": _number(0, whole=True)},
            also={"environment": _object({}, also={"plan": _PLAN})},
        ),
        "left_out": _list(_text()),
        "validation_standard_error": _number(0.0, 1.0),
    },
    also={"warnings": _list(_text())},
)
