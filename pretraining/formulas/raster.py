"""From places and random numbers to pixels: filled outlines, lines, smooth noise. Pillow does the drawing.

Everything is drawn at twice the size and reduced, for edges that are not jagged.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

from formulas.formula import Plane, Points

FINER = 2


@cache
def grid(size: int) -> tuple[Plane, Plane]:
    """x and y of the middle of each pixel, -1 to 1; shared, so never to be written to."""
    ticks = (np.arange(size, dtype=np.float32) + 0.5) * (2.0 / size) - 1.0
    x, y = np.meshgrid(ticks, ticks)
    x.setflags(write=False)
    y.setflags(write=False)
    return x, y


def filled(outlines: Iterable[Points], size: int) -> Plane:
    """Coverage of closed outlines; one inside another is cut out of it, and so on in turn."""
    side = FINER * size
    image = Image.new("L", (side, side))
    pen = ImageDraw.Draw(image)
    ink = 255
    for points in outlines:
        pen.polygon(_pixels(points, side), fill=ink)
        ink = 255 - ink
    return _reduced(image)


def united(outlines: Iterable[Points], size: int) -> Plane:
    """Coverage of closed outlines side by side or one over another."""
    side = FINER * size
    image = Image.new("L", (side, side))
    pen = ImageDraw.Draw(image)
    for points in outlines:
        pen.polygon(_pixels(points, side), fill=255)
    return _reduced(image)


def lines(curves: Iterable[Points], width: float, size: int) -> Plane:
    """Coverage of open curves; `width` in units of the plane, at least a pixel."""
    side = FINER * size
    thickness = max(FINER, round(width * side / 2))
    image = Image.new("L", (side, side))
    pen = ImageDraw.Draw(image)
    for points in curves:
        pixels = _pixels(points, side)
        pen.line(pixels, fill=255, width=thickness)
        if thickness > 3 * FINER:  # Pillow leaves notches where wide pieces meet at an angle
            for place in range(0, len(pixels), 2):
                pen.circle(pixels[place : place + 2], thickness / 2, fill=255)
    return _reduced(image)


def _pixels(points: Points, side: int) -> list[float]:
    flat: list[float] = ((points + 1.0) * (side / 2)).ravel().tolist()
    return flat


def _reduced(image: Image.Image) -> Plane:
    return np.asarray(image.reduce(FINER), dtype=np.float32) * np.float32(1 / 255)


def smooth_noise(random: Generator, size: int, cells: float, *, angle: float = 0.0, stretch: float = 1.0) -> Plane:
    """Noise of mean 0 and deviation about 1 that changes over `size / cells` pixels.

    Random numbers at the corners of cells, turned by `angle`, drawn out by `stretch` along one axis, and interpolated.
    """
    wide, high = cells / stretch**0.5, cells * stretch**0.5
    columns, rows = int(1.5 * wide) + 5, int(1.5 * high) + 5
    corners = Image.fromarray(random.standard_normal((rows, columns), dtype=np.float32))
    cosine, sine = np.cos(angle) / size, np.sin(angle) / size
    a, b, d, e = cosine * wide, -sine * wide, sine * high, cosine * high
    middle = size / 2
    c, f = columns / 2 - (a + b) * middle, rows / 2 - (d + e) * middle
    found = corners.transform(
        (size, size), Image.Transform.AFFINE, (a, b, c, d, e, f), resample=Image.Resampling.BICUBIC
    )
    return np.asarray(found) * np.float32(1.1)  # interpolating between corners narrows the spread


def fractal_noise(
    random: Generator, size: int, cells: float, slope: float, *, angle: float = 0.0, stretch: float = 1.0
) -> Plane:
    """Octaves of smooth noise from `cells` across up to the size of a pixel, each `2 ** -slope` times the last.

    Scaled to 0..1. A slope of 1 is what the spectrum of natural images has.
    """
    found = np.zeros((size, size), dtype=np.float32)
    weight = 1.0
    while cells < size and weight > 0.05:
        found += np.float32(weight) * smooth_noise(random, size, cells, angle=angle, stretch=stretch)
        cells, weight = 2 * cells, weight * 2.0**-slope
    return stretched(found)


def stretched(plane: Plane) -> Plane:
    """Shifted and scaled to lie from 0 to 1."""
    low, high = float(plane.min()), float(plane.max())
    return (plane - np.float32(low)) * np.float32(1.0 / max(high - low, 1e-6))


def blurred(plane: Plane, radius: float) -> Plane:
    """Blurred by a radius in pixels; values from 0 to 1."""
    image = Image.fromarray((np.clip(plane, 0, 1) * 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32) * np.float32(1 / 255)
