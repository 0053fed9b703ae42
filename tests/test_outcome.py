"""What the report says in words follows from the figures."""

from __future__ import annotations

import pytest

from inarch.outcome import kept_sentence


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        ((0.01, 0.05), "helped here"),
        ((-0.05, -0.01), "did not help here, it cost"),
        ((-0.02, 0.03), "did not help here measurably"),
        ((0.0, 0.03), "did not help here measurably"),
    ],
)
def test_the_verdict_on_the_layer_is_that_of_its_interval(interval: tuple[float, float], words: str) -> None:
    sentence = kept_sentence(0.5 * sum(interval), interval, "images and seeds")
    assert words in sentence
    assert "over images and seeds" in sentence


def test_there_is_no_verdict_where_the_two_were_not_tuned_alike() -> None:
    sentence = kept_sentence(0.05, (0.01, 0.09), "images", "Time was too short to tune both alike")
    assert "helped" not in sentence
    assert sentence.startswith("Time was too short to tune both alike; so far")
    assert "+5.0 points" in sentence
