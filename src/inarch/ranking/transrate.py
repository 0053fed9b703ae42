"""TransRate (Huang et al., "Frustratingly easy transferability estimation", ICML 2022, arXiv 2106.09362)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inarch.ranking.classes import members

# The squared distortion of the paper's code.
DISTORTION = 1e-4


def transrate(features: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """The information that features and labels share, estimated by coding rates, in nats: 0 or more, higher is better.

    features: [images, features]; labels: [images]. With Z the centred features, Z_c those of the n_c images of class c,
    and the coding rate R(Z) = log det(I + Z'Z / (n e)) / 2 for the squared distortion e = `DISTORTION`:

        TrR = R(Z) - sum over c of n_c / n R(Z_c)

    The features are scaled to a variance of 1 in all, as in the authors' code: networks whose features are large would
    win otherwise. Shifts, rotations and one factor for all features then change nothing, but for rounding. A network
    with more features can reach higher values.
    """
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    variance = np.square(centred).sum() / len(labels)
    if not variance:
        return 0.0
    scaled = centred / np.sqrt(variance)
    within = sum(len(rows) / len(labels) * coding_rate(scaled[rows]) for rows in members(labels))
    return coding_rate(scaled) - within


def coding_rate(features: NDArray[np.float64]) -> float:
    """log det(I + Z'Z / (n e)) / 2 of Z [n, features]: nats to describe a row up to the distortion."""
    images, width = features.shape
    # Z'Z and Z Z' have the same eigenvalues but for zeros.
    products = features @ features.T if images < width else features.T @ features
    eigenvalues = np.maximum(np.linalg.eigvalsh(products), 0)
    return float(0.5 * np.log1p(eigenvalues / (images * DISTORTION)).sum())
