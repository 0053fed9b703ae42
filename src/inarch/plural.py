"""Numbers with what they count: `1 file`, `2 files`. At the bottom, for messages of every part."""

from __future__ import annotations


def counted(number: int, noun: str, many: str = "") -> str:
    """The number and its noun, in the singular for one; `many` is the plural where that is not made with an s."""
    return f"{number} {noun if number == 1 else many or noun + 's'}"
