"""Networks with random weights, and their weights in files, for tests of sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors.torch import save_file
from torch import nn


def save(network: nn.Module, path: Path, dtype: torch.dtype = torch.float32) -> Path:
    """Writes the network's state as safetensors, floating-point tensors as `dtype`."""
    state = network.state_dict()
    save_file({k: v.to(dtype).contiguous() if v.is_floating_point() else v for k, v in state.items()}, path)
    return path


def resnet(**arguments: Any) -> nn.Module:
    return torchvision.models.resnet18(**arguments)
