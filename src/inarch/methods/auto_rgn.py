"""Auto-RGN: every weight of the source network learns as fast as its gradient is large beside it.

Lee, Chen, Tajwar, Kumar, Yao, Liang, Finn, "Surgical fine-tuning improves adaptation to distribution shifts" (ICLR
2023, arXiv 2210.11466), section 4.2: before every epoch the relative gradient norm |g| / |w| of each weight is averaged
over a few batches, divided by the largest one, and multiplied with the rate for that epoch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inarch.methods.method import Method, ParameterGroup, Rates, Task, not_empty
from inarch.network.adapted import AdaptedNetwork


@final
@dataclass
class AutoRGN(Method):
    """batches: how many of an epoch its gradients are averaged over, 5 as in the authors' code.

    Only old weights of two or more dimensions are weighed, against each other. Biases and normalisation stand still, as
    in the authors' code; new layers have their own rate: they are random, and would always outweigh the old ones.
    Gradients are taken in evaluation mode, so that statistics and dropout are as if nobody had looked.
    """

    name: ClassVar[str] = "auto-rgn"

    batches: int = 5
    _task: Task | None = field(default=None, init=False, repr=False)
    _weights: list[nn.Parameter] = field(default_factory=list, init=False, repr=False)
    _shares: list[float] = field(default_factory=list, init=False, repr=False)
    _begins: dict[int, int] = field(default_factory=dict, init=False, repr=False)

    def prepare(self, network: AdaptedNetwork, task: Task) -> None:
        self._task, self._weights = task, [p for p in network.old_parameters() if p.ndim >= 2]
        each = task.steps // task.epochs
        self._begins = {epoch * each: epoch for epoch in range(task.epochs)}

    def groups(self, network: AdaptedNetwork, rates: Rates) -> list[ParameterGroup]:
        old = [
            ParameterGroup([weight], rates.old, rates.weight_decay, partial(self._factor, place))
            for place, weight in enumerate(self._weights)
        ]
        return not_empty(*old, ParameterGroup(network.new_parameters(), rates.new, rates.weight_decay))

    def begin(self, network: AdaptedNetwork, number: int) -> None:
        if self._weights and number in self._begins:
            self._shares = self._relative_norms(network, self._begins[number])

    def _factor(self, place: int, number: int) -> float:
        assert self._task is not None
        return self._shares[place] * self._task.schedule(number, self._task.steps)

    def _relative_norms(self, network: AdaptedNetwork, epoch: int) -> list[float]:
        """|g| / |w| of every weight, averaged over the first batches of an epoch, the largest being 1."""
        assert self._task is not None
        training = network.training
        network.eval()
        norms = torch.zeros(len(self._weights), dtype=torch.float64)
        for stored, labels in islice(self._task.batches(epoch), self.batches):
            with self._task.autocast():
                logits = network.from_stored(stored)
            loss = F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), labels)
            norms += _ratios(torch.autograd.grad(loss, self._weights), self._weights)
        network.train(training)
        largest = float(norms.max())
        return (norms / largest).tolist() if largest > 0 else [1.0] * len(self._weights)


def _ratios(gradients: tuple[Tensor, ...], weights: list[nn.Parameter]) -> Tensor:
    """|g| / |w| of each; 0 for a weight that is all zero, of which nothing can be said."""
    sizes = torch.stack([weight.detach().norm() for weight in weights]).double().cpu()
    norms = torch.stack([gradient.norm() for gradient in gradients]).double().cpu()
    return torch.where(sizes > 0, norms / sizes, torch.zeros_like(norms))
