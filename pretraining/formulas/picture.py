"""From what a formula draws to an image as a camera might have taken it: material, background, light, blur, noise.

What tells a class is its outline or its pattern alone; everything here is drawn anew for every image.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from formulas.contours import ANGLES, blob
from formulas.formula import Drawn, Formula, Plane, pose
from formulas.raster import blurred, filled
from formulas.scenery import LUMINANCE, Picture, apart, background, colour, coloured, gradient, palette, surface

# The least difference of luminance between a thing and what is behind it, drawn between these.
CONTRAST = (0.1, 0.5)


def picture(formula: Formula, random: Generator, size: int) -> NDArray[np.uint8]:
    """One image [size, size, 3] of a class."""
    drawn = formula.draw(random, size)
    if drawn.shade is not None and drawn.coverage.min() == 1:
        found = _pattern(random, drawn, size)
    else:
        found = _thing(random, drawn, size)
    return _taken(random, found, size)


def _pattern(random: Generator, drawn: Drawn, size: int) -> Picture:
    """A texture: over the whole image, or on a large blob in front of something else."""
    assert drawn.shade is not None
    first = colour(random)
    last = apart(random, float(first @ LUMINANCE), random.uniform(*CONTRAST))
    found = coloured(drawn.shade, palette(random, first, last))
    if random.random() < 0.3:
        radii = blob(int(random.integers(1000)))
        outline = (radii / radii.max())[:, None] * np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1)
        region = filled([pose(random, scale=(0.9, 1.3)).place(outline)], size)
        found = _over(background(random, size), found, region)
    return found


def _thing(random: Generator, drawn: Drawn, size: int) -> Picture:
    """A thing in front of a background, of a material that stands out, with or without shadow and relief."""
    behind = background(random, size)
    luminance = float(behind.mean(axis=(0, 1)) @ LUMINANCE)
    first = apart(random, luminance, random.uniform(*CONTRAST))
    if drawn.shade is None:
        near = random.random() < 0.7
        last = np.clip(first + random.normal(0, 0.1, 3), 0, 1).astype(np.float32) if near else colour(random)
        shade = surface(random, size)
    else:
        last, shade = colour(random), drawn.shade
    found = coloured(shade, palette(random, first, last))
    look = random.random()
    if look < 0.25:
        found = found * _relief(random, drawn.coverage, size)[..., None]
    elif look < 0.4:
        down, right = random.integers(1, 2 + size // 16, 2)
        shadow = blurred(np.roll(drawn.coverage, (int(down), int(right)), (0, 1)), size / 40)
        behind = behind * (1 - np.float32(random.uniform(0.3, 0.8)) * shadow)[..., None]
    return _over(behind, found, drawn.coverage)


def _over(behind: Picture, front: Picture, coverage: Plane) -> Picture:
    return behind + coverage[..., None] * (front - behind)


def _relief(random: Generator, coverage: Plane, size: int) -> Plane:
    """Light on a thing that bulges, as if its blurred outline were its height: factors around 1."""
    height = blurred(coverage, size * random.uniform(0.02, 0.08))
    angle = random.uniform(0, 2 * np.pi)
    down, right = (
        slope * np.float32(part)
        for slope, part in zip(np.gradient(height), (np.sin(angle), np.cos(angle)), strict=True)
    )
    light: Plane = 1 + np.float32(random.uniform(0.05, 0.15) * size) * (down + right)
    return np.clip(light, 0.2, 1.8)


def _taken(random: Generator, found: Picture, size: int) -> NDArray[np.uint8]:
    """Uneven light, exposure, grey film, blur and noise, each in some of the images."""
    if random.random() < 0.3:
        found = found * (np.float32(0.5) + gradient(random, size))[..., None]
    if random.random() < 0.2:
        found = np.repeat((found @ LUMINANCE)[..., None], 3, axis=2)
    if random.random() < 0.4:
        found = found * np.float32(random.uniform(0.6, 1.4)) + np.float32(random.uniform(-0.15, 0.15))
    if random.random() < 0.4:
        noise = random.standard_normal(found.shape, dtype=np.float32)
        found = found + np.float32(random.uniform(0.01, 0.08)) * noise
    image = Image.fromarray((np.clip(found, 0, 1) * 255).astype(np.uint8))
    if random.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.3, size / 48)))
    return np.asarray(image)
