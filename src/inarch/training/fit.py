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
from inarch.features.store import Machine, PrefixStore
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
        if time.monotonic() > self.deadline:
            raise OutOfTimeError


def train(network: AdaptedNetwork, trial: Trial, store: PrefixStore, method: Method, watch: Watch) -> Trained:
    """Trains the network in place as the trial says.

    A loss that is not finite is a `TrainingError`. The last epoch counts: no epoch is picked, so validation accuracy
    is not flattered by the picking.
    """
    settings, images = trial.settings, store.images
    labels = torch.from_numpy(images.labels["train"]).to(store.machine.device)
    weights = class_weights(images.labels["train"], images.classes) if settings.balance == "loss" else None
    network.to(store.machine.device)
    method.prepare(network)
    rates = Rates(trial.learning_rate, trial.new_layer_learning_rate, settings.weight_decay)
    optimiser = make_optimiser(method.groups(network, rates), settings)
    orders = [epoch_order(images.labels["train"], settings, trial.seed, e) for e in range(settings.epochs)]
    batches = [split_batches(order, settings.batch_size) for order in orders]
    steps = sum(map(len, batches))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda s: warmup_cosine(s, steps, settings.warmup))
    epochs, step = [], 0
    with own_randomness(trial.seed, store.machine):
        for number, epoch_batches in enumerate(batches):
            network.train()
            total = 0.0
            for positions in epoch_batches:
                stored = store.read(network.stored_cut, "train", positions, view_number(trial.seed, number))
                loss = _step(network, stored, labels[positions], weights, method, optimiser, store.machine, settings)
                schedule.step()
                total += loss * len(positions)
                step += 1
                if not math.isfinite(loss):
                    raise TrainingError(
                        f"The training loss became {loss} at step {step} of {steps} (learning rates: old layers "
                        f"{trial.learning_rate:g}, new layers {trial.new_layer_learning_rate:g}).",
                        "Other rates are tried; nothing needs to be done.",
                    )
                watch.step(step, steps)
            epochs.append(_close_epoch(network, store, total / sum(map(len, epoch_batches))))
    method.finish(network)
    return Trained(tuple(epochs), predict(network, store, "validation"))


def _step(
    network: AdaptedNetwork,
    stored: Tensor,
    labels: Tensor,
    weights: Tensor | None,
    method: Method,
    optimiser: torch.optim.Optimizer,
    machine: Machine,
    settings: TrainingSettings,
) -> float:
    with machine.autocast():
        logits = network.from_stored(stored)
    supervised = F.cross_entropy(
        logits.float(), labels, weight=weights if weights is None else weights.to(logits.device),
        label_smoothing=settings.label_smoothing,
    )  # fmt: skip
    loss = method.loss(supervised, network)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    return float(loss.detach())


def _close_epoch(network: AdaptedNetwork, store: PrefixStore, training_loss: float) -> Epoch:
    validation = predict(network, store, "validation")
    correct = validation.argmax(axis=1) == store.images.labels["validation"]
    return Epoch(training_loss, float(correct.mean()))


def predict(network: AdaptedNetwork, store: PrefixStore, split: str) -> np.ndarray:
    """Probabilities [images, classes] of the evaluation view of a split, in evaluation mode."""
    network.eval()
    parts = []
    with torch.no_grad():
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
