"""How the arithmetic of a study is done: order of the numbers in memory, and precision of what is frozen and trained.

Which plan is fastest depends on network, image size and machine (docs/lab-notebook.md); launch/plan.py measures it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, final

import torch

from inarch.errors import UsageError

PRECISIONS = ("fp32", "bf16")
MEMORY_FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


@final
@dataclass(frozen=True)
class Plan:
    """memory_format: of the whole network, since what is frozen and what trains share modules. frozen: precision of
    forward passes through frozen stages. trained: precision of everything behind them, trained or evaluated.
    recomputed: the first so many stages keep nothing of their inside in a training step (network/recomputed.py); the
    numbers do not depend on it. captured: whether a GPU plays back passes of training steps (network/captured.py); nor
    do they depend on that.

    `ValueError` where one of them is not known.
    """

    memory_format: str = "channels_last"
    frozen: str = "fp32"
    trained: str = "fp32"
    recomputed: int = 0
    captured: bool = False

    def __post_init__(self) -> None:
        if self.memory_format not in MEMORY_FORMATS:
            raise ValueError(f"memory format {self.memory_format!r}, known: {', '.join(MEMORY_FORMATS)}")
        for precision in (self.frozen, self.trained):
            if precision not in PRECISIONS:
                raise ValueError(f"precision {precision!r}, known: {', '.join(PRECISIONS)}")
        if self.recomputed < 0:
            raise ValueError(f"{self.recomputed} stages to compute again")

    @property
    def layout(self) -> torch.memory_format:
        """The memory format as PyTorch names it."""
        return MEMORY_FORMATS[self.memory_format]

    @property
    def precisions(self) -> set[str]:
        return {self.frozen, self.trained}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Plan:
        """`KeyError`, `TypeError` or `ValueError` where `value` is no plan; further keys are allowed."""
        recomputed, captured = int(value.get("recomputed", 0)), bool(value.get("captured", False))
        return cls(value["memory_format"], value["frozen"], value["trained"], recomputed, captured)


def computes_in_bf16(device: str) -> bool:
    """Whether the device has arithmetic in bf16 of its own; what only emulates it is many times slower."""
    kind = torch.device(device).type
    try:
        if kind == "cpu":
            # What oneDNN, which does the work, thinks of this processor.
            return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        if kind == "cuda":
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
        one = torch.ones(2, 2, device=device, dtype=torch.bfloat16)
        return bool(torch.isfinite(one @ one).all())
    except (RuntimeError, AttributeError, TypeError, NotImplementedError):
        return False


def require_precision(precisions: set[str], device: str, where: str, remedy: str) -> None:
    """`UsageError` where the device cannot compute in one of the precisions; `where` says who asked for it."""
    if "bf16" in precisions and not computes_in_bf16(device):
        raise UsageError(f"{where}: this machine has no bf16 arithmetic on device {device}.", remedy)
