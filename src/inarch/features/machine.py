"""Where and how the arithmetic of a study happens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Machine:
    """Where the arithmetic happens: device, precision (`fp32` or `bf16`) and number of threads."""

    device: str = "cpu"
    precision: str = "fp32"
    threads: int = 1

    def autocast(self) -> torch.autocast:
        """The context in which forward passes run."""
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def place(self, pixels: Tensor) -> Tensor:
        """Pixels on the device, channels last: 1.3 to 15 times faster than contiguous on processors."""
        return pixels.to(self.device, memory_format=torch.channels_last)
