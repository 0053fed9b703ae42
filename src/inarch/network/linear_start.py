"""Where a linear classifier can start: at the linear discriminant of stored features, a closed form.

With class means m_c, class shares p_c and one covariance S of the features around the means of their classes:

    w_c = S^-1 m_c,   b_c = -m_c' S^-1 m_c / 2 + log p_c

(Hastie, Tibshirani, Friedman, "The elements of statistical learning", 2nd edition, section 4.3). S is shrunk towards a
multiple of the identity by as much as Ledoit and Wolf's formula says ("A well-conditioned estimator for
large-dimensional covariance matrices", 2004), which leaves no strength to choose, also where there are fewer images
than features. On the images that it comes from such a classifier is far too sure of itself: all its logits are
multiplied by the one number, at most 1, that makes their cross-entropy with a tenth of label smoothing lowest, which
changes no answer but lets training go on from a low loss.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.covariance import ledoit_wolf

SMOOTHING = 0.1


def linear_discriminant(features: np.ndarray, labels: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Weights [classes, features] and biases [classes], float64, with a mean of zero over the classes that there are.

    features: [images, features]. A class without images has weights of zero and the lowest bias. None where no
    covariance can be told: less than two classes, no two images of a class that differ, features that are not finite.
    """
    present, at = np.unique(labels, return_inverse=True)
    x = features.astype(np.float64)
    if len(present) < 2 or not np.isfinite(x).all():
        return None
    means = np.stack([x[at == c].mean(axis=0) for c in range(len(present))])
    centred = x - means[at]
    if not centred.any():
        return None
    covariance, _ = ledoit_wolf(centred, assume_centered=True)
    w = np.linalg.solve(covariance, means.T).T
    b = -0.5 * (w * means).sum(axis=1) + np.log(np.bincount(at) / len(at))
    factor = tempering(x @ w.T + b, at)
    w, b = factor * (w - w.mean(axis=0)), factor * (b - b.mean())
    weight, bias = np.zeros((classes, x.shape[1])), np.full(classes, b.min())
    weight[present], bias[present] = w, b
    return weight, bias


def tempering(logits: np.ndarray, labels: np.ndarray) -> float:
    """The factor, at most 1, on logits [images, classes] at which their smoothed cross-entropy is lowest."""
    wanted = np.full(logits.shape, SMOOTHING / logits.shape[1])
    wanted[np.arange(len(labels)), labels] += 1 - SMOOTHING

    def loss(exponent: float) -> float:
        return float(-(wanted * log_softmax(np.exp(exponent) * logits, axis=1)).sum(axis=1).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-20.0, 0.0), method="bounded").x))
