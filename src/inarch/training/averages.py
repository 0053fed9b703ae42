"""Exponential moving averages of weights.

After every step e = d e + (1 - d) w, beginning with the weights after the first one, so that e remembers about
1 / (1 - d) steps. What that does to networks: Morales-Brotons, Vogels, Hendrikx, "Exponential moving average of weights
in deep learning: Dynamics and benefits" (TMLR 2024, arXiv 2411.18704). Validation, test and the delivered model have
the averages; training goes on with the weights themselves. Running statistics of batch normalisation are averaged like
weights, counts of batches are not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


@final
class Averages:
    """The moving averages of tensors that training changes in place."""

    def __init__(self, tensors: Sequence[Tensor], decay: float) -> None:
        """tensors: floating-point weights and statistics, in the memory in which they are trained."""
        self._trained = nn.Module()
        for place, tensor in enumerate(tensors):
            self._trained.register_buffer(f"tensor{place}", tensor.detach())
        self._model = AveragedModel(self._trained, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)

    def update(self) -> None:
        """Takes the weights after a step in."""
        self._model.update_parameters(self._trained)

    def leave(self) -> None:
        """Leaves the averages in place of the weights."""
        with torch.no_grad():
            for trained, average in zip(self._trained.buffers(), self._model.module.buffers(), strict=True):
                trained.copy_(average)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """The averages stand in place of the weights for a while."""
        kept = [tensor.clone() for tensor in self._trained.buffers()]
        self.leave()
        try:
            yield
        finally:
            with torch.no_grad():
                for trained, value in zip(self._trained.buffers(), kept, strict=True):
                    trained.copy_(value)
