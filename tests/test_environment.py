"""What a run says of a machine that is too small."""

from __future__ import annotations

import pytest
import torch

from inarch.environment import enough_memory
from inarch.errors import TrainingError


def test_too_little_memory_of_a_device_is_said_with_a_remedy() -> None:
    with pytest.raises(TrainingError, match=r"too little memory .* 20 MiB.*smaller --batch-size"), enough_memory():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB.\nSee the documentation.")
