"""Co-Tuning: source classes that are related to an image's target class are a second label for it.

You, Kou, Long, Wang, "Co-Tuning for transfer learning" (NeurIPS 2020). Equation 3 adds lambda times the cross-entropy
between p(source class | target class of the image) and the source probabilities of the network that is trained. The
relationship is learned before training, by its algorithm 1 in reverse: a classifier g from source probabilities to
target classes, calibrated, gives p(target | source) at the corners of the simplex, and Bayes' rule with the mean source
probabilities the other direction.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, final

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F

from inarch.methods.method import Method, ParameterGroup, Rates, Step, Task, not_empty, old_and_new
from inarch.methods.source_copy import SourceLogits, Teacher
from inarch.network.adapted import AdaptedNetwork

# Strengths of g's penalty (scikit-learn's C) of which the one that does best on images held out is taken.
STRENGTHS = (1e4, 1e3, 1e2, 1e1, 1.0, 1e-1, 1e-2, 1e-3, 1e-4)
# One in so many images of each class is held out.
HELD_OUT = 5


@final
@dataclass
class CoTuning(Method):
    """weight: lambda, 2.3 in the authors' code. scale: by which source logits are multiplied before all else.

    The authors find the scale by calibrating the source network on images of its own task (0.884 for their ResNet-50);
    there are none here, so it is 1. They hold out the validation split for the relationship; here a fifth of the
    training split is held out instead, because the validation split chooses between trials and must not train them.
    Where no old layer trains this is plain fine-tuning.
    """

    name: ClassVar[str] = "co-tuning"
    strength_of: ClassVar[tuple[str, ...]] = ("weight",)

    weight: float = 2.3
    scale: float = 1.0
    _student: SourceLogits | None = field(default=None, init=False, repr=False)
    _relationship: Tensor | None = field(default=None, init=False, repr=False)

    def prepare(self, network: AdaptedNetwork, task: Task) -> None:
        if network.old_parameters():
            teacher = Teacher(network, task)
            logits = torch.cat([teacher.logits(stored).cpu() for stored in task.evaluation()])
            probabilities = softmax(self.scale * logits.double().numpy(), axis=1)
            found = category_relationship(probabilities, task.labels.cpu().numpy(), task.classes, task.seed)
            self._relationship = torch.from_numpy(found).float().to(task.labels.device)
            self._student = SourceLogits(network, task)

    def groups(self, network: AdaptedNetwork, rates: Rates) -> list[ParameterGroup]:
        head = self._student.parameters() if self._student else []
        return [*old_and_new(network, rates), *not_empty(ParameterGroup(head, rates.old, rates.weight_decay))]

    def loss(self, network: AdaptedNetwork, step: Step) -> Tensor:
        if self._student is None or self._relationship is None:
            return step.supervised
        logits, relationship = self._student.of(step), self._relationship
        second = step.over_labels(lambda labels: F.cross_entropy(logits, relationship[labels].to(logits.dtype)))
        return step.supervised + self.weight * second

    def finish(self, network: AdaptedNetwork) -> None:
        self._student = self._relationship = None


def category_relationship(probabilities: np.ndarray, labels: np.ndarray, classes: int, seed: int) -> np.ndarray:
    """p(source class | target class) [classes, source classes], from source probabilities of labelled images.

    probabilities: [images, source classes], calibrated. labels: [images], every class at least once. seed: decides what
    is held out.
    """
    held_out = _held_out(labels, seed)
    fitted = [_weights(probabilities[~held_out], labels[~held_out], classes, strength) for strength in STRENGTHS]
    chosen, scale = fitted[STRENGTHS.index(1.0)], 1.0
    if held_out.any():
        checked, truth = probabilities[held_out], labels[held_out]
        right = [float(((checked @ weights).argmax(axis=1) == truth).mean()) for weights in fitted]
        chosen = fitted[int(np.argmax(right))]
        scale = _calibration(checked @ chosen, truth)
    return other_direction(scale * chosen, probabilities.mean(axis=0))


def other_direction(logits: np.ndarray, source: np.ndarray) -> np.ndarray:
    """p(source class | target class) by Bayes' rule, [classes, source classes].

    logits: [source classes, classes], of p(target class | source class). source: p(source class). In logarithms: a
    class that is improbable for every source class has probabilities of 0 in float64, of which there is no ratio.
    """
    with np.errstate(divide="ignore"):  # a source class that never occurs has a logarithm of minus infinity
        joint = log_softmax(logits, axis=1) + np.log(source)[:, None]
    found: np.ndarray = softmax(joint.T, axis=1)
    return found


def _held_out(labels: np.ndarray, seed: int) -> np.ndarray:
    """A mask of images: a fifth of each class, at least one where there are two."""
    random = np.random.Generator(np.random.Philox(key=[seed, 0]))
    mask = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        places = random.permutation(np.flatnonzero(labels == label))
        mask[places[: min(len(places) - 1, max(1, len(places) // HELD_OUT))]] = True
    return mask


def _weights(probabilities: np.ndarray, labels: np.ndarray, classes: int, strength: float) -> np.ndarray:
    """Weights [source classes, classes] of g, a multinomial logistic regression without an intercept."""
    found = LogisticRegression(C=strength, fit_intercept=False, max_iter=1000).fit(probabilities, labels)
    weights = found.coef_.T
    # Of two classes scikit-learn has the weights of the second alone, against zero.
    return np.concatenate([np.zeros_like(weights), weights], axis=1) if classes == 2 else weights


def _calibration(logits: np.ndarray, labels: np.ndarray) -> float:
    """The factor on logits with the least negative log-likelihood (temperature scaling, Guo et al., ICML 2017)."""

    def loss(exponent: float) -> float:
        return -float(log_softmax(np.exp(exponent) * logits, axis=1)[np.arange(len(labels)), labels].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-7.0, 7.0), method="bounded").x))
