"""Bi-Tuning: two contrastive losses beside the supervised one, against a queue of keys for every class.

Zhong, Wang, Kou, Wang, Long, "Bi-tuning of pre-trained representations" (arXiv 2011.06182). As in MoCo a key encoder
follows the trained network slowly and sees another view. With h the input of the last layer and 1 for its bias, w_c the
weights and bias of that layer for class c, z a projection of h, all of length one; K+ the keys of the image's class,
which are `queue` older ones and one of the image itself, and K- those of all other classes:

    classifier   - mean over h+ of log exp(w_y h+ / T) / sum over h in K+ and K- of exp(w_y h / T)
    projector    - mean over z+ of log exp(z  z+ / T) / sum over z' in K+ and K- of exp(z  z' / T)

The one key of the image itself is, for the classifier, what the trained network makes of it: only through it does the
first loss teach anything. w is a constant there, as in the authors' code (Transfer-Learning-Library).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from inarch.methods.method import Method, ParameterGroup, Rates, Step, Task, old_and_new
from inarch.network.adapted import AdaptedNetwork
from inarch.network.randomness import own_randomness


@final
@dataclass
class BiTuning(Method):
    """temperature: T. queue: keys kept of each class. momentum: of the key encoder. projection: channels of z.

    The defaults are those of the authors' code. The key's view is that of the next epoch. The projector is as new as
    the graft, learns at its rate, and is thrown away in the end. In the beginning the queues are random, as in MoCo.
    """

    name: ClassVar[str] = "bi-tuning"
    acts_on_new_layers: ClassVar[bool] = True
    strength_of: ClassVar[tuple[str, ...]] = ("weight",)
    # It must see what the last layer of each network sees.
    together: ClassVar[bool] = False
    # Which keys are positive is a matter of one label.
    bears_mixing: ClassVar[bool] = False

    weight: float = 1.0
    temperature: float = 0.07
    queue: int = 40
    momentum: float = 0.999
    projection: int = 128
    _task: Task | None = field(default=None, init=False, repr=False)
    _keys: _KeyEncoder | None = field(default=None, init=False, repr=False)
    _projector: nn.Linear | None = field(default=None, init=False, repr=False)
    _seen: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)
    _handle: RemovableHandle | None = field(default=None, init=False, repr=False)
    _queues: tuple[Queue, Queue] | None = field(default=None, init=False, repr=False)

    def prepare(self, network: AdaptedNetwork, task: Task) -> None:
        channels, device = network.graft.classifier.in_features, task.labels.device
        random = torch.Generator().manual_seed(task.seed)
        with own_randomness(task.seed):
            self._projector = nn.Linear(channels, self.projection).to(device)
        self._task, self._keys = task, _KeyEncoder(network, self._projector, self.momentum)
        self._queues = (
            Queue(task.classes, self.queue, channels + 1, random, device),
            Queue(task.classes, self.queue, self.projection, random, device),
        )
        self._handle = network.graft.classifier.register_forward_pre_hook(_keep_input(self._seen))

    def groups(self, network: AdaptedNetwork, rates: Rates) -> list[ParameterGroup]:
        assert self._projector is not None
        projector = ParameterGroup(list(self._projector.parameters()), rates.new, rates.weight_decay)
        return [*old_and_new(network, rates), projector]

    def loss(self, network: AdaptedNetwork, step: Step) -> Tensor:
        assert self._task is not None
        assert self._keys is not None
        assert self._projector is not None
        assert self._queues is not None
        features = self._seen["input"]
        with self._task.autocast():
            projected = self._projector(features)
        own, query = with_one(features), F.normalize(projected.float(), dim=1)
        keys, projected_keys = self._keys(step.another_view(), network, self._projector, self._task)
        layer = network.graft.classifier
        weights = F.normalize(torch.cat([layer.weight, layer.bias.unsqueeze(1)], dim=1).detach().float(), dim=1)
        queued, queued_projected = (queue.keys for queue in self._queues)
        mine = weights[step.labels]  # [images, channels + 1]
        first = contrast((own * mine).sum(dim=1), similarities(mine, queued), step.labels, self.temperature)
        current = (query * projected_keys).sum(dim=1)
        second = contrast(current, similarities(query, queued_projected), step.labels, self.temperature)
        for queue, found in zip(self._queues, (keys, projected_keys), strict=True):
            queue.push(found, step.labels)
        return step.supervised + self.weight * (first + second)

    def release(self) -> None:
        if self._handle is not None:
            self._handle.remove()
        self._handle = self._keys = self._queues = None
        self._seen.clear()


@final
class Queue:
    """The last keys of every class: `keys` [classes, size, channels], each of length one."""

    def __init__(self, classes: int, size: int, channels: int, random: torch.Generator, device: torch.device) -> None:
        self.keys = F.normalize(torch.randn(classes, size, channels, generator=random), dim=2).to(device)
        self._next = [0] * classes

    def push(self, keys: Tensor, labels: Tensor) -> None:
        """Takes the keys [images, channels] in, each in place of the oldest one of its class."""
        places = []
        for label in labels.tolist():
            places.append(self._next[label])
            self._next[label] = (self._next[label] + 1) % self.keys.shape[1]
        # One after the other: of one class there may be more than fit.
        self.keys = self.keys.clone()
        for key, label, place in zip(keys.detach(), labels.tolist(), places, strict=True):
            self.keys[label, place] = key


@final
class _KeyEncoder:
    """The network and its projector as a slowly moving mean of what is trained."""

    def __init__(self, network: AdaptedNetwork, projector: nn.Linear, momentum: float) -> None:
        self._network, self._projector = copy.deepcopy(network).train(), copy.deepcopy(projector)
        self._momentum = momentum
        self._seen: dict[str, Tensor] = {}
        self._network.graft.classifier.register_forward_pre_hook(_keep_input(self._seen))

    def __call__(
        self, stored: Tensor, network: AdaptedNetwork, projector: nn.Linear, task: Task
    ) -> tuple[Tensor, Tensor]:
        """Moves a step towards the trained network; then h and z [images, ...] of stored activations, of length one."""
        with torch.no_grad():
            for mine, trained in ((self._network, network), (self._projector, projector)):
                for slow, now in zip(mine.parameters(), trained.parameters(), strict=True):
                    if now.requires_grad:
                        slow.mul_(self._momentum).add_(now, alpha=1 - self._momentum)
            with task.autocast():
                self._network.from_stored(stored)
                projected = self._projector(self._seen["input"])
            return with_one(self._seen["input"]), F.normalize(projected.float(), dim=1)


def with_one(features: Tensor) -> Tensor:
    """[features, 1] of length one, [images, channels + 1]: what the weights and the bias of a linear layer see."""
    features = features.float()
    return F.normalize(torch.cat([features, features.new_ones(len(features), 1)], dim=1), dim=1)


def similarities(queries: Tensor, keys: Tensor) -> Tensor:
    """Inner products [images, classes, size] of queries [images, channels] and keys [classes, size, channels]."""
    return torch.einsum("id,ckd->ick", queries, keys)


def contrast(current: Tensor, queued: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Mean over images and positives of -log softmax over all keys.

    current [images]: similarity to the image's own key. queued [images, classes, size]: to those in the queues; the
    ones of the image's class are positive too.
    """
    everything = torch.cat([current.unsqueeze(1), queued.flatten(1)], dim=1) / temperature
    log = everything.log_softmax(dim=1)
    positive = log[:, 1:].view(queued.shape)[torch.arange(len(labels), device=labels.device), labels]
    return -torch.cat([log[:, :1], positive], dim=1).mean()


def _keep_input(into: dict[str, Tensor]) -> Any:
    def keep(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        into["input"] = inputs[0]

    return keep
