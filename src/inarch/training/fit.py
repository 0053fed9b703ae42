"""The only training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from torch import Tensor

from inarch.errors import TrainingError
from inarch.features.store import PrefixStore
from inarch.methods import Method, trained_state
from inarch.network.adapted import AdaptedNetwork
from inarch.network.randomness import own_randomness
from inarch.training.learner import Learner, probabilities
from inarch.training.members import Alone
from inarch.training.order import Course, course_of
from inarch.training.task import start_graft
from inarch.training.trial import Trial


class OutOfTimeError(Exception):
    """The deadline passed in the middle of a trial; what it had learned is dropped."""


@dataclass(frozen=True)
class Epoch:
    """One pass over the training images: mean training loss, and accuracy on the validation split."""

    training_loss: float
    validation_accuracy: float


@dataclass(frozen=True)
class Member:
    """One of several trainings of a trial: its seed, its accuracy on validation, and whether it was averaged in."""

    seed: int
    validation_accuracy: float
    taken: bool


@dataclass(frozen=True)
class Trained:
    """What a trial leaves behind.

    epochs: of several trainings their mean; empty where nobody wants the curve. validation: probabilities
    [images, classes] of what is left in the end. members: the trainings, where the method wants several.
    """

    epochs: tuple[Epoch, ...]
    validation: np.ndarray
    members: tuple[Member, ...] = ()


@final
@dataclass
class Watch:
    """Tells a trial when to stop and the user how far it is.

    every_epoch: whether it is validated after every epoch, for its learning curve, or after the last one alone.
    """

    deadline: float = math.inf
    progress: Callable[[int, int], None] = lambda step, steps: None
    every_epoch: bool = True

    def step(self, step: int, steps: int) -> None:
        self.progress(step, steps)
        self.check()

    def part(self, number: int, parts: int) -> Watch:
        """The watch of one of several equal parts of a trial, from 0."""
        return replace(self, progress=lambda step, steps: self.progress(number * steps + step, parts * steps))

    def check(self) -> None:
        if time.monotonic() > self.deadline:
            raise OutOfTimeError


def train(network: AdaptedNetwork, trial: Trial, store: PrefixStore, method: Method, watch: Watch) -> Trained:
    """Trains the network in place as the trial says: `train_together` with one; a loss that is not finite is raised."""
    (outcome,) = train_together([network], [trial], store, [method], watch)
    if isinstance(outcome, TrainingError):
        raise outcome
    return outcome


def train_together(
    networks: Sequence[AdaptedNetwork],
    trials: Sequence[Trial],
    store: PrefixStore,
    methods: Sequence[Method],
    watch: Watch,
) -> list[Trained | TrainingError]:
    """Trains networks in place as their trials say, all on the same batches.

    The trials share seed, settings and `stored_cut`; of several networks none has old layers that train. A trial whose
    loss is not finite becomes a `TrainingError` in its place, and the others go on as if it were not there. The last
    epoch counts: no epoch is picked, so validation accuracy is not flattered by the picking.
    """
    if len({(trial.seed, trial.settings, trial.views) for trial in trials}) != 1:
        raise ValueError("trials that are trained together must have the same seed, settings and views")
    for network, trial in zip(networks, trials, strict=True):
        start_graft(network.to(store.machine.device), store, trial.seed)
    old_layers_train = any(network.old_parameters() for network in networks)
    seeds = methods[0].seeds(trials[0].seed, old_layers_train)
    if len(seeds) > 1:
        return [_several(networks[0], trials[0], store, methods[0], watch, seeds)]
    return _once(networks, trials, store, methods, watch)


def _once(
    networks: Sequence[AdaptedNetwork],
    trials: Sequence[Trial],
    store: PrefixStore,
    methods: Sequence[Method],
    watch: Watch,
) -> list[Trained | TrainingError]:
    """One training of each trial, which is all that most of them are."""
    course = course_of(trials[0], store.images.labels["train"])
    try:
        with own_randomness(trials[0].seed):
            learner = Learner(networks, trials, store, methods, course)
            return _run(learner, course, store.images.labels["validation"], watch)
    finally:
        for method in methods:
            method.release()


def _several(
    network: AdaptedNetwork, trial: Trial, store: PrefixStore, method: Method, watch: Watch, seeds: Sequence[int]
) -> Trained | TrainingError:
    """Trainings of a trial from one start, one for each seed; what the method takes of them is averaged.

    Those that fail are left out; where all do, the trial does.
    """
    start = _copied({name: v for name, v in network.state_dict().items() if not name.startswith("prefix.")})
    states, found, failed = [], list[tuple[int, Trained]](), list[TrainingError]()
    for number, seed in enumerate(seeds):
        network.load_state_dict(start, strict=False)
        part = watch.part(number, len(seeds))
        (outcome,) = _once([network], [replace(trial, seed=seed)], store, [method], part)
        if isinstance(outcome, TrainingError):
            failed.append(outcome)
        else:
            states.append(_copied(trained_state(network)))
            found.append((seed, outcome))
    if not found:
        return failed[0]
    truth = store.images.labels["validation"]

    def validated(members: Sequence[int]) -> np.ndarray:
        with torch.no_grad():
            for name, value in trained_state(network).items():
                value.copy_(torch.stack([states[member][name] for member in members]).mean(dim=0))
        return predict(network, store, "validation")

    def accuracy(probabilities: np.ndarray) -> float:
        return float((probabilities.argmax(axis=1) == truth).mean())

    taken = method.taken(len(found), lambda members: accuracy(validated(members)))
    validation, epochs = validated(taken), [outcome.epochs for _, outcome in found]
    if not np.isfinite(validation).all():
        return TrainingError("A probability of averaged weights is not finite.", "Nothing needs to be done.")
    members = [
        Member(seed, accuracy(outcome.validation), number in taken) for number, (seed, outcome) in enumerate(found)
    ]
    return Trained(tuple(map(_mean_epoch, zip(*epochs, strict=True))), validation, tuple(members))


def _copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}


def _mean_epoch(epochs: Sequence[Epoch]) -> Epoch:
    loss, accuracy = (
        float(np.mean([getattr(epoch, name) for epoch in epochs])) for name in ("training_loss", "validation_accuracy")
    )
    return Epoch(loss, accuracy)


def _run(learner: Learner, course: Course, truth: np.ndarray, watch: Watch) -> list[Trained | TrainingError]:
    """Epoch after epoch; `truth` are the labels of the validation split."""
    trials = len(learner.alive)
    epochs: list[list[Epoch]] = [[] for _ in range(trials)]
    validation = np.zeros((trials, 0, 0))
    for number, batches in enumerate(course.batches):
        learner.train(True)
        total = np.zeros(trials)
        for positions in batches:
            total += np.multiply(learner.step(number, positions), len(positions))
            if not learner.alive:
                return [learner.failed[i] for i in range(trials)]
            watch.step(learner.done, course.steps)
        last = number == len(course.batches) - 1
        if last:
            learner.finish()
        if last or watch.every_epoch:
            validation = learner.validate()
        if watch.every_epoch:
            correct = (validation.argmax(axis=2) == truth).mean(axis=1)
            for found, loss, accuracy in zip(epochs, total / sum(map(len, batches)), correct, strict=True):
                found.append(Epoch(float(loss), float(accuracy)))
    return [learner.failed.get(i) or Trained(tuple(epochs[i]), validation[i]) for i in range(trials)]


def predict(network: AdaptedNetwork, store: PrefixStore, split: str) -> np.ndarray:
    """Probabilities [images, classes] of the evaluation view of a split, in evaluation mode."""
    network.eval()
    return probabilities([Alone(0, network)], network.stored_cut, store, split)[0]
