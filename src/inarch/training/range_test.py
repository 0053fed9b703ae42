"""The learning rate of new layers, found by a range test.

Smith, "Cyclical learning rates for training neural networks" (WACV 2017, arXiv 1506.01186): the rate rises
exponentially from step to step, and the loss tells how far it may rise. The rate of new layers depends on the target
data and on their size, so every graft has its own test on every data set.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch.nn import functional as F

from inarch.features.store import PrefixStore
from inarch.methods import ParameterGroup, over_labels
from inarch.network.adapted import AdaptedNetwork
from inarch.network.randomness import own_randomness
from inarch.training.learner import make_optimiser
from inarch.training.mixing import mixture_of
from inarch.training.order import class_weights, epoch_order, split_batches, view_number
from inarch.training.task import start_scales
from inarch.training.trial import TrainingSettings

STEPS = 100
# Lowest and highest rate tried.
RANGES = {"sgd": (1e-4, 10.0), "adamw": (1e-6, 1.0)}
# Smoothing of the loss, and how far above its best it may rise before the test ends.
SMOOTHING = 0.9
TOO_HIGH = 2.0
# The rate where the loss is lowest is already close to instability. Of new layers on frozen features a third of it did
# better than the usual tenth (docs/lab-notebook.md), and the search tries a third and three times of that as well.
BACK_OFF = 3.0


@dataclass(frozen=True)
class RangeTest:
    """rates, losses: what was tried and the smoothed training loss there. chosen: the rate to use."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    chosen: float


def range_test(network: AdaptedNetwork, settings: TrainingSettings, seed: int, store: PrefixStore) -> RangeTest:
    """Finds the rate of the new layers with all old layers held; the network is bit-identical afterwards."""
    before = copy.deepcopy(network.graft.state_dict())
    was_training = network.training
    try:
        # No more images than the steps see: a range test must not take longer with more images.
        start_scales(network.to(store.machine.device), store, STEPS * settings.batch_size)
        with own_randomness(seed):
            rates, losses = _sweep(network, settings, seed, store)
    finally:
        network.graft.load_state_dict(before)
        network.train(was_training)
    # Where not even the first loss is finite the trials will say so, each in its record.
    chosen = choose_rate(rates, losses) if losses else RANGES[settings.optimiser][0]
    return RangeTest(tuple(rates), tuple(losses), chosen)


def choose_rate(rates: Sequence[float], losses: Sequence[float]) -> float:
    """A third of the rate with the lowest smoothed loss."""
    return rates[int(np.argmin(losses))] / BACK_OFF


def _sweep(
    network: AdaptedNetwork, settings: TrainingSettings, seed: int, store: PrefixStore
) -> tuple[list[float], list[float]]:
    low, high = RANGES[settings.optimiser]
    optimiser = make_optimiser([ParameterGroup(network.new_parameters(), low, settings.weight_decay)], settings)
    labels = torch.from_numpy(store.images.labels["train"]).to(store.machine.device)
    balanced = settings.balance == "loss"
    weights = class_weights(store.images.labels["train"], store.images.classes).to(labels.device) if balanced else None
    rates: list[float] = []
    losses: list[float] = []
    average = 0.0
    network.eval()
    network.graft.train()
    for step, (epoch, positions) in zip(range(STEPS), _endless_batches(settings, seed, store), strict=False):
        rate = low * (high / low) ** (step / (STEPS - 1))
        optimiser.param_groups[0]["lr"] = rate
        with store.machine.autocast():
            with torch.no_grad():
                stored = store.read(network.stored_cut, "train", positions, view_number(seed, epoch, settings.views))
            mixture = mixture_of(settings.mixup, seed, step, len(positions), labels.device)
            logits = network.from_stored(stored if mixture is None else mixture.of(stored)).float()
        entropy = partial(F.cross_entropy, logits, weight=weights, label_smoothing=settings.label_smoothing)
        loss = over_labels(entropy, labels[positions], mixture)
        value = float(loss.detach())
        average = SMOOTHING * average + (1 - SMOOTHING) * value
        smoothed = average / (1 - SMOOTHING ** (step + 1))
        if not math.isfinite(value) or (losses and smoothed > TOO_HIGH * min(losses)):
            break
        rates.append(rate)
        losses.append(smoothed)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss, inputs=network.new_parameters())
        optimiser.step()
    return rates, losses


def _endless_batches(settings: TrainingSettings, seed: int, store: PrefixStore) -> Iterator[tuple[int, np.ndarray]]:
    """Batches in the order that a trial of this seed sees, its epochs over and over: no view that no trial needs."""
    while True:
        for epoch in range(settings.epochs):
            for positions in split_batches(
                epoch_order(store.images.labels["train"], settings, seed, epoch), settings.batch_size
            ):
                yield epoch, positions
