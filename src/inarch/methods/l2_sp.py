"""L2-SP: weight decay towards the starting point instead of towards zero.

Li, Grandvalet, Davoine, "Explicit inductive bias for transfer learning with convolutional networks" (ICML 2018,
arXiv 1802.01483), equation 2: alpha / 2 |w - w0|^2 over old parameters plus beta / 2 |w|^2 over new ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor

from inarch.methods.method import Method, ParameterGroup, Rates, Step, Task, old_and_new, plus_decay
from inarch.network.adapted import AdaptedNetwork


@final
@dataclass
class L2SP(Method):
    """alpha: pull of old parameters towards their source values; beta: pull of new parameters towards zero."""

    name: ClassVar[str] = "l2-sp"
    same_passes: ClassVar[bool] = True
    acts_on_new_layers: ClassVar[bool] = True
    strength_of: ClassVar[tuple[str, ...]] = ("alpha",)

    alpha: float = 0.1
    beta: float = 0.01
    _start: list[Tensor] = field(default_factory=list, init=False, repr=False)

    def prepare(self, network: AdaptedNetwork, task: Task) -> None:
        self._start = [p.detach().clone() for p in network.old_parameters()]

    def groups(self, network: AdaptedNetwork, rates: Rates) -> list[ParameterGroup]:
        # The penalty takes the place of weight decay: both together would pull to zero and to the start.
        return old_and_new(network, Rates(rates.old, rates.new, weight_decay=0.0))

    def loss(self, network: AdaptedNetwork, step: Step) -> Tensor:
        pull = step.supervised.new_zeros(())
        for parameter, start in zip(network.old_parameters(), self._start, strict=True):
            pull = pull + self.alpha / 2 * torch.sum((parameter - start) ** 2)
        return step.supervised + plus_decay(pull, network, self.beta)

    def finish(self, network: AdaptedNetwork) -> None:
        self._start = []
