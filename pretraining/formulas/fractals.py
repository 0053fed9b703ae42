"""Fractals of iterated function systems: the attractors of two to four contracting maps, drawn by the chaos game.

From FractalDB (Kataoka et al., ACCV 2020, arXiv 2101.08515). Maps are sampled by singular values, as Anderson and
Farrell do (WACV 2022, arXiv 2110.03091), so that few systems have to be thrown away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from formulas.formula import Drawn, pose
from formulas.raster import stretched

WALKERS = 384
STEPS = 32
# Steps from anywhere until a walker is on the attractor, as far as pixels can tell.
ARRIVING = 8
# Share of a coarse grid that an attractor must reach, and the most: else it is a speck, a line, or a solid patch.
LEAST_FILLED, MOST_FILLED = 0.18, 0.75
COARSE = 24


@final
@dataclass(frozen=True)
class Fractal:
    """matrices: [maps, 2, 2], shifts: [maps, 2]; a map is chosen with a chance that goes with its area."""

    name: str
    matrices: NDArray[np.float64]
    shifts: NDArray[np.float64]

    def draw(self, random: Generator, size: int) -> Drawn:
        """One map's matrix varies by up to a tenth, as FractalDB varies its parameters."""
        matrices = self.matrices.copy()
        which = random.integers(len(matrices))
        matrices[which] *= random.uniform(0.9, 1.1, (2, 2))
        points, maps = chaos_game(random, matrices, self.shifts)
        place = pose(random, scale=(0.6, 1.0)).place(fitted(points))
        column, row = ((place + 1.0) * (size / 2)).astype(np.int64).T
        inside = (column >= 0) & (row >= 0) & (column < size) & (row < size)
        pixels = row[inside] * size + column[inside]
        hits = np.bincount(pixels, minlength=size * size).astype(np.float32).reshape(size, size)
        if random.random() < 0.5:
            shade = np.log1p(hits)
        else:  # which map came last tells the copies of the whole apart
            sums = np.bincount(pixels, weights=maps[inside], minlength=size * size).reshape(size, size)
            shade = (sums / np.maximum(hits, 1)).astype(np.float32)
        coverage = np.minimum(hits * np.float32(random.uniform(0.6, 1.5)), 1)
        return Drawn(coverage, stretched(shade))


def chaos_game(
    random: Generator, matrices: NDArray[np.float64], shifts: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Places on the attractor [count, 2], and the number of the map that led to each."""
    areas = np.abs(np.linalg.det(matrices)) + 0.02
    chosen = np.searchsorted(np.cumsum(areas / areas.sum()), random.random((STEPS, WALKERS)))
    chosen = np.minimum(chosen, len(matrices) - 1)
    x, y = random.uniform(-1, 1, (2, WALKERS))
    (a, b), (c, d) = matrices.transpose(1, 2, 0)
    e, f = shifts.T
    found = np.empty((STEPS - ARRIVING, WALKERS, 2))
    for step, maps in enumerate(chosen):
        x, y = a[maps] * x + b[maps] * y + e[maps], c[maps] * x + d[maps] * y + f[maps]
        if step >= ARRIVING:
            found[step - ARRIVING, :, 0], found[step - ARRIVING, :, 1] = x, y
    return found.reshape(-1, 2), chosen[ARRIVING:].ravel()


def fitted(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Moved to the middle and scaled to about the unit circle; a few far places may lie outside."""
    low, high = np.percentile(points, (1, 99), axis=0)
    return (points - (low + high) / 2) * (1.8 / max(*(high - low), 1e-6))


def fractals(count: int) -> list[Fractal]:
    """The first `count` systems whose attractors fill neither too little nor too much."""
    found: list[Fractal] = []
    number = 0
    while len(found) < count:
        random = np.random.default_rng([1, number])
        maps = 2 + len(found) % 3
        matrices, shifts = system(random, maps)
        if LEAST_FILLED <= filling(random, matrices, shifts) <= MOST_FILLED:
            found.append(Fractal(f"fractal of {maps} maps, no. {1 + len(found) // 3}", matrices, shifts))
        number += 1
    return found


def system(random: Generator, maps: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Contractions by singular values: two rotations, two scales below 1, signs, and a shift each."""
    first, second = random.uniform(-np.pi, np.pi, (2, maps))
    scales = np.sort(random.uniform(0.25, 0.85, (maps, 2)))[:, ::-1] * random.choice([-1.0, 1.0], (maps, 2))
    matrices = rotations(first) @ (scales[:, :, None] * rotations(second))
    return matrices, random.uniform(-1, 1, (maps, 2))


def rotations(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    cosine, sine = np.cos(angles), np.sin(angles)
    return np.stack([np.stack([cosine, -sine], 1), np.stack([sine, cosine], 1)], 1)


def filling(random: Generator, matrices: NDArray[np.float64], shifts: NDArray[np.float64]) -> float:
    """The share of cells of a coarse grid over the attractor that are reached."""
    points, _ = chaos_game(random, matrices, shifts)
    cells = np.clip((fitted(points) + 1) * (COARSE / 2), 0, COARSE - 1).astype(np.int64)
    return len(np.unique(cells[:, 0] * COARSE + cells[:, 1])) / COARSE**2
