"""Decoded and resized images, kept so that no file is decoded twice: in memory, or beyond a budget in a mapped file."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self, final

import numpy as np
from numpy.typing import NDArray

from inarch.data.images import resampling
from inarch.errors import DataError, UsageError

BUDGET = 2 << 30


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

    def __init__(self, images: Sequence[NDArray[np.uint8]], mapped: bool = False) -> None:
        """`mapped` says that the images lie in a file rather than in memory."""
        self._images = list(images)
        self.mapped = mapped

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        return self._images[row]

    def close(self) -> None:
        """Give memory or file back; no image can be had any more."""
        self._images.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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
            # The mapping outlives the open file, and the file's space is given back with the mapping.
            everything = np.asarray(np.memmap(file, dtype=np.uint8, mode="r+"))
        ends = np.cumsum([int(np.prod(shape)) for shape in self._shapes])
        parts = np.split(everything, ends[:-1])
        return Pixels([part.reshape(shape) for part, shape in zip(parts, self._shapes, strict=True)], mapped=True)
