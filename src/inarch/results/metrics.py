"""How good class probabilities are, beyond plain accuracy.

Calibration error after Guo et al., "On calibration of modern neural networks" (ICML 2017, arXiv 1706.04599); the rest
is scikit-learn's. Averages over classes are over the classes that occur among the labels: a class without images says
nothing about a network.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score, log_loss, recall_score, top_k_accuracy_score

from inarch.errors import DataError

CALIBRATION_BINS = 15


def classification_metrics(probabilities: NDArray[np.floating], labels: NDArray[np.integer]) -> dict[str, float | None]:
    """Return accuracy, balanced_accuracy, macro_f1, top5, log_loss and calibration_error.

    `probabilities` is [n, classes] with rows that sum to 1, `labels` [n] in 0 ... classes - 1. All figures are
    fractions from 0 to 1 but `log_loss`, in nats (probabilities clipped at the machine's epsilon); `top5` is None with
    five classes or fewer. Raises `DataError` without images and `ValueError` for arrays that do not fit each other.
    """
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    _check(p, y)
    p = p / p.sum(axis=1, keepdims=True)
    classes = np.arange(p.shape[1])
    predicted, present = p.argmax(axis=1), np.unique(y)
    averaged = {"labels": present, "average": "macro", "zero_division": 0.0}
    return {
        "accuracy": float(np.mean(predicted == y)),
        "balanced_accuracy": float(recall_score(y, predicted, **averaged)),
        "macro_f1": float(f1_score(y, predicted, **averaged)),
        "top5": float(top_k_accuracy_score(y, p, k=5, labels=classes)) if len(classes) > 5 else None,
        "log_loss": float(log_loss(y, p, labels=classes)),
        "calibration_error": calibration_error(p, y),
    }


def mean_metrics(probabilities: Sequence[NDArray[np.floating]], labels: NDArray[np.integer]) -> dict[str, float | None]:
    """Return the means of `classification_metrics` over several [n, classes], one a seed."""
    found = [classification_metrics(some, labels) for some in probabilities]
    return {
        name: None if found[0][name] is None else float(np.mean([metrics[name] for metrics in found]))
        for name in found[0]
    }


def calibration_error(probabilities: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Return the expected calibration error of the top class, over 15 bins of equal width.

    The mean over images of |accuracy - mean confidence| in the bin that holds the image's top probability.
    """
    bins, correct, confidence = _binned(probabilities, labels)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def reliability(probabilities: NDArray[np.floating], labels: NDArray[np.integer]) -> list[dict[str, float]]:
    """Return the bins of `calibration_error` that hold an image, by rising confidence.

    Each has `low` and `high` (the bin is (low, high]), `images`, and their mean `confidence` and `accuracy`.
    """
    bins, correct, confidence = _binned(probabilities, labels)
    found = []
    for number in np.unique(bins):
        inside = bins == number
        found.append(
            {
                "low": float(number / CALIBRATION_BINS),
                "high": float((number + 1) / CALIBRATION_BINS),
                "images": int(inside.sum()),
                "confidence": float(confidence[inside].mean()),
                "accuracy": float(correct[inside].mean()),
            }
        )
    return found


def _binned(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer]
) -> tuple[NDArray[np.intp], NDArray[np.bool_], NDArray[np.floating]]:
    """The bin of every image, whether its top class is right, and the probability of that class."""
    confidence = probabilities.max(axis=1)
    edges = np.linspace(0.0, 1.0, CALIBRATION_BINS + 1)[1:-1]
    return np.digitize(confidence, edges, right=True), probabilities.argmax(axis=1) == labels, confidence


def _check(p: NDArray[np.float64], y: NDArray[np.integer]) -> None:
    if len(y) == 0:
        raise DataError("There are no images to measure.", "Give the split at least one image that can be read.")
    if p.ndim != 2 or y.shape != p.shape[:1]:
        raise ValueError(f"probabilities {p.shape} and labels {y.shape} do not fit: expected [n, classes] and [n]")
    if y.min() < 0 or y.max() >= p.shape[1]:
        raise ValueError(f"labels run from {y.min()} to {y.max()}, with {p.shape[1]} classes")
    if not np.isfinite(p).all() or p.min() < 0 or not np.allclose(p.sum(axis=1), 1.0, atol=1e-3):
        raise ValueError("each row of probabilities must be finite, not negative, and sum to 1")
