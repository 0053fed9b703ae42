"""Randomness of one's own, on the processor and on every GPU in use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def own_randomness(seed: int | None = None) -> Iterator[None]:
    """Within it PyTorch's random numbers depend on `seed` alone (None: they go on from where they are); afterwards its
    random state is as before."""
    # A seed reaches all GPUs, whichever the work is on.
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        if seed is not None:
            torch.manual_seed(seed)
        yield
