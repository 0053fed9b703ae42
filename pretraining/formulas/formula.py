"""What a formula is, and the pose that an image shows it in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Plane = NDArray[np.float32]
"""One number for each pixel: [size, size]."""
Points = NDArray[np.float64]
"""Places on the plane: [count, 2], x to the right and y downwards, -1 to 1 from border to border."""


@final
@dataclass(frozen=True)
class Drawn:
    """What a formula draws. coverage: 0 to 1, how much of each pixel is the object's.

    shade: 0 to 1, where in a palette each pixel lies; None where only the outline matters, and any material will do.
    """

    coverage: Plane
    shade: Plane | None = None


class Formula(Protocol):
    """A source class: its name, and how one of its images is drawn. All that varies comes from `random`."""

    @property
    def name(self) -> str: ...

    def draw(self, random: Generator, size: int) -> Drawn: ...


@final
@dataclass(frozen=True)
class Pose:
    """Where and how large something is seen: places of the formula to places of the image."""

    matrix: NDArray[np.float64]
    shift: NDArray[np.float64]

    def place(self, points: Points) -> Points:
        return points @ self.matrix.T + self.shift


def pose(
    random: Generator,
    *,
    turn: float = np.pi,
    scale: tuple[float, float] = (0.45, 0.95),
    mirrored: bool = True,
) -> Pose:
    """A random pose that keeps what lies within the unit circle mostly inside of the image.

    turn: the most that it is turned, to either side, in radians. The aspect varies by a fifth, shear by as much.
    """
    angle, size = random.uniform(-turn, turn), random.uniform(*scale)
    stretch, shear = np.exp(random.uniform(-0.2, 0.2)), random.uniform(-0.2, 0.2)
    flip = -1.0 if mirrored and random.random() < 0.5 else 1.0
    cosine, sine = np.cos(angle), np.sin(angle)
    rotation = np.array([[cosine, -sine], [sine, cosine]])
    matrix = size * rotation @ np.array([[flip * stretch, shear], [0.0, 1 / stretch]])
    room = max(0.0, 1.0 - 0.85 * size)
    return Pose(matrix, random.uniform(-room, room, 2))
