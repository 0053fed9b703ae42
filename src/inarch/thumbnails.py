"""Small pictures of a data set's images, kept in the run folder for its report."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inarch.data.images import centre_crop
from inarch.data.values import Item
from inarch.errors import RunFolderError
from inarch.results.evidence import THUMBNAILS

SIDE = 96
# Small rather than fine: hundreds of them stand in one page.
_QUALITY = 60


def thumbnail(image: NDArray[np.uint8]) -> bytes:
    """The centre of uint8 [H, W, 3] as a square WebP of at most `SIDE` pixels; never enlarged."""
    side = min(image.shape[:2])
    square = Image.fromarray(np.ascontiguousarray(centre_crop(image, side, side)))
    if side > SIDE:
        square = square.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    square.save(stream, "WEBP", quality=_QUALITY, method=4)
    return stream.getvalue()


def write_thumbnails(folder: Path, wanted: Mapping[str, NDArray[np.uint8]]) -> None:
    """Keeps a thumbnail of each wanted image under its name in `folder`/thumbnails, and no others.

    What a file manager puts beside them is left alone.
    Raises `RunFolderError` where they cannot be written.
    """
    place = folder / THUMBNAILS
    try:
        place.mkdir(exist_ok=True)
        for name, image in wanted.items():
            if not (place / name).exists():
                beside = place / f".{name}.part"
                beside.write_bytes(thumbnail(image))
                os.replace(beside, place / name)
        for file in place.iterdir():
            if file.suffix in (".webp", ".part") and file.name not in wanted:
                file.unlink()
    except OSError as error:
        raise RunFolderError(
            f"{place} cannot be written: {error.strerror or error}. Nothing recorded before is lost.",
            "Free some space on the disk or make the folder writable, then run the same command again.",
        ) from error


def name_of(item: Item) -> str:
    """The name of the thumbnail of an item of a data set: equal pixels, equal names."""
    return f"{item.digest}.webp"
