"""A few equal things in an order: rings, rows, stairs, grids, pyramids. The order is the class, the things vary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.random import Generator

from formulas.contours import ANGLES, blob, polygon
from formulas.formula import Drawn, Points, pose
from formulas.raster import united


@final
@dataclass(frozen=True)
class Arrangement:
    """places: where the middles of the things lie, [count, 2]. room: half of the least distance between two."""

    name: str
    places: Points
    room: float

    def draw(self, random: Generator, size: int) -> Drawn:
        kind = random.integers(6)
        if kind == 5:
            radii = blob(int(random.integers(1000, 2000)))
        else:
            radii = polygon(*((3, None), (4, None), (24, None), (5, 0.45), (6, None))[kind])
        turn = random.uniform(0, 2 * np.pi)
        thing = (radii / radii.max())[:, None] * np.stack([np.cos(ANGLES + turn), np.sin(ANGLES + turn)], 1)
        at = pose(random, scale=(0.5, 0.9))
        share = self.room * random.uniform(0.55, 0.95)
        middles = self.places + random.normal(0, 0.06 * self.room, self.places.shape)
        sizes = share * np.exp(random.normal(0, 0.08, len(middles)))
        return Drawn(united([at.place(middle + one * thing) for middle, one in zip(middles, sizes, strict=True)], size))


def arrangements() -> list[Arrangement]:
    """20 classes."""
    named: list[tuple[str, Points]] = []
    for n in range(3, 9):
        angles = 2 * np.pi * np.arange(n) / n
        named.append((f"ring of {n} things", np.stack([np.cos(angles), np.sin(angles)], 1)))
    named += [(f"row of {n} things", np.array([(i, 0.0) for i in range(n)])) for n in range(2, 6)]
    named += [(f"stairs of {n} things", np.array([(i, i % 2 * 0.9) for i in range(n)])) for n in (3, 4, 5)]
    for rows, columns in ((2, 2), (2, 3), (2, 4), (3, 3), (3, 4)):
        places = np.array([(x, y) for x in range(columns) for y in range(rows)], dtype=float)
        named.append((f"grid of {rows} by {columns} things", places))
    for n in (2, 3):
        places = np.array([(x - y / 2, 0.87 * y) for y in range(n + 1) for x in range(y + 1)])
        named.append((f"pyramid of {len(places)} things", places))
    return [Arrangement(name, *_fitted(places)) for name, places in named]


def _fitted(places: Points) -> tuple[Points, float]:
    """Within the unit circle, things included, and half of the least distance."""
    places = places - (places.min(axis=0) + places.max(axis=0)) / 2
    gaps = np.linalg.norm(places[:, None] - places[None], axis=2)
    half = float(gaps[gaps > 0].min()) / 2
    scale = 1 / (np.linalg.norm(places, axis=1).max() + half)
    return places * scale, half * scale
