"""Numbers with what they count."""

from __future__ import annotations

import pytest

from inarch.plural import counted


@pytest.mark.parametrize(
    ("number", "words", "said"),
    [
        (0, ("file",), "0 files"),
        (1, ("file",), "1 file"),
        (2, ("file",), "2 files"),
        (1, ("picture stands", "pictures stand"), "1 picture stands"),
        (3, ("picture stands", "pictures stand"), "3 pictures stand"),
    ],
)
def test_one_alone_is_in_the_singular(number: int, words: tuple[str, ...], said: str) -> None:
    assert counted(number, *words) == said
