"""Closed contours around a middle, r(angle): polygons, stars, gears, roses, superformula, waves of several frequencies.

From RCDB, the radial contour database (Kataoka et al., "Replacing labeled real-image datasets with auto-generated
contours", CVPR 2022, arXiv 2206.09132), and VisualAtom, whose orbits are sinusoidal waves along a circle (Takashima et
al., CVPR 2023, arXiv 2303.01112). The superformula is Gielis' (American Journal of Botany 90, 2003).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from formulas.formula import Drawn, Points, pose
from formulas.raster import filled, lines

CORNERS = 144
ANGLES = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
Radii = NDArray[np.float64]


@final
@dataclass(frozen=True)
class Contour:
    """radii: [144] at equal angles, 1 at the most. An image shows it solid, as a line, with a hole, or in rings."""

    name: str
    radii: Radii

    def draw(self, random: Generator, size: int) -> Drawn:
        wobble = 1 + 0.05 * np.sin(random.integers(1, 4) * ANGLES + random.uniform(0, 2 * np.pi)) * random.random()
        outline = (self.radii * wobble)[:, None] * np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1)
        at = pose(random)
        look = random.random()
        if look < 0.55:
            return Drawn(filled([at.place(outline)], size))
        if look < 0.8:
            return Drawn(lines([closed(at.place(outline))], random.uniform(0.04, 0.2), size))
        rings = 2 if look < 0.9 else int(random.integers(3, 7))
        inner = np.linspace(1, random.uniform(0.2, 0.6), rings)
        return Drawn(filled([at.place(outline * share) for share in inner], size))


@final
@dataclass(frozen=True)
class Atom:
    """Orbits with two waves: their frequencies are the class; how many orbits, how deep the waves, what varies."""

    name: str
    frequencies: tuple[int, int]

    def draw(self, random: Generator, size: int) -> Drawn:
        count = int(random.integers(2, 9))
        first, second = self.frequencies
        phase = random.uniform(0, 2 * np.pi)
        curves = []
        at = pose(random)
        for share in np.linspace(1, random.uniform(0.15, 0.5), count):
            depths = random.uniform(0.08, 0.2, 2)
            waves = depths[0] * np.sin(first * ANGLES) + depths[1] * np.sin(second * ANGLES + phase)
            radii = share * (0.75 + waves)
            curves.append(closed(at.place(radii[:, None] * np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1))))
        return Drawn(lines(curves, random.uniform(0.03, 0.08), size))


def closed(points: Points) -> Points:
    return np.concatenate([points, points[:1]])


def contours() -> list[Contour]:
    """48 classes."""
    counted = {3: "triangle", 4: "square", 5: "pentagon", 6: "hexagon", 7: "heptagon", 8: "octagon"}
    named: list[tuple[str, Radii]] = [(name, polygon(n)) for n, name in counted.items()]
    named += [(f"star of {n} points", polygon(n, inner=0.45)) for n in range(3, 9)]
    named += [(f"gear of {n} teeth", 1 + 0.12 * np.tanh(6 * np.sin(n * ANGLES))) for n in (6, 8, 10, 12)]
    named += [(f"rose of {n} petals", 0.15 + np.abs(np.cos(n * ANGLES / 2))) for n in range(3, 7)]
    named += [(f"superformula, symmetry {2 + n // 2}, no. {1 + n % 2}", superformula(n)) for n in range(12)]
    named += [(f"blob no. {n + 1}", blob(n)) for n in range(16)]
    return [Contour(name, radii / radii.max()) for name, radii in named]


def atoms() -> list[Atom]:
    """24 classes: pairs of frequencies."""
    pairs = [(a, b) for a in range(2, 11) for b in range(a + 2, 20, 5)][:24]
    return [Atom(f"atom of frequencies {a} and {b}", (a, b)) for a, b in pairs]


def polygon(n: int, inner: float | None = None) -> Radii:
    """A regular polygon; with `inner` a star whose inner corners are at that share of the radius."""
    corners = n if inner is None else 2 * n
    radii = np.ones(corners) if inner is None else np.tile([1.0, inner], n)
    places = radii * np.exp(2j * np.pi * np.arange(corners) / corners)
    along = np.append(places, places[0])
    part = np.linspace(0, corners, 20 * CORNERS)
    numbers = np.arange(corners + 1)
    sides = np.interp(part, numbers, along.real) + 1j * np.interp(part, numbers, along.imag)
    angles = np.unwrap(np.angle(sides))
    found: Radii = np.interp(ANGLES, angles, np.abs(sides))
    return found


def superformula(number: int) -> Radii:
    """Exponents from the number; symmetry 2, 2, 3, 3, 4, ..."""
    random = np.random.default_rng([2, number])
    symmetry = 2 + number // 2
    n1, n2, n3 = random.uniform(0.4, 4), *random.uniform(0.5, 8, 2)
    quarter = symmetry * ANGLES / 4
    sums = np.abs(np.cos(quarter)) ** n2 + np.abs(np.sin(quarter)) ** n3
    found: Radii = np.clip(sums ** (-1 / n1), 0, np.percentile(sums ** (-1 / n1), 95))
    return found / found.max() * 0.85 + 0.15


def blob(number: int) -> Radii:
    """A circle with five waves along it, weaker the higher their frequency."""
    random = np.random.default_rng([3, number])
    frequencies = np.arange(1, 6)
    depths, phases = random.uniform(0.15, 0.5, 5) / frequencies**0.7, random.uniform(0, 2 * np.pi, 5)
    waves = np.sin(frequencies[:, None] * ANGLES + phases[:, None])
    return np.clip(1 + depths @ waves, 0.2, None)
