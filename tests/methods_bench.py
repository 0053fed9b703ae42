"""Toy networks, tasks and steps for tests of single methods, without a training loop around them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toy import SIDE, SOURCE_CLASSES, toy_network
from workbench import small

from inarch.methods import Method, Rates, Step, Task
from inarch.network.adapted import AdaptedNetwork
from inarch.network.card import InputSpec
from inarch.network.grafts import Widths
from inarch.network.stages import stage_network
from inarch.training.schedule import warmup_cosine

CLASSES, IMAGES = 3, 12
RATES = Rates(old=0.01, new=0.1, weight_decay=0.001)


def adapted(
    graft: str = "retain", cut: int = 1, *, harmonise: str = "none", source: nn.Module | None = None
) -> AdaptedNetwork:
    """The toy network with a graft; the source's classification layer is its 11th module."""
    spec = InputSpec(3, SIDE, SIDE, (0.5,) * 3, (0.5,) * 3)
    staged = stage_network(copy.deepcopy(source or toy_network()).eval(), "10", spec.example())
    return AdaptedNetwork(staged, small(graft, harmonise), Widths(12, SOURCE_CLASSES, CLASSES), cut=cut, seed=0)


def images(seed: int = 0) -> Tensor:
    return torch.randn(IMAGES, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def labels() -> Tensor:
    return torch.arange(IMAGES) % CLASSES


def stored_for(network: AdaptedNetwork, seed: int = 0) -> Tensor:
    """Activations of some images at the network's stored cut."""
    with torch.no_grad():
        return network.staged.segment(0, network.stored_cut).eval()(images(seed))


def a_task(network: AdaptedNetwork, *, epochs: int = 4, batches: int = 5, seed: int = 3) -> Task:
    """A task of so many epochs with so many batches each, all of the same images."""

    def every(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for number in range(batches):
            yield stored_for(network, 100 * epoch + number), labels()

    return Task(
        seed=seed,
        epochs=epochs,
        steps=epochs * batches,
        classes=CLASSES,
        labels=labels(),
        schedule=lambda step, steps: warmup_cosine(step, steps, 0.0),
        autocast=nullcontext,
        evaluation=lambda: iter([stored_for(network)]),
        batches=every,
        tick=lambda: None,
    )


def a_step(network: AdaptedNetwork, number: int = 0, seed: int = 0) -> Step:
    """What a method sees of the network on some images; the supervised loss is their cross-entropy."""
    stored = stored_for(network, seed)
    features, source_logits, *earlier = network.graft_inputs(stored)
    logits = network.graft(features, source_logits, *earlier)
    return Step(
        number, 0, F.cross_entropy(logits, labels()), labels(), logits, features, source_logits, stored,
        lambda: stored_for(network, seed + 50),
    )  # fmt: skip


def moved(network: AdaptedNetwork, by: float = 0.05) -> AdaptedNetwork:
    """The network after every old parameter that trains was moved by a random amount."""
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.old_parameters():
            parameter.add_(by * torch.randn(parameter.shape, generator=random))
    return network


def added(method: Method, network: AdaptedNetwork) -> float:
    """What a method adds to the supervised loss of a batch."""
    step = a_step(network)
    return float(method.loss(network, step).detach() - step.supervised.detach())


def weights_of_new(network: AdaptedNetwork) -> float:
    return sum(float(p.detach().square().sum()) for p in network.new_parameters() if p.ndim >= 2)
