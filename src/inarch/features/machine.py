"""Where and how the arithmetic of a study happens."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from inarch.features.plan import Plan


@dataclass(frozen=True)
class Machine:
    """Where the arithmetic happens, and how: device, plan and number of threads."""

    device: str = "cpu"
    plan: Plan = field(default_factory=Plan)
    threads: int = 1

    def autocast(self, *, frozen: bool = False) -> torch.autocast:
        """The context of forward passes: through `frozen` stages ahead of the stored cut, or through all behind it."""
        precision = self.plan.frozen if frozen else self.plan.trained
        return torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16, enabled=precision == "bf16")

    def place(self, pixels: Tensor) -> Tensor:
        """Pixels [images, channels, height, width] on the device, in the memory format of the plan."""
        return pixels.to(self.device, memory_format=self.plan.layout)

    def hand_over(self, stored: Tensor) -> Tensor:
        """What the frozen pass left, on the device and in a type that the layers behind it take."""
        stored = stored.to(self.device)
        return stored.float() if stored.dtype == torch.bfloat16 and self.plan.trained == "fp32" else stored
