"""Texts of the command line as values. Without PyTorch, so that a mistake in one is said at once."""

from __future__ import annotations

import re
from collections.abc import Callable

from inarch.errors import UsageError


def words(text: str) -> tuple[str, ...]:
    """The parts of a list with commas, each once."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def some_of(option: str, known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    """Like `words`, for an option that takes no other words than the `known` ones."""

    def parse(text: str) -> tuple[str, ...]:
        for word in words(text):
            if word not in known:
                raise UsageError(f"{option} {word} is not known.", f"Choose from: {', '.join(known)}.")
        return words(text)

    return parse


def sizes(text: str) -> tuple[int, ...]:
    """`512,256` as numbers."""
    if not all(part.isdecimal() for part in words(text)):
        raise UsageError(f"--hidden {text} is not a list of sizes.", "Try 512 or 512,256.")
    return tuple(int(part) for part in text.split(",") if part.strip())


def seconds(text: str) -> float | None:
    """`20m`, `1h30m`, `90s` or plain seconds; empty: no limit."""
    if not text:
        return None
    found = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip().lower())
    if found is None:
        raise UsageError(f"--time-limit {text} is not a duration.", "Try 20m, 1h30m or 90s.")
    return sum(float(part) * unit for part, unit in zip(found.groups(), (3600, 60, 1), strict=True) if part)


def views_of(text: str) -> int:
    """A number of views, or `epochs` for a fresh view every epoch, which is 0."""
    if text.strip() == "epochs":
        return 0
    if not text.strip().isdecimal():
        raise UsageError(f"--views {text} is not a number of views.", "Try 8, or epochs for a fresh view every epoch.")
    return int(text)


def number_of(option: str, text: str) -> float:
    """A number with a fraction, such as `0.2`."""
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"--{option} {text} is not a number.", "Try 0.2.") from error


def shots_of(text: str) -> tuple[int, ...]:
    """`5,20,all` as numbers of images a class, each once; all is 0."""
    wrong = [part for part in words(text) if part != "all" and not (part.isdecimal() and int(part) > 0)]
    if wrong or not words(text):
        raise UsageError(f"--shots {wrong[0] if wrong else 'names nothing'}: not a number of images.", "Try 5,20,all.")
    return tuple(dict.fromkeys(0 if part == "all" else int(part) for part in words(text)))
