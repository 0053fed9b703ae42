"""What a check says, as values and on the terminal."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from inarch.data import describe, open_dataset, summary

from .conftest import Folder


@pytest.fixture
def troubled(folder: Folder) -> dict[str, int | str]:
    files: dict[str, int | str] = {f"train/{c}/{n}.png": 100 * j + n for j, c in enumerate("ab") for n in range(4)}
    return {
        **files,
        **{f"train/[red]c/{n}.png": 300 + n for n in range(8)},
        "train/a/broken\x1b[2J.png": "words",
        "val/a/1.png": 400,
        "test/a/1.png": 0,
        "test/b/2.png": 1,
    }


def test_the_summary_holds_what_was_found_and_fits_into_json(folder: Folder, troubled: dict[str, int | str]) -> None:
    dataset = open_dataset(folder(troubled))
    found = json.loads(json.dumps(summary(dataset), allow_nan=False))
    assert found["classes"] == ["[red]c", "a", "b"]
    assert found["splits"]["train"] == {
        "images": 16,
        "made": False,
        "classes": {"[red]c": 8, "a": 4, "b": 4},
        "missing": [],
    }
    assert found["splits"]["validation"]["missing"] == ["[red]c", "b"]
    assert found["imbalance"] == 2.0
    assert found["set_aside"] == [{"path": "train/a/broken\x1b[2J.png", "reason": "not an image that Pillow reads"}]
    assert [(g["paths"], g["across"], g["conflicting"]) for g in found["duplicates"]] == [
        (["test/a/1.png", "train/a/0.png"], True, False),
        (["test/b/2.png", "train/a/1.png"], True, True),
    ]
    assert found["warnings"] == list(dataset.warnings)
    assert found["digest"] == dataset.digest


def test_the_description_shows_it_and_names_are_neither_markup_nor_control(
    folder: Folder, troubled: dict[str, int | str]
) -> None:
    console = Console(width=200, force_terminal=False, record=True)
    with console.capture() as captured:
        console.print(describe(open_dataset(folder(troubled))))
    text = captured.get()
    for shown in (
        "[red]c",
        "Imbalance: 2.0 (train: 8 of '[red]c', 4 of 'a')",
        "Set aside: 1",
        r"train/a/broken\x1b[2J.png: not an image that Pillow reads",
        "2 pictures (0 within a split, 2 across splits, 1 with conflicting labels)",
        "test/b/2.png (test), train/a/1.png (train): conflicting labels, across splits",
        "Warning: The validation split lacks 2 of 3 classes: '[red]c', 'b'.",
        "3 classes",
    ):
        assert shown in text
    assert "\x1b" not in text


def test_made_splits_are_marked_and_long_lists_are_cut(folder: Folder) -> None:
    files: dict[str, int | str] = {f"{c}/{n}.png": 100 * j + n for j, c in enumerate("ab") for n in range(5)}
    root = folder({**files, **{f"a/bad{n:02}.png": "" for n in range(30)}})
    console = Console(width=120)
    with console.capture() as captured:
        console.print(describe(open_dataset(root)))
    text = captured.get()
    assert "validation (made)" in text
    assert "bad19" in text
    assert "bad20" not in text
    assert "and 10 more" in text
