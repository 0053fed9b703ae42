"""Textures of repeated things: motifs on lattices (dots, checks, bricks, ...), and the cells around scattered seeds.

Cells are Worley's ("A cellular texture basis function", SIGGRAPH 1996).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.random import Generator

from formulas.formula import Drawn, Plane
from formulas.raster import stretched
from formulas.textures import turned

MOTIFS = ("dots", "rings", "squares", "crosses", "bars", "triangles", "chevrons", "checks")
LATTICES = ("rows", "hexagons", "bricks", "scatter")
METRICS = ("round", "square", "diamond")
CELL_LOOKS = ("flat", "edged", "domed", "veined")
HALF = np.float32(0.5)


@final
@dataclass(frozen=True)
class Lattice:
    """One motif in each cell of a lattice; how many cells, how large the motif, and which cells are empty varies."""

    name: str
    motif: str
    lattice: str

    def draw(self, random: Generator, size: int) -> Drawn:
        u, v = turned(random, size)
        cells = np.float32(random.uniform(2, size / 14))
        u, v = u * cells + np.float32(random.random()), v * cells + np.float32(random.random())
        if self.lattice == "hexagons":
            v *= np.float32(2 / 3**0.5)
        if self.lattice == "bricks":
            u *= HALF
        row = np.floor(v)
        if self.lattice in ("hexagons", "bricks"):
            u += HALF * (row % 2)
        column = np.floor(u)
        x, y = u - column - HALF, v - row - HALF
        kept: Plane | bool = True
        if self.lattice == "scatter":
            cell = ((column * 7 + row * 13).astype(np.int64)) % 61
            shifts, empty = random.uniform(-0.22, 0.22, (2, 61)).astype(np.float32), random.random(61) < 0.25
            x, y, kept = x + shifts[0][cell], y + shifts[1][cell], ~empty[cell]
        radius, softness = random.uniform(0.2, 0.4), float(cells) * 2.5 / size
        found = motif(self.motif, x, y, np.float32(radius), (row + column) % 2)
        shade = np.clip(HALF - found / np.float32(softness), 0, 1) * kept
        return Drawn(np.ones((size, size), dtype=np.float32), shade.astype(np.float32))


def motif(kind: str, x: Plane, y: Plane, radius: np.float32, odd: Plane) -> Plane:
    """About how far a place of a cell (-0.5 to 0.5) lies outside of the motif; below 0 inside of it."""
    wide, high = np.abs(x), np.abs(y)
    if kind == "dots":
        return np.sqrt(x * x + y * y) - radius
    if kind == "rings":
        return np.abs(np.sqrt(x * x + y * y) - radius) - radius * np.float32(0.3)
    if kind == "squares":
        return np.maximum(wide, high) - radius
    if kind == "crosses":
        return np.maximum(np.minimum(wide, high) - radius * np.float32(0.35), np.maximum(wide, high) - radius)
    if kind == "bars":
        return np.maximum(wide - radius * np.float32(1.1), high - radius * np.float32(0.35))
    if kind == "triangles":
        return np.maximum(np.float32(0.87) * wide + HALF * y, -y) - radius * HALF
    if kind == "chevrons":
        return np.maximum(np.abs(y + wide - np.float32(0.2)) - radius * HALF, wide - np.float32(0.45))
    return np.where(odd > 0, np.minimum(wide, high) - HALF, HALF - np.maximum(wide, high))


@final
@dataclass(frozen=True)
class Cells:
    """The plane parted among scattered seeds: each place belongs to the nearest, by one of three measures."""

    name: str
    metric: str
    look: str

    def draw(self, random: Generator, size: int) -> Drawn:
        u, v = turned(random, size)
        count = int(random.integers(8, 28))
        seeds = random.uniform(-1.5, 1.5, (2, 2 * count)).astype(np.float32)
        x, y = np.abs(u[..., None] - seeds[0]), np.abs(v[..., None] - seeds[1])
        if self.metric == "round":
            far = np.sqrt(x * x + y * y)
        else:
            far = np.maximum(x, y) if self.metric == "square" else x + y
        nearest = far.argmin(axis=2)
        first = np.take_along_axis(far, nearest[..., None], 2)[..., 0]
        if self.look == "domed":
            shade = stretched(-first)
        elif self.look == "flat":
            shade = random.random(2 * count, dtype=np.float32)[nearest]
        else:
            np.put_along_axis(far, nearest[..., None], np.float32(9), 2)
            gap = far.min(axis=2) - first
            width = np.float32(random.uniform(0.04, 0.12))
            shade = np.clip(gap / width, 0, 1) if self.look == "edged" else stretched(np.sqrt(gap))
        return Drawn(np.ones((size, size), dtype=np.float32), shade)


def lattices() -> list[Lattice]:
    """32 classes."""
    places = {"rows": "in rows", "hexagons": "in hexagons", "bricks": "like bricks", "scatter": "scattered"}
    return [Lattice(f"{kind} {places[lattice]}", kind, lattice) for kind in MOTIFS for lattice in LATTICES]


def cells() -> list[Cells]:
    """12 classes."""
    return [Cells(f"cells, {metric}, {look}", metric, look) for metric in METRICS for look in CELL_LOOKS]
