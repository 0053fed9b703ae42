"""L2-SP: weight decay towards the starting point instead of towards zero.

Li, Grandvalet, Davoine, "Explicit inductive bias for transfer learning with convolutional networks" (ICML 2018,
arXiv 1802.01483), equation 2: alpha / 2 |w - w0|^2 over old parameters plus beta / 2 |w|^2 over new ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor

from inarch.methods.method import ParameterGroup, Rates, old_and_new
from inarch.network.adapted import AdaptedNetwork


@final
@dataclass
class L2SP:
    """alpha: pull of old parameters towards their source values; beta: pull of new parameters towards zero."""

    name: ClassVar[str] = "l2-sp"
    paper: ClassVar[str] = (
        "Li, Grandvalet, Davoine, Explicit inductive bias for transfer learning, ICML 2018, arXiv 1802.01483"
    )

    alpha: float = 0.1
    beta: float = 0.01
    _start: list[Tensor] = field(default_factory=list, init=False, repr=False)

    def prepare(self, network: AdaptedNetwork) -> None:
        self._start = [p.detach().clone() for p in network.old_parameters()]

    def groups(self, network: AdaptedNetwork, rates: Rates) -> list[ParameterGroup]:
        # The penalty takes the place of weight decay: both together would pull to zero and to the start.
        return old_and_new(network, Rates(rates.old, rates.new, weight_decay=0.0))

    def loss(self, supervised: Tensor, network: AdaptedNetwork) -> Tensor:
        pull = supervised.new_zeros(())
        for parameter, start in zip(network.old_parameters(), self._start, strict=True):
            pull = pull + self.alpha / 2 * torch.sum((parameter - start) ** 2)
        for parameter in (p for p in network.new_parameters() if p.ndim >= 2):  # not biases, not harmonising scales
            pull = pull + self.beta / 2 * torch.sum(parameter**2)
        return supervised + pull

    def finish(self, network: AdaptedNetwork) -> None:
        self._start = []
