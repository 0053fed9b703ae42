"""H-score (Bao et al., "An information-theoretic approach to transferability in task transfer learning", ICIP 2019)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inarch.ranking.classes import members


def h_score(features: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """How much of the features' variation lies between classes: from 0 to classes - 1, higher is better, no unit.

    features: [images, features]; labels: [images]. The paper's definition 2, with the pseudo-inverse where the
    covariance of the features is singular:

        H = tr(cov(f)^-1 cov(E[f | y]))

    Invertible linear maps and shifts of the features change nothing, but for rounding. With as many features as images
    almost every labelling reaches the upper limit, and the score says nothing (`regularised_h_score`).
    """
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    # With the singular value decomposition U S V' of the centred features the trace is that of U'P U, where P takes
    # means over classes: no covariance is inverted. Directions that rounding alone can bring about are left out.
    rounding = np.finfo(features.dtype).eps * np.linalg.norm(features.astype(np.float64))
    basis = left[:, singular > rounding]
    return float(sum(len(rows) * np.square(basis[rows].mean(axis=0)).sum() for rows in members(labels)))
