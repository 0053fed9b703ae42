"""StochNorm: batch normalisation that takes, channel by channel and at random, batch or moving statistics.

Kou, You, Long, Wang, "Stochastic normalization" (NeurIPS 2020), equation 4: with s ~ Bernoulli(p) for each channel,
y = gamma ((1 - s) (x - moving mean) / moving deviation + s (x - batch mean) / batch deviation) + beta.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from inarch.errors import UsageError
from inarch.methods.method import Method, Task
from inarch.network.adapted import AdaptedNetwork
from inarch.network.grafts import Configuration
from inarch.network.stages import Stages


@final
@dataclass
class StochNorm(Method):
    """p: the chance of batch statistics, a half in the paper.

    Acts on the batch normalisation of the source network behind the cut; that of new layers has no statistics from the
    source to keep.
    """

    name: ClassVar[str] = "stochnorm"

    p: float = 0.5
    _handles: list[RemovableHandle] = field(default_factory=list, init=False, repr=False)

    def require(self, configuration: Configuration, staged: Stages) -> None:
        if not _normalisations(staged.segment(0, len(staged.stages))):
            raise UsageError(
                "stochnorm changes batch normalisation, and the source network has none.",
                "Choose another method, or another source network.",
            )

    def prepare(self, network: AdaptedNetwork, task: Task) -> None:
        parts = (network.suffix, *([network.layer] if network.layer is not None else []))
        for module in (m for part in parts for m in _normalisations(part)):
            chooser = _Chooser(self.p)
            self._handles += [
                module.register_forward_pre_hook(chooser.before),
                module.register_forward_hook(chooser.after),
            ]

    def release(self) -> None:
        while self._handles:
            self._handles.pop().remove()


def _normalisations(part: nn.Module) -> list[_BatchNorm]:
    return [m for m in part.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


@final
class _Chooser:
    """Two hooks of one layer: what moving statistics give before it changes them, and the choice afterwards.

    The layer itself computes both, so that activations which belong to it (timm) are within the choice.
    """

    def __init__(self, p: float) -> None:
        self._p = p
        self._moving: Tensor | None = None

    def before(self, module: Any, inputs: tuple[Any, ...]) -> None:
        if not module.training:
            return
        statistics = module.running_mean, module.running_var
        # Copies: the gradient is computed when the layer has changed its own.
        module.running_mean, module.running_var = (values.clone() for values in statistics)
        module.training = False
        self._moving = module.forward(*inputs)
        module.training = True
        module.running_mean, module.running_var = statistics

    def after(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        if self._moving is None:
            return output
        moving, self._moving = self._moving, None
        chosen = torch.rand(output.shape[1], device=output.device) < self._p
        return torch.where(chosen.view(1, -1, *[1] * (output.ndim - 2)), output, moving)
