"""Decoded and resized images, kept so that no file is decoded twice: in memory, or beyond a budget in a file."""

from __future__ import annotations

import math
import os
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self, final

import numpy as np
from numpy.typing import NDArray

from inarch.data.images import resampling
from inarch.errors import DataError, UsageError

# Enough for some thousand images of 128 pixels. Of larger ones a training step takes so much memory and time that what
# lies in a file is better out of the way: reading it back is a thousandth of the step (docs/lab-notebook.md).
BUDGET = 384 << 20


@dataclass(frozen=True)
class PixelSize:
    """What kept images must cover, and where they are kept.

    Sides in pixels; `interpolation` as Pillow names it in lower case. Beyond `budget` bytes all images lie in one
    unnamed file of `folder` (None: the system's folder for temporary files), which vanishes with the process.
    """

    height: int
    width: int
    interpolation: str = "bilinear"
    budget: int = BUDGET
    folder: Path | None = None

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise UsageError(
                f"Images of {self.height} x {self.width} pixels cannot be kept.", "Give sides of 1 or more."
            )
        resampling(self.interpolation)


@final
class Pixels:
    """Images by row, each uint8 [height, width, 3] of its own size; not to be written to."""

    def __init__(self, images: Sequence[NDArray[np.uint8]] | ImageFile) -> None:
        self._images = images if isinstance(images, ImageFile) else list(images)

    @property
    def on_disk(self) -> bool:
        """Whether the images lie in a file rather than in memory."""
        return isinstance(self._images, ImageFile)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        return self._images[row]

    def size(self, row: int) -> tuple[int, int]:
        """Height and width of an image, which is not read for it."""
        height, width = self._images.shapes[row][:2] if isinstance(self._images, ImageFile) else self[row].shape[:2]
        return height, width

    @property
    def bytes(self) -> int:
        """Of all images."""
        if isinstance(self._images, ImageFile):
            return sum(map(math.prod, self._images.shapes))
        return sum(image.nbytes for image in self._images)

    def close(self) -> None:
        """Give memory or file back; no image can be had any more."""
        if isinstance(self._images, ImageFile):
            self._images.close()
        self._images = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@final
class ImageFile:
    """Images one after the other in an open file, read one at a time.

    Not mapped: the pages of a mapping that were looked at count as memory of the process, which after an epoch would
    be all of them. What is read stays in the system's cache as long as nobody else needs the memory.
    """

    def __init__(self, file: IO[bytes], shapes: Sequence[tuple[int, ...]]) -> None:
        """`shapes` in the order of the file, which may be closed afterwards: this holds it by a descriptor of its own,
        given back with `close` or with the last reference."""
        self.shapes = list(shapes)
        self._starts = np.cumsum([0, *(math.prod(shape) for shape in shapes)]).tolist()
        self._file = os.dup(file.fileno())
        self.close = weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        image = np.empty(self.shapes[row], dtype=np.uint8)
        rest, place = image.data.cast("B"), self._starts[row]
        try:
            # Each read says its place: threads and forked processes share the descriptor, and with it a position.
            while rest and (read := os.preadv(self._file, [rest], place)):
                rest, place = rest[read:], place + read
        except OSError as error:
            raise DataError(
                f"The kept images cannot be read back: {error.strerror or error}.",
                "The disk of the run folder has a fault: choose another --out.",
            ) from error
        if rest:
            raise DataError("The file of kept images is shorter than it was.", "Run the same command again.")
        return image


@final
class PixelWriter:
    """Collects images in the order of their rows; `finish` makes `Pixels` of them."""

    def __init__(self, size: PixelSize) -> None:
        self._size = size
        self._images: list[NDArray[np.uint8]] = []
        self._shapes: list[tuple[int, ...]] = []
        self._bytes = 0
        self._file: IO[bytes] | None = None

    def add(self, image: NDArray[np.uint8]) -> None:
        """Append one image, uint8 [height, width, 3]."""
        self._images.append(image)
        self._shapes.append(image.shape)
        self._bytes += image.nbytes
        if self._file is not None or self._bytes > self._size.budget:
            self._spill()

    def _spill(self) -> None:
        try:
            if self._file is None:
                # Unnamed: a killed process leaves nothing behind.
                self._file = tempfile.TemporaryFile(dir=self._size.folder)  # noqa: SIM115
            for image in self._images:
                self._file.write(np.ascontiguousarray(image).data)
            self._images.clear()
        except OSError as error:
            self.discard()
            where = self._size.folder or tempfile.gettempdir()
            raise DataError(
                f"The decoded images cannot be kept in {where}: {error.strerror or error}.",
                "Make room there, choose another folder, or allow more memory for them.",
            ) from None

    def discard(self) -> None:
        """Give up: nothing is kept."""
        self._images.clear()
        if self._file is not None:
            self._file.close()

    def finish(self) -> Pixels:
        """The images added so far, by row."""
        if self._file is None:
            return Pixels(self._images)
        with self._file as file:
            file.flush()
            return Pixels(ImageFile(file, self._shapes))
