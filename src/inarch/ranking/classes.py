"""The images of each class: what all scores group by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def members(labels: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """For each class that occurs, in ascending order, the positions of its images; labels: int64 [images]."""
    _, counts = np.unique(labels, return_counts=True)
    return np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
