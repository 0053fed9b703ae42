"""Textures that fill the image: gratings (one to three directions of waves, as in Gabor's filters) and noise.

Noise with the spectra of natural images, and what painters of procedural textures make of it (Perlin, "An image
synthesizer", SIGGRAPH 1985); that such noise teaches networks: Baradad et al., NeurIPS 2021, arXiv 2106.05963.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.random import Generator

from formulas.formula import Drawn, Plane
from formulas.raster import fractal_noise, grid, smooth_noise, stretched

PLAIDS = ((0.0, 90.0), (0.0, 45.0), (0.0, 60.0, 120.0))
WAVES = ("smooth", "square", "sawtooth", "thin-line")
# Where waves meet: their product, or the greater of them.
RULES = ("product", "greatest")
LOOKS = ("plain", "ridged", "patches", "terraces", "marble", "grains")


def turned(random: Generator, size: int, turn: float = np.pi) -> tuple[Plane, Plane]:
    """Coordinates of the pixels turned at random, with half of the images bent by smooth noise."""
    x, y = grid(size)
    angle = random.uniform(-turn, turn)
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    u, v = cosine * x - sine * y, sine * x + cosine * y
    if random.random() < 0.5:
        bend = np.float32(random.uniform(0.02, 0.12))
        u = u + bend * smooth_noise(random, size, random.uniform(1, 3))
        v = v + bend * smooth_noise(random, size, random.uniform(1, 3))
    return u, v


@final
@dataclass(frozen=True)
class Grating:
    """Waves in the directions `angles` (degrees, against each other), joined by a rule; all frequencies vary alike."""

    name: str
    angles: tuple[float, ...]
    wave: str
    rule: str

    def draw(self, random: Generator, size: int) -> Drawn:
        u, v = turned(random, size)
        frequency = np.float32(random.uniform(2.5, size / 7))
        found: Plane | None = None
        for degrees in self.angles:
            radians = np.deg2rad(degrees)
            along = np.float32(np.cos(radians)) * u + np.float32(np.sin(radians)) * v
            one = wave(self.wave, along * (frequency / 2) + np.float32(random.random()))
            found = one if found is None else joined(self.rule, found, one)
        assert found is not None
        return Drawn(np.ones((size, size), dtype=np.float32), stretched(found))


def wave(kind: str, phase: Plane) -> Plane:
    """0 to 1 along periods; `phase` counts them."""
    if kind == "sawtooth":
        return phase - np.floor(phase)
    smooth = np.float32(0.5) + np.float32(0.5) * np.sin(np.float32(2 * np.pi) * phase)
    if kind == "square":
        return np.clip(np.float32(4) * (smooth - np.float32(0.5)) + np.float32(0.5), 0, 1)
    return smooth**6 if kind == "thin-line" else smooth


def joined(rule: str, one: Plane, other: Plane) -> Plane:
    return one * other if rule == "product" else np.maximum(one, other)


@final
@dataclass(frozen=True)
class Noise:
    """Noise of several octaves. slope: how much weaker the finer ones are; stretch: how far it is drawn out."""

    name: str
    look: str
    slope: float
    stretch: float

    def draw(self, random: Generator, size: int) -> Drawn:
        angle, cells = random.uniform(0, np.pi), random.uniform(2, 5)
        found = fractal_noise(random, size, cells, self.slope, angle=angle, stretch=self.stretch)
        return Drawn(np.ones((size, size), dtype=np.float32), self._looked_at(random, size, found))

    def _looked_at(self, random: Generator, size: int, found: Plane) -> Plane:
        if self.look == "ridged":
            return stretched(-np.abs(found - np.float32(0.5)))
        if self.look == "patches":
            return np.clip((found - np.float32(random.uniform(0.42, 0.58))) * np.float32(15) + np.float32(0.5), 0, 1)
        if self.look == "terraces":
            steps = np.float32(random.uniform(4, 7))
            return found * steps - np.floor(found * steps)
        if self.look == "marble":
            u, _ = turned(random, size)
            return wave("smooth", u * np.float32(random.uniform(1, 3)) + np.float32(2.5) * found)
        if self.look == "grains":
            return np.maximum(found, random.random((size, size), dtype=np.float32)) ** 2
        return found


def gratings() -> list[Grating]:
    """28 classes: stripes of four waves, and plaids of two or three directions, crossed squarely or not."""
    found = [Grating(f"stripes, {kind}", (0.0,), kind, RULES[0]) for kind in WAVES]
    for angles in PLAIDS:
        degrees = " and ".join(f"{a:g}" for a in angles[1:])
        for kind in WAVES:
            for rule in RULES:
                found.append(Grating(f"plaid at {degrees} degrees, {kind}, {rule}", angles, kind, rule))
    return found


def noises() -> list[Noise]:
    """24 classes: six looks, rough or smooth, drawn out or not."""
    return [
        Noise(f"noise, {'rough' if slope < 1 else 'smooth'}{', drawn out' if stretch > 1 else ''}, {look}",
              look, slope, stretch)
        for look in LOOKS for slope in (0.6, 1.3) for stretch in (1.0, 5.0)
    ]  # fmt: skip
