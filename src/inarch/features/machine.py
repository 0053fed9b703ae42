"""Where and how the arithmetic of a study happens."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from inarch.features.plan import Plan
from inarch.network.depthwise import quick_gradients


@dataclass(frozen=True)
class Machine:
    """Where the arithmetic happens, and how: device, plan and number of threads; and how many trials train side by
    side, with so many threads each."""

    device: str = "cpu"
    plan: Plan = field(default_factory=Plan)
    threads: int = 1
    workers: int = 1

    @contextmanager
    def autocast(self, *, frozen: bool = False) -> Iterator[None]:
        """The context of forward passes: through `frozen` stages ahead of the stored cut, or through all behind it."""
        precision = self.plan.frozen if frozen else self.plan.trained
        kind = torch.device(self.device).type
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=precision == "bf16"), quick_gradients():
            yield

    def place(self, pixels: Tensor) -> Tensor:
        """Pixels [images, channels, height, width] on the device, in the memory format of the plan."""
        return pixels.to(self.device, memory_format=self.plan.layout)

    def place_frozen(self, module: nn.Module) -> nn.Module:
        """A module on the device that only ever runs forward, in evaluation mode; changed in place."""
        placed = module.to(self.device).to(memory_format=self.plan.layout)
        return placed.eval().requires_grad_(False)

    def hand_over(self, stored: Tensor) -> Tensor:
        """What the frozen pass left, on the device and in a type that the layers behind it take."""
        stored = stored.to(self.device)
        return stored.float() if stored.dtype == torch.bfloat16 and self.plan.trained == "fp32" else stored

    def wait(self) -> None:
        """Returns when a GPU has done what it was given: before a clock is read."""
        if torch.device(self.device).type == "cuda":
            torch.cuda.synchronize(self.device)

    def free_memory_of_gpu(self) -> int:
        """Bytes; none where the device is no GPU. What PyTorch keeps for later is given back and counted as free."""
        if torch.device(self.device).type != "cuda":
            return 0
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(self.device)[0]

    def identity(self) -> dict[str, Any]:
        """JSON that names everything of a machine that changes what a frozen network computes."""
        if self.device.startswith("cuda"):
            processor = torch.cuda.get_device_name(self.device)
        else:
            processor = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
        return {
            "device": self.device,
            "processor": processor,
            "threads": self.threads,
            "memory_format": self.plan.memory_format,
            "precision": self.plan.frozen,
        }
