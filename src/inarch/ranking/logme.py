"""LogME: logarithm of maximum evidence (You et al., ICML 2021, arXiv 2102.11005, section 4)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

# The range of the noise's variance to the weights', in units of the largest eigenvalue of F'F, and the logarithms that
# are tried before the best is refined: some four for each factor of e, over several of which the evidence changes.
RATIOS = (1e-10, 1e10)
TRIED = np.linspace(math.log(RATIOS[0]), math.log(RATIOS[1]), 185)

Array = NDArray[np.float64]


def logme(features: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """How well Bayesian linear regression on the features explains the labels, in nats an image: higher is better.

    features: F [images, features]; labels: [images]. For each class the targets y are 1 for its images and else 0, and
    y = F w + noise, with weights and noise of variances 1 / a and 1 / b. The score is the mean over classes of

        max over a and b of log p(y | F, a, b) / images

    which counts against features that fit the labels by their number alone. There is no intercept, as in the paper.
    Rotating the features or multiplying all of them changes nothing, but for rounding. The score has no fixed range; it
    is above 0 where classes are rare or well explained. Where labels are a linear function of the features the evidence
    grows without limit as the noise vanishes: it is sought within `RATIOS`.
    """
    targets = (labels[:, None] == np.unique(labels)).astype(np.float64)
    left, singular, _ = np.linalg.svd(features.astype(np.float64), full_matrices=False)
    # One factor for all features is the weights' to choose, so eigenvalues can be divided by the largest.
    eigenvalues = np.square(singular / (singular[0] or 1.0))
    return float(np.mean([_most_evidence(eigenvalues, np.square(left.T @ y), y) for y in targets.T]))


def _most_evidence(eigenvalues: Array, explained: Array, targets: Array) -> float:
    """The greatest log evidence an image of one class, over all ratios of variances; explained: see `_evidence`."""
    beyond = max(0.0, float(np.square(targets).sum() - explained.sum()))

    def evidence(log_ratios: Array) -> Array:
        return _evidence(np.exp(log_ratios), eigenvalues, explained, beyond, len(targets))

    # There may be several maxima, so the refinement begins at the best of those tried.
    tried = evidence(TRIED)
    best = int(tried.argmax())
    around = TRIED[max(best - 1, 0)], TRIED[min(best + 1, len(TRIED) - 1)]
    refined = minimize_scalar(lambda x: -evidence(np.array([x]))[0], bounds=around, method="bounded")
    return max(float(tried[best]), -float(refined.fun))


def _evidence(ratios: Array, eigenvalues: Array, explained: Array, beyond: float, images: int) -> Array:
    """Log evidence an image for each ratio of the noise's variance to the weights', at the best noise for that ratio.

    With r the ratio, y is normal with covariance (I + F F' / r) / b: its variances are (1 + s / r) / b along the left
    singular vectors of F with the eigenvalues s, and 1 / b beyond them. The density is greatest where b is images /
    misfit. explained: squares of the targets along the singular vectors; beyond: the sum of the other squares.
    """
    shares = ratios[:, None] / (ratios[:, None] + eigenvalues)
    misfit = beyond + shares @ explained
    spread = -np.log(shares).sum(axis=1)
    return np.asarray(-0.5 * (math.log(2 * math.pi) + 1 + np.log(misfit / images) + spread / images))
