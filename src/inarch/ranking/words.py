"""How to read a ranking, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inarch.ranking.scores import RECOMMENDED, SCORES


def how_to_read(ranked: Sequence[Mapping[str, Any]], images: int) -> str:
    """What the scores are, which sources they put first, and what they cannot say; best first, at least one source.

    images: of the training split.
    """
    sentences = [
        f"Best first by {RECOMMENDED.title}; higher is better in every column, and only within it, on the same images."
    ]
    if len(ranked) > 1:
        sentences.append(_leaders(ranked))
    sentences.append(
        "LEEP and NCE judge by the classification layer, the others by the features before it. All of them guess "
        "before any training: fit the first two or three."
    )
    saturated = [row["name"] for row in ranked if row["features"] >= images - 1]
    if saturated:
        sentences.append(
            f"With {images} training images and as many features or more, the H-score of {_and(saturated)} is at its "
            "upper limit and says nothing."
        )
    return " ".join(sentences)


def _leaders(ranked: Sequence[Mapping[str, Any]]) -> str:
    """Which scores put which source first, in the order of the ranking."""
    leading: dict[str, list[str]] = {}
    for score in SCORES:
        first = max(ranked, key=lambda row: row["scores"][score.name])
        leading.setdefault(first["name"], []).append(score.title)
    if len(leading) == 1:
        return f"All scores put {ranked[0]['name']} first."
    order = [row["name"] for row in ranked if row["name"] in leading]
    parts = [f"{_and(leading[name])} put{'s' if len(leading[name]) == 1 else ''} {name} first" for name in order]
    return "; ".join(parts) + "."


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
