"""Layers that bring the activations of old and new layers into harmony.

L2 normalisation with a learned scale for each channel comes from ParseNet (Liu, Rabinovich, Berg, 2015,
arXiv 1506.04579) and was used for growing networks by Wang, Ramanan, Hebert ("Growing a Brain", CVPR 2017,
arXiv 1907.07844), who start the scale between 10 and 20.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inarch.errors import UsageError

HARMONISERS = ("none", "l2", "batch")
SCALE_START = 20.0


@final
class ScaledL2Normalisation(nn.Module):
    """y_c = s_c x_c / |x|_2 for a vector x, with one learned scale s_c a channel.

    Input and output: [..., channels].
    """

    def __init__(self, channels: int, start: float = SCALE_START) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), start))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1) * self.scale


@final
class TemperedSoftmax(nn.Module):
    """p = softmax(z / T) with one learned temperature T = exp(t), 1 at first. Input and output: [..., channels]."""

    def __init__(self) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(x / self.log_temperature.exp(), dim=-1)


@final
class Gate(nn.Module):
    """y_c = g_c x_c with one learned gate g_c a channel, all 0 at first. Input and output: [..., channels]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate


def harmoniser(kind: str, channels: int) -> nn.Module:
    """The layer h that stands between old and new layers: `none`, `l2` or `batch`."""
    match kind:
        case "none":
            return nn.Identity()
        case "l2":
            return ScaledL2Normalisation(channels)
        case "batch":
            return nn.BatchNorm1d(channels)
        case _:
            raise UsageError(
                f"There is no way to harmonise called '{kind}'.", f"Choose one of: {', '.join(HARMONISERS)}."
            )
