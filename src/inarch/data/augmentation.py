"""How far training views may depart from their images: values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from inarch.errors import UsageError

# Magnitudes of RandAugment go from 0 to this, as in the experiments on ImageNet of its paper.
MOST: Final = 30
# Random numbers of one of its operations: which one, and the sign of those that have one.
DRAWS: Final = 2


@dataclass(frozen=True)
class Augmentation:
    """How far a training view may depart from its image.

    `scale`: share of the area that is cropped; `ratio`: width to height of the crop, before it is resized; `flip`:
    probability of left to right; `colour_jitter`: brightness, contrast and saturation are each multiplied by
    a factor between 1 - strength and 1 + strength (0: colours are left alone); `operations`: how many of RandAugment
    follow (0: none), all with its `magnitude` from 0 to 30.
    """

    scale: tuple[float, float] = (0.35, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    colour_jitter: float = 0.2
    operations: int = 0
    magnitude: int = 9

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UsageError(f"Crops of {self.scale} of the area cannot be made.", "Give 0 < low <= high <= 1.")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise UsageError(f"Crops of ratio {self.ratio} cannot be made.", "Give 0 < low <= high.")
        if not 0 <= self.flip <= 1:
            raise UsageError(f"A flip has no probability of {self.flip}.", "Give 0 to 1.")
        if not 0 <= self.colour_jitter <= 1:
            raise UsageError(f"Colours cannot be jittered by {self.colour_jitter}.", "Give 0 to 1.")
        if self.operations < 0:
            raise UsageError(f"RandAugment cannot have {self.operations} operations.", "Give 0 or more.")
        if not 0 <= self.magnitude <= MOST:
            raise UsageError(f"RandAugment has no magnitude of {self.magnitude}.", f"Give 0 to {MOST}.")

    def to_json(self) -> dict[str, Any]:
        """What names it in trials and in stored activations; RandAugment is left out where there is none of it."""
        values = asdict(self)
        if not self.operations:
            del values["operations"], values["magnitude"]
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Augmentation:
        found: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        return cls(**found)


# What users can name, with the defaults of its papers. RandAugment brings operations on colours of its own.
AUGMENTATIONS = {
    "crop-flip": Augmentation(),
    # For what is something else in a mirror: digits, letters, left and right hands.
    "crop": Augmentation(flip=0.0),
    "randaugment": Augmentation(colour_jitter=0.0, operations=2, magnitude=9),
}
