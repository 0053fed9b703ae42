"""What a study trains and evaluates on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from inarch.data import Views


@dataclass(frozen=True)
class Images:
    """What a study trains and evaluates on: views of pixels, and for each split its rows, labels and digests.

    rows, labels: split name to int64 array [images]. digests: split name to the digest of every image, in order.
    recipe: JSON that says how pixels become views: input of the network, augmentation.
    """

    views: Views
    rows: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    classes: int
    digests: Mapping[str, tuple[str, ...]]
    recipe: Mapping[str, Any]

    def seen(self, rows: np.ndarray, view: int | None, device: str) -> Tensor:
        """Images as the network sees them, for a device, on which they need not be yet; view None is the evaluation
        view."""
        if view is None:
            return self.views.evaluation(rows, device)
        return self.views.training(rows, view, device)
