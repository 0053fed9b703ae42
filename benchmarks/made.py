"""Images that are made by a benchmark: noise with a colour and a pattern that tell its class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

# Training images a class decide the size of the set; validation and test take a fifth of it each.
SHARES = {"train": 1.0, "val": 0.2, "test": 0.2}


def make_images(folder: Path, *, classes: int, a_class: int, side: int) -> Path:
    """JPEG files in class folders below `train`, `val` and `test`, the same every time; finished folders are kept."""
    if (folder.parent / f"{folder.name}.complete").exists():
        return folder
    random = np.random.default_rng(0)
    colours = random.integers(40, 216, (classes, 3))
    for split, share in SHARES.items():
        for number in range(classes):
            place = folder / split / f"class-{number:04d}"
            place.mkdir(parents=True, exist_ok=True)
            for image in range(max(1, round(share * a_class))):
                make_image(random, colours[number], side).save(place / f"{image:05d}.jpg", quality=90)
    (folder.parent / f"{folder.name}.complete").touch()
    return folder


def make_image(random: np.random.Generator, colour: np.ndarray, side: int) -> Image.Image:
    """One image: coarse noise around a colour, enlarged, so that the file is about as large as a photograph's."""
    coarse = np.clip(colour + random.normal(0, 40, (side // 4, side // 4, 3)), 0, 255).astype(np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
