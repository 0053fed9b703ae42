"""Plain fine-tuning: the supervised loss, one rate for old layers and one for new layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from inarch.methods.method import ParameterGroup, Rates, old_and_new
from inarch.network.adapted import AdaptedNetwork


@final
@dataclass
class FineTuning:
    """With every stage but the classification layer frozen, this is the linear probe."""

    name: ClassVar[str] = "fine-tuning"
    paper: ClassVar[str] = (
        "Yosinski et al., How transferable are features in deep neural networks? NeurIPS 2014, arXiv 1411.1792"
    )

    def prepare(self, network: AdaptedNetwork) -> None:
        pass

    def groups(self, network: AdaptedNetwork, rates: Rates) -> list[ParameterGroup]:
        return old_and_new(network, rates)

    def loss(self, supervised: Tensor, network: AdaptedNetwork) -> Tensor:
        return supervised

    def finish(self, network: AdaptedNetwork) -> None:
        pass
