"""The values of a data set: items, what was set aside, duplicates, and the data set itself; no reading, no deciding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from inarch.errors import UsageError

if TYPE_CHECKING:
    from inarch.data.pixels import Pixels

SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Candidate:
    """A file that is said to be an image: where it lies, how it is called, its class and the split the user gave it."""

    path: str
    file: Path
    label: str
    split: str | None


@dataclass(frozen=True)
class SetAside:
    """A file or folder that is not used, and why. Neither field holds an absolute path."""

    path: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """What a folder or a manifest names, before any image is read.

    `classes` includes classes without a file, so that they can be reported; `splits` are those the user made.
    """

    candidates: tuple[Candidate, ...]
    classes: tuple[str, ...]
    splits: tuple[str, ...]
    set_aside: tuple[SetAside, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Item:
    """One usable image.

    `path` is relative to the data root with forward slashes, and always printable; `label` an index into the classes;
    `digest` the hexadecimal BLAKE2b (16 bytes) of shape and decoded RGB pixels; `row` its place in `Pixels`.
    """

    path: str
    label: int
    digest: str
    row: int


@dataclass(frozen=True)
class Duplicate:
    """Images with exactly the same decoded pixels; the fields run side by side, `labels` are class names."""

    paths: tuple[str, ...]
    splits: tuple[str, ...]
    labels: tuple[str, ...]

    @property
    def conflicting(self) -> bool:
        """Whether the same picture stands in more than one class."""
        return len(set(self.labels)) > 1

    @property
    def across(self) -> bool:
        """Whether the same picture stands in more than one split."""
        return len(set(self.splits)) > 1


@dataclass(frozen=True)
class DataSet:
    """A data set that can be trained on: every class has a usable training image.

    `made` are the splits that Inarch made, the others were the user's. `digest` depends on the classes and on pixels,
    label and split of every item, and on nothing else: neither on file names nor on the place or order of files.
    The items of a split are ordered by their digests, so that content alone decides the order of training.
    """

    classes: tuple[str, ...]
    train: tuple[Item, ...]
    validation: tuple[Item, ...]
    test: tuple[Item, ...]
    made: tuple[str, ...]
    set_aside: tuple[SetAside, ...]
    duplicates: tuple[Duplicate, ...]
    warnings: tuple[str, ...]
    digest: str
    pixels: Pixels | None

    def split(self, name: str) -> tuple[Item, ...]:
        """The items of "train", "validation" or "test"."""
        if name not in SPLITS:
            raise UsageError(f"There is no split {name!r}.", f"Splits are {', '.join(SPLITS)}.")
        items: tuple[Item, ...] = getattr(self, name)
        return items

    def labels(self, split: str) -> NDArray[np.int64]:
        """Class indices of a split, shape [items]."""
        return np.array([item.label for item in self.split(split)], dtype=np.int64)

    def rows(self, split: str) -> NDArray[np.int64]:
        """Rows in `Pixels` of a split, shape [items]."""
        return np.array([item.row for item in self.split(split)], dtype=np.int64)

    def counts(self, split: str) -> NDArray[np.int64]:
        """Number of images of each class in a split, shape [classes]."""
        return np.bincount(self.labels(split), minlength=len(self.classes)).astype(np.int64)

    def missing(self, split: str) -> tuple[str, ...]:
        """Classes of which a split has no image."""
        return tuple(name for name, count in zip(self.classes, self.counts(split), strict=True) if count == 0)

    def row_digests(self) -> tuple[str, ...]:
        """Digest of every image by its row in `Pixels`: what `Views` asks for."""
        items = sorted((item for name in SPLITS for item in self.split(name)), key=lambda item: item.row)
        return tuple(item.digest for item in items)


def printable(name: str) -> str:
    """A file name as text that can be encoded: bytes that are not UTF-8 (surrogates in Python) become \\xNN."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def some(names: Sequence[str], limit: int = 5) -> str:
    """The first names in quotes, and how many more there are."""
    shown = ", ".join(f"'{name}'" for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
