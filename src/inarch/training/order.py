"""Which training images a trial sees when, in which view, and what each of them weighs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inarch.training.trial import TrainingSettings, Trial

# View numbers of one seed lie together, and no two seeds share a view.
VIEWS_A_SEED = 100_000


def view_number(seed: int, epoch: int, views: int) -> int:
    """The view of an epoch, of so many `views` in turn (0: a fresh one every epoch).

    Every seed has views of its own, or the spread over seeds would be underestimated.
    """
    return seed * VIEWS_A_SEED + (epoch % views if views else epoch)


def epoch_order(labels: np.ndarray, settings: TrainingSettings, seed: int, epoch: int) -> np.ndarray:
    """Positions in the training split in the order of an epoch; with the balanced sampler, drawn with replacement."""
    random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    if settings.balance != "sampler":
        return random.permutation(len(labels))
    share = 1.0 / np.bincount(labels)[labels]
    return random.choice(len(labels), size=len(labels), p=share / share.sum())


def split_batches(order: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Batches of an epoch. A last batch of one image joins the one before: batch normalisation cannot train on it."""
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [np.concatenate(batches[-2:])]
    return batches


def class_weights(labels: np.ndarray, classes: int) -> Tensor:
    """Weights inversely proportional to class counts, with mean 1 over the training images."""
    return torch.from_numpy(len(labels) / (classes * np.bincount(labels, minlength=classes))).float()


@dataclass(frozen=True)
class Course:
    """What a trial will see: for each epoch its batches, as positions in the training split, and its view."""

    batches: tuple[tuple[np.ndarray, ...], ...]
    views: tuple[int, ...]

    @property
    def steps(self) -> int:
        return sum(map(len, self.batches))

    def view_after(self, epoch: int) -> int:
        """The view of the epoch that follows, of the first one after the last: another one, if there are several."""
        return self.views[(epoch + 1) % len(self.views)]


def course_of(trial: Trial, labels: np.ndarray) -> Course:
    """The course of a trial on a training split with these labels."""
    settings, epochs = trial.settings, range(trial.settings.epochs)
    orders = [epoch_order(labels, settings, trial.seed, epoch) for epoch in epochs]
    batches = tuple(tuple(split_batches(order, settings.batch_size)) for order in orders)
    return Course(batches, tuple(view_number(trial.seed, epoch, trial.views) for epoch in epochs))
