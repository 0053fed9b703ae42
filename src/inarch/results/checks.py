"""Checks of JSON that a run folder holds, put together from small ones; the first field that is wrong is named.

A check takes a value and its place in the file (`chosen.cut.index`), and raises `WrongFieldError`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from inarch.errors import RunFolderError

Check = Callable[[Any, str], None]


class WrongFieldError(Exception):
    """A field that is missing or wrong, in words, without the file's name."""


def validate(check: Check, value: Any, file: str) -> None:
    """Raise `RunFolderError` naming the file and the first field of `value` that is wrong, or not a finite number."""
    try:
        check(value, "")
        finite(value, "")
    except WrongFieldError as error:
        raise RunFolderError(
            f"{file}: {error}.", "Run `inarch fit` again with the same arguments to have it written anew."
        ) from None


def wrong(place: str, value: Any, expected: str) -> WrongFieldError:
    shown = repr(value)
    shown = shown if len(shown) < 80 else shown[:77] + "..."
    return WrongFieldError(f"{place or 'the whole'} is {shown}, expected {expected}")


def number(low: float = -math.inf, high: float = math.inf, whole: bool = False) -> Check:
    bounds = "" if low == -math.inf else f" from {low:g}" + ("" if high == math.inf else f" to {high:g}")

    def check(value: Any, place: str) -> None:
        kinds = int if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
            raise wrong(place, value, f"a {'whole ' if whole else ''}number{bounds}")

    return check


def text(*allowed: str) -> Check:
    def check(value: Any, place: str) -> None:
        if not isinstance(value, str) or (allowed and value not in allowed):
            raise wrong(place, value, " or ".join(map(repr, allowed)) if allowed else "a text")

    return check


def flag(value: Any, place: str) -> None:
    if not isinstance(value, bool):
        raise wrong(place, value, "true or false")


def anything(value: Any, place: str) -> None:
    """No check of its own."""


def pattern(expression: str, expected: str) -> Check:
    """A text that matches the whole of a regular expression."""

    def check(value: Any, place: str) -> None:
        if not isinstance(value, str) or re.fullmatch(expression, value) is None:
            raise wrong(place, value, expected)

    return check


def list_of(of: Check, least_one: str = "") -> Check:
    """A list; `least_one` names what must be in it at least once."""

    def check(value: Any, place: str) -> None:
        if not isinstance(value, list):
            raise wrong(place, value, "a list")
        if least_one and not value:
            raise wrong(place, value, f"at least one {least_one}")
        for at, item in enumerate(value):
            of(item, f"{place}.{at}")

    return check


def interval(low: float) -> Check:
    end = number(low, 1.0)

    def check(value: Any, place: str) -> None:
        if not isinstance(value, list) or len(value) != 2:
            raise wrong(place, value, "[low, high]")
        for at, item in enumerate(value):
            end(item, f"{place}.{at}")
        if value[0] > value[1]:
            raise wrong(place, value, "[low, high] with low first")

    return check


def optional(of: Check) -> Check:
    def check(value: Any, place: str) -> None:
        if value is not None:
            of(value, place)

    return check


def object_with(fields: Mapping[str, Check], also: Mapping[str, Check] | None = None) -> Check:
    """Every one of `fields` must be there; those of `also` may be."""

    def check(value: Any, place: str) -> None:
        if not isinstance(value, dict):
            raise wrong(place, value, "an object with fields")
        for name, of in {**fields, **(also or {})}.items():
            inside = f"{place}.{name}" if place else name
            if name in value:
                of(value[name], inside)
            elif name in fields:
                raise WrongFieldError(f"{inside} is missing")

    return check


def map_of(of: Check) -> Check:
    def check(value: Any, place: str) -> None:
        if not isinstance(value, dict):
            raise wrong(place, value, "an object with fields")
        for name, item in value.items():
            of(item, f"{place}.{name}")

    return check


def finite(value: Any, place: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise wrong(place, value, "a finite number")
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        finite(item, f"{place}.{name}" if place else str(name))
