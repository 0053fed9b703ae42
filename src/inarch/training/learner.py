"""The steps of the training loop, and what the networks say after them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from inarch.errors import TrainingError
from inarch.features.store import PrefixStore
from inarch.methods import Method, ParameterGroup, Rates, Step, over_labels
from inarch.network.adapted import AdaptedNetwork
from inarch.training.averages import Averages
from inarch.training.members import Members, as_members, logits_of
from inarch.training.mixing import mixture_of, require_bearable
from inarch.training.order import Course, class_weights
from inarch.training.schedule import warmup_cosine
from inarch.training.task import task_of
from inarch.training.trial import TrainingSettings, Trial


@final
class Learner:
    """The steps of trials that are trained together: losses, gradients, optimiser, schedule, averages of weights."""

    def __init__(
        self,
        networks: Sequence[AdaptedNetwork],
        trials: Sequence[Trial],
        store: PrefixStore,
        methods: Sequence[Method],
        course: Course,
    ) -> None:
        self._networks, self._trials, self._store, self._methods = networks, trials, store, methods
        self._course, self._settings, device = course, trials[0].settings, store.machine.device
        for network, trial, method in zip(networks, trials, methods, strict=True):
            network.to(device)
            method.require(network.configuration, network.staged)
            require_bearable(method, self._settings)
            task = task_of(trial, network.stored_cut, course, store)
            method.prepare(network, task)
        self._members = as_members(networks)
        # Results come member by member: where among them each trial stands.
        numbers = [(member, number) for member, some in enumerate(self._members) for number in some.numbers]
        self._places = np.argsort([number for _, number in numbers]).tolist()
        self._member_at = [member for member, _ in numbers]
        labels = store.images.labels["train"]
        self._labels = torch.from_numpy(labels).to(device)
        balanced = self._settings.balance == "loss"
        self._weights = class_weights(labels, store.images.classes).to(device) if balanced else None
        self._groups: list[ParameterGroup] = []
        for network, trial, method in zip(networks, trials, methods, strict=True):
            rates = Rates(trial.learning_rate, trial.new_layer_learning_rate, self._settings.weight_decay)
            self._groups += method.groups(network, rates)
        self._optimiser = make_optimiser(self._groups, self._settings)
        averaged = [tensor for some in self._members for tensor in some.state()] if self._settings.ema else []
        self._averages = Averages(averaged, self._settings.ema) if averaged else None
        self.done = 0
        # Trials that still train, and why the others do not.
        self.alive = list(range(len(trials)))
        self.failed: dict[int, TrainingError] = {}

    def train(self, mode: bool) -> None:
        for some in self._members:
            some.train(mode)

    def step(self, epoch: int, positions: np.ndarray) -> list[float]:
        """One step on the images at `positions` of the training split; returns the loss of each trial."""
        for network, method in zip(self._networks, self._methods, strict=True):
            method.begin(network, self.done)
        losses = self._losses(epoch, positions)
        self.done += 1
        values = torch.stack([loss.detach() for loss in losses]).tolist()
        self._require_finite(values, "training loss")
        if self.alive:
            self._optimiser.zero_grad(set_to_none=True)
            # What failed has no part in the sum.
            torch.stack([losses[i] for i in self.alive]).sum().backward()
            for some in self._members:
                some.share_gradients()
            for i in self.failed:
                _rest(self._networks[i])
            self._set_rates()
            self._optimiser.step()
            if self._averages is not None:
                self._averages.update()
        return values

    def _losses(self, epoch: int, positions: np.ndarray) -> list[Tensor]:
        """What each trial minimises on the images at `positions` of the training split."""
        read = partial(self._store.read, self._networks[0].stored_cut, "train", positions)
        stored, labels = read(self._course.views[epoch]), self._labels[positions]
        mixture = mixture_of(self._settings.mixup, self._trials[0].seed, self.done, len(positions), labels.device)
        if mixture is not None:
            stored = mixture.of(stored)
        with self._store.machine.autocast():
            outputs = [some.outputs(stored) for some in self._members]
            logits = logits_of(outputs)
        weights, smoothing = self._weights, self._settings.label_smoothing
        found = over_labels(lambda these: supervised_losses(logits, these, weights, smoothing), labels, mixture)
        supervised, each = found.unbind(), logits.unbind()
        another = partial(read, self._course.view_after(epoch))
        losses = []
        for place, network, method in zip(self._places, self._networks, self._methods, strict=True):
            seen = outputs[self._member_at[place]]
            step = Step(
                self.done, epoch, supervised[place], labels, each[place], seen.features, seen.source_logits, stored,
                another, mixture,
            )  # fmt: skip
            losses.append(method.loss(network, step))
        return losses

    def _set_rates(self) -> None:
        """The rates of the step that was just computed."""
        number = self.done - 1
        usual = warmup_cosine(number, self._course.steps, self._settings.warmup)
        for group, options in zip(self._groups, self._optimiser.param_groups, strict=True):
            options["lr"] = group.learning_rate * (usual if group.factor is None else group.factor(number))

    def finish(self) -> None:
        """Leaves the averages in place of the weights, where there are any; then methods have the last word."""
        if self._averages is not None:
            self._averages.leave()
            self._averages = None
        for network, method in zip(self._networks, self._methods, strict=True):
            method.finish(network)

    def validate(self) -> np.ndarray:
        """Probabilities [trials, images, classes] on the validation split."""
        self.train(False)
        with self._averages.in_use() if self._averages is not None else nullcontext():
            found = probabilities(self._members, self._networks[0].stored_cut, self._store, "validation")
        ordered = found[self._places]
        sums = ordered.sum(axis=(1, 2), dtype=np.float64).tolist()
        self._require_finite(sums, "probability on the validation split")
        return ordered

    def _require_finite(self, values: list[float], name: str) -> None:
        for i in [i for i in self.alive if not math.isfinite(values[i])]:
            trial = self._trials[i]
            self.alive.remove(i)
            self.failed[i] = TrainingError(
                f"The {name} became {values[i]} at step {self.done} of {self._course.steps} (learning rates: "
                f"old layers {trial.learning_rate:g}, new layers {trial.new_layer_learning_rate:g}).",
                "Other rates are tried; nothing needs to be done.",
            )


def _rest(network: AdaptedNetwork) -> None:
    """Lets a network that failed stand still, at numbers with which the others can be computed on."""
    with torch.no_grad():
        for parameter in network.new_parameters():
            parameter.zero_()
            parameter.grad = None


def supervised_losses(logits: Tensor, labels: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:
    """Mean cross-entropy [networks] of logits [networks, images, classes] and labels [images], weighted by class."""
    networks, images, _ = logits.shape
    weights = None if weights is None else weights.to(logits.dtype)
    each = F.cross_entropy(
        logits.flatten(0, 1), labels.repeat(networks), weights, label_smoothing=smoothing, reduction="none"
    )
    return each.view(networks, images).sum(dim=1) / (images if weights is None else weights[labels].sum())


def probabilities(members: Sequence[Members], cut: int, store: PrefixStore, split: str) -> np.ndarray:
    """Probabilities [networks, images, classes] in the order of `logits_of`; members are in evaluation mode."""
    parts = []
    with store.profile.section(f"evaluation on {split}"), torch.no_grad():
        for stored in store.batches(cut, split):
            with store.machine.autocast():
                logits = logits_of([some.outputs(stored) for some in members])
            parts.append(logits.softmax(dim=2).cpu())
    networks = sum(len(some.numbers) for some in members)
    return torch.cat(parts, dim=1).numpy() if parts else np.zeros((networks, 0, store.images.classes), np.float32)


def make_optimiser(groups: list[ParameterGroup], settings: TrainingSettings) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW, with a rate and weight decay for each group; a step is one pass over memory."""
    options = [{"params": g.parameters, "lr": g.learning_rate, "weight_decay": g.weight_decay} for g in groups]
    if settings.optimiser == "adamw":
        return torch.optim.AdamW(options, fused=True)
    return torch.optim.SGD(options, momentum=settings.momentum, fused=True)
