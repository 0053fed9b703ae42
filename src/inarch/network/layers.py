"""Layers that bring the activations of old and new layers into harmony.

L2 normalisation with a learned scale for each channel comes from ParseNet (Liu, Rabinovich, Berg, 2015,
arXiv 1506.04579) and was used for growing networks by Wang, Ramanan, Hebert ("Growing a Brain", CVPR 2017,
arXiv 1907.07844), who start the scale between 10 and 20.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inarch.errors import UsageError

SCALE_START = 20.0
# Ways to L2-normalise and where their scales start; None: at the data, by `match_scales`.
_SCALE_STARTS: dict[str, float | None] = {"l2": SCALE_START, "l2-1": 1.0, "l2-10": 10.0, "l2-matched": None}
HARMONISERS = ("none", *_SCALE_STARTS, "batch")


@final
class ScaledL2Normalisation(nn.Module):
    """y_c = s_c x_c / |x|_2 for a vector x, with one learned scale s_c a channel.

    Input and output: [..., channels]. start: every s_c at first; None where `match_scales` is to set it.
    """

    def __init__(self, channels: int, start: float | None = SCALE_START) -> None:
        super().__init__()
        self.matched = start is None
        self.scale = nn.Parameter(torch.full((channels,), SCALE_START if start is None else start))

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
    """The layer h that stands between old and new layers: one of `HARMONISERS`."""
    if kind in _SCALE_STARTS:
        return ScaledL2Normalisation(channels, _SCALE_STARTS[kind])
    match kind:
        case "none":
            return nn.Identity()
        case "batch":
            return nn.BatchNorm1d(channels)
        case _:
            raise UsageError(
                f"There is no way to harmonise called '{kind}'.", f"Choose one of: {', '.join(HARMONISERS)}."
            )


def starts_matched(kind: str) -> bool:
    """Whether the scales of this way to harmonise start at the data."""
    return kind in _SCALE_STARTS and _SCALE_STARTS[kind] is None


def match_scales(graft: nn.Module, seen: Callable[[], Iterable[Sequence[Tensor | None]]]) -> None:
    """Starts the scales of every layer that is to be matched at the mean length |x|_2 of what reaches it.

    Vectors then leave the layer about as long as they came. seen: what the graft is called with, in batches; they
    pass through it once, while the layers to be matched change nothing. A layer that nothing but zeros reaches, or
    something that is not finite, starts at `SCALE_START`.
    """
    layers = [m for m in graft.modules() if isinstance(m, ScaledL2Normalisation) and m.matched]
    if not layers:
        return
    lengths = [list[Tensor]() for _ in layers]

    def watch(found: list[Tensor]) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def passed_on(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            found.append(torch.linalg.vector_norm(inputs[0].detach().double(), dim=-1).flatten())
            return inputs[0]

        return passed_on

    hooks = [m.register_forward_hook(watch(found)) for m, found in zip(layers, lengths, strict=True)]
    try:
        with torch.no_grad():
            for some in seen():
                graft(*(None if x is None else x.to(layers[0].scale.dtype) for x in some))
    finally:
        for hook in hooks:
            hook.remove()
    for layer, found in zip(layers, lengths, strict=True):
        length = float(torch.cat(found).mean()) if found else 0.0
        with torch.no_grad():
            layer.scale.fill_(length if 0 < length < torch.inf else SCALE_START)
