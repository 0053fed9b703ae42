"""Batch spectral shrinkage: the smallest singular values of the features of a batch are pushed towards zero.

Chen, Wang, Fu, Long, Wang, "Catastrophic forgetting meets negative transfer: Batch spectral shrinkage for safe transfer
learning" (NeurIPS 2019), equation 3: eta times the sum of sigma_(-i)^2 over i = 1 ... k, with sigma_(-i) the i-th
smallest singular value of the feature matrix of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from inarch.methods.method import Method, Step
from inarch.network.adapted import AdaptedNetwork
from inarch.network.grafts import pooled


@final
@dataclass
class BSS(Method):
    """eta: weight of the penalty. k: how many singular values are shrunk.

    The features are the penultimate ones, averaged over the image where they are maps. Where no stage before them
    trains the penalty is a constant and left out.
    """

    name: ClassVar[str] = "bss"
    same_passes: ClassVar[bool] = True
    strength_of: ClassVar[tuple[str, ...]] = ("eta",)

    eta: float = 0.001
    k: int = 1

    def loss(self, network: AdaptedNetwork, step: Step) -> Tensor:
        if not step.features.requires_grad:
            return step.supervised
        singular = torch.linalg.svdvals(pooled(step.features).to(step.supervised.dtype))  # largest first
        return step.supervised + self.eta * singular[-self.k :].square().sum()
