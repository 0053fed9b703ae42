"""Copies of parts of the source network, for methods that compare with it."""

from __future__ import annotations

import copy
from typing import final

import torch
from torch import Tensor, nn

from inarch.methods.method import Step, Task
from inarch.network.adapted import AdaptedNetwork


def frozen_copy(module: nn.Module) -> nn.Module:
    """A copy that stays as the module is now: evaluation mode, no gradient."""
    return copy.deepcopy(module).eval().requires_grad_(False)


def classification_layer(network: AdaptedNetwork) -> nn.Module:
    """The source network's classification layer, from penultimate features to source logits."""
    last = len(network.staged.stages) - 1
    return network.staged.segment(last, last + 1)


@final
class SourceLogits:
    """Source logits [images, source classes] of a network while it is trained.

    Where the graft keeps the classification layer they are those of the network. Where it replaces the layer, a copy
    of it goes on beside the new classifier, trained along, and is thrown away in the end: the network has two heads
    while it is trained, as in the papers.
    """

    def __init__(self, network: AdaptedNetwork, task: Task) -> None:
        self._autocast = task.autocast
        keeps = network.graft.keeps_layer
        self._head = None if keeps else copy.deepcopy(classification_layer(network)).train().requires_grad_(True)

    def parameters(self) -> list[nn.Parameter]:
        """Of the second head, if there is one."""
        return [] if self._head is None else list(self._head.parameters())

    def of(self, step: Step) -> Tensor:
        """In fp32 at least."""
        logits = step.source_logits
        if self._head is not None:
            with self._autocast():
                logits = self._head(step.features)
        assert logits is not None
        return logits.to(torch.promote_types(logits.dtype, torch.float32))


@final
class Teacher:
    """The source network as it was before training, from the stored cut on."""

    def __init__(self, network: AdaptedNetwork, task: Task) -> None:
        self._autocast = task.autocast
        self._network = frozen_copy(nn.Sequential(network.suffix, classification_layer(network)))

    def logits(self, stored: Tensor) -> Tensor:
        """Source logits [images, source classes] from activations at the stored cut, in fp32 at least."""
        with torch.no_grad(), self._autocast():
            logits = self._network(stored)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))
