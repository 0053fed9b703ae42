"""Where a network errs, and what new classes look like to it: plain figures from probabilities and logits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Mistake:
    """A wrong answer. position: of the image in its split. Classes by index; probabilities of both."""

    position: int
    true: int
    predicted: int
    probability: float
    probability_of_true: float


def confusions(probabilities: NDArray[np.floating], labels: NDArray[np.integer]) -> list[tuple[int, int, int]]:
    """Return (true class, predicted class, images) for every pair that occurs, right answers included.

    `probabilities` is [images, classes]; the pairs are in order of true, then predicted class.
    """
    pairs = np.stack([labels, probabilities.argmax(axis=1)], axis=1)
    found, counts = np.unique(pairs, axis=0, return_counts=True)
    return [(int(true), int(predicted), int(n)) for (true, predicted), n in zip(found, counts, strict=True)]


def confident_mistakes(probabilities: NDArray[np.floating], labels: NDArray[np.integer], most: int) -> list[Mistake]:
    """Return at most `most` wrong answers, the highest probability of the wrong class first; ties by position."""
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    wrong = [int(i) for i in order if predicted[i] != labels[i]][:most]
    return [
        Mistake(i, int(labels[i]), int(predicted[i]), float(confidence[i]), float(probabilities[i, labels[i]]))
        for i in wrong
    ]


@final
class ClassProfile:
    """How far each class raises each source logit above its mean over all images, in standard deviations.

    Every source logit is standardised over all images that are added; a class is the mean of its images. Summed in
    float64, image by image, so that nothing but a row per class has to be held.
    """

    def __init__(self, classes: int, source_classes: int) -> None:
        self._sums = np.zeros((classes, source_classes))
        self._squares = np.zeros(source_classes)
        self._images = np.zeros(classes, dtype=np.int64)

    def add(self, logits: NDArray[np.floating], labels: NDArray[np.integer]) -> None:
        """Take images into account: source logits [images, source classes] and class indices [images]."""
        wide = logits.astype(np.float64)
        np.add.at(self._sums, labels, wide)
        self._squares += (wide**2).sum(axis=0)
        self._images += np.bincount(labels, minlength=len(self._images))

    def raised(self) -> NDArray[np.float64]:
        """[classes, source classes]; 0 where a logit never changes, and for a class without images."""
        images = self._images.sum()
        mean = self._sums.sum(axis=0) / images
        spread = np.sqrt(np.maximum(self._squares / images - mean**2, 0.0))
        # A logit that is the same everywhere has a spread of rounding errors.
        still = spread <= 1e-6 * np.maximum(1.0, np.abs(mean))
        of_classes = self._sums / np.maximum(1, self._images)[:, None]
        raised = (of_classes - mean) / np.where(still, 1.0, spread)
        raised[:, still] = 0.0
        raised[self._images == 0] = 0.0
        return raised


def highest(values: Iterable[float], most: int) -> list[int]:
    """Return the indices of the highest values that are above zero, highest first; ties by index."""
    row = np.asarray(list(values), dtype=np.float64)
    return [int(i) for i in np.argsort(-row, kind="stable")[:most] if row[i] > 0]
