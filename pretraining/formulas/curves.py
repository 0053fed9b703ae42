"""Curves drawn as lines: Lissajous figures, trochoids, spirals, waves; and glyphs, a few smooth strokes each.

Glyphs are made as handwriting is: their classes differ in where the pen goes, and vary as hands do. After the strokes
of Omniglot's characters (Lake et al., Science 350, 2015), but made up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from formulas.formula import Drawn, Points, pose
from formulas.raster import lines

PLACES = 120
# Straight pieces that a part of a stroke is drawn in.
STEPS = 12
ALONG = np.linspace(0, 1, PLACES)
ROUND = 2 * np.pi * ALONG


@final
@dataclass(frozen=True)
class Curve:
    """points: within the unit square, in the order in which they are joined. Its phase is that of the class."""

    name: str
    points: Points

    def draw(self, random: Generator, size: int) -> Drawn:
        bend = random.normal(0, 0.05, 2) * np.sin(np.pi * self.points[:, ::-1] + random.uniform(0, 2 * np.pi))
        at = pose(random, scale=(0.5, 0.95))
        return Drawn(lines([at.place(self.points + bend)], random.uniform(0.04, 0.14), size))


@final
@dataclass(frozen=True)
class Stroke:
    """A pen's way in parts of even curvature. Each part has a length, a turn along it, and one before it (radians)."""

    start: Points
    heading: float
    lengths: NDArray[np.float64]
    turns: NDArray[np.float64]
    corners: NDArray[np.float64]

    def path(self, random: Generator) -> Points:
        """[places, 2]; lengths and turns vary by about an eighth, and where it starts a little."""
        count = len(self.lengths)
        lengths = self.lengths * np.exp(random.normal(0, 0.12, count))
        turns = self.turns * random.normal(1, 0.12, count) + random.normal(0, 0.08, count)
        along = np.repeat(turns / STEPS, STEPS)
        along[::STEPS] += self.corners
        headings = self.heading + random.normal(0, 0.1) + np.cumsum(along)
        steps = np.repeat(lengths / STEPS, STEPS)[:, None] * np.stack([np.cos(headings), np.sin(headings)], 1)
        start = self.start + random.normal(0, 0.05, (1, 2))
        return np.concatenate([start, start + np.cumsum(steps, axis=0)])


@final
@dataclass(frozen=True)
class Glyph:
    """One to three strokes."""

    name: str
    strokes: tuple[Stroke, ...]

    def draw(self, random: Generator, size: int) -> Drawn:
        """Never turned far nor mirrored: p, q, b and d are four."""
        paths = [stroke.path(random) for stroke in self.strokes]
        every = np.concatenate(paths)
        low, high = every.min(axis=0), every.max(axis=0)
        # Narrow ones stay narrow, though not as narrow as they might be.
        half = np.maximum((high - low) / 2, 0.35 * (high - low).max() / 2)
        at = pose(random, turn=0.3, scale=(0.5, 0.95), mirrored=False)
        drawn = [at.place((path - (low + high) / 2) * 0.75 / half.max() ** 0.6 / half**0.4) for path in paths]
        return Drawn(lines(drawn, random.uniform(0.08, 0.3), size))


def glyphs(number_of_classes: int) -> list[Glyph]:
    """A third of one stroke, of two and of three each."""
    found = []
    for number in range(number_of_classes):
        random = np.random.default_rng([4, number])
        amount = 1 + number % 3
        strokes = tuple(
            _stroke(random, int(random.integers(2, 5)) if amount == 1 else 1 + i % 2) for i in range(amount)
        )
        found.append(Glyph(f"glyph of {amount} stroke{'s' * (amount > 1)}, no. {1 + number // 3}", strokes))
    return found


def _stroke(random: Generator, parts: int) -> Stroke:
    """Straight parts, bows and loops, at times with a corner between two of them."""
    turns = random.choice([0.0, 0.5, -0.5, 1.0, -1.0, 1.5, -1.5], parts) * np.pi
    corners = random.choice([0.0, 0.0, 0.6, -0.6, 0.8, -0.8], parts) * np.pi
    start = random.uniform(-0.6, 0.6, (1, 2))
    return Stroke(start, random.uniform(-np.pi, np.pi), random.uniform(0.6, 1.6, parts), turns, corners)


def curves() -> list[Curve]:
    """32 classes."""
    named: list[tuple[str, Points]] = []
    for a, b in ((1, 2), (1, 3), (2, 3), (3, 4), (3, 5), (4, 5)):
        named.append((f"Lissajous figure {a}:{b}", _pairs(np.sin(a * ROUND + 0.5 * np.pi), np.sin(b * ROUND))))
    for k in range(3, 11):
        r = 1 / k
        inner = _pairs(
            (1 - r) * np.cos(ROUND) + 1.4 * r * np.cos((k - 1) * ROUND),
            (1 - r) * np.sin(ROUND) - 1.4 * r * np.sin((k - 1) * ROUND),
        )
        named.append((f"hypotrochoid of {k} loops", inner))
    for k in range(2, 8):
        r = 1 / k
        outer = _pairs(
            (1 + r) * np.cos(ROUND) - 1.6 * r * np.cos((k + 1) * ROUND),
            (1 + r) * np.sin(ROUND) - 1.6 * r * np.sin((k + 1) * ROUND),
        )
        named.append((f"epitrochoid of {k} loops", outer))
    for turns in (1.25, 2.0, 3.0, 4.5):
        named.append((f"spiral of {turns:g} turns", _polar(ALONG, turns)))
    for turns in (1.5, 2.5):
        named.append((f"logarithmic spiral of {turns:g} turns", _polar(np.exp(2.5 * (ALONG - 1)), turns)))
    for periods in (1, 2, 4):
        x = 2 * ALONG - 1
        phase = 2 * np.pi * periods * ALONG
        named.append((f"wave of {periods} periods", _pairs(x, 0.45 * np.sin(phase))))
        named.append((f"zigzag of {periods} periods", _pairs(x, 0.9 / np.pi * np.arcsin(np.sin(phase)))))
    return [Curve(name, points / np.abs(points).max()) for name, points in named]


def _pairs(x: NDArray[np.float64], y: NDArray[np.float64]) -> Points:
    return np.stack([x, y], 1)


def _polar(radii: NDArray[np.float64], turns: float) -> Points:
    return _pairs(radii * np.cos(turns * ROUND), radii * np.sin(turns * ROUND))
