"""Discriminative rates: the earlier a stage, the slower it learns.

Howard, Ruder, "Universal language model fine-tuning for text classification" (ACL 2018, arXiv 1801.06146), section 3.2:
the rate of layer l - 1 is that of layer l divided by 2.6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from inarch.methods.method import Method, ParameterGroup, Rates, stage_groups
from inarch.network.adapted import AdaptedNetwork


@final
@dataclass
class LayerDecay(Method):
    """factor: by which a stage learns slower than the one behind it. The last stage has the rate of old layers."""

    name: ClassVar[str] = "layer-decay"
    same_passes: ClassVar[bool] = True

    factor: float = 2.6

    def groups(self, network: AdaptedNetwork, rates: Rates) -> list[ParameterGroup]:
        return stage_groups(network, rates, self.factor)
