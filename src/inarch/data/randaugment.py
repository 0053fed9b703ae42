"""RandAugment: a few random operations on an image, all with one magnitude.

Cubuk, Zoph, Shlens, Le, "RandAugment: Practical automated data augmentation with a reduced search space" (CVPR 2020
workshop, arXiv 1909.13719): each operation is drawn from fourteen, with the same chance. Operations, ranges and
defaults are those of torchvision's `RandAugment` (nearest neighbour, black where nothing is left of the image), but for
their randomness: that comes from the caller, so that a view stays a function of its image and number. They run in
Pillow, which starts no threads of its own in the threads that make views.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms.v2 import functional as tv

from inarch.data.augmentation import DRAWS, MOST

Operation = Callable[[Image.Image, float], Image.Image]
"""A signed share of the largest magnitude, from -1 to 1, decides how far it goes."""


def _affine(image: Image.Image, across: int, down: int, shear: tuple[float, float]) -> Image.Image:
    # Sheared about the corner, moved about the centre, as torchvision does it.
    centre = [0.0, 0.0] if any(shear) else None
    return tv.affine(image, 0.0, [across, down], 1.0, list(shear), center=centre)


def _degrees(slope: float) -> float:
    return math.degrees(math.atan(slope))


# In the order of the paper's list as torchvision has it. Those whose name is in `UNSIGNED` never get a negative share.
OPERATIONS: Final[dict[str, Operation]] = {
    "identity": lambda image, share: image,
    "shear x": lambda image, share: _affine(image, 0, 0, (_degrees(0.3 * share), 0.0)),
    "shear y": lambda image, share: _affine(image, 0, 0, (0.0, _degrees(0.3 * share))),
    "translate x": lambda image, share: _affine(image, int(150 / 331 * image.width * share), 0, (0.0, 0.0)),
    "translate y": lambda image, share: _affine(image, 0, int(150 / 331 * image.height * share), (0.0, 0.0)),
    "rotate": lambda image, share: tv.rotate(image, 30 * share),
    "brightness": lambda image, share: tv.adjust_brightness(image, 1 + 0.9 * share),
    "colour": lambda image, share: tv.adjust_saturation(image, 1 + 0.9 * share),
    "contrast": lambda image, share: tv.adjust_contrast(image, 1 + 0.9 * share),
    "sharpness": lambda image, share: tv.adjust_sharpness(image, 1 + 0.9 * share),
    "posterise": lambda image, share: tv.posterize(image, 8 - round(4 * share)),
    "solarise": lambda image, share: tv.solarize(image, 255 * (1 - share)),
    "auto-contrast": lambda image, share: tv.autocontrast(image),
    "equalise": lambda image, share: tv.equalize(image),
}
UNSIGNED: Final = frozenset({"posterise", "solarise"})
_NAMES: Final = tuple(OPERATIONS)


def augmented(image: NDArray[np.uint8], uniform: Sequence[float], magnitude: int) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] after as many operations as `uniform` has pairs of numbers from 0 to below 1, as a new array.

    magnitude: from 0 to `MOST`.
    """
    picture = Image.fromarray(image)
    for which, sign in zip(uniform[::DRAWS], uniform[1::DRAWS], strict=True):
        name = _NAMES[int(which * len(_NAMES))]
        share = magnitude / MOST
        picture = OPERATIONS[name](picture, -share if sign < 0.5 and name not in UNSIGNED else share)
    return np.array(picture)
