"""Which classes are taken for which: the largest confusions as a list, and the whole matrix."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from inarch.plural import counted
from inarch.report import words
from inarch.report.run import Run
from inarch.report.section import Section, Table

LARGEST = 12
# Beyond this a matrix can no longer be read: it shows the classes with most errors.
MOST_CLASSES = 100
_LONGEST = 28
# Room for the words that name the two sides, where the names of classes are shorter.
_HEADED = 12
# The smallest side of a cell in pixels, beside which names are written small: 81 classes fit in a page.
SMALL = 11


@dataclass(frozen=True)
class Cell:
    """A cell of the matrix that is not empty. share: of the images of the true class; strength: of its colour."""

    row: int
    column: int
    images: int
    share: float
    strength: float
    title: str


def section(run: Run) -> Section | None:
    if run.evidence is None:
        return None
    counts = matrix(run.evidence["model"]["confusions"], len(run.classes))
    totals = counts.sum(axis=1)
    wrong = largest(counts)
    errors, images = sum(n for _, _, n in wrong), int(totals.sum())
    rows = [
        [f"{run.classes[true]} \N{RIGHTWARDS ARROW} {run.classes[predicted]}", str(n),
         f"{n} of {totals[true]} ({words.percent(n / totals[true])})"]
        for true, predicted, n in wrong
    ]  # fmt: skip
    text = [_lead(run, wrong, errors, images)]
    table = Table(
        "Confusions, the largest first: true class and what it was taken for",
        ["True class \N{RIGHTWARDS ARROW} predicted class", "Images", "Of the true class"],
        rows, frozenset({1, 2}), open_rows=LARGEST, rest_behind=True,
    )  # fmt: skip
    shown = shown_classes(counts)
    names = [label(run.classes[i]) for i in shown]
    side = _side(len(shown))
    written, others = side >= 20, len(run.classes) - len(shown)
    values = {
        "cells": _cells(counts, shown, run.classes, written),
        "written": written,
        "names": names,
        "left": 10 + (7 if side > SMALL else 6) * max(_HEADED, *map(columns, names)),
        "side": side,
        "small": side <= SMALL,
        "left_out": counted(others, "class with fewer errors is", "classes with fewer errors are") if others else "",
        "list": table,
    }
    return Section("confusion", "What it confuses", text, values=values)


def matrix(confusions: Sequence[Sequence[int]], classes: int) -> NDArray[np.int64]:
    """[true class, predicted class]: numbers of images."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    for true, predicted, images in confusions:
        counts[true, predicted] += images
    return counts


def largest(counts: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """(true, predicted, images) of all wrong answers: most images first, then the larger share of the true class."""
    totals = counts.sum(axis=1)
    found = [(int(t), int(p), int(counts[t, p])) for t, p in np.argwhere(counts) if t != p]
    return sorted(found, key=lambda item: (-item[2], -item[2] / totals[item[0]], item[0], item[1]))


def shown_classes(counts: NDArray[np.int64]) -> list[int]:
    """The classes of the matrix in an order in which those that are confused stand beside each other."""
    errors = counts + counts.T
    np.fill_diagonal(errors, 0)
    order = np.argsort(-errors.sum(axis=1), kind="stable")[:MOST_CLASSES]
    kept = np.sort(order)
    if len(kept) < 3:
        return [int(i) for i in kept]
    inside = errors[np.ix_(kept, kept)].astype(np.float64)
    images = counts.sum(axis=1)[kept]
    closeness = inside / np.maximum(1, images[:, None] + images[None, :])
    distance = 1.0 - closeness
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform(distance, checks=False), method="average")
    return [int(kept[i]) for i in leaves_list(tree)]


def label(name: str) -> str:
    """A name that fits beside the matrix."""
    if columns(name) <= _LONGEST:
        return name
    while columns(name) >= _LONGEST:
        name = name[:-1]
    return name + "\N{HORIZONTAL ELLIPSIS}"


def columns(name: str) -> int:
    """How wide a name is, in letters: those of Chinese, Japanese and Korean count twice."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in name)


def _cells(counts: NDArray[np.int64], shown: Sequence[int], classes: Sequence[str], written: bool) -> list[Cell]:
    cells = []
    for row, true in enumerate(shown):
        total = int(counts[true].sum())
        for column, predicted in enumerate(shown):
            if images := int(counts[true, predicted]):
                title = f"{classes[true]} taken for {classes[predicted]}: {images} of {total}"
                share = images / total
                # The root shows single images too; below a figure the colour stays light enough to read it.
                strength = (0.12 + 0.4 * share**0.5) if written else (0.2 + 0.8 * share**0.5)
                cells.append(Cell(row, column, images, share, strength, title))
    return cells


def _side(classes: int) -> int:
    """The side of a cell in pixels: never so small that the names beside it cannot be read."""
    return max(SMALL, min(40, 560 // max(1, classes)))


def _lead(run: Run, wrong: Sequence[tuple[int, int, int]], errors: int, images: int) -> str:
    start = f"The delivered model is wrong on {errors} of the {counted(images, 'test image')}"
    if not wrong:
        return f"{start}."
    true, predicted, n = wrong[0]
    text = (
        f"{start}. Its largest confusion: {run.classes[true]} taken for {run.classes[predicted]}, {counted(n, 'time')}."
    )
    if len(wrong) == 1:
        return text
    part = sum(images for *_, images in wrong[:LARGEST]) / errors
    return f"{text} The {min(LARGEST, len(wrong))} largest confusions hold {words.percent(part)} of all errors."
