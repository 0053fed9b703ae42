"""The only training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from inarch.errors import TrainingError
from inarch.features.machine import Machine
from inarch.features.store import PrefixStore
from inarch.methods import Method, ParameterGroup, Rates
from inarch.network.adapted import AdaptedNetwork
from inarch.training.schedule import warmup_cosine
from inarch.training.trial import TrainingSettings, Trial

# View numbers of one seed lie together, and no two seeds share a view.
VIEWS_A_SEED = 100_000


class OutOfTimeError(Exception):
    """The deadline passed in the middle of a trial; what it had learned is dropped."""


@dataclass(frozen=True)
class Epoch:
    """One pass over the training images: mean training loss, and accuracy on the validation split."""

    training_loss: float
    validation_accuracy: float


@dataclass(frozen=True)
class Trained:
    """What a trial leaves behind. validation: probabilities [images, classes] after the last epoch."""

    epochs: tuple[Epoch, ...]
    validation: np.ndarray


@final
@dataclass
class Watch:
    """Tells a trial when to stop and the user how far it is."""

    deadline: float = math.inf
    progress: Callable[[int, int], None] = lambda step, steps: None

    def step(self, step: int, steps: int) -> None:
        self.progress(step, steps)
        self.check()

    def check(self) -> None:
        if time.monotonic() > self.deadline:
            raise OutOfTimeError


def train(network: AdaptedNetwork, trial: Trial, store: PrefixStore, method: Method, watch: Watch) -> Trained:
    """Trains the network in place as the trial says.

    A loss that is not finite is a `TrainingError`. The last epoch counts: no epoch is picked, so validation accuracy
    is not flattered by the picking.
    """
    settings, labels = trial.settings, store.images.labels["train"]
    orders = [epoch_order(labels, settings, trial.seed, epoch) for epoch in range(settings.epochs)]
    batches = [split_batches(order, settings.batch_size) for order in orders]
    steps = sum(map(len, batches))
    network.to(store.machine.device)
    method.prepare(network)
    learner = _Learner(network, trial, store, method, steps)
    epochs: list[Epoch] = []
    validation = np.zeros((0, store.images.classes))
    with own_randomness(trial.seed, store.machine):
        for number, epoch_batches in enumerate(batches):
            network.train()
            total = 0.0
            for positions in epoch_batches:
                total += learner.step(positions, view_number(trial.seed, number)) * len(positions)
                watch.step(learner.done, steps)
            if number == settings.epochs - 1:
                method.finish(network)
            validation = predict(network, store, "validation")
            learner.require_finite(float(validation.sum()), "probability on the validation split")
            correct = validation.argmax(axis=1) == store.images.labels["validation"]
            epochs.append(Epoch(total / sum(map(len, epoch_batches)), float(correct.mean())))
    return Trained(tuple(epochs), validation)


@final
class _Learner:
    """The steps of one trial: loss, gradients, optimiser, schedule."""

    def __init__(self, network: AdaptedNetwork, trial: Trial, store: PrefixStore, method: Method, steps: int) -> None:
        self._network, self._trial, self._store, self._method = network, trial, store, method
        settings, device = trial.settings, store.machine.device
        labels = store.images.labels["train"]
        self._labels = torch.from_numpy(labels).to(device)
        balanced = settings.balance == "loss"
        self._weights = class_weights(labels, store.images.classes).to(device) if balanced else None
        rates = Rates(trial.learning_rate, trial.new_layer_learning_rate, settings.weight_decay)
        self._optimiser = make_optimiser(method.groups(network, rates), settings)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimiser, lambda step: warmup_cosine(step, steps, settings.warmup)
        )
        self.done, self._steps = 0, steps

    def step(self, positions: np.ndarray, view: int) -> float:
        """One step on the images at `positions` of the training split; returns the loss."""
        stored = self._store.read(self._network.stored_cut, "train", positions, view)
        with self._store.machine.autocast():
            logits = self._network.from_stored(stored)
        smoothing = self._trial.settings.label_smoothing
        supervised = F.cross_entropy(logits.float(), self._labels[positions], self._weights, label_smoothing=smoothing)
        loss = self._method.loss(supervised, self._network)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._optimiser.step()
        self._schedule.step()
        self.done += 1
        value = float(loss.detach())
        self.require_finite(value, "training loss")
        return value

    def require_finite(self, value: float, name: str) -> None:
        if not math.isfinite(value):
            raise TrainingError(
                f"The {name} became {value} at step {self.done} of {self._steps} (learning rates: old layers "
                f"{self._trial.learning_rate:g}, new layers {self._trial.new_layer_learning_rate:g}).",
                "Other rates are tried; nothing needs to be done.",
            )


def predict(network: AdaptedNetwork, store: PrefixStore, split: str) -> np.ndarray:
    """Probabilities [images, classes] of the evaluation view of a split, in evaluation mode."""
    network.eval()
    parts = []
    with store.profile.section(f"evaluation on {split}"), torch.no_grad():
        for stored in store.batches(network.stored_cut, split):
            with store.machine.autocast():
                logits = network.from_stored(stored)
            parts.append(logits.float().softmax(dim=1).cpu())
    return torch.cat(parts).numpy() if parts else np.zeros((0, store.images.classes), dtype=np.float32)


def view_number(seed: int, epoch: int) -> int:
    """Every seed has views of its own, or the spread over seeds would be underestimated."""
    return seed * VIEWS_A_SEED + epoch


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


def make_optimiser(groups: list[ParameterGroup], settings: TrainingSettings) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW, with a rate and weight decay for each group."""
    options = [{"params": g.parameters, "lr": g.learning_rate, "weight_decay": g.weight_decay} for g in groups]
    if settings.optimiser == "adamw":
        return torch.optim.AdamW(options)
    return torch.optim.SGD(options, momentum=settings.momentum)


@contextmanager
def own_randomness(seed: int, machine: Machine) -> Iterator[None]:
    """Dropout of a trial depends on its seed alone, and the caller's random state is as before afterwards."""
    devices = [torch.device(machine.device)] if machine.device.startswith("cuda") else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
