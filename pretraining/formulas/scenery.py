"""What is behind, and what things are made of: colours, gradients, noise, dead leaves. None of it tells a class.

Dead leaves, opaque shapes that fall on each other, have the edges and occlusions of natural images (Lee, Mumford and
Huang, International Journal of Computer Vision 41, 2001).
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from formulas.formula import Plane
from formulas.raster import fractal_noise, grid
from formulas.textures import turned, wave

Colour = NDArray[np.float32]
"""Red, green and blue, 0 to 1: [3]."""
Picture = NDArray[np.float32]
"""[size, size, 3], 0 to 1."""

LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def colour(random: Generator) -> Colour:
    """Any brightness; most colours are weak, as in photographs, some strong."""
    strength = random.random() ** 2
    hue = random.random(3)
    value = random.random() * (1 - strength) + strength * hue
    return np.clip(value, 0, 1).astype(np.float32)


def apart(random: Generator, from_luminance: float, least: float) -> Colour:
    """A colour whose luminance differs by at least `least` from another, if one is met in six draws; else the best."""
    drawn = [colour(random) for _ in range(6)]
    gaps = [abs(float(c @ LUMINANCE) - from_luminance) for c in drawn]
    return next((c for c, gap in zip(drawn, gaps, strict=True) if gap >= least), drawn[int(np.argmax(gaps))])


def palette(random: Generator, first: Colour, last: Colour) -> Picture:
    """256 colours from the first to the last, in one of two cases by way of one or two others: [1, 256, 3]."""
    stops = [first, *(colour(random) for _ in range(random.choice([0, 0, 0, 1, 1, 2]))), last]
    places = np.linspace(0, 1, len(stops))
    ticks = np.linspace(0, 1, 256)
    return np.stack([np.interp(ticks, places, channel) for channel in np.stack(stops, 1)], 1).astype(np.float32)[None]


def coloured(shade: Plane, colours: Picture) -> Picture:
    """The colours of a palette for a plane of 0 to 1."""
    found: Picture = colours[0][np.clip(shade * 255, 0, 255).astype(np.uint8)]
    return found


def gradient(random: Generator, size: int) -> Plane:
    """From 0 to 1 across the image, in any direction."""
    x, y = grid(size)
    angle = random.uniform(0, 2 * np.pi)
    along = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y
    return np.clip(along * np.float32(0.4) + np.float32(0.5), 0, 1)


def surface(random: Generator, size: int) -> Plane:
    """A shade that any thing may have: even, a gradient, noise, or stripes."""
    kind = random.random()
    if kind < 0.35:
        return np.zeros((size, size), dtype=np.float32)
    if kind < 0.6:
        return gradient(random, size)
    if kind < 0.85:
        return fractal_noise(random, size, random.uniform(1.5, 6), random.uniform(0.5, 1.5))
    u, _ = turned(random, size)
    return wave("smooth" if random.random() < 0.5 else "square", u * np.float32(random.uniform(2, size / 12)))


def background(random: Generator, size: int) -> Picture:
    """Plain, shaded, noisy, or full of leaves."""
    if random.random() < 0.2:
        return leaves(random, size)
    first = colour(random)
    if random.random() < 0.12:
        first = np.full(3, float(random.random() < 0.6), dtype=np.float32)  # paper or blackboard
    near = random.random() < 0.6
    last = np.clip(first + random.normal(0, 0.12, 3), 0, 1).astype(np.float32) if near else colour(random)
    return coloured(surface(random, size), palette(random, first, last))


def leaves(random: Generator, size: int) -> Picture:
    """Up to thirty ellipses and polygons, large ones rare, each of one colour."""
    side = 2 * size
    image = Image.new("RGB", (side, side), _bytes(colour(random)))
    pen = ImageDraw.Draw(image)
    for _ in range(random.integers(6, 30)):
        x, y = random.uniform(0, side, 2)
        radius = side * min(0.5, 0.06 / random.uniform(0.1, 1))
        ink = _bytes(colour(random))
        if random.random() < 0.5:
            wide = radius * random.uniform(0.4, 1)
            pen.ellipse((x - wide, y - radius, x + wide, y + radius), fill=ink)
        else:
            angles = np.sort(random.uniform(0, 2 * np.pi, random.integers(3, 6)))
            corners = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], 1)
            pen.polygon(corners.ravel().tolist(), fill=ink)
    return np.asarray(image.reduce(2), dtype=np.float32) * np.float32(1 / 255)


def _bytes(value: Colour) -> tuple[int, int, int]:
    red, green, blue = (int(v) for v in value * 255)
    return red, green, blue
