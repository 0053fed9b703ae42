"""What a method is: the hooks that the training loop calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor, nn

from inarch.network.adapted import AdaptedNetwork


@dataclass(frozen=True)
class Rates:
    """Learning rates of a trial, and the weight decay of all that trains."""

    old: float
    new: float
    weight_decay: float


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that learn at one rate."""

    parameters: list[nn.Parameter]
    learning_rate: float
    weight_decay: float


class Method(Protocol):
    """A way to train. A new instance serves one trial, so hooks may keep state.

    `prepare` sees the network before its first step, `groups` says which parameters learn and how fast, `loss` turns
    the supervised loss of a batch into the one that is minimised, `finish` sees the trained network.
    """

    name: ClassVar[str]
    paper: ClassVar[str]

    def prepare(self, network: AdaptedNetwork) -> None: ...

    def groups(self, network: AdaptedNetwork, rates: Rates) -> list[ParameterGroup]: ...

    def loss(self, supervised: Tensor, network: AdaptedNetwork) -> Tensor: ...

    def finish(self, network: AdaptedNetwork) -> None: ...


def old_and_new(network: AdaptedNetwork, rates: Rates) -> list[ParameterGroup]:
    """One group for what trains of the source network, one for the new layers; empty groups are left out."""
    groups = [
        ParameterGroup(network.old_parameters(), rates.old, rates.weight_decay),
        ParameterGroup(network.new_parameters(), rates.new, rates.weight_decay),
    ]
    return [group for group in groups if group.parameters]
