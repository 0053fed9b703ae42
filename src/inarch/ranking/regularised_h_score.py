"""Regularised H-score (Ibrahim, Ponomareva and Mazumder, "Newer is not always better", arXiv 2110.06893)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import pinvh
from sklearn.covariance import ledoit_wolf

from inarch.ranking.classes import members


def regularised_h_score(features: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """The H-score with a covariance that few images can estimate: 0 to classes - 1, higher is better, no unit.

    features: [images, features]; labels: [images]. The paper's section 3, with the shrinkage a of Ledoit and Wolf
    (2004) and m the mean variance of the features:

        H_a = tr(C_a^-1 (1 - a) cov(E[f | y])),    C_a = (1 - a) cov(f) + a m I

    Shifts, rotations and one factor for all features change nothing, but for rounding; other linear maps do.
    """
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    covariance, shrinkage = ledoit_wolf(centred, assume_centered=True)
    classes = members(labels)
    means = np.stack([np.sqrt(len(rows)) * centred[rows].mean(axis=0) for rows in classes])
    between = np.einsum("cd,de,ce->", means, pinvh(covariance), means, optimize=True) / len(labels)
    return float((1 - shrinkage) * between)
