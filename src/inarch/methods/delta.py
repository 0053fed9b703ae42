"""DELTA: feature maps stay near those of the source network, channels that matter for the target more than others.

Li, Xiong, Wang, Rao, Liu, Huan, "DELTA: Deep learning transfer using feature map with attention for convolutional
networks" (ICLR 2019, arXiv 1901.09229), equations 4 to 6. For every image and every regularised convolution with C
channels of H x W:

    alpha / 2 sum_c C W_c / (H W) |FM_c - FM_c(source)|^2          and beta / 2 |w|^2 over new weights

W is a softmax over channels of how much the loss grows without each filter, standardised and divided by 5 as in the
authors' code. The loss is that of new layers trained on frozen features. FM(source) sees the same view.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from inarch.errors import UsageError
from inarch.methods.method import Method, ParameterGroup, Rates, Step, Task, old_and_new, plus_decay
from inarch.methods.source_copy import frozen_copy
from inarch.network.adapted import AdaptedNetwork
from inarch.network.grafts import Configuration
from inarch.network.stages import Stages

# Standardised growths of the loss are divided by this before the softmax.
SOFTENING = 5.0
# Iterations of the solver that trains new layers on frozen features, for the loss that filters are judged by.
ITERATIONS = 50


@final
@dataclass
class DELTA(Method):
    """alpha, beta: as in the authors' code. layers: how many convolutions are regularised, each the last of a stage,
    the stages spread evenly over those that train (the paper takes the last of each of a ResNet's four groups).

    images: of the training split, by whose loss filters are judged. The authors take four batches of 64; here it is one
    of 32, as every filter costs a forward pass over all of them. As in the authors' code the penalty is summed over the
    images of a batch. Where no old layer trains, beta is all that is left.
    """

    name: ClassVar[str] = "delta"
    acts_on_new_layers: ClassVar[bool] = True
    strength_of: ClassVar[tuple[str, ...]] = ("alpha",)

    alpha: float = 0.01
    beta: float = 0.01
    layers: int = 4
    images: int = 32
    _source: nn.Module | None = field(default=None, init=False, repr=False)
    _task: Task | None = field(default=None, init=False, repr=False)
    _attention: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)
    _maps: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)
    _source_maps: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)
    _handles: list[RemovableHandle] = field(default_factory=list, init=False, repr=False)

    def require(self, configuration: Configuration, staged: Stages) -> None:
        features = staged.segment(0, len(staged.stages) - 1)
        if not any(isinstance(module, nn.Conv2d) for module in features.modules()):
            raise UsageError(
                "delta compares feature maps of convolutions, and the source network has none.",
                "Choose another method, or another source network.",
            )

    def prepare(self, network: AdaptedNetwork, task: Task) -> None:
        self._task, names = task, regularised(network, self.layers)
        if not names:
            return
        self._source = frozen_copy(network.suffix)
        self._attention = channel_attention(network, task, names, self.images)
        for name in names.values():
            self._handles.append(_kept(network.suffix.get_submodule(name), self._maps, name))
            _kept(self._source.get_submodule(name), self._source_maps, name)

    def groups(self, network: AdaptedNetwork, rates: Rates) -> list[ParameterGroup]:
        # The penalties take the place of weight decay.
        return old_and_new(network, Rates(rates.old, rates.new, weight_decay=0.0))

    def loss(self, network: AdaptedNetwork, step: Step) -> Tensor:
        penalty = step.supervised.new_zeros(())
        if self._source is not None and self._task is not None:
            with torch.no_grad(), self._task.autocast():
                self._source(step.stored)
            for name, weights in self._attention.items():
                difference = (self._maps[name] - self._source_maps[name]).to(penalty.dtype)
                channels, height, width = difference.shape[1:]
                each = difference.square().sum(dim=(0, 2, 3)) * weights * (channels / (height * width))
                penalty = penalty + self.alpha / 2 * each.sum()
        return step.supervised + plus_decay(penalty, network, self.beta)

    def release(self) -> None:
        while self._handles:
            self._handles.pop().remove()
        self._maps.clear()
        self._source_maps.clear()
        self._source = None


def regularised(network: AdaptedNetwork, layers: int) -> dict[int, str]:
    """Names in the suffix of the last convolutions of stages that train, by stage: `layers` of them, up to the last.

    The classification layer has no part in it, even where it is a convolution.
    """
    suffix = {module: name for name, module in network.suffix.named_modules()}
    found = list[tuple[int, str]]()
    for index in (k for k in network.old_stages() if k < len(network.staged.stages)):
        stage = network.staged.segment(index - 1, index)
        convolutions = [m for m in stage.modules() if isinstance(m, nn.Conv2d) and m in suffix]
        if convolutions:
            found.append((index, suffix[convolutions[-1]]))
    wanted = min(layers, len(found))
    return dict(found[(len(found) * (number + 1)) // wanted - 1] for number in range(wanted))


def channel_attention(network: AdaptedNetwork, task: Task, names: Mapping[int, str], images: int) -> dict[str, Tensor]:
    """Weights [channels] of each convolution's channels, which sum to 1, by the convolution's name; `names` by stage.

    The network is in evaluation mode meanwhile, and afterwards as before.
    """
    training, graft = network.training, network.graft
    network.eval()
    network.graft = fitted_graft(network, task)
    attention = {}
    with torch.no_grad(), task.autocast():
        stored, labels = _some_images(task, images)
        for index, name in names.items():
            convolution: Any = network.suffix.get_submodule(name)
            behind = _Behind(network, index, stored, labels)
            whole = behind.loss()
            growth = torch.zeros(convolution.out_channels, dtype=torch.float64)
            for channel in range(len(growth)):
                task.tick()
                with _without(convolution, channel):
                    growth[channel] = behind.loss() - whole
            standard = (growth - growth.mean()) / growth.std(correction=0).clamp_min(1e-12)
            attention[name] = (standard / SOFTENING).softmax(dim=0).to(stored.device, torch.float32)
    network.graft = graft
    network.train(training)
    return attention


def fitted_graft(network: AdaptedNetwork, task: Task) -> Any:
    """A copy of the network's graft, trained on the frozen features of the training split, in evaluation mode."""
    with torch.no_grad(), task.autocast():
        seen = [network.graft_inputs(stored) for stored in task.evaluation()]
    inputs = [None if parts[0] is None else torch.cat(parts).float() for parts in zip(*seen, strict=True)]
    graft = copy.deepcopy(network.graft).eval()
    solver = torch.optim.LBFGS(graft.parameters(), max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> float:
        solver.zero_grad()
        loss = F.cross_entropy(graft(*inputs), task.labels)
        loss.backward()
        return float(loss.detach())

    solver.step(closure)
    return graft


def _some_images(task: Task, images: int) -> tuple[Tensor, Tensor]:
    """Stored activations and labels of the first images that the trial sees."""
    stored, labels = list[Tensor](), list[Tensor]()
    for some, theirs in task.batches(0):
        stored.append(some)
        labels.append(theirs)
        if sum(map(len, labels)) >= images:
            break
    return torch.cat(stored)[:images], torch.cat(labels)[:images]


@final
class _Behind:
    """The network from a stage on: what is before it is computed once, but where the graft reads that as well."""

    def __init__(self, network: AdaptedNetwork, index: int, stored: Tensor, labels: Tensor) -> None:
        last = len(network.staged.stages) - 1
        self._network, self._labels, self._stored = network, labels, stored
        self._seen = network.staged.segment(network.stored_cut, index - 1).eval()(stored)
        self._stages = network.staged.segment(index - 1, last).eval()

    def loss(self) -> float:
        if self._network.taps:
            return float(F.cross_entropy(self._network.from_stored(self._stored).float(), self._labels))
        features = self._stages(self._seen)
        logits = None if self._network.layer is None else self._network.layer(features)
        return float(F.cross_entropy(self._network.graft(features, logits).float(), self._labels))


@contextmanager
def _without(convolution: nn.Conv2d, channel: int) -> Iterator[None]:
    """The convolution with one filter at zero; its bias stays, as in the authors' code."""
    kept = convolution.weight[channel].clone()
    convolution.weight[channel] = 0.0
    try:
        yield
    finally:
        convolution.weight[channel] = kept


def _kept(module: nn.Module, into: dict[str, Tensor], name: str) -> RemovableHandle:
    """Keeps the module's last output under a name."""

    def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        into[name] = output

    return module.register_forward_hook(keep)
