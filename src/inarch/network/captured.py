"""Passes of a training step that a GPU plays back: captured once, started with one call each (CUDA graphs).

Where batches are small a GPU waits for the calls: a step of ResNet-50 on 32 images is some thousand of them. A capture
keeps the calls of a forward pass and those of its backward pass, with the memory that they work on, and the GPU goes
through them by itself. They are the same calls, so nothing changes by it: not the output, the gradients, the buffers,
nor the random state.
"""

from __future__ import annotations

import gc
import random
import warnings
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import set_warn_on_accumulate_grad_stream_mismatch

from inarch.network.randomness import own_randomness

# Passes before the capture, in which libraries prepare what they need.
WARM_UP = 1
# What a training needs beside its passes, in bytes of the weights: moments of the optimiser, and averages.
STATES = 3

Passes = Callable[[Tensor], Tensor]


class _Segment(nn.Module):
    """A module around a segment: capturing replaces the forward method of what it is given."""

    def __init__(self, segment: nn.Module) -> None:
        super().__init__()
        self.segment = segment
        self.training = segment.training  # its own mode alone: stages that rest keep theirs

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.segment(x)
        return found


def captured(segment: nn.Module, example: Tensor) -> Passes:
    """Forward and backward passes of a segment on a GPU, in the modes that it is in, for inputs like the example.

    Its output lies in memory that the next call writes again, and so do gradients: one backward pass follows each
    call, before the next one. Neither weights nor buffers may move in memory, nor parameters begin or end to train.

    `RuntimeError` where the segment does what a capture cannot hold (it waits for a value, puts another tensor in place
    of a buffer, draws random numbers of the processor), or where memory is too little: that of the passes is taken as
    long as the capture is held, and a pass that is not captured must find as much. What a forward method counts or
    keeps in Python goes unnoticed, and stays as it was at the capture.
    """
    passes = _Segment(segment)
    buffers = [(buffer, buffer.clone()) for buffer in segment.buffers()]
    # Gradients reach weights from another stream than that of the capture, which is as it should be.
    set_warn_on_accumulate_grad_stream_mismatch(False)
    with torch.cuda.device(example.device):
        try:
            with own_randomness(), _same_autocast_without_cache(), _no_garbage_collected():
                _require_memory(_rehearsed(passes, example), segment)
                torch.cuda.make_graphed_callables(
                    passes, (example.detach().clone(),), num_warmup_iters=WARM_UP, allow_unused_input=True
                )
        except RuntimeError:
            _forget_capture(example.device)
            raise
        finally:
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)
    return passes


def _rehearsed(passes: nn.Module, example: Tensor) -> int:
    """Runs them once and gives the bytes that they take; `RuntimeError` where they do what no capture can hold."""
    before, state = torch.cuda.get_sync_debug_mode(), _state_beside_the_gpu(passes)
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own: that it does not see every way to wait
            torch.cuda.set_sync_debug_mode("error")
        found = passes(example)
        torch.autograd.grad(found.sum(), [p for p in passes.parameters() if p.requires_grad], allow_unused=True)
    finally:
        torch.cuda.set_sync_debug_mode(before)
    if _state_beside_the_gpu(passes) != state:
        raise RuntimeError("a forward pass replaces buffers or draws random numbers of the processor")
    return torch.cuda.max_memory_allocated() - held


def _state_beside_the_gpu(passes: nn.Module) -> Hashable:
    """Where weights and buffers lie, and the states of all random numbers of the processor."""
    places = tuple((id(tensor), tensor.data_ptr()) for tensor in (*passes.parameters(), *passes.buffers()))
    _, numbers, *rest = np.random.get_state()
    return places, torch.get_rng_state().numpy().tobytes(), random.getstate(), np.asarray(numbers).tobytes(), *rest


def _require_memory(taken: int, segment: nn.Module) -> None:
    """`RuntimeError` unless there is room for passes of so many bytes twice over, and for the states of a training."""
    needed = 2 * taken + STATES * sum(parameter.nbytes for parameter in segment.parameters())
    for tidy in (lambda: None, gc.collect):  # a capture from before may wait for being collected
        tidy()
        torch.cuda.empty_cache()
        if torch.cuda.mem_get_info()[0] >= needed:
            return
    raise RuntimeError(f"captured passes need {needed} bytes of the GPU's memory")


def _forget_capture(device: torch.device) -> None:
    """Lets a GPU give random numbers again: after a capture that broke off it behaves as if that went on."""
    generator = torch.cuda.default_generators[device.index]
    generator.graphsafe_set_state(generator.clone_state())


def _same_autocast_without_cache() -> torch.autocast:
    """The precision of where this is called; converted weights must be made again whenever passes are played."""
    return torch.autocast(
        "cuda",
        dtype=torch.get_autocast_dtype("cuda"),
        enabled=torch.is_autocast_enabled("cuda"),
        cache_enabled=False,
    )


@contextmanager
def _no_garbage_collected() -> Iterator[None]:
    """An older capture must not be freed in the midst of a new one, which would end it."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@final
class Tape:
    """Captured passes of the segment that was last asked for, kept for the next trial that trains the same one."""

    def __init__(self) -> None:
        # What the passes are of, the passes, and the segment, which the key names by its places in memory.
        self._held: tuple[Hashable, Passes, nn.Module] | None = None

    def passes(self, name: Hashable, segment: nn.Module, example: Tensor) -> Passes:
        """Passes of a segment in training; the segment itself where capturing them is not possible or in vain.

        name: tells segments apart that share all weights.
        """
        if not any(parameter.requires_grad for parameter in segment.parameters()):
            return segment
        tensors = [*segment.parameters(), *segment.buffers()]
        key = (
            name,
            tuple((id(tensor), tensor.data_ptr(), tensor.requires_grad) for tensor in tensors),
            tuple(module.training for module in segment.modules()),
            (example.shape, example.stride(), example.dtype),
            (torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")),
        )
        if self._held is None or self._held[0] != key:
            self.clear()
            found: Passes = segment
            with suppress(RuntimeError):
                found = captured(segment, example)
            self._held = key, found, segment
        return self._held[1]

    def clear(self) -> None:
        """Gives the memory of a capture back, before others take some."""
        if self._held is not None:
            for parameter in self._held[2].parameters():
                parameter.grad = None  # which may lie in it
            self._held = None


@final
@dataclass
class Played:
    """A segment whose training steps on so many images are played back from a tape; all else runs as it is."""

    segment: nn.Module
    name: Hashable
    tape: Tape
    images: int
    _passes: Passes | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if not (self.segment.training and torch.is_grad_enabled() and len(x) == self.images):
            found: Tensor = self.segment(x)
            return found
        if self._passes is None:
            self._passes = self.tape.passes(self.name, self.segment, x)
        return self._passes(x)
