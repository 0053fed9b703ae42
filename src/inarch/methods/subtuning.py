"""SubTuning: a few stages train, chosen one by one by what they are worth; the others stay frozen.

Kaplun, Gurevich, Swisa, David, Shalev-Shwartz, Malach, "Less is more: Selective layer finetuning with SubTuning" (arXiv
2302.06354), algorithm 1: beginning with new layers alone, the stage is added with which the network is most often right
on images held out, as long as that gains more than epsilon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional as F

from inarch.methods.method import Method, ParameterGroup, Rates, Task, old_and_new
from inarch.network.adapted import AdaptedNetwork
from inarch.network.weights import copy_of_weights

Batches = Sequence[tuple[Tensor, Tensor]]
"""Stored activations and labels."""

MOMENTUM = 0.9
# One in so many images is held out.
HELD_OUT = 5
# A choice is tried for one in so many steps of the whole training at most, but for one pass at least.
SHARE = 4


@final
@dataclass
class SubTuning(Method):
    """epsilon: gain in accuracy that a further stage must bring. most: stages at most.

    batches: of the first epoch at most, on whose images each choice is tried: four in five of them for training, the
    others held out. Where an epoch has fewer, training passes over them again, for as many steps as that many batches
    have, or a quarter of the whole training where that is less. With fewer than five images no old stage trains. The
    paper trains every candidate in full with cross-validation, which here would cost a hundred trainings for one.
    """

    name: ClassVar[str] = "subtuning"

    epsilon: float = 0.0
    most: int = 5
    batches: int = 30
    _task: Task | None = field(default=None, init=False, repr=False)

    def prepare(self, network: AdaptedNetwork, task: Task) -> None:
        self._task = task

    def groups(self, network: AdaptedNetwork, rates: Rates) -> list[ParameterGroup]:
        assert self._task is not None
        stages = list(network.old_stages())
        if stages:
            tried: list[tuple[Tensor, Tensor]] = []
            for batch in self._task.batches(0):
                tried.append(batch)
                if len(tried) == self.batches:
                    break
            enough = sum(len(labels) for _, labels in tried) >= HELD_OUT
            chosen = self._chosen(network, stages, rates, tried) if enough else []
            network.rest(k for k in stages if k not in chosen)
        return old_and_new(network, rates)

    def _chosen(self, network: AdaptedNetwork, stages: Sequence[int], rates: Rates, tried: Batches) -> list[int]:
        """The stages that train, in the order in which they were added."""
        chosen, best = list[int](), 0.0
        while len(chosen) < min(self.most, len(stages)):
            found = {}
            for candidate in (k for k in stages if k not in chosen):
                network.rest(k for k in stages if k not in (*chosen, candidate))
                found[candidate] = self._accuracy(network, rates, tried)
            added = max(found, key=lambda k: found[k])
            if found[added] <= best + self.epsilon:
                break
            chosen.append(added)
            best = found[added]
        return chosen

    def _accuracy(self, network: AdaptedNetwork, rates: Rates, tried: Batches) -> float:
        """How often the network is right on what is held out after a few steps on the rest; it is as before then."""
        assert self._task is not None
        learned, held_out = _apart(tried)
        most = self.batches * (HELD_OUT - 1) // HELD_OUT
        steps = max(len(learned), min(most, self._task.steps // SHARE))
        start = copy_of_weights(network)
        groups = old_and_new(network, rates)
        options = [{"params": g.parameters, "lr": g.learning_rate, "weight_decay": g.weight_decay} for g in groups]
        optimiser = torch.optim.SGD(options, momentum=MOMENTUM, fused=True)
        network.train()
        for step, (stored, labels) in enumerate(islice(cycle(learned), steps)):
            self._task.tick()
            for group, option in zip(groups, optimiser.param_groups, strict=True):
                option["lr"] = group.learning_rate * self._task.schedule(step, steps)
            optimiser.zero_grad()
            F.cross_entropy(self._logits(network, stored), labels).backward()
            optimiser.step()
        optimiser.zero_grad()
        network.eval()
        with torch.no_grad():
            right = [self._logits(network, stored).argmax(dim=1) == labels for stored, labels in held_out]
        network.load_state_dict(start)
        return float(torch.cat(right).float().mean())

    def _logits(self, network: AdaptedNetwork, stored: Tensor) -> Tensor:
        assert self._task is not None
        with self._task.autocast():
            logits = network.from_stored(stored)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _apart(tried: Batches) -> tuple[Batches, Batches]:
    """Batches to learn from and batches that are held out: the last fifth of the images, at least one."""
    images = sum(len(labels) for _, labels in tried)
    left = images - max(1, images // HELD_OUT)
    learned, held_out = [], []
    for stored, labels in tried:
        here = min(left, len(labels))
        left -= here
        if here:
            learned.append((stored[:here], labels[:here]))
        if here < len(labels):
            held_out.append((stored[here:], labels[here:]))
    # Normalisation over a batch makes nothing of a single image.
    return [batch for batch in learned if len(batch[1]) > 1] or learned, held_out
